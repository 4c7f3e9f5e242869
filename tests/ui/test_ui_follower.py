"""How an explorer stands to its chain, whatever the chain does."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ui_logs import SOON_S, SPEC, Explored, explored, until
from ui_scribe import Scribe
from wild_logs import fresh, tables

from fl_node.errors import ChainUnavailable, LedgerError, WrongLedger
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.protocol import LedgerReader, News
from fl_node.records import PPM
from fl_node.spec import parse_federation
from ledger_ui.index.follower import Follower

DIGEST = parse_federation(SPEC.encode()).digest


def scribe(peers: int = 2) -> Scribe:
    told = Scribe(DIGEST)
    for number in range(peers):
        told.admit(f"site-{number}")
    return told


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Explored]]:
    """Explorers that follow, and end with the test."""
    running: list[Explored] = []

    def begin(told: LedgerReader, name: str = "f", **more: Any) -> Explored:
        one = explored(tmp_path / name, told, look=False, poll_s=0.02, verify=False, **more)
        running.append(one)
        one.shown.follower.start()
        return one

    yield begin
    for one in running:
        one.stop()


def state(one: Explored) -> str:
    return one.shown.follower.now.state


def is_level(one: Explored, told: Scribe) -> Callable[[], bool]:
    return lambda: state(one) == "following" and one.shown.follower.now.folded == told.size


# ---- the chain comes and goes ----------------------------------------------------------------------------------------


def test_it_follows_a_chain(start: Callable[..., Explored]) -> None:
    told = scribe()
    one = start(told)
    until(is_level(one, told))
    heard = one.shown.wait(-1, 0)
    told.publish(1, 1, 1)
    until(lambda: one.json("/updates.json")["paging"]["total"] == 1)
    assert one.shown.wait(heard, SOON_S) > heard, "those who wait are woken"
    now = one.shown.follower.now
    assert now.detail == "" and now.size == now.folded == told.size and now.block == told.size
    assert now.heard_at is not None and time.time() - now.heard_at < SOON_S


def test_a_chain_that_is_down_at_the_start(start: Callable[..., Explored]) -> None:
    told = scribe()
    told.down = True
    one = start(told)
    until(lambda: state(one) == "chain-down")
    assert "connection refused" in one.shown.follower.now.detail
    answer = one.json("/updates.json")
    assert answer["rows"] == [] and answer["federation"]["state"] == "chain-down"
    told.down = False
    until(is_level(one, told))


def test_an_index_tells_everything_while_the_chain_is_down(start: Callable[..., Explored], tmp_path: Path) -> None:
    told = scribe()
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, (1, 1, PPM))
    explored(tmp_path / "f", told).stop()
    told.down = True
    one = start(told)
    assert one.json("/updates.json")["paging"]["total"] == 2, "at once, before the chain is asked"
    until(lambda: state(one) == "chain-down")
    frame = one.json("/updates.json")["federation"]
    assert (frame["size"], frame["block"], frame["behind"]) == (told.size, told.size, 0)


def test_a_chain_that_ends_is_seen_and_one_that_returns_is_followed(start: Callable[..., Explored]) -> None:
    told = scribe()
    one = start(told)
    until(is_level(one, told))
    told.down = True
    before = time.monotonic()
    until(lambda: state(one) == "chain-down")
    assert time.monotonic() - before < 3
    told.publish(1, 1, 1)
    time.sleep(0.2)
    told.down = False
    before = time.monotonic()
    until(is_level(one, told))
    assert time.monotonic() - before < 6


def test_a_log_is_folded_though_the_chain_does_not_answer(start: Callable[..., Explored], tmp_path: Path) -> None:
    """The process ended between reading and folding."""
    told = scribe()
    told.publish(1, 1, 1)
    first = explored(tmp_path / "f", told)
    first.stop()
    with sqlite3.connect(first.shown.store.path) as db:
        db.execute("DELETE FROM updates")
        db.execute("UPDATE ui_state SET value = 2 WHERE key = 'folded'")
        root = LogStore(first.shown.store.path).root(2)
        db.execute("UPDATE ui_state SET value = ? WHERE key = 'folded_root'", (root,))
        db.execute("DELETE FROM peers WHERE peer = 2")
        db.execute("DELETE FROM sites WHERE site = 2")
    db.close()
    told.down = True
    one = start(told)
    until(lambda: one.shown.follower.now.folded == told.size)
    assert one.json("/updates.json")["paging"]["total"] == 1


class Silent:
    """A ledger that keeps whoever asks it waiting."""

    def __init__(self, told: Scribe) -> None:
        self.told, self.go_on = told, threading.Event()
        self.go_on.set()

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        if not self.go_on.wait(60):
            raise ChainUnavailable("timed out")
        return self.told.news(known, depth)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.told, name)


def test_silence_counts_as_down(start: Callable[..., Explored], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.index.follower._SILENT_S", 0.3)
    monkeypatch.setattr("ledger_ui.index.follower._LOOK_S", 0.05)
    told = scribe()
    silent = Silent(told)
    one = start(silent)
    until(is_level(one, told))
    silent.go_on.clear()
    until(lambda: state(one) == "chain-down")
    assert "has not answered for" in one.shown.follower.now.detail
    told.publish(1, 1, 1)
    silent.go_on.set()
    until(is_level(one, told))
    assert one.shown.follower.now.detail == ""


def test_stopping_does_not_wait_for_a_silent_chain(start: Callable[..., Explored]) -> None:
    silent = Silent(scribe())
    silent.go_on.clear()
    one = start(silent)
    until(lambda: one.shown.follower._waiting.seconds > 0)
    before = time.monotonic()
    one.stop()
    assert time.monotonic() - before < 15
    silent.go_on.set()


# ---- what a chain should not do --------------------------------------------------------------------------------------


def test_a_reorganisation_is_followed(start: Callable[..., Explored], tmp_path: Path) -> None:
    told = scribe()
    one = start(told)
    until(is_level(one, told))
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, (1, 1, PPM))
    until(is_level(one, told))
    told.cut(3)
    told.publish(2, 1, 1)
    until(lambda: one.json("/updates.json")["paging"]["total"] == 1)
    until(is_level(one, told))
    with one.shown.store.reading() as db:
        assert tables(db) == fresh(tmp_path / "fresh", told)
        assert db.execute("SELECT count(*) FROM orphans").fetchone()[0] == 2


def test_lies_are_told(start: Callable[..., Explored]) -> None:
    told = scribe()
    one = start(told)
    until(is_level(one, told))
    told.publish(1, 1, 1)
    true = told.logs_made[-1]
    told.logs_made[-1] = replace(true, data=true.data[:-1] + b"\1")
    honest, told.head = told.head, lambda *_: replace(honest_head, root=b"\7" * 32)  # type: ignore[method-assign]
    honest_head = honest()
    until(lambda: state(one) == "inconsistent")
    assert "does not match the contract" in one.shown.follower.now.detail
    assert one.json("/updates.json")["rows"] == [], "nothing of it is kept"
    told.logs_made[-1], told.head = true, honest  # type: ignore[method-assign]
    until(is_level(one, told))


def test_another_chain_is_refused(start: Callable[..., Explored]) -> None:
    told, right = scribe(), [False]

    def connect() -> LedgerReader:
        if not right[0]:
            raise WrongLedger("http://x is chain 5; expected 31337, the federation's")
        return told

    one = start(told, connect=connect)
    until(lambda: state(one) == "refused")
    assert "chain 5" in one.shown.follower.now.detail
    right[0] = True
    until(is_level(one, told))


@pytest.mark.parametrize(
    "cause", [ValueError("odd"), KeyError("x"), MemoryError(), RecursionError("deep"), OSError(28)]
)
def test_nothing_ends_the_thread(start: Callable[..., Explored], cause: Exception) -> None:
    told, trouble = scribe(), [True]

    def connect() -> LedgerReader:
        if trouble[0]:
            raise cause
        return told

    one = start(told, connect=connect)
    until(lambda: state(one) == "refused")
    assert type(cause).__name__ in one.shown.follower.now.detail
    assert one.get("/updates").status_code == 200
    trouble[0] = False
    until(is_level(one, told))
    assert one.shown.follower.now.detail == ""


def test_a_step_that_fails_does_not_keep_others_from_following(
    start: Callable[..., Explored], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, trouble, seen = scribe(), [True], []

    def fails(log: LogStore, db: sqlite3.Connection) -> None:
        if trouble[0]:
            raise ValueError("no such luck")

    def sees(log: LogStore, db: sqlite3.Connection) -> None:
        seen.append(log.size)

    monkeypatch.setattr("ledger_ui.federation.Replayed", lambda spec: fails)
    monkeypatch.setattr(
        "ledger_ui.index.follower.Follower.start",
        lambda self: (self.after_fold(sees), [thread.start() for thread in self._threads]),
    )
    one = start(told)
    until(lambda: "no such luck" in one.shown.follower.now.detail)
    assert state(one) == "following"
    told.publish(1, 1, 1)
    until(lambda: told.size in seen)
    trouble[0] = False
    until(lambda: one.shown.follower.now.detail == "")


def test_depth_is_kept(tmp_path: Path, start: Callable[..., Explored]) -> None:
    told = scribe()
    deep = SPEC.replace("planned = 4", "planned = 4\ndepth = 2").encode()
    told.identity = replace(told.identity, spec_digest=parse_federation(deep).digest)
    one = start(told, spec_bytes=deep)
    until(lambda: one.shown.follower.now.folded == told.size - 2)
    told.raw()
    told.raw()
    until(is_level(one, told))


@pytest.mark.parametrize("down", [False, True])
def test_an_index_may_be_deleted_at_any_time(start: Callable[..., Explored], down: bool) -> None:
    told = scribe()
    told.publish(1, 1, 1)
    one = start(told)
    until(is_level(one, told))
    told.down = down
    if down:
        until(lambda: state(one) == "chain-down")
    for file in one.shown.store.path.parent.glob("*.explorer.sqlite*"):
        if not file.name.endswith(".lock"):
            file.unlink()
    until(one.shown.store.path.is_file)
    told.down = False
    until(lambda: one.get("/updates.json").get_json().get("paging", {}).get("total") == 1)
    until(is_level(one, told))


# ---- several processes -----------------------------------------------------------------------------------------------


def test_one_keeps_an_index_and_others_read_it(start: Callable[..., Explored]) -> None:
    told = scribe()
    one = start(told)
    until(is_level(one, told))
    asked = told.asked
    other = start(told)
    until(lambda: state(other) == "elsewhere")
    heard = other.shown.wait(-1, 0)
    told.publish(1, 1, 1)
    until(lambda: other.shown.follower.now.folded == told.size)
    assert other.json("/updates.json")["paging"]["total"] == 1
    assert other.shown.wait(heard, SOON_S) > heard
    assert told.asked > asked
    one.stop()
    told.publish(1, 2, 2)
    until(is_level(other, told))
    assert other.json("/updates.json")["paging"]["total"] == 2


def test_looking_once_needs_the_index_for_oneself(start: Callable[..., Explored], tmp_path: Path) -> None:
    told = scribe()
    one = start(told)
    until(is_level(one, told))
    other = explored(tmp_path / "f", told, look=False)
    with pytest.raises(LedgerError, match="another process keeps the index"):
        other.look()
    one.stop()
    other.look()
    other.stop()


def test_reading_the_log_for_the_first_time_is_told(
    start: Callable[..., Explored], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_ui.index.watched._TOLD_EVERY", 1)
    monkeypatch.setattr("ledger_ui.index.follower._LOOK_S", 0.0)
    told, said = scribe(), []
    for sequence in range(1, 20):
        told.publish(1, sequence, sequence)
    tell = Follower._tell

    def heard(self: Follower, **news: object) -> None:
        said.append(news)
        tell(self, **news)

    monkeypatch.setattr(Follower, "_tell", heard)
    until(is_level(start(told), told))
    reading = [news for news in said if "reading the log" in str(news.get("detail"))]
    assert reading and reading[0]["state"] == "catching-up"
