"""The list of rounds, one round by itself, and the completeness strip."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parent.parent / "merging"))
sys.path.append(str(Path(__file__).parent.parent / "lineage"))

import ui_logs
from federations import Played
from logs import Log
from ui_logs import Explored
from ui_scribe import Scribe

from fl_node.completeness import completeness
from fl_node.ledger import codec
from fl_node.ledger.index import LedgerIndex
from fl_node.prefix import Prefix
from fl_node.spec import parse_federation
from ledger_ui.charts import matrix as matrix_chart
from ledger_ui.charts import strip as strip_chart
from ledger_ui.questions.merges import MOST_LINES, matrix
from ledger_ui.questions.strip import Strip, strip
from ledger_ui.registry import Here
from ledger_ui.respond import frame_of
from ledger_ui.urls import Urls

SVG = "{http://www.w3.org/2000/svg}"
SYNC = """\
format = 1
name = "in step"

[task]
data = "digits"

[merging]
selection = "top-k"
k = 2
aggregation = "median"
max_staleness = 2

[rounds]
mode = "sync"
deadline_s = 30
planned = 6
"""


def told_by(one: Explored) -> dict[str, Any]:
    """Completeness of the ledger itself, as the command line has it."""
    with LedgerIndex(":memory:", one.ledger) as log:
        log.sync()
        return completeness(one.shown.spec, Prefix(log.entries())).as_json()


def strip_of(one: Explored, *args: Any, **more: Any) -> Strip:
    with one.shown.store.reading() as db:
        here = Here(one.shown, db, frame_of(one.shown, db), Urls("", one.shown.slug), 0.0)
        return strip(here, *args, **more)


@pytest.fixture(scope="module")
def in_step(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """Four peers in step by a rule with nominal shares: one is late, one is missing and given up, one retires."""
    rules = parse_federation(SYNC.encode()).spec
    game = Played(rules, Log(4))
    game.round(1, 1, 2, 3, 4)
    game.round(2, 1, 2, 4)
    game.wait(40)
    game.play(3, 2)
    game.round(3, 1, 2, 3, 4)
    game.log.retire(4)
    for number in (4, 5, 6, 7):
        game.round(number, 1, 2)
        game.wait(40)
    ledger = Scribe(parse_federation(SYNC.encode()).digest)
    for entry in game.log.entries[1:]:
        body = entry.body
        ledger.raw(codec.encode(entry.index, entry.time_s, body))
    folder = tmp_path_factory.mktemp("in-step")
    yield from ui_logs.closing(ui_logs.explored(folder, ledger, SYNC.encode()))


def test_the_list_says_what_completeness_says(world: Explored, in_step: Explored) -> None:
    for one in (world, in_step):
        told = told_by(one)
        states: dict[int, dict[str, int]] = {}
        for update in told["updates"]:
            found = states.setdefault(update["round"], {})
            found[update["state"]] = found.get(update["state"], 0) + 1
        rows = one.json("/rounds.json?order=asc")["rows"]
        assert [row["round"] for row in rows] == [row["round"] for row in told["rounds"]]
        for row, expected in zip(rows, told["rounds"], strict=True):
            assert row["expected"] == len(expected["expected"])
            for name in ("submitted", "closing", "ignored", "late", "missing", "awaited", "given_up"):
                assert row[name] == len(expected[name]), (row["round"], name)
            assert row["merged"] == states[row["round"]].get("merged", 0)
            assert row["left_out"] == states[row["round"]].get("left-out", 0)
            assert (row["cut"], row["first_entry"], row["last_entry"]) == (
                expected["cut"],
                expected["first_entry"],
                expected["last_entry"],
            )
            assert row["replayed"] and row["began_s"] <= row["last_s"]


def test_the_list_as_a_page_and_as_files(world: Explored) -> None:
    page = world.get("/rounds").text
    assert "<h1>Rounds</h1>" in page and "round 5" in page
    everything = list(csv.DictReader(io.StringIO(world.get("/rounds.csv?order=asc").text)))
    lines = [json.loads(line) for line in world.get("/rounds.jsonl").text.splitlines()]
    assert [row["round"] for row in everything] == ["1", "2", "3", "4", "5"]
    assert [line["round"] for line in lines] == [5, 4, 3, 2, 1]
    assert set(everything[0]) == set(lines[0])


def test_filters_and_pages_of_the_list(world: Explored, in_step: Explored) -> None:
    first = world.json("/rounds.json?limit=2")
    assert [row["round"] for row in first["rows"]] == [5, 4]
    path = first["paging"]["next_url"].split("/rounds", 1)[1]
    assert [row["round"] for row in world.json(f"/rounds.json{path}")["rows"]] == [3, 2]
    assert [row["round"] for row in world.json("/rounds.json?from=2&to=3&order=asc")["rows"]] == [2, 3]
    gaps = {row["round"] for row in in_step.json("/rounds.json?only=gaps")["rows"]}
    assert gaps == {row["round"] for row in told_by(in_step)["rounds"] if row["missing"] or row["given_up"]} != set()
    open_ones = [row["round"] for row in in_step.json("/rounds.json?only=open")["rows"]]
    assert open_ones == [row["round"] for row in told_by(in_step)["rounds"] if row["cut"] is None]
    assert "No round matches" in world.get("/rounds?from=80").text
    assert world.get("/rounds?from=-1").status_code == 400


def test_a_round_side_by_side(in_step: Explored) -> None:
    page = in_step.json("/rounds/3.json")
    told = told_by(in_step)
    expected = {update["update"]: update for update in told["updates"] if update["round"] == 3}
    assert [one["update"] for one in page["updates"]] == list(expected)
    for one in page["updates"]:
        assert one["state"] == expected[one["update"]]["state"]
        assert one["delta_ppm"] == one["claimed_ppm"] - one["base_claimed_ppm"]
        assert sum(given["share_ppm"] for given in one["parents"]) == 1_000_000
        assert len(one["base"]) == 64 and one["train_samples"] == 100
    assert (page["previous_round"], page["next_round"]) == (2, 4)
    assert in_step.json("/rounds/1.json")["previous_round"] is None
    html = in_step.get("/rounds/3").text
    assert "<h1>Round 3" in html and "claimed score is the publisher" in html
    assert all(f">{one}</a>" in html for one in expected)


def test_who_merged_what_and_who_was_left_out(in_step: Explored) -> None:
    told = told_by(in_step)
    for number in (1, 2, 3):
        page = in_step.json(f"/rounds/{number}.json")
        mine = {update["update"]: update for update in told["updates"] if update["round"] == number}
        rows = [line["update"] for line in page["matrix"]["rows"]]
        columns = [line["update"] for line in page["matrix"]["columns"]]
        assert columns == list(mine)
        merged = {(columns[cell["column"]], rows[cell["row"]]) for cell in page["matrix"]["cells"] if cell["share_ppm"]}
        assert merged == {(name, by) for name, update in mine.items() for by in update["merged_by"]}
        crossed = {(columns[cell["column"]], rows[cell["row"]]) for cell in page["matrix"]["cells"] if cell["left_out"]}
        reasons = [(name, item) for name, update in mine.items() for item in update["left_out"]]
        assert crossed == {(name, by) for name, item in reasons for by in item["by"]}
        listed = {
            (one["update"], reason["outcome"], reason["reason"], tuple(one["by"]))
            for reason in page["left_out"]
            for one in reason["updates"]
        }
        assert listed == {(name, item["outcome"], item["reason"], tuple(item["by"])) for name, item in reasons}
    late = in_step.json("/rounds/2.json")
    assert [one["update"] for one in late["updates"] if one["late"]] == ["3#2"]
    assert "nobody looked at it" in in_step.get("/rounds/2").text


def test_what_updates_were_made_from(in_step: Explored) -> None:
    page = in_step.json("/rounds/3.json?merges=made")
    by_name = {
        one["update"]: {given["update"]: given["share_ppm"] for given in one["parents"]} for one in page["updates"]
    }
    rows = [line["update"] for line in page["matrix"]["rows"]]
    columns = [line["update"] for line in page["matrix"]["columns"]]
    assert rows == list(by_name)
    shares: dict[str, dict[str, int]] = {name: {} for name in rows}
    for cell in page["matrix"]["cells"]:
        if cell["share_ppm"] is not None:
            shares[rows[cell["row"]]][columns[cell["column"]]] = cell["share_ppm"]
    assert shares == by_name
    assert "started at the genesis" in in_step.get("/rounds/1?merges=made").text


def test_who_has_no_update(in_step: Explored) -> None:
    told = told_by(in_step)
    for expected in told["rounds"]:
        page = in_step.json(f"/rounds/{expected['round']}.json")
        states = {one["peer"]: one["state"] for one in page["absent"]}
        for site in told["sites"]:
            for peer in site["peers"]:
                state = peer["states"][expected["round"] - 1]
                if state in ("missing", "awaited", "retired"):
                    assert states.pop(peer["peer"]) == state
        assert not states
        assert {one["peer"] for one in page["absent"] if one["given_up"]} == set(expected["given_up"])
    assert "nobody waited for it any more" in in_step.get("/rounds/7").text


def test_a_round_that_is_not_there(world: Explored, empty: Explored) -> None:
    for one, number in ((world, 6), (world, 0), (world, 2**70), (empty, 1)):
        answer = one.get(f"/rounds/{number}")
        assert answer.status_code == 404
        assert f"round {number}" in answer.text or number > 2**32
    assert world.get("/rounds/2?page=99").status_code == 200
    assert world.get("/rounds/2?merges=odd").status_code == 400


def test_the_matrix_is_drawn_with_words_and_without_markup_of_strangers(world: Explored, hostile: Explored) -> None:
    for one in (world, hostile):
        with one.shown.store.reading() as db:
            indices = [row[0] for row in db.execute("SELECT idx FROM updates ORDER BY idx LIMIT 50")]
            for kind in ("became", "made"):
                drawn = str(matrix_chart.draw(matrix(db, indices, kind)))  # type: ignore[arg-type]
                root = ElementTree.fromstring(drawn)
                ids = {element.get("id") for element in root.iter() if element.get("id")}
                uses = list(root.iter(f"{SVG}use"))
                assert uses and {use.get("href", "")[1:] for use in uses} <= ids
                assert not list(root.iter(f"{SVG}script")) and "\u202e" not in drawn and "\x1b" not in drawn


def test_a_matrix_of_many_merges_is_cut_into_pages(tmp_path: Path) -> None:
    """Of hundreds of mergers fifty are shown at a time, and of the updates those fifty that most looked at."""
    federation = ui_logs.founded(
        [f"clinic-{number}" for number in range(1, 61)], ui_logs.SPEC.replace('top-k"\nk = 2', 'all-latest"')
    )
    for number in (1, 2):
        for peer in range(1, 61):
            federation.update(peer, number)
    for one in ui_logs.closing(ui_logs.over(federation, tmp_path)):
        first = one.json("/rounds/1.json")
        assert (first["pages"], first["all_updates"], len(first["updates"])) == (2, 60, MOST_LINES)
        assert first["matrix"]["pages"] == 3 and len(first["matrix"]["rows"]) == MOST_LINES
        names = set()
        for page in (1, 2, 3):
            names |= {line["update"] for line in one.json(f"/rounds/1.json?rows={page}")["matrix"]["rows"]}
        assert len(names) == first["matrix"]["all_rows"] > 2 * MOST_LINES
        second = one.json("/rounds/1.json?page=2")
        assert [line["update"] for line in second["matrix"]["columns"]] == [f"{peer}#1" for peer in range(51, 61)]
        made = one.json("/rounds/2.json?merges=made")["matrix"]
        assert len(made["columns"]) == MOST_LINES < made["all_columns"]
        html = one.get("/rounds/2?merges=made").text
        assert f"{MOST_LINES} of {made['all_columns']} updates" in html and len(html) < 300_000


def test_the_strip_says_what_completeness_says(world: Explored, in_step: Explored) -> None:
    for one in (world, in_step):
        told = told_by(one)
        found = strip_of(one)
        assert found.rounds == [row["round"] for row in told["rounds"]]
        assert {site.name: site.states for site in found.sites} == {row["site"]: row["states"] for row in told["sites"]}
        drawn = ElementTree.fromstring(str(strip_chart.draw(found)))
        cells = [use.get("href", "")[3:] for use in drawn.iter(f"{SVG}use")]
        assert cells == [state for site in found.sites for state in site.states]
        assert found.caution == ""


def test_a_range_of_the_strip_and_its_neighbours(in_step: Explored) -> None:
    found = strip_of(in_step, 3, 5, url="/x")
    assert found.rounds == [3, 4, 5]
    assert (found.earlier_url, found.later_url) == ("/x?to=2", "/x?from=6")
    only = strip_of(in_step, site=3)
    assert [site.site for site in only.sites] == [3] and only.total_sites == 1
    assert strip_of(in_step, 90).rounds == []


def test_a_strip_of_a_thousand_sites_stays_small(tmp_path: Path) -> None:
    """Sites with gaps come first; a page holds some of them."""
    ledger = Scribe(parse_federation(ui_logs.SPEC.encode()).digest)
    for number in range(1, 1001):
        ledger.admit(f"site-{number}")
    for number in range(1, 26):
        for peer in range(1, 1001, 97):
            ledger.publish(peer, number, number)
    for one in ui_logs.closing(ui_logs.explored(tmp_path, ledger)):
        found = strip_of(one, url="/x")
        assert found.total_sites == 1000 and found.pages > 10 and found.gaps_first
        assert len(found.sites) * len(found.rounds) <= 2000
        assert all("missing" in site.states for site in found.sites)
        last = strip_of(one, page=found.pages)
        assert any("missing" not in site.states for site in last.sites)
        assert found.next_sites_url == "/x?sites=2" and last.next_sites_url is None
        assert len(str(strip_chart.draw(found))) < 150_000


def test_small_and_hostile_ones_answer(empty: Explored, lonely: Explored, hostile: Explored, unseen: Explored) -> None:
    for one in (empty, lonely, hostile, unseen):
        for path in ("/rounds", "/rounds.json", "/rounds.csv", "/rounds.jsonl", "/rounds?only=gaps"):
            assert one.get(path).status_code == 200, path
        for row in one.json("/rounds.json?limit=500")["rows"]:
            for path in (f"/rounds/{row['round']}", f"/rounds/{row['round']}.json?merges=made"):
                assert one.get(path).status_code == 200, path
    page = hostile.get("/rounds/1").text
    assert "<script>alert" not in page and "could not be replayed beyond entry" in page
    assert not re.search(r"\son\w+=\"alert", page)
