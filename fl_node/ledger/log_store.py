"""A stored copy of one ledger's log in one SQLite file, and the questions that it answers.

Entries lie as raw topics and data beside a few columns to ask by; they are decoded when read. The hashes of all
complete subtrees are kept, so that a root or a proof at any size takes log2(size) look-ups. One process writes (see
:mod:`fl_node.ledger.index`); any number read (WAL mode).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from fl_node.errors import LedgerError
from fl_node.ledger import codec, tree
from fl_node.ledger.members import MEMBER_KINDS, peer_states
from fl_node.records import Entry, LedgerHead, PeerState, UpdateRef

COLUMNS: Final = "idx, time_s, block, block_hash, tx_hash, topics, data, leaf, kind, peer, sequence, round"
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    idx INTEGER PRIMARY KEY, time_s INTEGER, block INTEGER, block_hash BLOB, tx_hash BLOB, topics BLOB, data BLOB,
    leaf BLOB, kind TEXT, peer INTEGER, sequence INTEGER, round INTEGER);
CREATE INDEX IF NOT EXISTS entries_kind ON entries (kind, peer, sequence);
CREATE INDEX IF NOT EXISTS entries_tx ON entries (tx_hash);
CREATE INDEX IF NOT EXISTS entries_block ON entries (block);
CREATE TABLE IF NOT EXISTS mentions (
    peer INTEGER, sequence INTEGER, idx INTEGER, PRIMARY KEY (peer, sequence, idx)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (
    level INTEGER, position INTEGER, hash BLOB, PRIMARY KEY (level, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, hash BLOB, size INTEGER);
CREATE TABLE IF NOT EXISTS orphans ({COLUMNS}, orphaned_at REAL, PRIMARY KEY (idx, block_hash)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Orphan:
    """An entry that was on the chain and is not any more. ``orphaned_at`` is local time, seconds since 1970."""

    entry: Entry
    orphaned_at: float


class LogStore:
    """The questions; thread-safe.

    Args:
        path: the file; ``":memory:"`` keeps it in memory.
        writable: create it if need be; else it must exist.

    Raises:
        LedgerError: no such file, or it cannot be opened.
    """

    def __init__(self, path: Path | str, writable: bool = False) -> None:
        self._path = str(path)
        self._lock = threading.RLock()
        self._db = _open(self._path, writable)

    @property
    def size(self) -> int:
        """Number of entries that count as seen."""
        with self._lock:
            return self._stored_size()

    @property
    def head(self) -> LedgerHead:
        """Size, root and block of the last sync.

        Raises:
            LedgerError: never synced.
        """
        with self._lock:
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if meta.get("block") is None:
            raise LedgerError(f"the index {self._path} is empty; sync it first")
        return LedgerHead(meta["size"], meta["root"], meta["block"], meta["block_hash"], meta["highest_round"])

    def root(self, size: int | None = None) -> bytes:
        """Root of the first ``size`` entries (default: all). log2(size) look-ups."""
        with self._snapshot():
            return tree.root_at(self._checked(size), self._subtree)

    def entry(self, index: int) -> Entry:
        """One entry.

        Raises:
            LookupError: not in the log.
        """
        return self._one("idx = ?", (index,), f"entry {index}")

    def entries(self, start: int = 0, stop: int | None = None, kinds: Iterable[str] | None = None) -> list[Entry]:
        """Entries ``start <= index < stop`` in order, of all kinds or the named ones (``"UpdatePublished"``, ...)."""
        where, values = "idx >= ? AND idx < ?", [start, self.size if stop is None else stop]
        names = None if kinds is None else list(kinds)
        if names is None:
            return self._rows(where, values)
        return self._rows(f"{where} AND kind IN ({','.join('?' * len(names))})", [*values, *names])

    def updates(self, peer: int | None = None, start: int = 0, stop: int | None = None) -> list[Entry]:
        """Entries of updates in order, of one peer or all."""
        where, values = (
            "kind = 'UpdatePublished' AND idx >= ? AND idx < ?",
            [start, self.size if stop is None else stop],
        )
        return self._rows(where, values) if peer is None else self._rows(f"{where} AND peer = ?", [*values, peer])

    def latest_updates(self, size: int | None = None) -> list[Entry]:
        """Every peer's latest update among the first ``size`` entries, by entry index."""
        newest = "SELECT max(idx) FROM entries WHERE kind = 'UpdatePublished' AND idx < ? GROUP BY peer"
        return self._rows(f"idx IN ({newest})", (self._checked(size),))

    def update(self, ref: UpdateRef) -> Entry:
        """The entry of an update.

        Raises:
            LookupError: no such update.
        """
        where = "kind = 'UpdatePublished' AND peer = ? AND sequence = ?"
        return self._one(where, (ref.peer, ref.sequence), f"update {ref}")

    def mentions(self, ref: UpdateRef) -> list[Entry]:
        """Entries that speak of an update: those that merged or considered it, attestations, objections."""
        return self._rows("idx IN (SELECT idx FROM mentions WHERE peer = ? AND sequence = ?)", (ref.peer, ref.sequence))

    def transaction(self, tx_hash: bytes) -> list[Entry]:
        """Entries of one transaction."""
        return self._rows("tx_hash = ?", (tx_hash,))

    def orphans(self) -> list[Orphan]:
        """Entries that reorganisations dropped, oldest first."""
        with self._lock:
            query = f"SELECT {COLUMNS}, orphaned_at FROM orphans ORDER BY orphaned_at, idx"  # noqa: S608
            return [Orphan(_entry(row[:-1]), row[-1]) for row in self._db.execute(query)]

    def peers(self, size: int | None = None) -> dict[int, PeerState]:
        """Members by number as the first ``size`` entries have them."""
        with self._snapshot():
            stop = self._checked(size)
            states = peer_states(self.entries(0, stop, MEMBER_KINDS))
            newest = (
                "SELECT peer, sequence, round, max(idx) FROM entries "
                "WHERE kind = 'UpdatePublished' AND idx < ? GROUP BY peer"
            )
            for peer, sequence, round_, index in self._db.execute(newest, (stop,)):
                states[peer] = replace(states[peer], sequence=sequence, round=round_, last_entry=index)
        return states

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Audit path of an entry in the tree of the first ``size`` entries; see :mod:`fl_node.ledger.tree`."""
        with self._snapshot():
            return tree.inclusion_proof(index, self._checked(size), self._subtree)

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """Proof that the first ``old`` entries are a prefix of the first ``new``."""
        with self._snapshot():
            return tree.consistency_proof(old, self._checked(new), self._subtree)

    def subtrees(self, level: int, start: int, stop: int) -> list[bytes]:
        """Hashes of the complete subtrees ``start <= position < stop`` of a level; level 0 are the leaves.

        Raises:
            LookupError: the log is too short for some of them.
        """
        if level == 0:
            query = "SELECT leaf FROM entries WHERE ? = 0 AND idx >= ? AND idx < ? ORDER BY idx"
        else:
            query = "SELECT hash FROM nodes WHERE level = ? AND position >= ? AND position < ? ORDER BY position"
        with self._lock:
            found = [bytes(row[0]) for row in self._db.execute(query, (level, start, stop))]
        return self._all(found, start, stop)

    def preimages(self, start: int, stop: int) -> list[bytes]:
        """What the leaves ``start <= index < stop`` are hashes of: topics, then data.

        Raises:
            LookupError: the log is too short for some of them.
        """
        query = "SELECT topics, data FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        with self._lock:
            found = [topics + data for topics, data in self._db.execute(query, (start, stop))]
        return self._all(found, start, stop)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- below -------------------------------------------------------------------------------------------------

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Several queries that see one state, whatever another process writes meanwhile."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def _checked(self, size: int | None) -> int:
        known = self._stored_size()
        if size is None:
            return known
        if not 0 <= size <= known:
            raise LookupError(f"got size {size}, but the index holds {known} entries; sync it or ask for fewer")
        return size

    def _stored_size(self) -> int:
        size = self._meta("size")
        return int(size) if size is not None else 0

    def _meta(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _subtree(self, level: int, position: int) -> bytes:
        if level == 0:
            row = self._db.execute("SELECT leaf FROM entries WHERE idx = ?", (position,)).fetchone()
        else:
            query = "SELECT hash FROM nodes WHERE level = ? AND position = ?"
            row = self._db.execute(query, (level, position)).fetchone()
        if row is None:
            raise LedgerError(
                f"the index {self._path} lacks subtree {level}/{position}: it is damaged; delete and sync again"
            )
        return bytes(row[0])

    def _all(self, found: list[bytes], start: int, stop: int) -> list[bytes]:
        if len(found) != stop - start:
            raise LookupError(f"got {len(found)} of {stop - start}: the log has no more than {self.size} entries")
        return found

    def _rows(self, where: str, values: Sequence[object]) -> list[Entry]:
        with self._lock:
            query = f"SELECT {COLUMNS} FROM entries WHERE {where} ORDER BY idx"  # noqa: S608
            return [_entry(row) for row in self._db.execute(query, values)]

    def _one(self, where: str, values: Sequence[object], what: str) -> Entry:
        found = self._rows(where, values)
        if not found:
            raise LookupError(f"{what} is not among the {self.size} entries of the log that this index has seen")
        return found[0]


def _open(path: str, writable: bool) -> sqlite3.Connection:
    try:
        if writable:
            database = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            # The chain is the truth: after a power cut the last seconds are read again.
            database.execute("PRAGMA synchronous = NORMAL")
            return database
        if not Path(path).is_file():
            raise LedgerError(f"no index at {path}; run the node or sync it first")
        return sqlite3.connect(
            f"{Path(path).resolve().as_uri()}?mode=ro",
            uri=True,
            timeout=30.0,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as cause:
        raise LedgerError(f"cannot open the index {path}: {cause}; check the folder's permissions and space") from cause


def _entry(row: Sequence[Any]) -> Entry:
    index, _, block, block_hash, tx_hash, joined, data = row[:7]
    topics = tuple([joined[at : at + 32] for at in range(0, len(joined), 32)])
    _, time_s, body = codec.decode(topics, data)
    return Entry(index, time_s, block, block_hash, tx_hash, topics, data, body)
