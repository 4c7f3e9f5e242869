"""Shares over a range of rounds: as the log has them, nominal ones marked, whatever the range."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parent.parent / "merging"))

import ui_logs
from ui_logs import Explored
from ui_scribe import Scribe

from fl_node.ledger.index import LedgerIndex
from fl_node.prefix import Prefix
from fl_node.records import PPM, Flag, Rule, UpdatePublished
from fl_node.spec import parse_federation
from ledger_ui.charts import heat
from ledger_ui.questions import trust as question
from ledger_ui.questions.trust import trust

SVG = "{http://www.w3.org/2000/svg}"


def by_hand(one: Explored, first: int, last: int, of: Any = lambda peer: peer) -> dict[tuple[int, int], dict[str, Any]]:
    """Shares added up from the ledger itself."""
    with LedgerIndex(":memory:", one.ledger) as log:
        log.sync()
        prefix = Prefix(log.entries())
    found: dict[tuple[int, int], dict[str, Any]] = {}
    merges: dict[int, int] = {}
    for fact in prefix.facts():
        body = fact.body
        if not isinstance(body, UpdatePublished) or not first <= body.update.round <= last or not body.parents:
            continue
        if not prefix.counts(body.peer, fact.index):
            continue
        giver = of(body.peer)
        merges[giver] = merges.get(giver, 0) + 1
        for parent in body.parents:
            pair = found.setdefault((giver, of(parent.peer)), {"shares": 0, "merged": 0, "considered": 0})
            pair["shares"] += parent.share_ppm
            pair["merged"] += parent.share_ppm > 0
            pair["considered"] += 1
    for (giver, _), pair in found.items():
        pair["mean"] = round(pair.pop("shares") / merges[giver])
    return found


def as_told(page: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    told = page["trust"]
    return {
        (told["rows"][cell["row"]]["number"], told["columns"][cell["column"]]["number"]): {
            "mean": cell["mean_ppm"],
            "merged": cell["merged"],
            "considered": cell["considered"],
        }
        for cell in told["cells"]
    }


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """Three peers: one merges by a median, one considers another and never merges it, one by a rule nobody knows."""
    ledger = Scribe(parse_federation(ui_logs.SPEC.encode()).digest)
    for site in ("a", "b", "c"):
        ledger.admit(site)
    for peer in (1, 2, 3):
        ledger.publish(peer, 1, 1)
    ledger.publish(1, 2, 2, (1, 1, 600_000), (2, 1, 400_000), (3, 1, 0))
    ledger.publish(2, 2, 2, (1, 1, 500_000), (2, 1, 500_000), rule=int(Rule.MEDIAN))
    ledger.publish(3, 2, 2, (3, 1, PPM), rule=99)
    ledger.publish(1, 3, 3, (1, 2, PPM), flags=Flag.FINAL)
    yield from ui_logs.closing(ui_logs.explored(tmp_path_factory.mktemp("chosen"), ledger))


def test_shares_are_those_of_the_log(world: Explored) -> None:
    assert as_told(world.json("/trust.json")) == by_hand(world, 1, 5)
    for first, last in ((2, 3), (4, 4), (5, 5)):
        assert as_told(world.json(f"/trust.json?from={first}&to={last}")) == by_hand(world, first, last)


def test_sites_are_all_of_their_peers(world: Explored) -> None:
    sites = {peer: peer for peer in range(1, 8)} | {6: 1}
    page = world.json("/trust.json?by=site")
    assert as_told(page) == by_hand(world, 1, 5, sites.__getitem__)
    assert [row["number"] for row in page["trust"]["rows"]] == [1, 2, 3, 4, 5, 7]
    assert {row["site_name"] for row in page["trust"]["rows"]} >= {"clinic-a", "clinic-new"}


def test_considered_never_merged_is_not_never_considered(chosen: Explored) -> None:
    page = chosen.json("/trust.json")
    cells = as_told(page)
    assert cells[1, 3] == {"mean": 0, "merged": 0, "considered": 1}
    assert (2, 3) not in cells and (3, 1) not in cells
    assert cells[1, 1] == {"mean": 800_000, "merged": 2, "considered": 2}
    html = chosen.get("/trust").text
    assert "1 → 3: considered, never merged" in html and "2 → 3" not in html
    rows = {row["number"]: row for row in page["trust"]["rows"]}
    assert rows[1]["own_ppm"] == 800_000 and rows[1]["others"] == 1 and rows[1]["merges"] == 2
    assert rows[3]["own_ppm"] == PPM and rows[3]["others"] == 0


def test_nominal_shares_are_marked(chosen: Explored) -> None:
    rows = {row["number"]: row for row in chosen.json("/trust.json")["trust"]["rows"]}
    assert {number: row["nominal"] for number, row in rows.items()} == {1: 0, 2: 1, 3: 1}
    html = chosen.get("/trust").text
    assert "2 b ≈" in html and "1 a ≈" not in html and "nominal in 1 of 1" in html


def test_a_tiny_share_is_not_told_as_none(tmp_path: Path) -> None:
    ledger = Scribe(parse_federation(ui_logs.SPEC.encode()).digest)
    for site in ("a", "b"):
        ledger.admit(site)
    ledger.publish(1, 1, 1)
    ledger.publish(2, 1, 1)
    for number in range(2, 8):
        ledger.publish(1, number, number, (1, number - 1, PPM - 1), (2, 1, 1 if number == 2 else 0))
    for one in ui_logs.closing(ui_logs.explored(tmp_path, ledger)):
        cell = as_told(one.json("/trust.json"))[1, 2]
        assert cell == {"mean": 1, "merged": 1, "considered": 6}
        assert "&lt;1" in one.get("/trust").text


def test_every_pair_as_a_file(world: Explored) -> None:
    rows = list(csv.DictReader(io.StringIO(world.get("/trust.csv?from=2&to=3").text)))
    lines = [json.loads(line) for line in world.get("/trust.jsonl?from=2&to=3").text.splitlines()]
    expected = by_hand(world, 2, 3)
    assert {(int(row["giver"]), int(row["taker"])): int(row["mean_ppm"]) for row in rows} == {
        pair: value["mean"] for pair, value in expected.items()
    }
    assert len(lines) == len(rows) and {(line["first_round"], line["last_round"]) for line in lines} == {(2, 3)}


def test_ranges_and_their_neighbours(world: Explored) -> None:
    page = world.json("/trust.json?from=2&to=3")
    assert page["earlier_url"].endswith("/trust?from=0&to=1") and page["later_url"].endswith("/trust?from=4&to=5")
    nothing = world.get("/trust?from=50&to=60")
    assert nothing.status_code == 200 and "No round in this range" in nothing.text
    assert world.get("/trust?from=7&to=x").status_code == 400
    assert world.get("/trust?by=nobody").status_code == 400


def test_a_long_range_is_cut_and_says_so(world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "_MOST_PARENTS", 30)
    page = world.json("/trust.json?from=1&to=5")
    told = page["trust"]
    assert told["cut"] and 1 < told["first"] <= told["last"] == 5
    assert as_told(page) == by_hand(world, told["first"], 5)
    assert "too long to be added up at once" in world.get("/trust?from=1&to=5").text


def test_many_peers_are_shown_fifty_at_a_time(tmp_path: Path) -> None:
    ledger = Scribe(parse_federation(ui_logs.SPEC.encode()).digest)
    for number in range(1, 131):
        ledger.admit(f"site-{number}")
    for peer in range(1, 131):
        ledger.publish(peer, 1, 1)
    for peer in range(1, 131):
        others = (peer % 130 + 1, (peer + 6) % 130 + 1)
        ledger.publish(peer, 2, 2, *sorted((other, 1, PPM // 2) for other in others))
    for one in ui_logs.closing(ui_logs.explored(tmp_path, ledger)):
        first = one.json("/trust.json")
        assert (
            first["trust"]["pages"] == 3 and len(first["trust"]["rows"]) == 50 and len(first["trust"]["columns"]) == 50
        )
        assert first["trust"]["all_columns"] > 50 and first["next_url"].endswith("page=2")
        shown = sum(cell["mean_ppm"] for cell in first["trust"]["cells"])
        assert shown + sum(row["elsewhere_ppm"] for row in first["trust"]["rows"]) == 50 * PPM
        last = one.json("/trust.json?page=3")
        assert [row["number"] for row in last["trust"]["rows"]] == list(range(101, 131)) and last["next_url"] is None
        assert len(one.get("/trust.csv").text.splitlines()) == 1 + 2 * 130  # the file has all of them


def test_the_map_is_drawn_with_a_sign_in_each_cell(world: Explored, hostile: Explored) -> None:
    for one in (world, hostile):
        with one.shown.store.reading() as db:
            for by in ("peer", "site"):
                found = trust(db, None, None, by)  # type: ignore[arg-type]
                drawn = str(heat.draw(found))
                root = ElementTree.fromstring(drawn)
                symbols = {
                    group.get("id"): "".join(text.text or "" for text in group.iter(f"{SVG}text"))
                    for group in root.iter(f"{SVG}g")
                    if group.get("id")
                }
                uses = [use.get("href", "")[1:] for use in root.iter(f"{SVG}use")]
                assert len(uses) == len(found.cells) and all(symbols[use] for use in uses)
                assert not list(root.iter(f"{SVG}script")) and "\u202e" not in drawn and "\x1b" not in drawn


def test_small_and_hostile_ones_answer(empty: Explored, lonely: Explored, hostile: Explored, unseen: Explored) -> None:
    for one in (empty, lonely, hostile, unseen):
        for path in ("/trust", "/trust.json", "/trust.csv", "/trust?by=site", "/trust?from=0&to=4611686018427387904"):
            assert one.get(path).status_code == 200, path
    assert "Nobody has published an update yet" in empty.get("/trust").text
    assert "<script>alert" not in hostile.get("/trust?by=site&from=0&to=9").text
