"""Reports whose publisher committed to them, and which hold what no report does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lies_in_bytes import reported

from fl_node.audit.reports import MOST_BYTES, report
from fl_node.audit.told_privacy import Spent
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
        (lambda table: table.update(bytes=[HUGE]), "the report's bytes are no object"),
        (lambda table: table.update(bytes={"encoding": 9 * HUGE}), "the report says bytes.encoding = "),
        (lambda table: table.update(bytes={"update": -HUGE}), "expected a whole number"),
        (lambda table: table.update(base={"a": ["\x1b[2J"] * 10_000}), "the report says base = "),
    ],
)
def test_a_hostile_report_fails_in_few_words(change: Callable[[dict[str, Any]], Any], said: str) -> None:
    means = reported(change).means()
    found = report(means, means.prefix.update(UpdateRef(2, 2)), {}, Spent(means, MOST_BYTES))
    assert found.result is Result.FAILED and said in found.detail and len(found.detail) < 700


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "says nothing of what was spent"),
        ([1], "says nothing of what was spent"),
        ({"epsilon": HUGE}, "expected a number from 0"),
        ({"epsilon": float("nan")}, "expected a number from 0"),
        ({"epsilon": -1.0}, "expected a number from 0"),
        ({"epsilon": True}, "expected a number from 0"),
        ({"delta": "0" * 10_000}, "the report says privacy.delta = "),
        ({"clip_norm": True}, "the report says privacy.clip_norm = "),
        ({"noise_multiplier": 0}, "no noise above 0"),
        ({"sample_rate": 1.5}, "no noise above 0"),
        ({"steps": -9 * HUGE}, "no noise above 0"),
    ],
)
def test_a_hostile_account_fails_in_few_words(told: Any, said: str) -> None:
    def change(table: dict[str, Any]) -> None:
        table["privacy"] = {**table["privacy"], **told} if isinstance(told, dict) else told

    means = reported(change, mechanism="example").means()
    found = report(means, means.prefix.update(UpdateRef(2, 2)), {}, Spent(means, MOST_BYTES))
    assert found.result is Result.FAILED and said in found.detail and len(found.detail) < 700


def test_accounts_that_nobody_can_read_are_no_ground_for_doubt() -> None:
    """The report before is gone, or says nothing."""
    one = reported(lambda table: None, mechanism="example")
    means = one.means()
    before = means.prefix.update(UpdateRef(2, 1)).update.report
    for blob in (None, b"[]", b"{}", b'{"privacy": 3}'):
        again = one.copy()
        cid = next(cid for cid in again.blobs if cid.digest == before)
        if blob is None:
            del again.blobs[cid]
        else:
            again.blobs[cid] = blob
        means = again.means()
        assert Spent(means, MOST_BYTES).before(means.prefix.update(UpdateRef(2, 2))) is None
        assert report(means, means.prefix.update(UpdateRef(2, 2)), {}, Spent(means, MOST_BYTES)).result is Result.OK
    means = one.means()
    assert Spent(means, MOST_BYTES).before(means.prefix.update(UpdateRef(2, 2))) == 0.5
    assert Spent(means, MOST_BYTES).before(means.prefix.update(UpdateRef(2, 1))) is None
