from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from ui_logs import SPEC, Explored, closing, explored
from ui_scribe import Scribe

from fl_node.records import PPM, PeerRetired
from fl_node.spec import parse_federation


def scribe(*sites: str) -> Scribe:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    for site in sites:
        told.admit(site)
    return told


# ---- the list --------------------------------------------------------------------------------------------------------


def test_the_list_has_every_site(world: Explored) -> None:
    rows = {row["site"]: row for row in world.json("/sites.json")["rows"]}
    assert [(site, row["name"]) for site, row in rows.items()] == [
        *((1, "clinic-a"), (2, "clinic-b"), (3, "clinic-c"), (4, "clinic-d"), (5, "clinic-e"), (7, "clinic-new")),
    ]
    assert (rows[1]["peers"], rows[1]["active"], rows[5]["active"]) == (2, 2, 0)
    updates = world.json("/updates.json?limit=500")["rows"]
    for site, row in rows.items():
        own = [one for one in updates if one["site"] == site]
        assert row["updates"] == len(own)
        assert row["last_update"] == next(one["update"] for one in own if one["state"] != "ignored")


@pytest.mark.parametrize(("sort", "first"), [("peers", 1), ("updates", 1), ("number", 7), ("last", 7)])
def test_orders(world: Explored, sort: str, first: int) -> None:
    rows = world.json(f"/sites.json?sort={sort}&order=desc")["rows"]
    assert rows[0]["site"] == first
    paged = world.json(f"/sites.json?sort={sort}&order=desc&limit=2")
    again = world.client.get(paged["paging"]["next_url"].replace("/sites?", "/sites.json?")).get_json()
    assert paged["rows"] + again["rows"] == rows[:4]


def test_csv_and_jsonl_have_the_same_rows(world: Explored, hostile: Explored) -> None:
    rows = world.json("/sites.json")["rows"]
    assert [json.loads(line) for line in world.get("/sites.jsonl").text.splitlines()] == rows
    cells = list(csv.DictReader(io.StringIO(hostile.get("/sites.csv").text)))
    assert len(cells) == len(hostile.json("/sites.json")["rows"])
    assert all(not row["name"].startswith(("=", "@", "+", "-")) for row in cells)


# ---- is my site in? --------------------------------------------------------------------------------------------------


def answer(one: Explored, site: int = 1) -> tuple[str, str]:
    found = one.json(f"/sites/{site}.json")["inclusion"]
    assert found["words"].endswith(".") and ".." not in found["words"]
    assert found["words"].replace("'", "&#39;") in one.get(f"/sites/{site}").text
    return found["standing"], found["words"]


def test_a_site_whose_updates_are_merged_is_in(tmp_path: Path) -> None:
    told = scribe("a", "b", "c", "a")
    told.publish(1, 1, 1)
    told.publish(2, 1, 1)
    told.publish(2, 2, 2, (1, 1, PPM))
    told.publish(4, 1, 2, (1, 1, PPM))
    told.publish(1, 2, 2)
    for one in closing(explored(tmp_path, told)):
        standing, words = answer(one)
        assert standing == "in"
        # peer 4 is of the site itself, and speaks for nobody else
        assert "Yes: other sites merged 1 of 3 updates that it published in the last 2 rounds (1-2)" in words
        assert "the last to be merged, 1#1, by 1 of 2 peers of other sites" in words
        found = one.json("/sites/1.json")["inclusion"]
        assert (found["merged_by"], found["last_update"], found["others"]) == ([2], "1#2", 2)


def test_what_only_its_own_peers_merge_is_not_in(tmp_path: Path) -> None:
    told = scribe("a", "b", "a")
    told.publish(1, 1, 1)
    told.publish(3, 1, 2, (1, 1, PPM))
    for one in closing(explored(tmp_path, told)):
        standing, words = answer(one)
        assert standing == "waiting" and words.startswith("Not yet: other sites merged 0 of 2 updates")


