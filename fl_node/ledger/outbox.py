"""Signed transactions on disk, before they are sent and until they are deep enough that no reorganisation drops them.

A crash between storing and sending, or between sending and reading the receipt, is repaired from here: the same bytes
are sent again, so whatever happened in between, the entry is recorded once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fl_node.errors import LedgerError

FILE_NAME: Final = "outbox.db"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS owner (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS sent (
    hash BLOB PRIMARY KEY, nonce INTEGER, label TEXT, fields TEXT, raw BLOB, stored_at REAL, block INTEGER);
CREATE TABLE IF NOT EXISTS made (hash BLOB PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One nonce's transaction: its latest version, and the hashes of all versions (a higher fee changes the hash).

    ``block`` is the block it was seen in, None while it is pending.
    """

    nonce: int
    label: str
    fields: dict[str, Any]
    raw: bytes
    hashes: tuple[bytes, ...]
    block: int | None


class Outbox:
    """Transactions of one account on one chain; ``state`` None keeps them in memory only.

    Raises:
        LedgerError: the file cannot be written, or is of another account or chain.
    """

    def __init__(self, state: Path | None, owner: str) -> None:
        self._where = ":memory:" if state is None else str(state / FILE_NAME)
        self._lock = threading.Lock()
        try:
            if state is not None:
                state.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._where, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # A commit returns once the bytes are on the disk.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            row = self._db.execute("SELECT name FROM owner").fetchone()
            if row is None:
                self._db.execute("INSERT INTO owner VALUES (?)", (owner,))
        except (sqlite3.Error, OSError) as cause:
            raise LedgerError(f"cannot write {self._where}: {cause}; check the state folder and its disk") from cause
        if row is not None and row[0] != owner:
            self._db.close()
            raise LedgerError(
                f"{self._where} holds transactions of {row[0]}, expected {owner}; use another state folder for another "
                "key or chain"
            )

    def store(self, nonce: int, label: str, fields: dict[str, Any], raw: bytes, tx_hash: bytes) -> Stored:
        """Keep a signed transaction; when this returns it survives a power cut. That it was made here is never
        forgotten, so that entries that somebody else made with this key can be told (:func:`made_here`)."""
        self._run("INSERT OR IGNORE INTO made VALUES (?)", (tx_hash,))
        self._run(
            "INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (tx_hash, nonce, label, json.dumps(fields), raw, time.time()),
        )
        return self._read("nonce = ?", (nonce,))[0]

    def mined(self, nonce: int, block: int) -> None:
        """Note the block in which it is."""
        self._run("UPDATE sent SET block = ? WHERE nonce = ?", (block, nonce))

    def reopen(self, nonce: int) -> None:
        """Its block is gone: it is pending again."""
        self._run("UPDATE sent SET block = NULL WHERE nonce = ?", (nonce,))

    def forget(self, nonce: int) -> None:
        """Drop every version of a nonce."""
        self._run("DELETE FROM sent WHERE nonce = ?", (nonce,))

    def prune(self, before_block: int) -> None:
        """Drop what is in a block deeper than any reorganisation."""
        self._run("DELETE FROM sent WHERE block < ?", (before_block,))

    def all(self) -> list[Stored]:
        """Everything kept, by nonce."""
        return self._read("TRUE")

    def pending(self) -> list[Stored]:
        """What is not in a block yet, by nonce."""
        return self._read("block IS NULL")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _read(self, where: str, values: tuple[object, ...] = ()) -> list[Stored]:
        query = f"SELECT nonce, label, fields, raw, hash, block FROM sent WHERE {where} ORDER BY nonce, stored_at"  # noqa: S608
        with self._lock:
            rows = self._db.execute(query, values).fetchall()
        found: dict[int, Stored] = {}
        for nonce, label, fields, raw, tx_hash, block in rows:
            hashes = found[nonce].hashes if nonce in found else ()
            found[nonce] = Stored(nonce, label, json.loads(fields), raw, (*hashes, tx_hash), block)
        return list(found.values())

    def _run(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            with self._lock:
                self._db.execute(statement, values)
        except sqlite3.Error as cause:
            raise LedgerError(f"cannot write {self._where}: {cause}; check the state folder and its disk") from cause


def made_here(state: Path) -> frozenset[bytes] | None:
    """Hashes of all transactions that were ever signed with this state folder; ``None`` where it has no such record.

    Raises:
        LedgerError: the file cannot be read.
    """
    path = state / FILE_NAME
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30.0)) as db:
            return frozenset(row[0] for row in db.execute("SELECT hash FROM made"))
    except sqlite3.Error as cause:
        raise LedgerError(f"cannot read {path}: {cause}; check the state folder and its disk") from cause
