"""Reading the explorer's index: one connection for each thread, one snapshot for each page."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ledger_ui.index.schema import SCHEMA


class Store:
    """The index's file, for any number of reading threads.

    Args:
        path: the file. It is made, empty, if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one read transaction: everything asked of it is of one state of the log. Rows are
        :class:`sqlite3.Row`."""
        db = self._mine()
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    def writer(self) -> sqlite3.Connection:
        """A new connection that may write, in autocommit mode; its owner closes it."""
        db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
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

    def prepare(self) -> None:
        """Make the tables where they are not there yet, the log's own among them, so that every page can be asked."""
        from fl_node.ledger.log_store import SCHEMA as LOG

        db = self.writer()
        try:
            db.executescript(LOG + SCHEMA)
        finally:
            db.close()

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for db in self._all:
                with suppress(sqlite3.Error):
                    db.close()
            self._all.clear()

    def _mine(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro",
                uri=True,
                timeout=10.0,
                isolation_level=None,
                check_same_thread=False,
            )
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA cache_size = -8192")
            self._local.db = db
            with self._lock:
                self._all.append(db)
        return db
