"""Encryption, keys, encodings, bytes and privacy spent, as pages and their JSON tell them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ui_private
from ui_logs import Explored, closing, explored, until
from ui_private import SPEC, begun, key, played, report
from ui_reports import Audits, finding, printed
from ui_scribe import hostile

from fl_node.audit.reading import WITHOUT_KEYS
from fl_node.audit.verdicts import Finding, Result
from fl_node.ledger.index import LedgerIndex
from fl_node.prefix import Prefix
from fl_node.readers import readers_at
from fl_node.records import ZERO32, ZSTD, Flag, UpdateRef
from fl_node.sealing.keytext import parse_recipient, recipient_text
from fl_node.tables import PrivacySpec
from ledger_ui.index.claims import MOST, MOST_BYTES, bytes_in, privacy_in, traffic_in
from ledger_ui.leaving import encoding, privacy
from ledger_ui.questions.spent import scores_of, state_of


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    yield from closing(played().explorer(tmp_path_factory.mktemp("sealed")))


def prefix_of(one: Explored) -> Prefix:
    log = LedgerIndex(":memory:", one.ledger)
    log.sync()
    return Prefix(log.entries())


# ---- updates -----------------------------------------------------------------------------------------------------


def test_an_update_tells_who_can_read_it_as_the_rule_has_it(sealed: Explored) -> None:
    known = prefix_of(sealed)
    for row in sealed.json("/updates.json?limit=500")["rows"]:
        told = sealed.json(f"/updates/{row['update'].replace('#', '-')}.json")
        found, entry = told["sealing"], known.update(UpdateRef.parse(row["update"]) or UpdateRef(0, 0))
        if not row["encrypted"]:
            assert (row["update"], found["state"]) == ("3#2", "clear")
            continue
        expected = readers_at(known.upto(entry.update.sealed_at))
        assert {one["peer"]: parse_recipient(one["recipient"]) for one in found["readers"]} == expected.keys
        assert {one["peer"]: one["why"] for one in found["skipped"]} == expected.skipped
        assert found["skipped_many"] == len(expected.skipped) == 2
        assert (
            found["words"] == f"Encrypted: readable by members and auditors as of entry {entry.update.sealed_at - 1}."
        )
        assert {one["peer"] for one in found["readers"] if one["auditor"]} == {7}
        html = sealed.get(f"/updates/{row['update'].replace('#', '-')}").text
        assert found["words"] in html and found["caution"] in html
        assert f'href="/{sealed.shown.slug}/peers/7"' in html


def test_a_retired_peer_reads_nothing_from_then_on(tmp_path: Path) -> None:
    log = played()
    log.told.retire(3, log.told.size)
    log.publish(1, 5)
    one = log.explorer(tmp_path)
    try:
        before, after = (one.json(f"/updates/1-{number}.json")["sealing"] for number in (4, 5))
        assert {reader["peer"] for reader in before["readers"]} - {reader["peer"] for reader in after["readers"]} == {3}
        assert 3 not in {skipped["peer"] for skipped in after["skipped"]}, "it is no active member that was skipped"
        keys = one.json("/peers/3.json")["keys"]
        assert [found["state"] for found in keys] == ["retired"]
    finally:
        one.stop()


def test_encoding_and_reference_are_in_words(sealed: Explored) -> None:
    told = sealed.json("/updates/1-3.json")["carried"]
    assert (told["encoding"], told["refers_to"], told["delta"]) == ("int8-delta+zstd", "1#2", True)
    assert "since 1#2, in 8 bits" in told["words"]
    html = sealed.get("/updates/1-3").text
    assert "int8-delta+zstd" in html and f'href="/{sealed.shown.slug}/updates/1-2"' in html
    first = sealed.json("/updates/1-1.json")["carried"]
    assert (first["encoding"], first["refers_to"], first["delta"]) == ("f32", None, False)
    assert "the genesis" in sealed.get("/updates/1-1").text
    facts = {fact["name"]: fact for fact in sealed.json("/updates/1-3.json")["facts"]}
    assert facts["encoding"]["value"] == "int8-delta+zstd" and facts["flags"]["value"] == "encrypted"
    assert facts["refers to"]["value"] == "1#2" and facts["refers to"]["url"].endswith("/updates/1-2")


def test_a_reference_that_nobody_need_follow_is_told(tmp_path: Path) -> None:
    log = begun()
    for number, target in ((1, UpdateRef(2, 1)), (2, UpdateRef(1, 2)), (3, UpdateRef(1, 1))):
        log.publish(1, number, refers_to=target.packed(), encoding=2)
    one = log.explorer(tmp_path)
    try:
        troubles = [one.json(f"/updates/1-{number}.json")["carried"]["trouble"] for number in (1, 2, 3)]
        assert [bool(trouble) for trouble in troubles] == [True, True, False]
        assert "no earlier update of its publisher" in one.get("/updates/1-1").text
    finally:
        one.stop()


def test_an_update_in_the_clear_is_loud_where_the_spec_asks_for_encryption(sealed: Explored) -> None:
    html = sealed.get("/updates/3-2").text
    assert "The spec asks for encryption, yet this update is in the clear" in html
    overview = sealed.json(".json")["exposure"]
    assert (overview["encrypted"], overview["clear"]) == (11, 1)
    assert "1 update is in the clear" in overview["loud"] and "1 update is in the clear" in sealed.get("").text
    rows = sealed.json("/updates.json?sealed=no")["rows"]
    assert [row["update"] for row in rows] == ["3#2"]
    assert sealed.json("/updates.json?sealed=yes")["paging"]["total"] == 11
    health = sealed.json("/health.json")
    assert [alarm["text"][:4] for alarm in health["alarms"] if alarm["kind"] == "in-the-clear"] == ["3#2 "]


def test_a_spec_without_encryption_is_loud_on_the_overview(tmp_path: Path) -> None:
    log = begun('format = 1\nname = "open"\n[privacy]\nencrypt = false\n')
    log.publish(1, 1, encrypted=False)
    one = log.explorer(tmp_path)
    try:
        told = one.json(".json")["exposure"]
        assert told["loud"].startswith("The weights of this federation are public")
        assert "The weights of this federation are public" in one.get("").text
        assert one.json("/updates/1-1.json")["sealing"]["state"] == "public"
        assert one.json("/updates/1-1.json")["sealing"]["warning"] == ""
        assert not [
            alarm for alarm in one.json("/health.json")["alarms"] if alarm["kind"] in ("in-the-clear", "bad-key")
        ]
        words = " ".join(sentence for topic in one.json(".json")["spec"]["topics"] for sentence in topic["sentences"])
        assert "Updates are not encrypted" in words
    finally:
        one.stop()


def test_many_updates_in_the_clear_are_one_alarm(tmp_path: Path) -> None:
    log = begun()
    for number in range(1, 31):
        log.publish(1, number, encrypted=False)
    one = log.explorer(tmp_path)
    try:
        alarms = [alarm for alarm in one.json("/health.json")["alarms"] if alarm["kind"] == "in-the-clear"]
        assert len(alarms) == 1 and alarms[0]["text"].startswith("30 updates are in the clear")
    finally:
        one.stop()


@pytest.mark.parametrize("sealed_at", [0, 2**40])
def test_encrypted_for_nobody_knows_whom_is_told(tmp_path: Path, sealed_at: int) -> None:
    log = begun()
    log.publish(1, 1, sealed_at=sealed_at)
    one = log.explorer(tmp_path)
    try:
        told = one.json("/updates/1-1.json")["sealing"]
        assert told["state"] == "unclear" and told["warning"]
        assert told["warning"] in one.get("/updates/1-1").text
    finally:
        one.stop()


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_a_peer_shows_its_keys_and_their_rotation(sealed: Explored) -> None:
    keys = sealed.json("/peers/2.json")["keys"]
    assert [(one["state"], one["epoch"]) for one in keys] == [("current", 2), ("superseded", 1)]
    assert [one["recipient"] for one in keys] == [recipient_text(key(2, "new")), recipient_text(key(2))]
    assert keys[1]["until"] == keys[0]["entry"] and keys[0]["until"] is None
    html = sealed.get("/peers/2").text
    assert all(one["recipient"] in html for one in keys) and "superseded" in html
    row = next(one for one in sealed.json("/peers.json")["rows"] if one["peer"] == 2)
    assert row["recipient"] == keys[0]["recipient"] and row["key_trouble"] == ""


def test_invalid_missing_and_replayed_keys_are_flagged(sealed: Explored) -> None:
    hollow, none, echo = (sealed.json(f"/peers/{peer}.json")["keys"][0] for peer in (5, 4, 6))
    assert hollow["recipient"] == "" and "no usable X25519 key" in hollow["trouble"]
    assert none["recipient"] == "" and none["trouble"] == "has announced no key"
    assert (echo["same_as"], echo["recipient"]) == (1, recipient_text(key(1)))
    assert sealed.json("/peers/1.json")["keys"][0]["same_as"] is None, "whoever announced it first is not to blame"
    assert "announced before" in sealed.get("/peers/6").text and "invalid" in sealed.get("/peers/5").text
    alarms = [alarm for alarm in sealed.json("/health.json")["alarms"] if alarm["kind"] == "bad-key"]
    assert sorted(alarm["url"].rsplit("/", 1)[1] for alarm in alarms) == ["5", "6"]
    assert any("that peer 1 had announced" in alarm["text"] for alarm in alarms)


def test_a_key_announced_again_with_another_endpoint_is_one_key(tmp_path: Path) -> None:
    log = begun()
    log.announce(1, 2, key(1))
    log.announce(1, 3, key(1, 3))
    log.announce(1, 4, key(1))
    one = log.explorer(tmp_path)
    try:
        keys = one.json("/peers/1.json")["keys"]
        assert [(found["epoch"], found["state"]) for found in keys] == [
            (4, "current"),
            (3, "superseded"),
            (1, "superseded"),
        ]
        assert len(one.json("/peers/1.json")["presence"]["announcements"]) == 4
    finally:
        one.stop()


def test_the_entry_of_an_announcement_has_the_key_as_age_writes_it(sealed: Explored) -> None:
    entry = sealed.json("/peers/1.json")["keys"][0]["entry"]
    facts = {fact["name"]: fact["value"] for fact in sealed.json(f"/entries/{entry}.json")["facts"]}
    assert facts["as age writes it"] == recipient_text(key(1))


# ---- bytes and traffic ---------------------------------------------------------------------------------------------


def test_bytes_are_added_up_by_update_peer_round_and_federation(sealed: Explored) -> None:
    update = sealed.json("/updates/1-2.json")
    assert (update["update"]["update_bytes"], update["update"]["plain_bytes"]) == (12_000, 40_000)
    assert update["report"]["bytes"]["part_ppm"] == 300_000 and update["report"]["bytes"]["full"] is False
    assert not [one for one in update["report"]["differs"] if "encoding" in one]
    volume = sealed.json("/peers/1.json")["bytes"]["volume"]
    assert volume == {"of": 4, "update_bytes": 76_000, "plain_bytes": 160_000, "part_ppm": 475_000}
    rounds = {row["round"]: row for row in sealed.json("/rounds.json")["rows"]}
    assert (rounds[2]["bytes_of"], rounds[2]["update_bytes"], rounds[2]["plain_bytes"]) == (3, 36_000, 120_000)
    assert sealed.json(".json")["exposure"]["volume"]["update_bytes"] == 3 * 76_000
    assert "30.0 % of plain" in sealed.get("/rounds/2").text and "30.0 % of plain" in sealed.get("/updates/1-2").text
    lines = sealed.get("/updates.csv").text.splitlines()
    columns = lines[0].split(",")
    assert {"encoding", "refers_to", "encrypted", "sealed_at", "update_bytes", "plain_bytes", "epsilon"} <= set(columns)


def test_traffic_is_the_peers_last_word(sealed: Explored) -> None:
    told = sealed.json("/peers/1.json")["bytes"]["traffic"]
    assert (told["update"], told["sent_bytes"], told["received_bytes"]) == ("1#4", 900_000, 1_200_000)
    assert told["rows"][0] == {"peer": 2, "kind": "update", "sent_bytes": 600_000, "received_bytes": 1_000_000}
    assert {row["peer"] for row in told["rows"]} == {2, 3, None}
    overview = sealed.json(".json")["exposure"]
    assert (overview["sent_bytes"], overview["received_bytes"], overview["traffic_peers"]) == (2_700_000, 3_600_000, 3)
    assert sealed.json("/health.json")["harvest"]["sent_bytes"] == 2_700_000
    assert "each by its own word" in sealed.get("").text


def test_a_report_that_names_another_encoding_differs(tmp_path: Path) -> None:
    log = begun()
    told = report(1, 1)
    told["bytes"]["encoding"] = "top-k-delta"
    log.publish(1, 1, report=told)
    one = log.explorer(tmp_path)
    try:
        differs = one.json("/updates/1-1.json")["report"]["differs"]
        assert "the encoding is top-k-delta in the report, f32 on the ledger" in differs
    finally:
        one.stop()


def test_figures_go_with_a_reorganisation(tmp_path: Path) -> None:
    log = played()
    one = log.explorer(tmp_path)
    try:
        size = one.json("/updates/1-3.json")["update"]["entry"]
        log.told.cut(size)
        log.told.admit("other")
        one.look()
        told = one.json(".json")["exposure"]
        assert (told["volume"]["of"], told["encrypted"], told["clear"]) == (6, 5, 1)
        with one.shown.store.reading() as db:
            assert db.execute("SELECT max(idx) < ? FROM told", (size,)).fetchone()[0]
    finally:
        one.stop()


def test_an_index_of_before_keeps_its_reports_and_tells_their_figures(tmp_path: Path) -> None:
    log = played()
    one = log.explorer(tmp_path)
    before = one.json(".json")["exposure"]
    one.stop()
    with one.shown.store.writing() as db:
        for name in ("reports_untold",):
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DROP TABLE told")
        db.execute("UPDATE ui_state SET value = 1 WHERE key = 'schema'")
    again = explored(tmp_path, log.told, SPEC.encode())
    try:
        assert again.json("/health.json")["harvest"]["reports"] == 12
        assert again.json(".json")["exposure"] == before
    finally:
        again.stop()


# ---- privacy spent ---------------------------------------------------------------------------------------------------


def test_privacy_spent_by_update_peer_and_federation(sealed: Explored) -> None:
    update = sealed.json("/updates/1-4.json")["report"]["privacy"]
    assert update["epsilon"] == pytest.approx(5.1) and update["noise_multiplier"] == 1.1
    told = sealed.json("/peers/1.json")["spent"]
    assert [point["round"] for point in told["points"]] == [1, 2, 3, 4] and told["budget"] == 8.0
    assert told["state"] == "within" and "By its own word it has spent epsilon 5.1" in told["words"]
    beyond = sealed.json("/peers/3.json")["spent"]
    assert beyond["state"] == "beyond" and beyond["latest"]["epsilon"] == 9.5
    html = sealed.get("/peers/3").text
    assert "beyond the budget" in html and 'aria-label="Chart: privacy spent by round"' in html
    overview = sealed.json(".json")["exposure"]
    assert [one["peer"] for one in overview["spent"]] == [3, 2, 1]
    assert "a peer may spend epsilon 8 at delta 1e-05" in overview["privacy"]["words"]
    assert [a["kind"] for a in sealed.json("/health.json")["alarms"]].count("over-budget") == 1


def test_when_an_account_is_spent() -> None:
    assert state_of([], 8.0) == "unsaid" and state_of([1.0], None) == "within"
    assert state_of([7.0, 7.6], 8.0) == "spent", "another step as large would go beyond"
    assert state_of([7.0, 7.6, 7.6], 8.0) == "spent", "a closing update spends nothing, and changes nothing"
    assert state_of([5.0], 8.0) == "within", "the first training costs most"
    assert state_of([7.9, 8.0], 8.0) == "spent" and state_of([8.0 + 1e-6], 8.0) == "beyond"


def test_coarse_scores_are_marked(sealed: Explored) -> None:
    assert sealed.json("/updates.json")["federation"]["scores"] == "coarse"
    for path in ("", "/updates", "/updates/1-2", "/peers", "/peers/1", "/sites", "/sites/1", "/rounds/2"):
        assert "rounded to a multiple of 1 %" in sealed.get(path).text, path
    assert "≈ 68.00 %" in sealed.get("/updates").text
    assert "Metrics and confusion matrix are withheld for privacy" in sealed.get("/updates/1-2").text


def test_withheld_scores_are_not_zero(tmp_path: Path) -> None:
    log = begun(SPEC.replace('scores = "coarse"', 'scores = "withheld"'))
    log.publish(1, 1, score_ppm=0, base_score_ppm=0)
    one = log.explorer(tmp_path)
    try:
        html = one.get("/updates").text
        assert ">withheld</span>" in html and "0.00 %" not in html
        assert "Scores are withheld for privacy" in one.get("/updates/1-1").text
    finally:
        one.stop()


def test_the_spec_in_words() -> None:
    spec = ui_private.parse_federation(SPEC.encode()).spec
    assert "in 8 bits a value with a scale for each block of 256" in encoding(spec)[0]
    words = " ".join(privacy(spec))
    assert "a fresh key after 20 rounds" in words and "Gradients of rows are cut to the norm 1" in words
    assert scores_of(PrivacySpec(mechanism="update", score_step_ppm=50_000))[1].endswith("a multiple of 5 %.")


# ---- audits without keys -------------------------------------------------------------------------------------------


def test_unknown_because_encrypted_is_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = played().explorer(tmp_path, verify=True)
    audits = Audits(monkeypatch)
    audits.says = lambda arguments: printed(
        one,
        {
            "1#2": [
                finding("included"),
                Finding("well-formed", Result.UNKNOWN, WITHOUT_KEYS, {"encrypted": True}),
                finding("score", "unknown", "a claim"),
            ],
            "1#3": [finding("well-formed", "unknown", "nobody gives its bytes")],
        },
    )
    try:
        one.shown.jobs.start()
        one.client.post(f"/{one.shown.slug}/audit/verify", headers={"Sec-Fetch-Site": "same-origin"})
        until(lambda: one.json("/audit.json")["audited"] == 2)
        sealed_update, other = one.json("/updates/1-2.json")["audit"], one.json("/updates/1-3.json")["audit"]
        assert sealed_update["only_sealed"] and "fl-node audit --identity FILE" in sealed_update["sealed_words"]
        assert not other["only_sealed"] and other["sealed_words"] == ""
        html = one.get("/updates/1-2").text
        assert "fl-node audit --identity FILE" in html and "unknown: encrypted" in html
        rows = {row["update"]: row for row in one.json("/updates.json")["rows"]}
        assert rows["1#2"]["only_sealed"] and rows["1#2"]["verdict"] == "unknown" and not rows["1#3"]["only_sealed"]
        assert "unknown: encrypted" in one.get("/updates").text
        page = one.json("/audit.json")
        sealed_groups = {(group["check"], group["first"][0]): group["sealed"] for group in page["groups"]}
        assert sealed_groups == {("well-formed", "1#2"): True, ("well-formed", "1#3"): False, ("score", "1#2"): False}
        assert "fl-node audit --identity FILE" in one.get("/audit").text
        assert not [alarm for alarm in one.json("/health.json")["alarms"] if alarm["kind"] in ("failed", "suspicious")]
    finally:
        one.stop()


# ---- strangers -----------------------------------------------------------------------------------------------------

WILD: list[Any] = [
    *(None, True, "1", -1, 1.5, [], {}, [[]], "x" * 100_000, "<script>", 10**400, float("nan"), float("inf"), -0.0),
    {"update": 10**300, "plain": -5, "encoding": ["a"], "zstd": 3, "full": "yes"},
    {"epsilon": "NaN", "delta": [], "steps": 1e300},
    {"epsilon": float("inf"), "mechanism": {"a": 1}},
    {"epsilon": 2**60, "delta": 7, "mechanism": "<script>" * 1000, "budget_epsilon": float("nan")},
    {"epsilon": 3.0, "mechanism": "\ud800\u202e", "scores": "\x00" * 99, "accountant": 5, "steps": True},
    {"sent_bytes": 1, "received_bytes": 2, "sent": [{"peer": 2**70, "kind": 5, "bytes": 1}] * 600, "received": "no"},
    {"sent_bytes": 2**53, "received_bytes": 2**53, "sent": [[[[]]]], "received": [{"bytes": "4"}, None]},
    {"update": MOST_BYTES, "plain": 1},
    {"update": 5, "plain": 0},
]


def test_whatever_a_report_says_pages_stand(tmp_path: Path) -> None:
    log = begun()
    for number, wild in enumerate(WILD, 1):
        told = {**report(1, number), "bytes": wild, "privacy": wild, "traffic": wild}
        log.publish(1, number, report=json.dumps(told).encode())
    deep = b'{"privacy": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    log.publish(1, len(WILD) + 1, report=deep)
    one = log.explorer(tmp_path)
    try:
        paths = ["", "/updates", "/peers", "/peers/1", "/sites/1", "/rounds", "/rounds/1", "/health"]
        for number in range(1, len(WILD) + 2):
            paths.append(f"/updates/1-{number}")
        for path in paths:
            answer = one.get(path)
            assert answer.status_code == 200, path
            assert "<script>" not in answer.text.replace('<script src="', "").replace("<script defer", ""), path
            json.loads(one.get(f"{path}.json").text, parse_constant=pytest.fail)
        for suffix in ("csv", "jsonl"):
            assert one.get(f"/updates.{suffix}").status_code == 200
    finally:
        one.stop()


@pytest.mark.parametrize("wild", WILD)
def test_claims_are_finite_and_bounded(wild: Any) -> None:
    table = {"bytes": wild, "privacy": wild, "traffic": wild}
    size, spent, traffic = bytes_in(table), privacy_in(table), traffic_in(table)
    if size is not None:
        assert 0 <= size.update <= MOST_BYTES and len(size.encoding) <= 40
    if spent is not None:
        assert math.isfinite(spent.epsilon) and 0 <= spent.epsilon <= MOST and len(spent.mechanism) <= 400
        assert spent.budget_epsilon is None or math.isfinite(spent.budget_epsilon)
    if traffic is not None:
        assert traffic.sent_bytes <= MOST and len(traffic.sent) <= 512


def test_a_hostile_log_has_its_pages(tmp_path: Path) -> None:
    """The log of :func:`ui_scribe.hostile` under a spec that asks for encryption."""
    told = hostile(SPEC)
    told.publish(7, 1, 1, flags=Flag.ENCRYPTED, encoding=99 | ZSTD, refers_to=2**63, sealed_at=2**64 - 1)
    told.say(ui_private.PeerAnnounced(8, 1, b"\xff" * 32, ZERO32, ""))
    one = explored(tmp_path, told, SPEC.encode())
    try:
        for row in one.json("/updates.json?limit=500")["rows"]:
            assert one.get(f"/updates/{row['update'].replace('#', '-')}").status_code == 200, row["update"]
        for path in ("", "/health", "/peers", "/peers/8", "/peers/1", "/rounds", "/updates?sealed=no"):
            assert one.get(path).status_code == 200, path
        assert one.json("/updates/7-1.json")["carried"]["encoding"].startswith("unknown")
        assert "no usable X25519 key" in one.json("/peers/8.json")["keys"][0]["trouble"]
    finally:
        one.stop()
