"""Reports whose publisher committed to them, and which hold what no report does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lies_in_bytes import reported

from fl_node.audit.reports import report
from fl_node.audit.verdicts import Result
from fl_node.records import UpdateRef

HUGE = 10**4299  # as many digits as Python reads; twice that it does not write


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table["metrics"].update(confusion=[[9 * HUGE] * 9] * 9), "not a square of whole numbers"),
        (lambda table: table["metrics"].update(samples=9 * HUGE), "samples, the ledger"),
        (lambda table: table.update(candidates=[{"peer": HUGE, "outcome": "x"}]), "expected numbers of peer"),
        (lambda table: table.update(candidates=[{"peer": 1, "sequence": HUGE, "outcome": "x"}]), "expected numbers of"),
        (lambda table: table.update(round="\ud800" * 10_000), "the report says round = "),
        (lambda table: table.update(base={"a": ["\x1b[2J"] * 10_000}), "the report says base = "),
    ],
)
def test_a_hostile_report_fails_in_few_words(change: Callable[[dict[str, Any]], Any], said: str) -> None:
    means = reported(change).means()
    found = report(means, means.prefix.update(UpdateRef(2, 2)), {})
    assert found.result is Result.FAILED and said in found.detail and len(found.detail) < 700
