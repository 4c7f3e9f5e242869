"""The queue of audits and packs: who asks again, who asks too much, what goes wrong, and what is kept of a result."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_logs import Explored, closing, explored
from ui_reports import Audits, finding, printed
from ui_scribe import Scribe

from fl_node.records import UpdateRef
from fl_node.spec import parse_federation
from ledger_ui import child, jobs
from ledger_ui.index.audits import NotAReport, report_in
from ledger_ui.jobs import Busy, Jobs, scope_of
from ledger_ui.packs import Pack, Packs

SPEC = 'format = 1\nname = "watched"\n'
ONE = scope_of(UpdateRef(1, 1))


@pytest.fixture
def ledger() -> Scribe:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    for site in ("north", "south"):
        told.admit(site)
    for peer in (1, 2):
        for sequence in (1, 2):
            told.publish(peer, sequence, sequence)
    return told


@pytest.fixture
def one(ledger: Scribe, tmp_path: Path) -> Iterator[Explored]:
    yield from closing(explored(tmp_path, ledger, SPEC.encode(), verify=True))


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> Audits:
    return Audits(monkeypatch)


def audit_of(one: Explored, number: int) -> Any:
    with one.shown.store.reading() as db:
        return dict(db.execute("SELECT * FROM audits WHERE id = ?", (number,)).fetchone())


def verdicts(one: Explored) -> list[tuple[Any, ...]]:
    with one.shown.store.reading() as db:
        rows = db.execute("SELECT peer, sequence, verdict, verdict_size FROM updates ORDER BY idx").fetchall()
    return [tuple(row) for row in rows]


def findings(one: Explored) -> list[tuple[Any, ...]]:
    with one.shown.store.reading() as db:
        rows = db.execute("SELECT idx, check_name, result, detail, repeat FROM verdicts ORDER BY idx, position")
        return [tuple(row) for row in rows.fetchall()]


# ---- a result ------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_by_update(one: Explored, audits: Audits) -> None:
    audits.code = 40
    audits.says = printed(one, {"1#1": [finding("canonical"), finding("merge", "failed", "base 1 is not 2")]})
    asked = one.shown.jobs.ask(ONE)
    assert asked.state == "queued" and audit_of(one, asked.id)["state"] == "queued"
    assert one.shown.jobs.work()
    assert audits.asked == [
        ["audit", "--federation", str(one.file), "--json", "--jobs", "1", "--from", "3", "--to", "4"]
    ]
    done = audit_of(one, asked.id)
    assert (done["state"], done["verdict"], done["size"]) == ("done", "failed", 7)
    assert done["root"].hex() == one.json("/updates.json")["federation"]["root"]
    assert json.loads(done["told"])["notes"] == ["a note"] and "updates" not in json.loads(done["told"])
    assert verdicts(one) == [(1, 1, "failed", 7), (1, 2, None, None), (2, 1, None, None), (2, 2, None, None)]
    assert findings(one) == [
        (3, "canonical", "ok", "as it should be", "repeat canonical"),
        (3, "merge", "failed", "base 1 is not 2", "repeat merge"),
    ]
    assert not one.shown.jobs.work(), "there is nothing else"


def test_the_whole_log_is_audited_in_one_go(one: Explored, audits: Audits) -> None:
    refs = ("1#1", "1#2", "2#1", "2#2")
    audits.says = printed(one, {ref: [finding("bytes", "unknown", f"{ref} is nowhere")] for ref in refs})
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    assert "--from" not in audits.asked[0]
    assert [row[2] for row in verdicts(one)] == ["unknown"] * 4


def test_a_later_audit_takes_the_place_of_an_earlier_one(one: Explored, audits: Audits, ledger: Scribe) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes", "unknown"), finding("merge", "unknown")]})
    one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    ledger.publish(1, 3, 3)
    one.look()
    audits.says = printed(one, {"1#1": [finding("bytes")]})
    one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    assert findings(one) == [(3, "bytes", "ok", "as it should be", "repeat bytes")]
    assert verdicts(one)[0] == (1, 1, "ok", 8)


def test_a_result_of_another_log_is_no_verdict(one: Explored, audits: Audits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.index.audits._CATCH_UP_S", 0.0)
    audits.says = printed(one, {"1#1": [finding("bytes")]}, root=bytes(32))
    asked = one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    done = audit_of(one, asked.id)
    assert done["state"] == "done" and "not the one that is shown here" in done["detail"]
    assert verdicts(one)[0] == (1, 1, None, None) and findings(one) == []


def test_updates_that_the_log_has_not_are_left_out(one: Explored, audits: Audits) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")], "7#7": [finding("bytes", "failed")]})
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    assert len(findings(one)) == 1 and verdicts(one)[0][2] == "ok"


def test_verdicts_go_with_the_entries_that_a_reorganisation_drops(
    one: Explored, audits: Audits, ledger: Scribe
) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")]})
    one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    ledger.publish(2, 3, 3)
    one.look()
    audits.says = printed(one, {ref: [finding("bytes")] for ref in ("1#2", "2#3")})
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    assert [row[2] for row in verdicts(one)] == ["ok", "ok", None, None, "ok"]
    ledger.cut(7)
    ledger.publish(2, 3, 3, score_ppm=1)
    one.look()
    assert [row[2] for row in verdicts(one)] == ["ok", None, None, None, None], "only what was of the log as it is now"
    assert [row[0] for row in findings(one)] == [3]


def test_verdicts_outlive_a_making_anew_of_the_tables(
    one: Explored, audits: Audits, ledger: Scribe, tmp_path: Path
) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes"), finding("merge", "failed")], "2#1": [finding("bytes")]})
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    _made_anew(one)
    again = explored(tmp_path, ledger, SPEC.encode())
    assert [row[2:] for row in verdicts(again)] == [("failed", 7), (None, None), ("ok", 7), (None, None)]
    assert len(findings(again)) == 3 and again.json("/audit.json")["groups"][0]["first"] == ["1#1"]
    again.stop()


def test_but_not_verdicts_of_another_log(one: Explored, audits: Audits, ledger: Scribe, tmp_path: Path) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")], "2#2": [finding("bytes")]})
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    _made_anew(one)
    ledger.cut(6)
    ledger.publish(2, 2, 2, score_ppm=5)
    again = explored(tmp_path, ledger, SPEC.encode())
    assert [row[2] for row in verdicts(again)] == [None] * 4 and findings(again) == []
    again.stop()


def test_while_the_tables_are_made_anew_the_page_is_there(one: Explored, audits: Audits) -> None:
    audits.says = printed(one, {"1#1": [finding("merge", "failed")]})
    one.shown.jobs.ask("all")
    one.shown.jobs.work()
    with one.shown.store.writing() as db:
        db.execute("DELETE FROM updates")
    assert one.json("/audit.json")["groups"] == [] and one.get("/health").status_code == 200


def _made_anew(one: Explored) -> None:
    """Its index is of another version."""
    with one.shown.store.writing() as db:
        db.execute("UPDATE ui_state SET value = -1 WHERE key = 'schema'")
        db.execute("DROP INDEX updates_ref")
    one.stop()


# ---- asking --------------------------------------------------------------------------------------------------------


def test_asking_again_gives_what_is_under_way_and_then_what_is_kept(one: Explored, audits: Audits) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")]})
    first = one.shown.jobs.ask(ONE)
    assert one.shown.jobs.ask(ONE) == first
    one.shown.jobs.work()
    kept = one.shown.jobs.ask(ONE)
    assert (kept.id, kept.state) == (first.id, "done")
    assert not one.shown.jobs.work() and len(audits.asked) == 1


def test_at_another_root_it_is_audited_anew(one: Explored, audits: Audits, ledger: Scribe) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")]})
    first = one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    ledger.admit("west")
    one.look()
    again = one.shown.jobs.ask(ONE)
    assert again.id != first.id and again.state == "queued"


def test_what_was_not_known_may_be_asked_for_again_after_a_while(
    one: Explored, audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes", "unknown")]})
    first = one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    assert one.shown.jobs.ask(ONE).state == "done"
    monkeypatch.setattr(jobs, "_STALE_S", 0.0)
    assert one.shown.jobs.ask(ONE).id != first.id


def test_a_failure_is_told_and_not_repeated_at_once(
    one: Explored, audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    audits.code, audits.words = 11, "the chain does not answer"
    first = one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    again = one.shown.jobs.ask(ONE)
    assert (again.id, again.state, again.detail) == (first.id, "failed", "the chain does not answer")
    monkeypatch.setattr(jobs, "_AGAIN_S", 0.0)
    assert one.shown.jobs.ask(ONE).state == "queued"


def test_too_many_waiting_are_refused_with_words(one: Explored) -> None:
    for number in range(jobs.MOST_WAITING):
        one.shown.jobs.ask(f"pack round {number}")
    with pytest.raises(Busy, match="8 are waiting already"):
        one.shown.jobs.ask(ONE)
    assert one.shown.jobs.ask("pack round 3").state == "queued", "what waits already is no new question"


def test_too_many_within_a_minute_are_refused(one: Explored, audits: Audits) -> None:
    audits.code = 1
    for number in range(jobs.MOST_A_MINUTE):
        one.shown.jobs.ask(f"pack round {number}")
        one.shown.jobs.work()
    with pytest.raises(Busy, match="within a minute") as caught:
        one.shown.jobs.ask(ONE)
    assert caught.value.retry_s == 60


def test_those_who_ask_are_served_in_their_order(one: Explored, audits: Audits) -> None:
    audits.says = printed(one, {})
    for ref in ("2#1", "1#2", "1#1"):
        one.shown.jobs.ask(f"update {ref}")
    while one.shown.jobs.work():
        pass
    assert [asked[-4:] for asked in audits.asked] == [
        ["--from", "5", "--to", "6"],
        ["--from", "4", "--to", "5"],
        ["--from", "3", "--to", "4"],
    ]


# ---- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", ["", "no JSON", "[]", "{", '{"facts": 1}', '{"facts": {"size": 3}, "verdict": "ok"}', "[" * 9999]
)
def test_what_is_no_report_is_a_failure(one: Explored, audits: Audits, said: str) -> None:
    audits.says = said
    asked = one.shown.jobs.ask(ONE)
    one.shown.jobs.work()
    assert audit_of(one, asked.id)["state"] == "failed" and audit_of(one, asked.id)["detail"]


def test_a_defect_leaves_nothing_running(one: Explored, audits: Audits, capfd: pytest.CaptureFixture[str]) -> None:
    audits.says = RuntimeError("a defect")
    asked = one.shown.jobs.ask(ONE)
    assert one.shown.jobs.work()
    assert audit_of(one, asked.id)["state"] == "failed"
    assert "a defect" in audit_of(one, asked.id)["detail"] and "a defect" in capfd.readouterr().err
    audits.says = printed(one, {})
    one.shown.jobs.ask("all")
    assert one.shown.jobs.work(), "the next one is not held up"


def test_an_explorer_that_ended_in_the_middle_leaves_nothing_running(one: Explored) -> None:
    asked = [one.shown.jobs.ask(scope).id for scope in (ONE, "all")]
    with one.shown.store.writing() as db:
        db.execute("UPDATE audits SET state = 'running', asked_at = ? WHERE id = ?", (time.time() - 3600, asked[0]))
        db.execute("UPDATE audits SET state = 'running' WHERE id = ?", (asked[1],))
    one.shown.jobs.recover()
    assert audit_of(one, asked[0])["state"] == "failed" and "ended before" in audit_of(one, asked[0])["detail"]
    assert audit_of(one, asked[1])["state"] == "queued"


def test_an_update_that_is_gone_meanwhile_is_told(one: Explored, ledger: Scribe, audits: Audits) -> None:
    asked = one.shown.jobs.ask(scope_of(UpdateRef(2, 2)))
    ledger.cut(6)
    one.look()
    one.shown.jobs.work()
    assert "not have this update any more" in audit_of(one, asked.id)["detail"] and audits.asked == []


def test_a_process_that_only_reads_leaves_the_work_to_the_one_that_follows(one: Explored, audits: Audits) -> None:
    leads = threading.Event()
    other = Jobs(one.shown.store, one.file, "http://127.0.0.1:9", lambda: None, leads.is_set)
    audits.says = printed(one, {})
    asked = one.shown.jobs.ask("all")
    other.start()
    time.sleep(0.3)
    assert audit_of(one, asked.id)["state"] == "queued"
    leads.set()
    deadline = time.monotonic() + 10
    while audit_of(one, asked.id)["state"] != "done" and time.monotonic() < deadline:
        time.sleep(0.05)
    other.stop()
    assert audit_of(one, asked.id)["state"] == "done"


def test_a_keeper_that_runs_no_audits_says_so_to_those_who_asked_elsewhere(one: Explored, audits: Audits) -> None:
    keeper = Jobs(one.shown.store, one.file, "http://127.0.0.1:9", lambda: None, lambda: True, works=False)
    asked = one.shown.jobs.ask("all")
    keeper.start()
    deadline = time.monotonic() + 10
    while audit_of(one, asked.id)["state"] == "queued" and time.monotonic() < deadline:
        time.sleep(0.05)
    keeper.stop()
    assert audit_of(one, asked.id)["state"] == "failed" and "--no-verify" in audit_of(one, asked.id)["detail"]
    assert audits.asked == []


# ---- children ------------------------------------------------------------------------------------------------------


def _forever(one: Explored) -> list[str]:
    return ["ui", "--federation", str(one.file), "--port", "0", "--no-harvest"]


def _there(file: Path) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and folder.name != "self":
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(file) in line and "ui --federation" in line:
                found.append(line)
    return found


def test_a_child_that_takes_too_long_is_ended(one: Explored, tmp_path: Path) -> None:
    stop = threading.Event()
    ended = child.run(_forever(one), tmp_path / "out", child.Limits(1.5, 1 << 20), stop.wait, rpc="http://127.0.0.1:9")
    assert ended.code is None and "took more than 2 s" in ended.words
    assert _there(one.file) == []


def test_a_child_is_ended_with_the_explorer(one: Explored, tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    began = time.monotonic()
    ended = child.run(_forever(one), tmp_path / "out", child.Limits(60.0, 1 << 20), stop.wait, rpc="http://127.0.0.1:9")
    assert time.monotonic() - began < 4.0
    assert ended.code is None and "stopped" in ended.words and _there(one.file) == []


def test_a_child_that_writes_too_much_is_ended(one: Explored, tmp_path: Path) -> None:
    stop = threading.Event()
    ended = child.run(["doctor", "--help"], tmp_path / "out", child.Limits(60.0, 1 << 20), stop.wait, rpc="")
    assert ended.code == 0 and (tmp_path / "out").stat().st_size > 500
    ended = child.run(
        [*_forever(one), "--json"], tmp_path / "out", child.Limits(60.0, 20), stop.wait, rpc="http://127.0.0.1:9"
    )
    assert ended.code is None and "wrote more than 20 bytes" in ended.words


def test_what_a_child_says_is_told_and_the_endpoint_is_not_on_its_command_line(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    stop = threading.Event()
    ended = child.run(["audit", "--federation", str(file), "--json"], tmp_path / "out", jobs.ONE, stop.wait, rpc="x")
    assert ended.code == 3 and ended.words.startswith("cannot read the federation file")


# ---- pieces --------------------------------------------------------------------------------------------------------


def test_a_report_is_read_as_json_has_it(one: Explored) -> None:
    text = printed(one, {f"1#{number}": [finding("bytes"), finding("merge", "failed")] for number in range(1, 40)})
    for spaced in (text, json.dumps(json.loads(text)), json.dumps(json.loads(text), indent=3).replace("\n", "\r\n\t")):
        got: list[Any] = []
        told = report_in(spaced, got.append)
        whole = json.loads(text)
        assert got == whole.pop("updates") and told == whole


def test_a_report_that_is_cut_short_is_none(one: Explored) -> None:
    text = printed(one, {"1#1": [finding("bytes")]})
    for at in range(0, len(text) - 1, 97):
        with pytest.raises(NotAReport):
            report_in(text[:at], lambda _: None)


@pytest.mark.parametrize(
    ("pack", "scope", "flags"),
    [
        (Pack(), "pack all", ["--all"]),
        (Pack(round=3, blobs=True), "pack round 3 blobs", ["--round", "3", "--blobs"]),
        (Pack(update=UpdateRef(3, 12)), "pack update 3#12", ["--update", "3#12"]),
    ],
)
def test_packs_by_their_scope(pack: Pack, scope: str, flags: list[str]) -> None:
    assert pack.scope == scope and Pack.of_scope(scope) == pack and pack.flags() == flags


def test_what_is_no_pack() -> None:
    for scope in ("all", ONE, "pack", "pack round -1", "pack all --out /etc/passwd", "pack update 3-12"):
        assert Pack.of_scope(scope) is None


def test_packs_are_kept_by_root_for_a_while_and_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "federation.toml"
    file.touch()
    packs = Packs(file)
    for number in range(12):
        made = tmp_path / "made.zip"
        made.write_bytes(b"pack %d" % number)
        assert packs.keep(Pack(round=number), b"root", made, '{"missing": []}') == ""
    assert packs.find(Pack(round=0), b"root") is None, "the oldest went"
    found = packs.find(Pack(round=11), b"root")
    assert found is not None and found.read_bytes() == b"pack 11" and found.stat().st_mode & 0o077 in (0, 0o044)
    assert packs.find(Pack(round=11), b"other") is None and packs.find(Pack(round=11, blobs=True), b"root") is None
    monkeypatch.setattr("ledger_ui.packs._KEPT_S", -1.0)
    assert packs.find(Pack(round=11), b"root") is None
    packs.forget()
    assert not found.exists()


def test_what_a_pack_lacks_is_told(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.touch()
    made = tmp_path / "made.zip"
    made.write_bytes(b"x")
    told = Packs(file).keep(Pack(), b"r", made, json.dumps({"missing": [f"report of 1#{n}" for n in range(5)]}))
    assert told == "not in it: report of 1#0; report of 1#1; report of 1#2; and 2 more"
