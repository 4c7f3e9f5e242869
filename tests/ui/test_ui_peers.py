from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ui_logs import SPEC, Explored, closing, digest, explored, founded, over
from ui_scribe import Scribe

from fl_node.records import PPM, PeerRetired, Reason, UpdateRef
from fl_node.spec import parse_federation
from ledger_ui.questions.own import calibration_words


def scribe(*sites: str) -> Scribe:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    for site in sites:
        told.admit(site)
    return told


# ---- the list --------------------------------------------------------------------------------------------------------


def test_the_list_has_every_peer_with_its_last_update(world: Explored) -> None:
    told = world.json("/peers.json")
    rows = {row["peer"]: row for row in told["rows"]}
    updates = world.json("/updates.json?limit=500&order=asc")["rows"]
    assert list(rows) == [1, 2, 3, 4, 5, 6, 7] and told["paging"]["total"] == 7
    for peer, row in rows.items():
        own = [one for one in updates if one["peer"] == peer]
        counting = [one for one in own if one["state"] != "ignored"]
        assert row["updates"] == len(own)
        assert row["last_update"] == counting[-1]["update"]
        assert (row["claimed_ppm"], row["attested_ppm"]) == (counting[-1]["claimed_ppm"], counting[-1]["attested_ppm"])
    assert rows[5]["standing"] == "retired" and rows[1]["standing"] == "closed"
    assert rows[6]["site"] == rows[1]["site"] == 1
    assert rows[1]["roles"] == ["publishes", "attests", "reads"]


@pytest.mark.parametrize(
    ("query", "peers"),
    [("?site=1", [1, 6]), ("?standing=retired", [5]), ("?standing=active", []), ("?standing=closed&site=2", [2])],
)
def test_filters(world: Explored, query: str, peers: list[int]) -> None:
    told = world.json(f"/peers.json{query}")
    assert [row["peer"] for row in told["rows"]] == peers and told["paging"]["total"] == len(peers)
    html = world.get(f"/peers{query}").text
    assert "Filters in force" in html and ("No peer matches" in html) == (not peers)


