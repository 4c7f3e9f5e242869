"""The raw log: every entry of every kind, decoded beside what the chain has, whole in CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ui_logs import SPEC, Explored, explored
from ui_scribe import Scribe
from ui_scribe import hostile as hostile_log

from fl_node.ledger import tree
from fl_node.ledger.memory import memory_account
from fl_node.records import PPM, Entry, OwnerChanged, UnknownEntry
from fl_node.spec import parse_federation
from ledger_ui.questions.facts import KINDS
from ledger_ui.questions.logged import entry_at, folded, raw_of, root_of


def logs_of(one: Explored) -> list[Any]:
    return list(one.ledger.logs(0, one.ledger.head().block_number))


@pytest.mark.parametrize("which", ["world", "hostile", "empty", "lonely"])
def test_the_lists_are_the_chains_log(which: str, request: pytest.FixtureRequest) -> None:
    one: Explored = request.getfixturevalue(which)
    logs = logs_of(one)
    frame = one.json("/entries.json")["federation"]
    lines = [json.loads(line) for line in one.get("/entries.jsonl?order=asc").text.splitlines()]
    cells = list(csv.DictReader(io.StringIO(one.get("/entries.csv?order=asc").text, newline="")))
    assert len(logs) == len(lines) == len(cells) == frame["size"] == one.json("/entries.json")["paging"]["total"]
    leaves = [tree.entry_leaf(log.topics, log.data) for log in logs]
    assert [row["leaf"] for row in lines] == [leaf.hex() for leaf in leaves] == [row["leaf"] for row in cells]
    assert tree.root([bytes.fromhex(row["leaf"]) for row in cells]).hex() == frame["root"]
    assert [row["transaction"] for row in lines] == [log.tx_hash.hex() for log in logs]
    assert [row["entry"] for row in lines] == list(range(len(logs)))
    assert sum(one.json("/entries.json")["kinds"].values()) == len(logs)


@pytest.mark.parametrize("which", ["world", "hostile"])
def test_every_entry_is_raw_and_decoded_and_in_the_log(which: str, request: pytest.FixtureRequest) -> None:
    one: Explored = request.getfixturevalue(which)
    logs, seen = logs_of(one), set()
    for index, log in enumerate(logs):
        told = one.json(f"/entries/{index}.json")
        raw = told["raw"]
        assert [bytes.fromhex(topic) for topic in raw["topics"]] == list(log.topics)
        assert bytes.fromhex(raw["data"]) == log.data
        assert (raw["block"], raw["block_hash"]) == (log.block_number, log.block_hash.hex())
        leaf = tree.entry_leaf(log.topics, log.data)
        proof = [bytes.fromhex(step["hash"]) for step in raw["proof"]]
        assert tree.verify_inclusion(leaf, index, len(logs), proof, bytes.fromhex(raw["root"]))
        assert told["facts"] and all(fact["name"] and fact["meaning"] for fact in told["facts"])
        assert told["words"] == KINDS[told["kind"]] and told["summary"]
        assert told["known"] == (told["kind"] != "UnknownEntry")
        seen.add(told["kind"])
        page = one.get(f"/entries/{index}").text
        assert f"<h1>Entry {index}: " in page and raw["leaf"] in page
        assert ("This version cannot read this entry." in page) == (not told["known"])
    assert seen >= {
        "LedgerOpened",
        "PeerAdmitted",
        "PeerAnnounced",
        "UpdatePublished",
        "UpdatesAttested",
        "UpdateObjected",
    }
    assert "PeerRetired" in seen
    assert ("UnknownEntry" in seen) == (which == "hostile")


def test_proofs_of_every_shape_of_tree(hostile: Explored) -> None:
    size = hostile.json("/entries.json")["federation"]["size"]
    with hostile.shown.store.reading() as db:
        for many in range(1, size + 1):
            root = root_of(db, many)
            assert root is not None
            for index in range(many):
                entry = entry_at(db, index)
                assert entry is not None
                raw = raw_of(db, entry, many)
                assert raw.root == root.hex()
                assert folded(bytes.fromhex(raw.leaf), raw.proof) == root, (index, many)
        assert root_of(db, 0) == tree.EMPTY_ROOT and root_of(db, size + 1) is None and root_of(db, -1) is None
        entry = entry_at(db, 3)
        assert entry is not None
        outside = raw_of(db, entry, 2)
        assert (outside.size, outside.root, outside.proof) == (0, None, [])


def test_its_command_gives_the_root(world: Explored, tmp_path: Path) -> None:
    told = world.json("/entries/5.json")
    command = next(one["command"] for one in told["commands"] if one["words"].startswith("The root of"))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path, check=True)
    assert done.stdout.strip() == told["raw"]["root"]
    broken = command.replace('("right"', '("left"', 1).replace('("left"', '("right"', 1)
    if broken != command:
        other = subprocess.run(
            ["sh", "-c", broken], capture_output=True, text=True, timeout=30, cwd=tmp_path, check=True
        )
        assert other.stdout.strip() != told["raw"]["root"]


def test_filters(world: Explored) -> None:
    every = [json.loads(line) for line in world.get("/entries.jsonl").text.splitlines()]
    some = every[len(every) // 2]
    asked = {
        "kind=UpdatesAttested": lambda row: row["kind"] == "UpdatesAttested",
        "kind=OwnerChanged": lambda row: row["kind"] == "OwnerChanged",
        "peer=3": lambda row: row["peer"] == 3,
        "peer=3&kind=UpdatePublished": lambda row: row["peer"] == 3 and row["kind"] == "UpdatePublished",
        f"block={some['block']}": lambda row: row["block"] == some["block"],
        f"tx={some['transaction']}": lambda row: row["transaction"] == some["transaction"],
        f"tx=0x{some['transaction'].upper()}": lambda row: row["transaction"] == some["transaction"],
        f"tx={'0' * 64}": lambda row: False,
    }
    for query, holds in asked.items():
        wanted = [row for row in every if holds(row)]
        told = world.json(f"/entries.json?limit=500&{query}")
        assert told["rows"] == wanted, query
        assert told["paging"]["total"] == len(wanted), query
        assert len(told["filters"]) == query.count("=")
    assert world.get("/entries?tx=12").status_code == 400
    assert "No entry matches." in world.get(f"/entries?tx={'0' * 64}").text


def test_pages_follow_one_another(world: Explored) -> None:
    for order in ("asc", "desc"):
        path, found = f"/entries.json?limit=7&order={order}", []
        while path:
            told = world.json(path)
            found += [row["entry"] for row in told["rows"]]
            following = told["paging"]["next_url"]
            path = following and following.replace(f"/{world.shown.slug}/entries", "/entries.json")
        assert found == sorted(found, reverse=order == "desc") and len(found) == told["federation"]["size"]


def test_entries_of_one_transaction_know_each_other(world: Explored) -> None:
    opened = world.json("/entries/0.json")
    assert opened["beside"] == [1, 2, 3, 4, 5, 6], "the deployment admits the founding members"
    assert opened["previous_url"] is None and opened["next_url"].endswith("/entries/1")
    last = world.json(f"/entries/{opened['federation']['size'] - 1}.json")
    assert last["beside"] == [] and last["next_url"] is None


def test_rows_decode_only_their_page(tmp_path: Path, monkeypatch: Any) -> None:
    told = hostile_log()
    for sequence in range(1, 60):
        told.publish(7, sequence, sequence)
    one = explored(tmp_path, told)
    try:
        import ledger_ui.pages.entries as module

        decoded: list[Entry] = []
        real = module.entry_of
        monkeypatch.setattr(module, "entry_of", lambda row: decoded.append(real(row)) or decoded[-1])
        one.json("/entries.json?limit=5")
        assert len(decoded) == 5
    finally:
        one.stop()


def test_a_reorganisation_is_told_where_it_was(tmp_path: Path) -> None:
    told = hostile_log()
    size = told.size
    told.publish(6, 2, 4, (6, 1, PPM))
    told.publish(6, 3, 5)
    one = explored(tmp_path, told)
    try:
        before = one.json(f"/entries/{size}.json")["raw"]["leaf"]
        told.cut(size)
        told.say(OwnerChanged(memory_account(0), memory_account(9)))
        one.look()
        now = one.json(f"/entries/{size}.json")
        assert now["kind"] == "OwnerChanged" and now["raw"]["leaf"] != before
        assert [(row["leaf"], row["kind"]) for row in now["orphans"]["rows"]] == [(before, "UpdatePublished")]
        page = one.get(f"/entries/{size}").text
        assert '<del class="orphan">' in page and "not any more" in page
        gone = one.get(f"/entries/{size + 1}.json")
        assert gone.status_code == 404
        assert (
            gone.get_json()["title"] == f"No entry {size + 1} any more"
            and "reorganisation" in gone.get_json()["detail"]
        )
        listed = one.json("/entries.json")
        assert [row["entry"] for row in listed["orphans"]["rows"]] == [size + 1, size]
        assert one.json("/entries.json?kind=OwnerChanged")["orphans"]["total"] == 0
        assert one.json(f"/entries.json?after={size}")["orphans"]["total"] == 0
        assert [row["entry"] for row in listed["rows"][:2]] == [size, size - 1]
    finally:
        one.stop()


def test_an_entry_that_came_again_says_where(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.publish(1, 1, 1)
    one = explored(tmp_path, told)
    try:
        again = told.logs_made[-1]
        told.cut(2)
        told.admit("b")
        told.publish(1, 1, 1)
        # The same transaction, in a later block.
        told.logs_made[-1] = type(again)(**{**fields(told.logs_made[-1]), "tx_hash": again.tx_hash})
        one.look()
        row = one.json("/entries.json")["orphans"]["rows"][0]
        assert (row["entry"], row["now"], row["same"]) == (2, 3, True)
        assert "again, as entry" in one.get("/entries").text
    finally:
        one.stop()


def fields(log: Any) -> dict[str, Any]:
    return {name: getattr(log, name) for name in ("block_number", "block_hash", "tx_hash", "topics", "data")}


def test_large_data_are_cut_on_the_page_and_whole_in_its_json(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.raw(((b"\x99" * 32, told.size.to_bytes(32, "big")), bytes(200_000)))
    one = explored(tmp_path, told)
    try:
        entry = one.json("/entries/1.json")
        assert len(entry["raw"]["data"]) == 400_000 and entry["kind"] == UnknownEntry.__name__
        page = one.get("/entries/1").text
        assert "bytes more: this page as JSON has all of them" in page and len(page) < 80_000
        assert not any(command["words"].startswith("The leaf") for command in entry["commands"])
    finally:
        one.stop()


def test_what_is_not_there(world: Explored, empty: Explored, unseen: Explored) -> None:
    size = world.json("/entries.json")["federation"]["size"]
    assert world.get(f"/entries/{size}").status_code == 404
    assert f"{size} entries" in world.get(f"/entries/{size}.json").get_json()["detail"]
    assert "the log is empty" in unseen.get("/entries/0.json").get_json()["detail"]
    assert empty.get("/entries/0").status_code == 200
    assert "No entry has been read yet." in unseen.get("/entries").text
