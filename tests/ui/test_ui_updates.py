"""The log of updates: filters, orders, pages that stay the same, and what a reorganisation dropped."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ui_logs import BEGAN_S, SPEC, Explored, explored, founded, over
from ui_scribe import Scribe
from ui_scribe import hostile as hostile_log

from fl_node.records import PPM, UpdatePublished, UpdateRef
from fl_node.spec import parse_federation

Row = dict[str, Any]


def rows_of(one: Explored, query: str = "") -> list[Row]:
    """All rows of a list, page by page."""
    path = f"/updates.json?{query}"
    found: list[Row] = []
    while path:
        told = one.json(path)
        found += told["rows"]
        following = told["paging"]["next_url"]
        path = "" if following is None else following.replace(f"/{one.shown.slug}/updates", "/updates.json")
    return found


def test_every_update_of_the_log_is_in_it(world: Explored) -> None:
    assert world.world is not None
    prefix = world.world.prefix
    entries = [prefix.update(fact.body.ref) for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]
    rows = rows_of(world, "order=asc&limit=7")
    assert [row["update"] for row in rows] == [str(entry.ref) for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert (row["entry"], row["peer"], row["round"]) == (entry.index, entry.ref.peer, entry.round)
        assert (row["claimed_ppm"], row["base_ppm"]) == (entry.update.score_ppm, entry.update.base_score_ppm)
        assert row["test_samples"] == entry.update.test_samples and row["final"] == entry.final
        assert row["site_name"] == prefix.peer(entry.ref.peer).site
        told = [said for said in prefix.attestations(entry.ref) if prefix.peer(said.peer).site != row["site_name"]]
        assert row["attested_sites"] == len({prefix.peer(said.peer).site for said in told})
        assert (row["attested_ppm"] is None) == (not told)
        if told:
            scores = [said.score_ppm for said in told]
            assert min(scores) <= row["attested_ppm"] <= max(scores)


FILTERS: list[tuple[str, Callable[[Row], bool]]] = [
    ("peer=3", lambda row: row["peer"] == 3),
    ("site=1", lambda row: row["site_name"] == "clinic-a"),
    ("round=2", lambda row: row["round"] == 2),
    ("state=merged", lambda row: row["state"] == "merged"),
    ("state=closing", lambda row: row["final"]),
    ("state=ignored", lambda row: row["state"] == "ignored"),
    ("claimed_min=70", lambda row: row["claimed_ppm"] >= 700_000),
    ("claimed_max=70&claimed_min=60", lambda row: 600_000 <= row["claimed_ppm"] <= 700_000),
    ("attested_min=60", lambda row: row["attested_ppm"] is not None and row["attested_ppm"] >= 600_000),
    ("attested_max=60", lambda row: row["attested_ppm"] is not None and row["attested_ppm"] <= 600_000),
    ("verdict=none", lambda row: row["verdict"] is None),
    ("verdict=ok", lambda row: row["verdict"] == "ok"),
    (f"since={BEGAN_S + 30}", lambda row: row["time_s"] >= BEGAN_S + 30),
    (f"until={BEGAN_S + 30}", lambda row: row["time_s"] <= BEGAN_S + 30),
    ("since=2025-06-15&until=2025-06-15", lambda row: True),
    ("until=2025-06-14", lambda row: False),
    ("since=2025-06-16", lambda row: False),
    ("peer=3&state=merged&round=2", lambda row: row["peer"] == 3 and row["state"] == "merged" and row["round"] == 2),
]


@pytest.mark.parametrize(("query", "holds"), FILTERS, ids=[query for query, _ in FILTERS])
def test_filters_keep_what_they_say(world: Explored, query: str, holds: Callable[[Row], bool]) -> None:
    every = rows_of(world)
    wanted = [row for row in every if holds(row)]
    assert rows_of(world, query) == wanted
    told = world.json(f"/updates.json?{query}")
    assert told["paging"]["total"] == len(wanted)
    assert len(told["filters"]) == query.count("=")
    assert {len(wanted) == 0, len(wanted) == len(every)} != {True}


def test_what_was_made_from_an_update(world: Explored) -> None:
    assert world.world is not None
    prefix = world.world.prefix
    entries = [prefix.update(fact.body.ref) for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]
    wanted = {
        str(entry.ref)
        for entry in entries
        if any(parent.ref == UpdateRef(3, 1) and parent.share_ppm for parent in entry.parents)
    }
    assert wanted
    assert {row["update"] for row in rows_of(world, "parent=3-1")} == wanted
    assert rows_of(world, "parent=9-9") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    ("sort", "field"),
    [
        ("index", "entry"),
        ("round", "round"),
        ("claimed", "claimed_ppm"),
        ("attested", "attested_ppm"),
        ("time", "time_s"),
    ],
)
def test_orders(world: Explored, sort: str, field: str, order: str) -> None:
    rows = rows_of(world, f"sort={sort}&order={order}&limit=4")
    assert {row["update"] for row in rows} == {row["update"] for row in rows_of(world)}
    told = [row for row in rows if row[field] is not None]
    assert told == sorted(told, key=lambda row: (row[field], row["entry"]), reverse=order == "desc")
    assert rows[len(told) :] == [row for row in rows if row[field] is None]
    sorts = world.json(f"/updates.json?sort={sort}&order={order}")["sorts"]
    assert {one["column"]: one["order"] for one in sorts} == {
        **dict.fromkeys(("index", "round", "claimed", "attested", "time")),
        sort: order,
    }


def test_headings_sort_and_say_how(world: Explored) -> None:
    page = world.get("/updates?sort=claimed&peer=3").text
    assert re.findall(r'aria-sort="(\w+)"', page) == ["descending"]
    heading = re.search(r'<th scope="col" aria-sort="descending"><a class="sort" href="([^"]+)">Claimed', page)
    assert heading is not None
    query = urlsplit(heading[1].replace("&amp;", "&")).query
    assert set(query.split("&")) == {"peer=3", "sort=claimed", "order=asc"}
    # Any chip leads to the list without its filter.
    chips = re.findall(r'<li><a href="([^"]+)"><span class="visually-hidden">Without: </span>([^<]+?) <', page)
    assert chips == [(f"/{world.shown.slug}/updates?sort=claimed", "peer 3")]


def test_a_claim_never_stands_alone(world: Explored) -> None:
    page = world.get("/updates").text
    headings = re.findall(r"<thead>.*?</thead>", page, re.S)[-1]
    assert headings.index("Claimed") < headings.index("Attested")
    for row in world.json("/updates.json")["rows"]:
        assert {"claimed_ppm", "test_samples", "attested_ppm", "attested_sites"} <= set(row)


def test_csv_and_json_lines_are_all_of_it(world: Explored) -> None:
    every = rows_of(world)
    lines = [json.loads(line) for line in world.get("/updates.jsonl").text.splitlines()]
    assert lines == every
    cells = list(csv.DictReader(io.StringIO(world.get("/updates.csv").text)))
    assert [row["update"] for row in cells] == [row["update"] for row in every]
    assert list(cells[0]) == list(every[0])
    some = list(csv.DictReader(io.StringIO(world.get("/updates.csv?peer=3&sort=claimed&order=asc").text)))
    assert [row["update"] for row in some] == [row["update"] for row in rows_of(world, "peer=3&sort=claimed&order=asc")]


def test_a_page_stays_the_same_while_the_log_grows(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    for sequence in range(1, 8):
        told.publish(1, sequence, sequence)
    one = explored(tmp_path, told)
    try:
        first = one.json("/updates.json?limit=3")
        following = first["paging"]["next_url"].replace(f"/{one.shown.slug}/updates", "/updates.json")
        before = one.json(following)["rows"]
        for sequence in range(8, 12):
            told.publish(1, sequence, sequence)
        one.look()
        assert one.json(following)["rows"] == before
        assert one.json("/updates.json?limit=3")["rows"][0]["update"] == "1#11"
    finally:
        one.stop()


def test_what_a_reorganisation_dropped_is_struck_through(tmp_path: Path) -> None:
    told = hostile_log()
    size = told.size
    told.publish(6, 2, 4, (6, 1, PPM))
    told.publish(6, 3, 5)
    one = explored(tmp_path, told)
    try:
        assert one.json("/updates.json")["orphans"] == {"total": 0, "rows": []}
        told.cut(size)
        told.publish(6, 2, 4, (6, 1, PPM), score_ppm=1)
        one.look()
        found = one.json("/updates.json")
        assert found["rows"][0]["update"] == "6#2" and found["rows"][0]["claimed_ppm"] == 1
        dropped = found["orphans"]["rows"]
        assert [(row["update"], row["entry"], row["now"], row["same"]) for row in dropped] == [
            ("6#3", size + 1, None, False),
            ("6#2", size, size, False),
        ]
        page = one.get("/updates").text
        assert page.count('<del class="orphan">') == 6
        assert "2 entries were</strong>" not in page and "2 entries were on the chain and are not any more" in page
        assert "not recorded again" in page and "another one, entry" in page
        # Where the newest rows are, and of what the list is narrowed to.
        assert one.json("/updates.json?peer=6")["orphans"]["total"] == 2
        assert one.json("/updates.json?round=5")["orphans"]["total"] == 1
        for query in ("peer=1", "order=asc", "sort=claimed", "state=merged", "after=5"):
            assert one.json(f"/updates.json?{query}")["orphans"]["total"] == 0, query
        assert "6#3" not in one.get("/updates.csv").text
    finally:
        one.stop()


def test_sites_are_chosen_by_name_while_they_are_few(world: Explored, tmp_path: Path) -> None:
    page = world.get("/updates?site=4").text
    assert re.findall(r'<option value="(\d)"( selected)?>clinic-(\w+)<', page) == [
        ("1", "", "a"),
        ("2", "", "b"),
        ("3", "", "c"),
        ("4", " selected", "d"),
        ("5", "", "e"),
        ("7", "", "new"),
    ]
    many = over(founded([f"site {number}" for number in range(201)]), tmp_path)
    try:
        assert many.json("/updates.json")["sites"] == []
        assert '<input type="number" name="site"' in many.get("/updates").text
    finally:
        many.stop()


def test_nothing_is_told_as_such(empty: Explored, unseen: Explored, world: Explored) -> None:
    for one in (empty, unseen):
        assert "Nobody has published an update yet." in one.get("/updates").text
    assert "No update matches." in world.get("/updates?peer=99").text
    assert "The list ends here." in world.get("/updates?after=0").text
    assert world.json("/updates.json?after=0")["paging"]["first_url"] == f"/{world.shown.slug}/updates"