@pytest.mark.parametrize("sort", ["number", "updates", "round", "last", "claimed", "attested"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_a_sorted_list_make_up_the_whole(world: Explored, sort: str, order: str) -> None:
    key = {
        "number": "peer",
        "round": "last_round",
        "last": "last_time_s",
        "claimed": "claimed_ppm",
        "attested": "attested_ppm",
    }
    whole = world.json(f"/peers.json?sort={sort}&order={order}")["rows"]
    values = [row[key.get(sort, sort)] for row in whole]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=order == "desc") and values[: len(known)] == known
    paged, address = [], f"/{world.shown.slug}/peers.json?sort={sort}&order={order}&limit=2"
    while address:
        told = world.client.get(address).get_json()
        paged += told["rows"]
        address = (told["paging"]["next_url"] or "").replace("/peers?", "/peers.json?")
    assert paged == whole


def test_csv_and_jsonl_have_the_same_rows(world: Explored) -> None:
    rows = world.json("/peers.json")["rows"]
    lines = [json.loads(line) for line in world.get("/peers.jsonl").text.splitlines()]
    cells = list(csv.DictReader(io.StringIO(world.get("/peers.csv").text)))
    assert lines == rows
    assert [(row["peer"], row["last_update"]) for row in cells] == [(str(r["peer"]), r["last_update"]) for r in rows]


def test_strangers_names_stay_text(hostile: Explored) -> None:
    html = hostile.get("/peers").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script>alert" not in html
    assert not re.search("[\u202e\u2028\x1b]", html)
    cells = list(csv.DictReader(io.StringIO(hostile.get("/peers.csv").text)))
    assert all(not row["site_name"].startswith(("=", "@", "+", "-")) for row in cells)


# ---- one peer --------------------------------------------------------------------------------------------------------


def test_who_it_is(world: Explored) -> None:
    told = world.json("/peers/5.json")["member"]
    assert world.world is not None
    assert told["account"] == world.world.accounts[4]
    assert (told["standing"], told["site_name"], told["reason"]) == ("retired", "clinic-e", "left the consortium")
    html = world.get("/peers/5").text
    assert "left the consortium" in html and f"from entry {told['retired_from']} on does not count" in html
    assert world.json("/peers/7.json")["member"]["standing"] == "closed"


def test_what_it_claims_and_others_attest(world: Explored) -> None:
    own = world.json("/peers/2.json")["own"]
    rows = [row for row in world.json("/updates.json?peer=2&limit=100")["rows"] if row["state"] != "ignored"]
    pairs = [row["claimed_ppm"] - row["attested_ppm"] for row in rows if row["attested_ppm"] is not None]
    calibration = own["calibration"]
    assert calibration["pairs"] == len(pairs) > 0
    assert calibration["mean_difference_ppm"] == pytest.approx(sum(pairs) / len(pairs))
    assert (calibration["higher"], calibration["lower"]) == (len(pairs), 0)
    assert "above what other sites attest" in calibration["words"]
    (line,) = own["lines"]
    assert {point["update"] for point in line["points"]} == {row["update"] for row in rows}
    assert own["merged"] + own["left_out"] + own["submitted"] + own["closing"] == len(rows)


def test_calibration_says_what_it_does_not_prove() -> None:
    assert "12.50 percentage points above" in calibration_words(125_000, 4)
    assert "below" in calibration_words(-125_000, 1) and "the one update" in calibration_words(-125_000, 1)
    assert "are the same" in calibration_words(3, 2)
    for words in (calibration_words(125_000, 4), calibration_words(0, 4)):
        assert "does not prove a claim" in words and "cannot tell which" in words
    assert "nothing to compare" in calibration_words(None, 0)


def test_mean_shares_are_those_of_its_merges(world: Explored) -> None:
    told = world.json("/peers/3.json")["exchange"]
    assert world.world is not None
    prefix = world.world.prefix
    merges = [one for one in prefix.updates(3) if any(parent.share_ppm for parent in one.parents)]
    shares: dict[int, int] = {}
    for one in merges:
        for parent in one.parents:
            shares[parent.peer] = shares.get(parent.peer, 0) + parent.share_ppm
    assert told["merges"] == len(merges)
    assert {one["peer"]: one["mean_share_ppm"] for one in told["merged"]} == {
        peer: round(share / len(merges)) for peer, share in shares.items() if share
    }
    assert sum(one["mean_share_ppm"] for one in told["merged"]) == pytest.approx(PPM, abs=5)


def test_who_merges_it_counts_each_update_once(world: Explored) -> None:
    told = world.json("/peers/6.json")["exchange"]
    assert world.world is not None
    prefix = world.world.prefix
    expected: dict[int, set[UpdateRef]] = {}
    for peer in range(1, 8):
        for update in prefix.updates(peer):
            for parent in update.parents:
                if parent.peer == 6 and parent.share_ppm and peer != 6:
                    expected.setdefault(peer, set()).add(UpdateRef(6, parent.sequence))
    expected.pop(5, None)  # one of its updates does not count
    times = {one["peer"]: one["times"] for one in told["mergers"] if one["peer"] != 5}
    assert times == {peer: len(refs) for peer, refs in expected.items()} and 1 in times
    assert told["offered"] == 4


def test_staleness_counts_own_updates_since(tmp_path: Path) -> None:
    told = scribe("a", "b")
    told.publish(2, 1, 1)
    for sequence in range(1, 12):
        told.publish(1, sequence, sequence, (2, 1, 400_000), (1, sequence - 1, 600_000))
    for one in closing(explored(tmp_path, told)):
        stale = one.json("/peers/1.json")["exchange"]["staleness"]
        assert stale["merged"] == 11
        assert stale["by_own_updates"] == [1, 1, 1, 1, 1, 1, 1, 1, 3]
        assert stale["by_rounds"] == [1, 1, 1, 1, 1, 1, 1, 1, 3]
        assert (stale["oldest_own_updates"], stale["oldest_rounds"]) == (10, 10)
        html = one.get("/peers/1").text
        assert "8 or more" in html and "after more than 10" in html


def test_its_words_are_compared_with_those_of_other_sites(tmp_path: Path) -> None:
    told = scribe("a", "b", "c", "d", "a")
    told.publish(1, 1, 1)
    told.attest(2, (1, 1, 700_000))
    told.attest(3, (1, 1, 500_000))
    told.attest(4, (1, 1, 600_000))
    told.attest(5, (1, 1, 100_000))  # of the publisher's own site: no word that counts
    for one in closing(explored(tmp_path, told)):
        given = {peer: one.json(f"/peers/{peer}.json")["given"] for peer in (1, 2, 3)}
        assert given[2]["mean_difference_ppm"] == 700_000 - 500_000  # the lower median of c and d
        assert given[3]["mean_difference_ppm"] == 500_000 - 600_000
        assert (given[2]["attested"], given[2]["entries"], given[1]["attested"]) == (1, 1, 0)
        assert given[1]["mean_difference_ppm"] is None
        assert "20.00 percentage points above" in one.get("/peers/2").text


def test_objections_made_and_got(world: Explored) -> None:
    made = world.json("/peers/1.json")["given"]
    assert [(one["update"], one["reason"]) for one in made["made"]] == [("3#2", "malformed"), ("2#2", "unavailable")]
    assert made["objections_made"] == 2
    got = world.json("/peers/3.json")["given"]
    assert {(one["by"], one["reason"]) for one in got["received"]} == {(1, "malformed"), (4, "malformed")}
    assert got["received_many"] == 2


def test_an_objection_to_nothing_is_told(hostile: Explored) -> None:
    told = hostile.json("/peers/77.json")
    assert told["member"]["standing"] == "stranger" and told["given"]["made"][0]["update"] is None
    html = hostile.get("/peers/77").text
    assert "Nobody admitted a peer of this number" in html and "an update that is not in the log" in html


def test_endpoints_and_keys_over_time(world: Explored) -> None:
    told = world.json("/peers/2.json")["presence"]
    assert [one["epoch"] for one in told["announcements"]] == [2, 1] and told["announcements_many"] == 2
    assert told["announcements"][0]["endpoint"] == "https://moved.example:8443"
    assert told["announcements"][1]["recipient_key"] == digest("key", 2).hex()
    html = world.get("/peers/2").text
    assert "https://moved.example:8443" in html and 'href="https://moved' not in html


def test_who_has_its_content(tmp_path: Path) -> None:
    told = scribe("a", "b")
    indices = [told.publish(1, sequence, sequence) for sequence in (1, 2, 3, 4)]
    answers: list[tuple[Any, ...]] = [(3, 0, 0, 1), (1, 1, 0, 1), (0, 1, 1, None)]
    for one in closing(explored(tmp_path, told)):
        with one.shown.store.writing() as db:
            for index, (haves, lacks, silent, publisher) in zip(indices, answers, strict=False):
                db.execute(
                    "INSERT INTO holders (idx, haves, lacks, silent, publisher, size_bytes, asked_at) "
                    "VALUES (?, ?, ?, ?, ?, 5000, 9.0)",
                    (index, haves, lacks, silent, publisher),
                )
            db.execute("INSERT INTO holders (idx, size_bytes) VALUES (?, 5000)", (indices[3],))
        held = one.json("/peers/1.json")["presence"]["held"]
        assert (held["asked"], held["by_others"], held["by_publisher_only"], held["by_nobody"]) == (3, 1, 1, 1)
        assert [one["update"] for one in held["latest"]] == ["1#3", "1#2", "1#1"]
        assert "1 at others too, 1 at the publisher alone, 1 at nobody that answered" in one.get("/peers/1").text


def test_gaps_say_why(world: Explored) -> None:
    gaps = {(one["state"], one["rounds"]) for one in world.json("/peers/3.json")["presence"]["gaps"]}
    assert ("missing", "3") in gaps
    assert "an active member that had not closed, and nothing came" in world.get("/peers/3").text
    assert any(one["state"] == "retired" for one in world.json("/peers/5.json")["presence"]["gaps"])


def test_updates_that_do_not_count_are_told_with_the_reason(world: Explored) -> None:
    own = world.json("/peers/5.json")["own"]
    assert own["ignored_many"] == len(own["ignored"]) == 1
    assert "retired" in own["ignored"][0]["why"]
    assert own["ignored"][0]["update"] not in {point["update"] for line in own["lines"] for point in line["points"]}
    assert "Updates that do not count" in world.get("/peers/5").text


def test_only_the_last_updates_are_looked_at(tmp_path: Path) -> None:
    told = scribe("a", "b")
    for sequence in range(1, 231):
        told.publish(1, sequence, sequence)
    for one in closing(explored(tmp_path, told)):
        page = one.json("/peers/1.json")
        assert (page["updates"], page["own"]["window"], page["own"]["first_round"]) == (230, 200, 31)
        assert "the last 200 are looked at below" in one.get("/peers/1").text


def test_peers_that_are_not_there(world: Explored, empty: Explored, unseen: Explored) -> None:
    for one in (world, empty, unseen):
        for number in ("99", "0", "4294967296", "999999999999999999"):
            assert one.get(f"/peers/{number}").status_code == 404
            assert one.get(f"/peers/{number}.json").get_json()["title"] == f"No peer {number}"
    assert world.get("/peers/x").status_code == 404
    assert "Nobody has been admitted yet." in empty.get("/peers").text


def test_every_peer_of_every_log_has_a_page(world: Explored, lonely: Explored, hostile: Explored) -> None:
    for one in (world, lonely, hostile):
        for row in one.json("/peers.json?limit=500")["rows"]:
            answer = one.get(f"/peers/{row['peer']}")
            assert answer.status_code == 200 and answer.text.count("<h1") == 1, row["peer"]
            assert not re.search("style=|<script>|[\u202e\x1b]", answer.text)


def test_reasons_and_roles_that_nobody_knows_have_words(tmp_path: Path) -> None:
    told = scribe("a", "b")
    told.publish(1, 1, 1)
    told.object(2, UpdateRef(1, 1), Reason.UNAVAILABLE)
    told.say(PeerRetired(2, 2**63 + 5, ""))
    for one in closing(explored(tmp_path, told)):
        with one.shown.store.writing() as db:
            db.execute("UPDATE objections SET reason = 99")
            db.execute("UPDATE peers SET roles = 64 WHERE peer = 1")
        assert one.json("/peers/2.json")["given"]["made"][0]["reason"] == "reason 99"
        assert one.json("/peers/1.json")["member"]["roles"] == []
        html = one.get("/peers/1").text
        assert "it has no role" in html
        assert "No reason was given." in one.get("/peers/2").text


def test_a_key_of_zeros_is_none(tmp_path: Path) -> None:
    told = founded(["clinic-a"])
    told.ledger(1).announce(1, b"\0" * 32, b"\0" * 32, "https://clinic.example")
    for one in closing(over(told, tmp_path)):
        assert one.json("/peers/1.json")["presence"]["announcements"][0]["tls_pin"] == "0" * 64
        assert "0" * 64 not in one.get("/peers/1").text
