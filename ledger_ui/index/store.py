"""The explorer's index as a file: one process writes it, any thread of any process reads it, one snapshot for each
page."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

from fl_node.errors import LedgerError
from ledger_ui.index import made

_MOST_IDLE: Final = 16
_PATIENCE_S: Final = 10.0
_Place: TypeAlias = tuple[int, int]  # device and inode: another one is another file


class Store:
    """The index's file.

    Args:
        path: the file. It is made, empty, if it is not there.
        ledger: the ledger whose log it is to hold, as far as the federation file names it; empty: any.
        traces: folder with traces of the indexes that this user made; ``None``: every index counts as made here.
    """

    def __init__(self, path: Path, ledger: str = "", traces: Path | None = None) -> None:
        self.path = path
        #: What was wrong with the file that was found, in words; empty once it is level with the log.
        self.note = ""
        #: A reader met damage: its keeper should look.
        self.suspect = False
        self._ledger, self._traces = ledger, traces
        self._idle: list[tuple[_Place, sqlite3.Connection]] = []
        # Again by the same thread: a page that nobody read to its end is tidied up whenever Python comes to it.
        self._lock = threading.RLock()
        self._claim: int | None = None

    # ---- reading and writing ---------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one read transaction: everything asked of it is of one state of the log. Rows are
        :class:`sqlite3.Row`."""
        place, db = self._taken()
        try:
            db.execute("BEGIN")
            yield db
            db.execute("COMMIT")
        except sqlite3.DatabaseError as cause:
            self.suspect = self.suspect or made.is_damage(cause)
            raise
        finally:
            self._give_back(place, db)

    def writer(self) -> sqlite3.Connection:
        """A new connection that may write, in autocommit mode; its owner closes it."""
        db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 33554432")
        return db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one short write transaction: all of it, or nothing. For what does not follow from the
        log; rows are :class:`sqlite3.Row`."""
        db = self.writer()
        db.row_factory = sqlite3.Row
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        finally:
            db.close()

    def close(self) -> None:
        """Close every connection, and let go of the file."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, db in idle:
            with suppress(sqlite3.Error):
                db.close()
        # Readers cannot do this when they close; so that the file alone is the whole index.
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.path, timeout=0.2)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.release()

    # ---- whose file it is ------------------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Take the right to write what follows from the log, for as long as the process lives; false where another one
        has it."""
        if self._claim is not None:
            return True
        claim = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(claim)
            return False
        self._claim = claim
        return True

    @property
    def claimed(self) -> bool:
        """Whether this process has that right."""
        return self._claim is not None

    def release(self) -> None:
        """Let another process have it."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    # ---- whether it may be used ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Have a file with all tables, so that every page can be asked; see :meth:`fit`. Where another process keeps
        it, that is left to it.

        Raises:
            LedgerError: it cannot be read or written.
        """
        until = time.monotonic() + _PATIENCE_S
        try:
            while not self.claim():
                if self._is_there() or time.monotonic() > until:
                    return
                time.sleep(0.05)
            self.fit()
        except (sqlite3.Error, OSError) as cause:
            raise LedgerError(f"cannot keep the index {self.path}: {cause}; check its folder and disk") from cause
        finally:
            self.release()

    def fit(self) -> None:
        """Make the file usable: what is damaged or of another version is made again, what is of another ledger is set
        aside, and what nobody here made is shown without what only its maker can know. With the claim.

        Raises:
            sqlite3.Error, OSError: it cannot be read or written.
        """
        try:
            found = made.look_at(self.path)
        except sqlite3.DatabaseError as cause:
            if not made.is_damage(cause):
                raise
            self.make_anew(f"the index was damaged ({cause}): it is being made again")
            return
        if found is None or found.empty:
            made.make(self.path, self._traces)
        elif not found.log:
            self.make_anew("the index was another version's: it is being made again")
        elif self._ledger and found.ledger is not None and not found.ledger.startswith(f"{self._ledger}/"):
            aside = self.path.with_name(f"{self.path.name}.aside")
            made.set_aside(self.path, aside)
            self.make_anew(f"the index here was of another ledger: it is now {aside.name}, and a new one is being made")
        elif not made.is_known(found.token, self._traces):
            if not (found.current and self.foreign):
                made.make_again(self.path, keep_fetched=False, foreign=True)
        elif not found.current:
            made.make_again(self.path, keep_fetched=found.fetched, foreign=False)
            self.note = "the index was another version's: its tables are being made again"

    def make_anew(self, why: str) -> None:
        """A new, empty index instead of this one. With the claim."""
        made.make(self.path, self._traces)
        self.note, self.suspect = why, False

    @property
    def place(self) -> _Place | None:
        """Which file is there now; ``None``: none."""
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    @property
    def foreign(self) -> bool:
        """Whether nobody here made this index."""
        with self.reading() as db:
            return db.execute("SELECT 1 FROM ui_state WHERE key = 'foreign'").fetchone() is not None

    # ---- below -----------------------------------------------------------------------------------------------------

    def _is_there(self) -> bool:
        try:
            found = made.look_at(self.path)
        except sqlite3.Error:
            return False
        return found is not None and found.log

    def _taken(self) -> tuple[_Place, sqlite3.Connection]:
        """A connection to the file that is there now, one that nobody uses."""
        place = self.place or (0, 0)
        stale: list[sqlite3.Connection] = []
        found: sqlite3.Connection | None = None
        with self._lock:
            while self._idle and found is None:
                where, db = self._idle.pop()
                if where == place:
                    found = db
                else:
                    stale.append(db)
        for db in stale:
            db.close()
        return place, found or self._opened()

    def _give_back(self, place: _Place, db: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
            with self._lock:
                if len(self._idle) < _MOST_IDLE:
                    self._idle.append((place, db))
                    return
        with suppress(sqlite3.Error):
            db.close()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode=ro",
            uri=True,
            timeout=10.0,
            isolation_level=None,
            check_same_thread=False,
        )
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cache_size = -2048")
        return db
