"""The thread that keeps an explorer's index level with the chain, and says how that goes."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, cast

from fl_node.errors import ChainUnavailable, FlNodeError, InconsistentLog, LedgerError
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.protocol import LedgerReader
from ledger_ui.index import made
from ledger_ui.index.fold import Fold
from ledger_ui.index.store import Store
from ledger_ui.index.watched import Waiting, Watched

_MOST_PAUSE_S: Final = 4.0
#: After so long without an answer the chain counts as down, though it is still waited for.
_SILENT_S: Final = 5.0
_LOOK_S: Final = 0.5
_STRANGE: Final = (
    "the index was not made on this computer: its entries are as whoever made it says, and nothing of them is checked "
    "until the chain answers"
)
_log = logging.getLogger(__name__)

#: Gives true while it has more to do: it is asked again at once then, after another look at the chain.
Step = Callable[[LogStore, sqlite3.Connection], bool | None]


@dataclass(frozen=True, slots=True)
class Following:
    """How an index stands to its chain.

    Attributes:
        state: ``starting``; ``catching-up`` (being built, or far behind); ``following``; ``chain-down``;
            ``inconsistent`` (the endpoint's entries do not have the contract's root); ``refused`` (another chain, no
            contract, a disk that is full: ``detail`` says); ``elsewhere`` (another process keeps this index).
        detail: why, in words; empty while all is well.
        since: local time at which this state began, seconds since 1970.
        size: entries in the index; ``folded``: of them, those that pages show.
        block: number of the last block looked at; ``None``: none yet.
        heard_at: local time of the chain's last answer; ``None``: none yet.
    """

    state: str = "starting"
    detail: str = ""
    since: float = 0.0
    size: int = 0
    folded: int = 0
    block: int | None = None
    heard_at: float | None = None


class Follower:
    """Follows one ledger in a thread of its own, whatever happens, until it is told to stop.

    Args:
        store: the index.
        connect: opens the ledger; called again until it answers.
        depth: blocks on top of an entry before it counts as seen.
        poll_s: seconds between looks at the chain.
        changed: called, in the follower's threads, whenever the index or the state is another.
    """

    def __init__(
        self,
        store: Store,
        connect: Callable[[], LedgerReader],
        depth: int,
        poll_s: float = 1.0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._connect, self._depth, self._poll_s, self._changed = store, connect, depth, poll_s, changed
        self._stop, self._now, self._telling = threading.Event(), Following(since=time.time()), threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name="follow", daemon=True),
            threading.Thread(target=self._listen, name="listen", daemon=True),
        ]
        self._after: list[Step] = []
        self._waiting, self._told_at, self._version = Waiting(), 0.0, 0

    @property
    def now(self) -> Following:
        """How it stands; a snapshot."""
        return self._now

    def after_fold(self, step: Step) -> None:
        """Have a step done, in this thread, whenever entries were folded. Before :meth:`start`."""
        self._after.append(step)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def look(self) -> None:
        """Look at the chain once, in the calling thread, instead of :meth:`start`.

        Raises:
            FlNodeError: as the thread would tell by its state.
        """
        had = self._store.claimed
        if not self._store.claim():
            raise LedgerError(f"another process keeps the index {self._store.path}; end it, or name another place")
        try:
            self._store.fit()
            self._follow(once=True)
        finally:
            if not had:
                self._store.release()

    def stop(self) -> None:
        """Come to an end; waits for the step under way, but not for a chain that does not answer."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=5.0)

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s, kept = self._poll_s, False
        while not self._stop.is_set():
            heard, more = self._now.heard_at, False
            try:
                if not self._store.claim():
                    self._look_elsewhere()
                    self._stop.wait(self._poll_s)
                    continue
                if not kept or self._store.place is None:
                    self._store.fit()
                    kept = True
                    self._level_offline()
                self._follow()
            except _StoppedError:
                break
            except _GoneError:
                continue
            except Exception as cause:
                more = self._after_trouble(cause)
            pause_s = self._poll_s if self._now.heard_at != heard else min(2 * pause_s, _MOST_PAUSE_S)
            self._stop.wait(0 if more else pause_s)
        self._store.release()

    def _listen(self) -> None:
        """Say that the chain is silent while it is waited for: an endpoint may take very long not to answer."""
        while not self._stop.wait(_LOOK_S):
            seconds = self._waiting.seconds
            if seconds > _SILENT_S:
                words = f"the chain has not answered for {int(seconds)} seconds; it is still being asked"
                self._tell(state="chain-down", detail=words)

    def _after_trouble(self, cause: Exception) -> bool:
        """Say what is wrong, and make the best of what there is; whether there is more to do at once."""
        try:
            if made.is_damage(cause) or (isinstance(cause, InconsistentLog) and not self._is_sound()):
                self._store.make_anew("the index was damaged: it is being made again")
                self._tell(state="catching-up", detail=self._store.note, size=0, folded=0)
                return True
            self._tell(**_told(cause))
            return self._level_offline()
        except Exception as further:
            self._tell(**_told(further))
            return False

    def _follow(self, once: bool = False) -> None:
        """Until told to stop, or the chain is lost."""
        with self._waiting():
            reader = Watched(self._connect(), self._waiting, self._progress)
        with closing(reader):
            if self._store.foreign:
                reader.head(self._depth)  # so the chain is there
                self._store.make_anew("the index was not made on this computer: it is being made again from the chain")
            ledger = cast(LedgerReader, reader)
            with LedgerIndex(self._store.path, ledger, self._depth) as log, closing(self._store.writer()) as db:
                self._go_on(log, self._folded(log, db), db, once)

    def _go_on(self, log: LedgerIndex, fold: Fold, db: sqlite3.Connection, once: bool) -> None:
        place = self._store.place
        while not self._stop.is_set():
            synced = log.sync()
            if synced.orphaned:
                fold.back_to(min(entry.index for entry in synced.orphaned))
            self._level(log, fold)
            more, trouble = self._steps(log, db)
            self._store.note = ""
            self._tell(state="following", detail=trouble, block=synced.head.block_number, heard_at=time.time())
            if once and not more:
                return
            self._stop.wait(0 if more else self._poll_s)
            if self._store.suspect:
                raise _damaged()
            if self._store.place != place:
                raise _GoneError

    def _folded(self, log: LogStore, db: sqlite3.Connection) -> Fold:
        fold = Fold(db, log)
        if not fold.agrees():
            fold.back_to(0)
        return fold

    def _level(self, log: LogStore, fold: Fold) -> None:
        """Fold what is new."""
        while not self._stop.is_set() and fold.advance():
            if log.size > fold.size:
                detail = f"{fold.size:,} of {log.size:,} entries are worked in"
                self._tell(state="catching-up", detail=detail, size=log.size, folded=fold.size)
        self._tell(size=log.size, folded=fold.size)

    def _steps(self, log: LogStore, db: sqlite3.Connection) -> tuple[bool, str]:
        """Have the steps done: whether some step has more to do, and what went wrong."""
        more, trouble, before = False, "", db.total_changes
        for step in self._after:
            if self._stop.is_set():
                break
            try:
                more = bool(step(log, db)) or more
            except Exception as cause:
                if made.is_damage(cause):
                    raise
                self._complain(cause)
                trouble = f"some of what follows from the log is missing: {_words(cause)}"
        if db.total_changes != before:
            self._changed()
        return more, trouble

    def _level_offline(self) -> bool:
        """Fold what is in the log already, though the chain does not answer; whether some step has more to do."""
        with closing(LogStore(self._store.path)) as log, closing(self._store.writer()) as db:
            fold = self._folded(log, db)
            while not self._stop.is_set() and fold.advance():
                self._tell(size=log.size, folded=fold.size)
            block = db.execute("SELECT value FROM meta WHERE key = 'block'").fetchone()
            self._tell(size=log.size, folded=fold.size, block=block[0] if block else None)
            return self._steps(log, db)[0]

    def _look_elsewhere(self) -> None:
        with self._store.reading() as db:
            known = dict(db.execute("SELECT key, value FROM ui_state WHERE key IN ('folded', 'version')").fetchall())
            meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('size', 'block')").fetchall())
        detail = "another process keeps this index level with the chain"
        size, folded = meta.get("size", 0), known.get("folded") or 0
        self._tell(state="elsewhere", detail=detail, size=size, folded=folded, block=meta.get("block"))
        if known.get("version") != self._version:
            self._version = known.get("version") or 0
            self._changed()

    def _is_sound(self) -> bool:
        """Whether the log in the index still has the root that it had when it was read."""
        with closing(LogStore(self._store.path)) as log:
            return not log.size or log.root() == log.head.root

    def _progress(self, read: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        if time.monotonic() - self._told_at > _LOOK_S:
            self._told_at = time.monotonic()
            self._tell(state="catching-up", detail=f"reading the log from the chain: {read:,} entries so far")

    # ---- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, **news: object) -> None:
        with self._telling:
            before = self._now
            after = replace(before, **news)  # type: ignore[arg-type]
            if "detail" in news:
                notes = (after.detail, self._store.note if self._store.note != after.detail else "", self._strange())
                after = replace(after, detail="; ".join(note for note in notes if note))
            if after.state != before.state:
                after = replace(after, since=time.time())
            self._now = after
        if replace(after, heard_at=None, block=None) != replace(before, heard_at=None, block=None):
            self._changed()

    def _strange(self) -> str:
        try:
            return _STRANGE if self._store.foreign else ""
        except sqlite3.Error:
            return ""

    def _complain(self, cause: Exception) -> None:
        _log.warning("the explorer goes on, but: %s", _words(cause), exc_info=cause)


class _StoppedError(Exception):
    """It is over."""


class _GoneError(Exception):
    """Somebody has deleted the index, as anybody may at any time."""


def _damaged() -> sqlite3.DatabaseError:
    found = sqlite3.DatabaseError("the index is damaged")
    found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return found


def _told(cause: Exception) -> dict[str, str]:
    """State and words for what ended the following."""
    if isinstance(cause, ChainUnavailable):
        return {"state": "chain-down", "detail": str(cause)}
    if isinstance(cause, InconsistentLog):
        return {"state": "inconsistent", "detail": str(cause)}
    if isinstance(cause, FlNodeError):
        return {"state": "refused", "detail": str(cause)}
    if isinstance(cause, sqlite3.Error | OSError):
        return {"state": "refused", "detail": f"the index cannot be kept: {_words(cause)}; check its folder and disk"}
    _log.warning("the explorer cannot follow the chain", exc_info=cause)
    return {"state": "refused", "detail": f"the explorer went wrong, and goes on trying: {_words(cause)}"}


def _words(cause: Exception) -> str:
    return f"{type(cause).__name__}: {cause}"[:300]
