"""``fl-node lineage`` and completeness on what a finished demo left: from the chain, and from an evidence pack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from left_by_demo import Finished
from prov.model import ProvDocument

pytestmark = pytest.mark.xdist_group("cli")


def test_lineage_as_a_list(finished: Finished) -> None:
    text = finished.command("lineage", "2#2", "--state", finished.state("a")).stdout
    assert text.startswith("2#2 of site-b, round 2, entry ") and "made from 3 updates of 3 sites" in text
    assert "reached 3 updates of 3 sites" in text and text.count("closing") == 3
    assert "genesis: effective share 100.00 %, 2 steps away at least" in text
    only = finished.command("lineage", "2#2", "--direction", "ancestors", "--state", finished.state("a")).stdout
    assert "closing" not in only


def test_lineage_as_json(finished: Finished) -> None:
    told = finished.json("lineage", "3#3", "--state", finished.state("a"))
    above = told["ancestors"]
    assert [(one["update"], one["steps"]) for one in above["updates"]] == [
        *(("1#2", 1), ("2#2", 1), ("3#2", 1), ("1#1", 2), ("2#1", 2), ("3#1", 2)),
    ]
    for generation in (above["updates"][:3], above["updates"][3:]):
        assert sum(one["effective_share"] for one in generation) == pytest.approx(1)
    assert above["genesis"] == {"effective_share": 1.0, "steps": 3} and above["exact"]
    assert told["descendants"]["updates"] == [] and told["roots"][0]["final"]
    shown = finished.json("show", "3#3", "--state", finished.state("a"))
    direct = {f"{parent['peer']}#{parent['sequence']}": parent["share_ppm"] for parent in shown["parents"]}
    assert {edge["parent"]: edge["share_ppm"] for edge in told["edges"] if edge["child"] == "3#3"} == direct
    assert finished.json("lineage", shown["cid"], "--state", finished.state("a")) == told
    formatted = finished.command("lineage", "3#3", "--format", "json", "--federation", finished.file).stdout
    assert json.loads(formatted) == told
    near = finished.json("lineage", "3#3", "--levels", "1", "--state", finished.state("a"))["ancestors"]
    assert near["updates"] == above["updates"][:3] and near["farther"] == 3


def test_lineage_of_a_whole_site(finished: Finished) -> None:
    told = finished.json("lineage", "--site", "site-b", "--federation", finished.file)
    assert [root["update"] for root in told["roots"]] == ["2#1", "2#2", "2#3"] and told["ancestors"] is None
    assert {one["site"] for one in told["descendants"]["updates"]} == {"site-a", "site-c"}
    run = finished.command("lineage", "--site", "site-x", "--federation", finished.file, code=2)
    assert "site-x" in run.stderr and "site-a, site-b, site-c" in run.stderr


def test_lineage_as_pictures_and_prov(finished: Finished, tmp_path: Path) -> None:
    made = {}
    for form in ("dot", "svg", "prov"):
        made[form] = tmp_path / f"lineage.{form}"
        out = finished.command("lineage", "1#2", "--format", form, "--out", made[form], "--state", finished.state("a"))
        assert out.stdout == ""
    assert made["dot"].read_text().startswith("digraph lineage {")
    assert ElementTree.fromstring(made["svg"].read_text()).tag.endswith("svg")
    document = ProvDocument.deserialize(content=made["prov"].read_text(), format="json")
    assert len(document.get_records()) > 50
    again = finished.command("lineage", "1#2", "--out", made["svg"], "--state", finished.state("a"), code=2)
    assert "exists" in again.stderr
    nowhere = tmp_path / "no" / "such"
    finished.command("lineage", "1#2", "--out", nowhere, "--state", finished.state("a"), code=2)


@pytest.mark.parametrize(
    "argv",
    [
        ("lineage",),
        ("lineage", "1#1", "--site", "site-a"),
        ("lineage", "--site", "site-a", "--direction", "ancestors"),
        ("lineage", "1#9"),
        ("lineage", "nonsense"),
        ("lineage", "1#1", "--levels", "-1"),
        ("lineage", "--site", "\x1b[2J"),
    ],
    ids=lambda argv: ascii(" ".join(argv)),
)
def test_lineage_of_what_is_not_there(finished: Finished, argv: tuple[str, ...]) -> None:
    run = finished.command(*argv, "--federation", finished.file, code=2)
    assert run.stderr.startswith("fl-node: ") and "\x1b" not in run.stderr


def test_lineage_from_a_pack_needs_neither_chain_nor_torch(finished: Finished, tmp_path: Path) -> None:
    pack = tmp_path / "pack.zip"
    finished.command("export", "--all", "--out", pack, "--federation", finished.file)
    program = (
        "import sys; sys.modules['torch'] = None; from fl_node.__main__ import main; "
        f"sys.exit(main(['lineage', '3#3', '--json', '--pack', {str(pack)!r}, '--rpc', 'http://127.0.0.1:9']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == finished.json("lineage", "3#3", "--state", finished.state("a"))


def test_completeness_of_an_audit(finished: Finished) -> None:
    told = finished.json("audit", "--federation", finished.file, "--checks", "membership", "--completeness")
    rounds = told["completeness"]["rounds"]
    assert [row["expected"] for row in rounds] == [[1, 2, 3]] * 3 and not any(row["missing"] for row in rounds)
    assert {tuple(site["states"]) for site in told["completeness"]["sites"]} == {("merged", "merged", "closing")}
    words = finished.command("audit", "--federation", finished.file, "--checks", "membership", "--completeness").stdout
    assert "No site has dropped out." in words and "site-a  ##c" in words
