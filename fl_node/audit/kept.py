"""Results of the replay that were reached before, so that an audit that was broken off goes on where it was.

A result is kept under the root of the log up to its update, so it never outlives the history that it follows from.

What an audit with private keys finds out follows from weights that not everybody may read, the sketches above all. So
it is kept encrypted to one of these keys: nothing readable is on disk, and an audit without that key finds nothing.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from fl_node.audit.known import Known, Sketch
from fl_node.audit.opened import NAMES
from fl_node.audit.replay import Replayed
from fl_node.audit.verdicts import Finding, Result
from fl_node.errors import MalformedWeights, Unreadable
from fl_node.ledger.log_store import LogStore
from fl_node.records import UpdateRef
from fl_node.sealing import age
from fl_node.sealing.age import Identity

#: Another number where what is kept means something else.
_VERSION: Final = 3
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, result BLOB, sketch BLOB) WITHOUT ROWID"
_CHECKS: Final = (*NAMES, "merge")
_LENGTHS: Final = struct.Struct("<3i")
#: Of a result or a sketch, opened.
_MOST_BYTES: Final = 1 << 20
_KINDS: Final = ("<f8", "<i4", "<f8")


class Kept:
    """Results in one SQLite file. Only updates of which all checks of bytes hold are kept: trouble is looked at again.

    An audit does not depend on it: where the file cannot be read or written, ``trouble`` says why, and nothing is kept
    from then on.

    Args:
        path: the file; made if it is not there.
        log: the log that is audited.
        spec_digest: of the spec that is audited by, which may not be the one that the log names.
        own: the auditor's key, where keys open the updates; ``None``: everybody can read them.
    """

    def __init__(self, path: Path | str, log: LogStore, spec_digest: bytes, own: Identity | None = None) -> None:
        self._log, self._spec_digest, self._own = log, spec_digest, own
        self._lock = threading.Lock()
        #: How many results were taken from here.
        self.taken = 0
        #: Why results are not kept, for people; empty where they are.
        self.trouble = ""
        self._path = str(path)
        try:
            self._db = _opened(self._path)
        except sqlite3.Error as cause:
            self._give_up(cause)
            self._db = _opened(":memory:")

    def load(self, index: int, *, sketching: bool) -> Replayed | None:
        """The kept result of the update at an entry; ``None`` where there is none that will do."""
        try:
            with self._lock:
                row = self._db.execute("SELECT result, sketch FROM kept WHERE key = ?", (self._key(index),)).fetchone()
            if row is None or (sketching and row[1] is None):
                return None
            table = json.loads(self._opened(row[0]))
            ref = UpdateRef.parse(table["update"])
            findings = tuple(_finding(item) for item in table["findings"])
            known = None if row[1] is None else _unpacked(bytes.fromhex(table["digest"]), self._opened(row[1]))
        except (ValueError, KeyError, TypeError, sqlite3.Error, MalformedWeights, Unreadable):
            return None  # a damaged file: the result is reached again
        if ref is None or tuple(finding.check for finding in findings) != _CHECKS:
            return None
        self.taken += 1
        return Replayed(ref, findings, known)

    def save(self, index: int, replayed: Replayed) -> None:
        """Keep a result, if it is one to keep."""
        good = {finding.check: finding.result for finding in replayed.findings} == dict.fromkeys(_CHECKS, Result.OK)
        if not good or self.trouble:
            return
        known = replayed.known
        table = {
            "update": str(replayed.ref),
            "findings": [[one.check, one.detail, dict(one.data)] for one in replayed.findings],
            "digest": known.digest.hex() if known else "",
        }
        sketch = None if known is None else self._closed(_packed(known))
        result = self._closed(json.dumps(table).encode())
        try:
            with self._lock:
                values = (self._key(index), result, sketch)
                self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", values)
        except sqlite3.Error as cause:
            self._give_up(cause)

    def forget(self) -> None:
        """Drop everything."""
        try:
            with self._lock:
                self._db.execute("DELETE FROM kept")
        except sqlite3.Error as cause:
            self._give_up(cause)
            self._db.close()
            self._db = _opened(":memory:")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_up(self, cause: sqlite3.Error) -> None:
        self.trouble = f"results are not kept: {self._path}: {cause}; free some space, or name another folder: --work"

    def _key(self, index: int) -> bytes:
        whose = b"" if self._own is None else self._own.public
        return bytes([_VERSION]) + self._spec_digest + self._log.root(index + 1) + whose

    def _closed(self, data: bytes) -> bytes:
        return data if self._own is None else bytes(age.seal(data, [self._own.public]))

    def _opened(self, data: bytes) -> bytes:
        """
        Raises:
            MalformedWeights, Unreadable: damaged, or another key's.
        """
        return data if self._own is None else bytes(age.unseal(data, [self._own], _MOST_BYTES))


def _opened(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SCHEMA)
        database.execute("SELECT key FROM kept LIMIT 1").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _finding(item: Any) -> Finding:
    check, detail, data = item
    return Finding(str(check), Result.OK, str(detail), dict(data))


def _packed(known: Known) -> bytes:
    """Lengths in bytes of three arrays, -1 for one that is not there; then the arrays, little-endian."""
    arrays = (known.model.vector, known.model.votes, known.base.vector if known.base else None)
    parts = [
        None if array is None else array.astype(kind, copy=False).tobytes()
        for array, kind in zip(arrays, _KINDS, strict=True)
    ]
    lengths = _LENGTHS.pack(*(-1 if part is None else len(part) for part in parts))
    return lengths + b"".join(part for part in parts if part is not None)


def _unpacked(digest: bytes, packed: bytes) -> Known:
    """
    Raises:
        ValueError: not what :func:`_packed` writes.
    """
    if len(packed) < _LENGTHS.size:
        raise ValueError(f"got {len(packed)} bytes of a sketch")
    arrays, at = [], _LENGTHS.size
    for length, kind in zip(_LENGTHS.unpack_from(packed), _KINDS, strict=True):
        arrays.append(None if length < 0 else np.frombuffer(packed[at : at + length], kind))
        at += max(0, length)
    model, votes, base = arrays
    if at != len(packed) or model is None:
        raise ValueError(f"got {len(packed)} bytes of a sketch, expected {at}")
    return Known(digest, Sketch(model, votes), None if base is None else Sketch(base, None))
