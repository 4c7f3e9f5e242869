"""The health page: what is the matter, by kinds, and one word for those in a hurry."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_demo import Left
from ui_logs import Explored, closing, explored, over, played
from ui_reports import Audits, finding, printed
from ui_scribe import Scribe

from fl_node.records import Flag, Role
from fl_node.spec import parse_federation
from ledger_ui.federation import Shown
from ledger_ui.watch import Watch

SPEC = 'format = 1\nname = "watched"\n[privacy]\nencrypt = false\n'


@pytest.fixture
def told() -> Scribe:
    one = Scribe(parse_federation(SPEC.encode()).digest)
    for site in ("north", "south", "west"):
        one.admit(site)
    one.admit("reader", Role.READ)
    for peer in (1, 2, 3):
        one.publish(peer, 1, 1)
    return one


@pytest.fixture
def one(told: Scribe, tmp_path: Path) -> Iterator[Explored]:
    yield from closing(explored(tmp_path, told, SPEC.encode()))


@pytest.fixture
def today(told: Scribe) -> None:
    """Blocks of now, so that nobody is silent."""
    told.time_s = int(time.time())


def kinds(page: Any) -> list[str]:
    return [alarm["kind"] for alarm in page["alarms"]]


def test_all_is_well_when_it_is(told: Scribe, one: Explored) -> None:
    for peer in (1, 2, 3):
        told.publish(peer, 2, 2, flags=Flag.FINAL)
    one.look()
    page = one.json("/health.json")
    assert (page["word"], page["why"], page["alarms"]) == ("ok", [], [])
    assert page["chain"]["root_agrees"] and page["chain"]["heard_s"] > 0
    assert page["index"]["shown"] == page["index"]["entries"] == told.size
    assert page["index"]["kept_by"] == "this process" and page["index"]["file_bytes"] > 10_000
    assert "All is well" in one.get("/health").text


def test_the_endpoint_is_shown_without_what_may_be_a_key(one: Explored) -> None:
    deployment = one.shown.deployment.model_copy(update={"rpc": "https://user:pw@node.example:8545/v3/KEY?x=SECRET"})
    one.shown.deployment = deployment
    told = one.get("/health.json").text
    assert json.loads(told)["chain"]["endpoint"] == "https://node.example:8545"
    assert "KEY" not in told and "SECRET" not in told and "pw@" not in told
    assert "KEY" not in one.get("/health").text


def test_who_is_silent_is_told_and_who_has_closed_is_not(told: Scribe, one: Explored) -> None:
    told.publish(1, 2, 2, flags=Flag.FINAL)
    told.time_s = int(time.time()) - 10
    told.publish(3, 2, 2)
    one.look()
    page = one.json("/health.json")
    assert kinds(page) == ["silent"] and page["word"] == "attention"
    assert page["alarms"][0]["text"].startswith("south (peer 2) has recorded nothing for ")
    assert page["alarms"][0]["url"].endswith("/peers/2")


def test_an_attestation_is_a_sign_of_life(told: Scribe, one: Explored) -> None:
    for peer in (1, 3):
        told.publish(peer, 2, 2, flags=Flag.FINAL)
    told.time_s = int(time.time()) - 10
    told.attest(2, (1, 1, 500_000))
    one.look()
    assert kinds(one.json("/health.json")) == []


def test_a_chain_that_does_not_answer(told: Scribe, one: Explored) -> None:
    one.shown.follower._tell(state="chain-down", detail="no answer from http://127.0.0.1:9")
    page = one.json("/health.json")
    assert page["word"] == "attention" and page["why"][0] == "chain-down"
    assert kinds(page) == ["chain-unavailable"], "who cannot be heard is not silent"
    assert page["chain"]["root_agrees"] is None


@pytest.mark.parametrize("state", ["inconsistent", "refused"])
def test_a_log_that_cannot_be_followed_is_failing(one: Explored, state: str) -> None:
    one.shown.follower._tell(state=state, detail="the endpoint's entries have another root")
    page = one.json("/health.json")
    assert page["word"] == "failing" and kinds(page)[0] == "inconsistent"
    assert "cannot be followed" in one.get("/health").text


def test_without_any_log_it_is_failing(unseen: Explored) -> None:
    assert unseen.json("/health.json")["word"] == "failing"


@pytest.mark.usefixtures("today")
def test_entries_that_the_chain_dropped(told: Scribe, one: Explored) -> None:
    size = told.size
    told.publish(1, 2, 2)
    one.look()
    told.cut(size)
    told.publish(2, 2, 2, flags=Flag.FINAL)
    one.look()
    page = one.json("/health.json")
    dropped = [alarm for alarm in page["alarms"] if alarm["kind"] == "reorganised"]
    assert len(dropped) == 1 and f"dropped entry {size} (UpdatePublished)" in dropped[0]["text"]
    assert "reorganised" in page["why"]


def test_many_dropped_entries_are_one_alarm(told: Scribe, one: Explored) -> None:
    size = told.size
    for sequence in range(2, 40):
        told.publish(1, sequence, sequence)
    one.look()
    told.cut(size)
    told.publish(1, 2, 2, score_ppm=3)
    one.look()
    dropped = [alarm["text"] for alarm in one.json("/health.json")["alarms"] if alarm["kind"] == "reorganised"]
    assert dropped == ["the chain dropped 38 entries since this index was begun"]


def test_a_latest_update_that_nobody_has(one: Explored) -> None:
    with one.shown.store.writing() as db:
        for idx, haves, lacks in ((5, 0, 2), (6, 1, 2), (7, 0, 0)):
            db.execute(
                "INSERT INTO holders (idx, haves, lacks, silent, asked_at) VALUES (?, ?, ?, 0, 1.0)",
                (idx, haves, lacks),
            )
    page = one.json("/health.json")
    found = [alarm for alarm in page["alarms"] if alarm["kind"] == "unavailable"]
    assert [alarm["text"][:4] for alarm in found] == ["1#1:"] and found[0]["url"].endswith("/updates/1-1")
    assert [(row["update"], row["haves"]) for row in page["content"]] == [("1#1", 0), ("3#1", 0), ("2#1", 1)]


def test_what_audits_found_is_alarming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = over(played(), tmp_path, verify=True)
    audits = Audits(monkeypatch)
    audits.says = printed(
        one,
        {
            "1#1": [finding("merge", "failed", "base differs")],
            "2#1": [finding("originality", "suspicious", "like 1#1")],
            "3#1": [finding("report", "contradicted", "called bad")],
            "4#1": [finding("bytes", "unknown", "gone")],
        },
    )
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    page = one.json("/health.json")
    wrong = [alarm["kind"] for alarm in page["alarms"] if alarm["kind"] in ("failed", "contradicted", "suspicious")]
    assert wrong == ["failed", "contradicted", "suspicious"] and page["word"] == "attention"
    assert page["alarms"][0]["text"] == "1#1: merge failed: base differs"
    assert page["alarms"][0]["url"].endswith("/audit?result=failed&check=merge")
    assert "unknown" not in [alarm["kind"] for alarm in page["alarms"]]
    one.stop()


def test_who_was_retired_is_told_and_is_no_trouble(world: Explored) -> None:
    page = world.json("/health.json")
    retired = [alarm for alarm in page["alarms"] if alarm["kind"] == "retired"]
    assert len(retired) == 1 and "left the consortium" in retired[0]["text"] and retired[0]["url"].endswith("/peers/5")
    assert "retired" not in page["why"]


def test_a_hostile_log_breaks_nothing(hostile: Explored) -> None:
    page = hostile.json("/health.json")
    assert page["alarms"] and "<img src=x" not in hostile.get("/health").text
    assert hostile.get("/health").status_code == 200


def test_peers_that_answer_nobody_are_told_while_the_federation_goes_on(told: Scribe, one: Explored) -> None:
    one.shown.harvests = True
    with one.shown.store.writing() as db:
        told_by = json.dumps({"answering": 0, "announced": 3, "at": 1})
        db.execute("INSERT OR REPLACE INTO ui_state VALUES ('harvest', ?)", (told_by,))
    assert "no-peer-answers" in one.json("/health.json")["why"]
    for peer in (1, 2, 3):
        told.publish(peer, 2, 2, flags=Flag.FINAL)
    one.look()
    page = one.json("/health.json")
    assert "no-peer-answers" not in page["why"] and "all peers have closed" in one.get("/health").text


# ---- the monitor ---------------------------------------------------------------------------------------------------


def test_what_the_monitor_tells_is_kept_once(one: Explored) -> None:
    watch = Watch(one.shown.store, one.file, "", one.shown.changed, lambda: True)
    changes = one.shown.wait(-1, 0)
    for _ in range(2):
        watch._keep("foreign-entry", "entry 3 is signed with peer 1's key", '{"entry": 3, "update": "1#1"}')
    watch._keep("silent", "<b>south</b>", "null")
    one.shown.watches = True
    page = one.json("/health.json")
    found = [alarm for alarm in page["alarms"] if alarm["source"] == "monitor"]
    assert [alarm["kind"] for alarm in found] == ["foreign-entry", "silent"]
    assert found[0]["url"].endswith("/updates/1-1") and found[1]["url"] == ""
    assert one.shown.wait(changes, 0) > changes
    assert "<b>south" not in one.get("/health").text


def test_a_monitor_that_ends_is_told_and_started_again(one: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.watch._AGAIN_S", 0.5)
    one.shown.watches = True
    watch = Watch(one.shown.store, one.file, "http://127.0.0.1:9", one.shown.changed, lambda: True)
    said = []
    say = watch._say
    monkeypatch.setattr(watch, "_say", lambda words: (said.append(words), say(words)))

    def another(than: object) -> subprocess.Popen[bytes]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            process = watch._process
            if process is not None and process is not than:
                return process
            time.sleep(0.05)
        raise AssertionError(f"no monitor runs: {said}")

    watch.start()
    try:
        first = another(None)
        first.kill()
        another(first)
        words = "it ended and is started again in 0 s: code -9"
        assert said == ["running", words, "running"]
        assert one.json("/health.json")["monitor"] == "running"
    finally:
        watch.stop()


def test_the_real_monitor_beside_a_real_federation(left: Left, tmp_path: Path) -> None:
    one = left.explorer(tmp_path, monitor=True, harvest=False, verify=False)
    shown: Shown = one.shown
    shown.start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and one.json("/health.json")["monitor"] != "running":
        time.sleep(0.1)
    assert one.json("/health.json")["monitor"] == "running"
    process = shown.watch._process
    while process is None and time.monotonic() < deadline:
        time.sleep(0.05)
        process = shown.watch._process
    assert process is not None
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 4.0 and process.poll() is not None
