"""Which files are kept, for whom and until when: one SQLite table, shared by the processes of a peer."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fl_node.content.cid import Cid
from fl_node.content.protocol import Pin
from fl_node.errors import ContentError, StoreFull

FILE_NAME: Final = "pins.sqlite"
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS pins (cid TEXT, label TEXT, round INTEGER, PRIMARY KEY (cid, label))"
_BUSY_S: Final = 30.0


class Pins:
    """Pins on disk. Opened at first use, so that a store that is only read needs no writable disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def set(self, pin: Pin, durable: bool) -> None:
        with self._database() as database:
            # In WAL mode NORMAL loses the last transactions in a power cut, never consistency: enough for what
            # can be fetched again.
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            database.execute("INSERT OR REPLACE INTO pins VALUES (?, ?, ?)", (str(pin.cid), pin.label, pin.round))
            database.commit()

    def drop(self, cid: Cid, label: str) -> None:
        with self._database() as database:
            database.execute("DELETE FROM pins WHERE cid = ? AND label = ?", (str(cid), label))
            database.commit()

    def drop_before(self, oldest_round: int) -> None:
        with self._database() as database:
            database.execute("DELETE FROM pins WHERE round < ?", (oldest_round,))
            database.commit()

    def all(self) -> tuple[Pin, ...]:
        if not self._path.exists():
            return ()
        with self._database() as database:
            rows = database.execute("SELECT cid, label, round FROM pins ORDER BY cid, label").fetchall()
        return tuple(Pin(Cid.parse(cid), label, round) for cid, label, round in rows)

    def label(self, cid: Cid) -> str:
        """One of a file's labels, the first by name; empty where it has none."""
        if not self._path.exists():
            return ""
        with self._database() as database:
            row = database.execute("SELECT min(label) FROM pins WHERE cid = ?", (str(cid),)).fetchone()
        return str(row[0] or "")

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except sqlite3.Error as cause:
                if self._connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.rollback()
                name = getattr(cause, "sqlite_errorname", "")
                if name.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR_WRITE")):
                    raise StoreFull(
                        f"cannot write {self._path}: {cause}; expected a writable disk with room. Nothing was lost"
                    ) from cause
                raise ContentError(f"cannot use {self._path}: {cause} ({name})") from cause

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
            connection.commit()
        except sqlite3.OperationalError:
            connection.close()
            # A read-only disk: what is there can still be listed.
            connection = sqlite3.connect(f"file:{self._path}?immutable=1", uri=True, check_same_thread=False)
            connection.execute("SELECT 1 FROM pins LIMIT 1")
        return connection