def test_who_left_it_out_and_why(tmp_path: Path) -> None:
    told = scribe("a", "b", "c")
    mine = told.publish(1, 1, 1)
    theirs = [told.publish(peer, 1, 1) for peer in (2, 3)]
    for one in closing(explored(tmp_path, told)):
        with one.shown.store.writing() as db:
            db.execute("DELETE FROM left_out")
            for by, outcome in zip(theirs, ("outscored", "stale"), strict=True):
                db.execute("INSERT INTO left_out VALUES (?, ?, ?, 'because of that')", (mine, by, outcome))
            db.execute("UPDATE updates SET left_out_by = 2, state = 'left-out' WHERE idx = ?", (mine,))
        standing, words = answer(one)
        assert standing == "left-out" and words.startswith("Published, but not merged: ")
        assert "left out by peers 2-3: outscored once, stale once" in words
        because = one.json("/sites/1.json")["inclusion"]["because"]
        assert [(item["outcome"], item["peers"], item["example"]) for item in because] == [
            ("outscored", [2], "because of that"),
            ("stale", [3], "because of that"),
        ]


def test_a_site_that_is_silent_or_was_never_there(tmp_path: Path) -> None:
    told = scribe("a", "b", "c")
    told.publish(1, 1, 1)
    for sequence in range(1, 15):
        told.publish(2, sequence, sequence, *([(1, 1, PPM)] if sequence == 2 else []))
    for one in closing(explored(tmp_path, told)):
        standing, words = answer(one)
        assert standing == "not-lately"
        assert "its last update is 1#1 of round 1, before the last 10 rounds (5-14)" in words
        assert "the last to be merged, 1#1, by 1 of 2 peers" in words
        assert "missing in rounds 5-13" in words
        assert answer(one, 3)[0] == "never" and answer(one, 3)[1].startswith("No: ")


def test_a_site_that_closed_or_was_retired(world: Explored) -> None:
    standing, words = answer(world, 1)
    assert standing == "in" and words.endswith("it has closed with 6#5.")
    standing, words = answer(world, 5)
    assert standing == "retired" and "all its peers were retired" in words


def test_a_site_alone_is_told_so(lonely: Explored) -> None:
    standing, words = answer(lonely)
    assert standing == "waiting" and "no peer of another site that could merge them" in words


def test_missing_rounds_are_those_without_any_of_its_peers(world: Explored) -> None:
    found = world.json("/sites/3.json")["inclusion"]
    assert found["missing"] == [3] and "missing in round 3" in found["words"]
    assert world.json("/sites/1.json")["inclusion"]["missing"] == []


def test_updates_that_do_not_count_do_not_help(tmp_path: Path) -> None:
    told = scribe("a", "b")
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, (1, 1, PPM))
    told.say(PeerRetired(2, 0, "from the start"))
    for one in closing(explored(tmp_path, told)):
        found = one.json("/sites/1.json")["inclusion"]
        assert (found["merged"], found["merged_by"], found["others"]) == (0, [], 0)
        assert found["standing"] != "in"


# ---- the rest of the page --------------------------------------------------------------------------------------------


def test_a_site_adds_its_peers_up(world: Explored) -> None:
    told = world.json("/sites/1.json")
    peers = [world.json(f"/peers/{peer}.json") for peer in (1, 6)]
    assert [one["peer"] for one in told["peers"]] == [1, 6]
    assert told["updates"] == sum(one["updates"] for one in peers)
    assert told["given"]["attested"] == sum(one["given"]["attested"] for one in peers)
    assert [line["peer"] for line in told["own"]["lines"]] == [1, 6]
    pairs = [one["own"]["calibration"] for one in peers]
    assert told["own"]["calibration"]["pairs"] == sum(one["pairs"] for one in pairs)
    assert told["strip"]["total_sites"] == 1 and told["strip"]["rounds"] == [1, 2, 3, 4, 5]


def test_sites_that_are_not_there(world: Explored, empty: Explored, unseen: Explored) -> None:
    for one in (world, empty, unseen):
        for number in ("6", "0", "99", "999999999999999999"):
            assert one.get(f"/sites/{number}").status_code == 404
    assert "Nobody has been admitted yet." in empty.get("/sites").text


def test_every_site_of_every_log_has_a_page(world: Explored, lonely: Explored, hostile: Explored) -> None:
    for one in (world, lonely, hostile):
        for row in one.json("/sites.json?limit=500")["rows"]:
            page = one.get(f"/sites/{row['site']}")
            assert page.status_code == 200 and page.text.count("<h1") == 1
            assert not re.search("style=|<script>|[\u202e\u2028\x1b]", page.text)
            assert one.get(f"/sites/{row['site']}.json").status_code == 200


def test_a_site_without_a_name_is_called_by_its_first_peer(hostile: Explored) -> None:
    nameless = next(row["site"] for row in hostile.json("/sites.json")["rows"] if row["name"] == "")
    assert f"Site of peer {nameless}" in hostile.get(f"/sites/{nameless}").text
