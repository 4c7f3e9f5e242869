"""docs/auditing.md: its table of checks is the code's, and its blocks are run as they stand on a live federation."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks
from test_join_by_hand import run_shell

from fl_node.audit.verdicts import CHECKS, FAIL_ON, Result
from fl_node.monitor import Alarm

PAGE = ROOT / "docs" / "auditing.md"


def rows(heading: str) -> list[list[str]]:
    table = PAGE.read_text("utf-8").split(heading, 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.strip().splitlines()[1:]]


def test_the_table_of_checks_is_the_codes() -> None:
    found = rows("| # | check | proves that | does not prove |")
    assert found == [[str(check.number), check.name, check.proves, check.limits] for check in CHECKS]


def test_results_levels_and_alarms_are_all_explained() -> None:
    assert {row[0].strip("`") for row in rows("| result | says |")} == {result.value for result in Result}
    levels = rows("| `--fail-on` | what makes the exit code other than 0 |")
    assert tuple(row[0].strip("`") for row in levels) == FAIL_ON
    told = {kind for row in rows("| kind | what happened |") for kind in re.findall("`([a-z-]+)`", row[0])}
    assert told == set(re.findall("``([a-z-]+)``", (Alarm.__doc__ or "").split("``key``")[0])) - {"kind"}


@pytest.mark.xdist_group("readme")
def test_an_audit_as_the_page_says(tmp_path: Path) -> None:
    walk = [block.text for block in blocks(PAGE) if block.name == "audit"]
    assert len(walk) == 14
    for name in ("fl_node", "hardhat-network"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    steps = "\n".join(f"echo '=== {number}'\n{text}" for number, text in enumerate(walk))
    code, output = run_shell(f"set -euo pipefail\n{steps}\nkill $DEMO\necho DONE", tmp_path)
    assert code == 0 and "DONE" in output, output[-4000:]
    said = re.split(r"^=== \d+\n", output, flags=re.M)[1:]

    def digests(number: int) -> list[str]:
        return re.findall(r"\b(?:0x)?([0-9a-f]{64})\b", said[number])

    code_on_chain, code_here = digests(1)
    assert code_on_chain == code_here
    spec_file, spec_chain = digests(2)
    assert spec_file == spec_chain
    root_by_hand, root_on_chain = digests(3)
    assert root_by_hand == root_on_chain
    recorded, served = digests(4)
    assert recorded == served
    recovered, sender = re.findall("0x[0-9a-fA-F]{40}", said[5])
    assert recovered.lower() == sender.lower()
    assert "Validation succeeded" in said[6]
    assert "verdict     ok" in said[7] and (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert "verdict     ok" in said[8]
    assert "No site has dropped out" in said[9] and "site-a" in said[9]
    assert "verdict     ok" in said[10] and "verdict     ok" in said[11]
    assert "verdict     ok" in said[12]
