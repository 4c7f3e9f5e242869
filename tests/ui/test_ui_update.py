"""The page of one update: what was recorded, what it was made from, what others say, and what its report says."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from ui_logs import SPEC, Explored, explored, founded, over, played
from ui_scribe import Scribe
from ui_scribe import hostile as hostile_log

from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.ledger import calls, tree
from fl_node.ledger.abi import checksum_address
from fl_node.records import PPM, Reason, UpdatePublished, UpdateRef
from fl_node.spec import parse_federation
from ledger_ui.index.fold import bump


@contextmanager
def changed(one: Explored) -> Iterator[sqlite3.Connection]:
    """What was fetched or found besides the log is another now."""
    with one.shown.store.writing() as db:
        yield db
        bump(db)


def page_of(one: Explored, ref: str) -> Any:
    told = one.json(f"/updates/{ref.replace('#', '-')}.json")
    assert one.get(f"/updates/{ref.replace('#', '-')}").status_code == 200
    return told


def test_all_that_is_recorded_is_told(world: Explored) -> None:
    assert world.world is not None
    prefix = world.world.prefix
    for row in world.json("/updates.json?limit=500")["rows"]:
        told = page_of(world, row["update"])
        entry = prefix.update(UpdateRef(*map(int, row["update"].split("#"))))
        update = entry.update
        facts = {fact["name"]: fact["value"] for fact in told["facts"]}
        assert told["update"] == row
        assert facts["content"] == update.content.hex() and facts["content CID"] == str(cid_of_update(update))
        assert facts["weights"] == update.weights.hex() and facts["base"] == update.base.hex()
        assert facts["report"] == update.report.hex() and facts["report CID"] == str(Cid("raw", update.report))
        assert (facts["seen"], facts["seen root"]) == (str(update.seen), update.seen_root.hex())
        assert (facts["sequence"], facts["round"]) == (str(update.sequence), str(update.round))
        assert facts["score"] == f"{update.score_ppm / 10_000:.4f} %"
        assert facts["training samples"] == f"{update.train_samples:,}"
        assert facts["flags"] == ("final" if entry.final else "none")
        assert facts["rule"] in ("fedavg", "genesis")
        assert all(fact["meaning"] for fact in told["facts"])
        assert told["seen_root_holds"] is True
        assert told["account"] == prefix.peer(entry.ref.peer).account
        assert told["gain_ppm"] == update.score_ppm - update.base_score_ppm


def test_parents_and_children_with_their_shares(world: Explored) -> None:
    assert world.world is not None
    prefix = world.world.prefix
    entries = [prefix.update(fact.body.ref) for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]
    for entry in entries:
        kin = page_of(world, str(entry.ref))["kin"]
        assert {(one["update"], one["share_ppm"]) for one in kin["parents"]} == {
            (str(parent.ref), parent.share_ppm) for parent in entry.parents
        }
        assert [one["share_ppm"] for one in kin["parents"]] == sorted(
            (p.share_ppm for p in entry.parents), reverse=True
        )
        assert all(one["tag_agrees"] for one in kin["parents"])
        children = {
            (str(one.ref), parent.share_ppm)
            for one in entries
            for parent in one.parents
            if parent.ref == entry.ref and parent.share_ppm
        }
        assert {(one["update"], one["share_ppm"]) for one in kin["children"]} == children
        assert kin["children_total"] == len(children)
    assert "No parents: its training started from the genesis weights" in world.get("/updates/1-1").text


def test_who_was_left_out_is_told_once_it_was_replayed(tmp_path: Path) -> None:
    one = over(played(), tmp_path)
    try:
        kin = page_of(one, "1#2")["kin"]
        assert kin["choice"]["state"] == "replayed", "the follower replays what it folds"
        assert one.world is not None
        merged = {parent["update"] for parent in kin["parents"] if parent["share_ppm"]}
        left = {row["update"] for row in kin["choice"]["left_out"] if row["update"]}
        assert left and not merged & left
        assert all(row["outcome"] and row["reason"] for row in kin["choice"]["left_out"] if row["update"])
        victim = sorted(left)[0]
        assert "1#2" in {row["update"] for row in page_of(one, victim)["kin"]["left_out_by"]}
        with changed(one) as db:
            db.execute("DELETE FROM choices")
        assert page_of(one, "1#2")["kin"]["choice"]["state"] == "not-replayed"
        with changed(one) as db:
            db.execute("INSERT INTO choices SELECT idx, NULL FROM updates")
        assert page_of(one, "1#2")["kin"]["choice"]["state"] == "follows-nothing"
    finally:
        one.stop()


def test_attestations_and_whether_they_count(world: Explored) -> None:
    assert world.world is not None
    told = page_of(world, "1#1")
    rows = {row["peer"]: row for row in told["others"]["attestations"]}
    said = {one.peer: one for one in world.world.prefix.attestations(UpdateRef(1, 1))}
    assert set(rows) == set(said)
    for peer, row in rows.items():
        assert (row["score_ppm"], row["base_ppm"]) == (said[peer].score_ppm, said[peer].base_score_ppm)
        assert row["difference_ppm"] == row["score_ppm"] - told["update"]["claimed_ppm"]
        assert row["counts"] == (row["site_name"] != "clinic-a")
    assert sum(row["counts"] for row in rows.values()) == told["update"]["attested_sites"]
    none = page_of(world, "4#1")
    assert none["others"]["attestations"] == [] and none["update"]["attested_ppm"] is None
    assert "Nobody has attested it: its score is a claim." in world.get("/updates/4-1").text


def test_objections_are_held_against_the_log(world: Explored) -> None:
    unavailable = page_of(world, "2#2")["others"]["objections"]
    assert [(one["peer"], one["reason"], one["contradicted"]) for one in unavailable] == [(1, "unavailable", True)]
    assert "attested it at entry" in unavailable[0]["why"]
    malformed = page_of(world, "3#2")["others"]["objections"]
    assert [(one["peer"], one["reason"], one["contradicted"]) for one in malformed] == [
        (4, "malformed", None),
        (1, "malformed", None),
    ]
    withdrawn = page_of(world, "5#2")
    assert withdrawn["others"]["objections"][0]["reason"] == "withdrawn"
    assert any("Withdrawn by its publisher" in remark for remark in withdrawn["remarks"])


def test_an_audit_speaks_for_or_against_an_objection(tmp_path: Path) -> None:
    one = over(played(), tmp_path)
    try:
        index = page_of(one, "3#2")["update"]["entry"]
        for result, contradicted in (("ok", True), ("failed", False), ("unknown", None)):
            with changed(one) as db:
                db.execute("DELETE FROM verdicts")
                db.execute(
                    "INSERT INTO verdicts (idx, position, check_name, result, asked, detail) "
                    "VALUES (?, 0, 'well-formed', ?, 1, '')",
                    (index, result),
                )
            objection = page_of(one, "3#2")["others"]["objections"][0]
            assert objection["contradicted"] is contradicted, result
    finally:
        one.stop()


def test_what_does_not_count_says_so_first(world: Explored) -> None:
    closing = page_of(world, "1#5")
    assert closing["update"]["state"] == "closing" and closing["became"].startswith("A closing update: untrained")
    ignored = next(row for row in world.json("/updates.json?state=ignored")["rows"])
    told = page_of(world, ignored["update"])
    assert told["ignored"] and told["became"] == f"It does not count: {told['ignored']}."
    assert told["ignored"] in world.get(f"/updates/{ignored['update'].replace('#', '-')}").text
    assert page_of(world, "1#2")["remarks"] == []
    merged = page_of(world, next(row["update"] for row in world.json("/updates.json?state=merged")["rows"]))
    assert merged["became"].startswith(f"Merged by {merged['update']['merged_by']} other peer")


def test_neighbours(world: Explored) -> None:
    slug = world.shown.slug
    assert [link["url"] for link in page_of(world, "1#1")["links"]] == [
        f"/{slug}/updates/1-1/provenance",
        f"/{slug}/updates/1-2",
    ]
    assert [link["words"] for link in page_of(world, "1#2")["links"]] == ["Provenance", "Previous: 1#1", "Next: 1#3"]
    assert [link["words"] for link in page_of(world, "1#5")["links"]] == ["Provenance", "Previous: 1#4"]


def test_raw_and_proof_lead_to_the_root(world: Explored) -> None:
    root = world.json("/updates.json?limit=1")["federation"]["root"]
    for ref in ("1#1", "3#2", "1#5"):
        raw = page_of(world, ref)["raw"]
        leaf = tree.entry_leaf([bytes.fromhex(topic) for topic in raw["topics"]], bytes.fromhex(raw["data"]))
        assert raw["leaf"] == leaf.hex() and raw["root"] == root
        index = int(raw["topics"][1], 16)
        proof = [bytes.fromhex(step["hash"]) for step in raw["proof"]]
        assert tree.verify_inclusion(leaf, index, raw["size"], proof, bytes.fromhex(root))


def test_its_commands_give_leaf_and_root(world: Explored, tmp_path: Path) -> None:
    told = page_of(world, "3#2")
    commands = {one["words"]: one["command"] for one in told["commands"]}
    for words, wanted in (("The leaf, from", told["raw"]["leaf"]), ("The root of", told["raw"]["root"])):
        command = next(command for said, command in commands.items() if said.startswith(words))
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path, check=True
        )
        assert done.stdout.strip() == wanted
    assert "fl-node show '3#2' --federation federation.toml" in commands.values()
    assert "fl-node lineage '3#2' --federation federation.toml" in commands.values()
    assert all("http" not in command for command in commands.values()), "an endpoint may hold a key"


# ---- its report ----------------------------------------------------------------------------------------------------


def with_report(one: Explored, ref: str, body: bytes | None, status: str = "ok", detail: str = "") -> Any:
    """The page, once this came of fetching its report."""
    index = page_of(one, ref)["update"]["entry"]
    with changed(one) as db:
        db.execute("DELETE FROM reports WHERE idx = ?", (index,))
        db.execute(
            "INSERT INTO reports (idx, status, body, tried_at, detail) VALUES (?, ?, ?, ?, ?)",
            (index, status, body, time.time(), detail),
        )
    return page_of(one, ref)["report"]


def test_a_report_is_the_publishers_word(tmp_path: Path) -> None:
    one = over(played(), tmp_path)
    try:
        assert one.world is not None
        assert page_of(one, "3#2")["report"]["state"] == "not-fetched"
        update = one.world.prefix.update(UpdateRef(3, 2)).update
        body = one.world.blobs[update.report]
        told = with_report(one, "3#2", body)
        assert (told["state"], told["differs"], told["size_bytes"]) == ("ok", [], len(body))
        metrics = {one["name"]: one["value"] for one in told["metrics"]}
        assert metrics["accuracy"] == pytest.approx(update.score_ppm / PPM) and metrics["loss"] == 1.25
        assert told["confusion"] == [[9, 1], [2, 8]]
        assert told["candidates"] and told["software"].startswith("fl-node ")
        page = one.get("/updates/3-2").text
        assert "the publisher’s word" in page and '<td class="num right s4">9</td>' in page
        other = with_report(one, "3#2", body + b" ")
        assert other["state"] == "mismatch" and other["metrics"] == []
        for status in ("gone", "malformed", "refused", "none"):
            assert with_report(one, "3#2", None, status, "why <b>")["state"] == status
            assert "why &lt;b&gt;" in one.get("/updates/3-2").text
    finally:
        one.stop()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


REPORTS = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"{",
    b"{}",
    nested(200_000).encode(),
    json.dumps({"metrics": [], "training": 3, "candidates": {}, "software": ["x"]}).encode(),
    b'{"metrics": {"accuracy": NaN, "loss": Infinity, "recall": -1e999, "auc": 1e308, "samples": true}}',
    b'{"metrics": {"samples": ' + b"9" * 5000 + b"}}",
    b'{"metrics": {"samples": ' + b"9" * 4000 + b"}}",
    b'{"score_ppm": ' + b"9" * 4000 + b', "round": true, "update": "\\ud800"}',
    b'{"metrics": {"confusion": [[1, 2], [3]]}}',
    b'{"metrics": {"confusion": [[1, -2], [3, 4]]}}',
    b'{"metrics": {"confusion": [[true, 2], [3, 4]]}}',
    b'{"metrics": {"confusion": [[0, 0], [0, 0]]}}',
    json.dumps({"metrics": {"confusion": [[0] * 101] * 101}}).encode(),
    json.dumps(
        {"candidates": [{"peers": "<b>", "outcome": "\u202e" * 100}, {"peer": None}, 3, {"sequence": []}]}
    ).encode(),
    json.dumps({"training": {"\ud800" * 70: "\ud800", "=1": {"a": [1]}, "x" * 999: None}}).encode(),
    json.dumps({"software": "<script>alert(1)</script>" * 99}).encode(),
]


@pytest.mark.parametrize("body", REPORTS, ids=[body[:20].decode("latin-1") for body in REPORTS])
def test_a_hostile_report_breaks_nothing(tmp_path: Path, body: bytes) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.publish(1, 1, 1, report=hashlib.sha256(body).digest())
    one = explored(tmp_path, told)
    try:
        report = with_report(one, "1#1", body)
        assert report["state"] in ("ok", "malformed")
        assert report["state"] == "malformed" or report["differs"], "it says nothing that the ledger says"
        assert "<script>alert" not in one.get("/updates/1-1").text
    finally:
        one.stop()


# ---- its transaction -----------------------------------------------------------------------------------------------


def signed(key: Any, to: str, data: bytes, chain_id: int = 31337) -> tuple[bytes, bytes]:
    """Hash and bytes of a signed call."""
    made = key.sign_transaction(
        {"to": to, "data": data, "nonce": 3, "gas": 200_000, "gasPrice": 1, "value": 0, "chainId": chain_id}
    )
    return bytes(made.hash), bytes(made.raw_transaction)


def test_the_signed_call_is_held_against_the_entry(tmp_path: Path) -> None:
    key, stranger = Account.create("one"), Account.create("two")
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.publish(1, 1, 1)
    one = explored(tmp_path, told)
    try:
        assert page_of(one, "1#1")["sent"]["state"] == "not-fetched"
        body = told_update(one)
        good = calls.publish(body.update, body.parents)
        contract = one.shown.deployment.contract
        # The peer's account is what the table of peers says.
        with changed(one) as db:
            db.execute(
                "UPDATE peers SET account = ? WHERE peer = 1", (checksum_address(bytes.fromhex(key.address[2:])),)
            )
        cases = [
            (key, contract, good, "agrees", "Signed by the account that it must be"),
            (stranger, contract, good, "differs", "signed by"),
            (key, contract, good[:-1] + b"\1", "differs", "asks for something else"),
            (key, stranger.address, good, "indirect", "which called the ledger"),
        ]
        for signer, to, data, state, words in cases:
            digest, raw = signed(signer, to, data)
            told_sent = with_transaction(one, digest, raw)
            assert told_sent["state"] == state and words in told_sent["words"], told_sent
            assert told_sent["sender"] == signer.address and told_sent["raw"] == raw.hex()
            assert told_sent["gas_used"] == 101_015 and told_sent["nonce"] == 3
        assert told_sent["call"].startswith("publish(")
        wrong_hash = with_transaction(one, b"\7" * 32, raw)
        assert wrong_hash["state"] == "differs" and "has hash" in wrong_hash["words"]
        assert with_transaction(one, b"\7" * 32, b"\xc0nonsense")["state"] == "unread"
        assert with_transaction(one, b"\7" * 32, None)["state"] == "not-fetched"
    finally:
        one.stop()


def told_update(one: Explored) -> UpdatePublished:
    from ledger_ui.questions.logged import entry_at

    with one.shown.store.reading() as db:
        entry = entry_at(db, 2)
    assert entry is not None and isinstance(entry.body, UpdatePublished)
    return entry.body


def with_transaction(one: Explored, digest: bytes, raw: bytes | None) -> Any:
    """The page, once its entry is by this transaction."""
    with changed(one) as db:
        db.execute("UPDATE entries SET tx_hash = ? WHERE idx = 2", (digest,))
        db.execute("DELETE FROM transactions")
        db.execute("INSERT INTO transactions VALUES (?, NULL, 101015, ?, 0)", (digest, raw))
    return page_of(one, "1#1")["sent"]


# ---- what is odd ----------------------------------------------------------------------------------------------------


def test_a_name_that_is_used_twice_is_told(hostile: Explored) -> None:
    told = page_of(hostile, "2#1")
    assert len(told["doubles"]) == 1
    assert any("used again at entry" in remark for remark in told["remarks"])
    assert hostile.json(f"/entries/{told['doubles'][0]}.json")["update"] == "2#1"


def test_a_stranger_and_a_parent_that_is_nowhere(hostile: Explored) -> None:
    told = page_of(hostile, "77#1")
    assert any("no member" in remark for remark in told["remarks"])
    assert [(one["update"], one["entry"], one["tag_agrees"]) for one in told["kin"]["parents"]] == [
        ("78#9", None, None)
    ]
    assert "no such update on the ledger before this one" in hostile.get("/updates/77-1").text


def test_a_seen_root_that_is_not_the_logs(hostile: Explored) -> None:
    assert page_of(hostile, "1#1")["seen_root_holds"] is False
    assert "seen root differs" in hostile.get("/updates/1-1").text
    assert page_of(hostile, "4#0")["seen_root_holds"] is None, "it has seen more than there is"


def test_what_is_not_there_says_what_is(world: Explored, hostile: Explored, empty: Explored) -> None:
    assert "the last one of peer 3 is 3#4" in world.get("/updates/3-99.json").get_json()["detail"]
    assert "peer 99 has published none" in world.get("/updates/99-1.json").get_json()["detail"]
    assert "such as 3-12" in world.get("/updates/three.json").get_json()["detail"]
    assert empty.get("/updates/1-1").status_code == 404
    told = hostile_log()
    assert told.size > 0
    assert hostile.get(f"/updates/3-{2**32 - 1}").status_code == 200


def test_an_update_that_a_reorganisation_dropped(tmp_path: Path) -> None:
    told = hostile_log()
    size = told.size
    told.publish(6, 2, 4)
    one = explored(tmp_path, told)
    try:
        told.cut(size)
        one.look()
        answer = one.get("/updates/6-2.json")
        assert answer.status_code == 404 and "A reorganisation of the chain dropped 6#2" in answer.get_json()["detail"]
        told.object(3, UpdateRef(1, 1), Reason.UNAVAILABLE)
        told.publish(6, 2, 4)
        one.look()
        assert page_of(one, "6#2")["update"]["entry"] == size + 1
    finally:
        one.stop()


def test_one_update_of_one_peer(tmp_path: Path) -> None:
    alone = founded(["a"])
    alone.update(1, 1)
    one = over(alone, tmp_path)
    try:
        told = page_of(one, "1#1")
        assert told["kin"]["parents"] == [] and told["kin"]["children"] == []
        assert told["became"] == "Submitted: no other peer has merged it, or looked at it and left it out, so far."
        assert [link["words"] for link in told["links"]] == ["Provenance"]
    finally:
        one.stop()


def test_a_gain_is_in_points_and_never_reads_like_a_score(world: Explored) -> None:
    told = world.json("/updates/2-2.json")["gain_ppm"]
    words = f"{abs(told) / 10_000:.2f} points {'more' if told > 0 else 'less'} than its base" if told else "as much as"
    assert words in world.get("/updates/2-2").text
