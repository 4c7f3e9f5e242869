"""The thread that keeps an explorer's index level with the chain, and says how that goes."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fl_node.errors import ChainUnavailable, FlNodeError, InconsistentLog, LedgerError
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.protocol import LedgerReader
from ledger_ui.index.fold import Fold
from ledger_ui.index.store import Store

_MOST_PAUSE_S: Final = 15.0

#: Gives true while it has more to do: it is asked again at once then, after another look at the chain.
Step = Callable[[LogStore, sqlite3.Connection], bool | None]


@dataclass(frozen=True, slots=True)
class Following:
    """How an index stands to its chain.

    Attributes:
        state: ``starting``; ``catching-up`` (being built, or far behind); ``following``; ``chain-down``;
            ``inconsistent`` (the endpoint's entries do not have the contract's root); ``refused`` (another chain, no
            contract); ``elsewhere`` (another process keeps this index).
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
    """Follows one ledger in a thread of its own.

    Args:
        store: the index.
        connect: opens the ledger; called again until it answers.
        depth: blocks on top of an entry before it counts as seen.
        poll_s: seconds between looks at the chain.
        changed: called, in the follower's thread, whenever the index or the state is another.
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
        self._stop, self._now = threading.Event(), Following(since=time.time())
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._after: list[Step] = []

    @property
    def now(self) -> Following:
        """How it stands; a snapshot."""
        return self._now

    def after_fold(self, step: Step) -> None:
        """Have a step done, in this thread, whenever entries were folded. Before :meth:`start`."""
        self._after.append(step)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Look at the chain once, in the calling thread, instead of :meth:`start`.

        Raises:
            FlNodeError: as the thread would tell by its state.
        """
        self._follow(once=True)

    def stop(self) -> None:
        """Come to an end; waits for the step under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30.0)

    # ---- below -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        lock = _lock(self._store.path)
        while lock is None and not self._stop.is_set():
            self._tell(state="elsewhere", detail="another process keeps this index level with the chain")
            self._look_elsewhere()
            self._stop.wait(self._poll_s)
            lock = _lock(self._store.path)
        pause_s = self._poll_s
        while not self._stop.is_set():
            try:
                self._follow()
                return
            except ChainUnavailable as cause:
                self._tell(state="chain-down", detail=str(cause))
            except InconsistentLog as cause:
                self._tell(state="inconsistent", detail=str(cause))
            except (FlNodeError, sqlite3.Error, OSError) as cause:
                self._tell(state="refused", detail=str(cause))
            more = self._level_offline()
            self._stop.wait(0 if more else pause_s)
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)
        if lock is not None:
            os.close(lock)

    def _follow(self, once: bool = False) -> None:
        """Until told to stop, or the chain is lost."""
        reader = self._connect()
        try:
            with LedgerIndex(self._store.path, reader, self._depth) as log:
                db = self._store.writer()
                try:
                    self._go_on(log, Fold(db, log), db, once)
                finally:
                    db.close()
        finally:
            close = getattr(reader, "close", None)
            if close is not None:
                close()

    def _go_on(self, log: LedgerIndex, fold: Fold, db: sqlite3.Connection, once: bool) -> None:
        if not fold.agrees():
            fold.back_to(0)
        while not self._stop.is_set():
            synced = log.sync()
            if synced.orphaned:
                fold.back_to(min(entry.index for entry in synced.orphaned))
            more = self._level(log, fold, db)
            self._tell(state="following", detail="", block=synced.head.block_number, heard_at=time.time())
            if once and not more:
                return
            self._stop.wait(0 if more else self._poll_s)

    def _level(self, log: LogStore, fold: Fold, db: sqlite3.Connection) -> bool:
        """Fold what is new, and have the steps done; whether some step has more to do."""
        moved = False
        while not self._stop.is_set() and fold.advance():
            moved = True
            if log.size - fold.size > 0:
                self._tell(state="catching-up", detail="", size=log.size, folded=fold.size)
        if moved:
            fold.seal()
        self._tell(size=log.size, folded=fold.size)
        return self._steps(log, db)

    def _steps(self, log: LogStore, db: sqlite3.Connection) -> bool:
        more, before = False, db.total_changes
        for step in self._after:
            if not self._stop.is_set():
                more = bool(step(log, db)) or more
        if db.total_changes != before:
            self._changed()
        return more

    def _level_offline(self) -> bool:
        """Fold what is in the log already, though the chain does not answer; whether some step has more to do."""
        with suppress(LedgerError, sqlite3.Error):
            log, db = LogStore(self._store.path), self._store.writer()
            try:
                fold = Fold(db, log)
                if not fold.agrees():
                    fold.back_to(0)
                while not self._stop.is_set() and fold.advance():
                    pass
                fold.seal()
                block = db.execute("SELECT value FROM meta WHERE key = 'block'").fetchone()
                self._tell(size=log.size, folded=fold.size, block=block[0] if block else None)
                return self._steps(log, db)
            finally:
                db.close()
                log.close()
        return False

    def _look_elsewhere(self) -> None:
        with suppress(LedgerError, sqlite3.Error), self._store.reading() as db:
            folded = db.execute("SELECT value FROM ui_state WHERE key = 'folded'").fetchone()
            meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('size', 'block')").fetchall())
            self._tell(size=meta.get("size", 0), folded=folded[0] if folded else 0, block=meta.get("block"))

    def _tell(self, **news: object) -> None:
        before = self._now
        after = replace(before, **news)  # type: ignore[arg-type]
        if after.state != before.state:
            after = replace(after, since=time.time())
        self._now = after
        if replace(after, heard_at=None, block=None) != replace(before, heard_at=None, block=None):
            self._changed()


def _lock(path: Path) -> int | None:
    """The right to write this index, for as long as the process lives; ``None`` where another one has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
