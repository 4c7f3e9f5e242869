"""The local copy of the log: an SQLite file that follows the chain, checks it and survives its reorganisations.

Every entry's leaf goes into the tree, and the tree's root is compared with the contract's at the same block before
anything is kept: what an endpoint altered or left out is found out here. Entries of blocks that a reorganisation
dropped move to their own table and stay readable. One process writes; any number read (WAL mode).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fl_node.errors import InconsistentLog, LedgerError, WrongLedger
from fl_node.ledger import codec, tree
from fl_node.ledger.members import MEMBER_KINDS, peer_states
from fl_node.ledger.protocol import LedgerReader, RawLog
from fl_node.records import (
    Entry,
    LedgerHead,
    PeerState,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)

_VERSION: Final = 1
_COLUMNS: Final = "idx, time_s, block, block_hash, tx_hash, topics, data, leaf, kind, peer, sequence, round"
_SCHEMA: Final = f"""
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
CREATE TABLE IF NOT EXISTS orphans ({_COLUMNS}, orphaned_at REAL, PRIMARY KEY (idx, block_hash)) WITHOUT ROWID;
"""
_BATCH: Final = 2000
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Synced:
    """Outcome of one look at the chain: where the index stands, entries added, entries that a reorg dropped."""

    head: LedgerHead
    added: int = 0
    orphaned: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Orphan:
    """An entry that was on the chain and is not any more. ``orphaned_at`` is local time, seconds since 1970."""

    entry: Entry
    orphaned_at: float


class LedgerIndex:
    """A checked, queryable copy of one ledger's log in one SQLite file.

    Args:
        path: the file; ``":memory:"`` keeps it in memory.
        reader: where the log comes from; ``None`` opens an existing file for reading only.
        depth: blocks on top of an entry before it counts as seen.

    Raises:
        WrongLedger: the file belongs to another ledger.
        LedgerError: no such file (reading only), or it cannot be opened.
    """

    def __init__(self, path: Path | str, reader: LedgerReader | None = None, depth: int = 0) -> None:
        self._path, self._reader, self._depth = str(path), reader, depth
        self._lock = threading.RLock()
        self._db = _open(self._path, writable=reader is not None)
        try:
            if reader is not None:
                self._adopt(reader)
        except BaseException:
            self._db.close()
            raise

    # ---- following the chain -----------------------------------------------------------------------------------

    def sync(self) -> Synced:
        """Follow the chain to its head (less ``depth``). One head call when nothing is new.

        Raises:
            InconsistentLog: the endpoint's entries do not have the contract's root; nothing of them is kept.
            ChainUnavailable: the endpoint does not answer; nothing was changed.
        """
        reader = self._reader
        if reader is None:
            raise LedgerError(f"the index {self._path} was opened for reading only; open it with a ledger to sync")
        for attempt in range(_ATTEMPTS):
            head = reader.head(self._depth)
            with self._lock:
                if head.block_hash == self._meta("block_hash") or self._lags(head):
                    return Synced(self.head)
                try:
                    with self._db:
                        self._db.execute("BEGIN IMMEDIATE")
                        dropped = self._drop_orphans(reader, head)
                        added = self._extend(reader, head)
                    return Synced(head, added, tuple(dropped))
                except _MovedError as cause:
                    # The chain may have been reorganised between two calls; a lie repeats itself.
                    if attempt + 1 == _ATTEMPTS or reader.block_hash(head.block_number) == head.block_hash:
                        raise InconsistentLog(
                            f"the log up to block {head.block_number} does not match the contract: {cause}; "
                            "expected the contract's own size and root: the RPC endpoint altered or left out entries; "
                            "use another one"
                        ) from cause
                except sqlite3.Error as cause:
                    raise LedgerError(f"cannot write the index {self._path}: {cause}; check its disk") from cause
        raise AssertionError("unreachable")

    def _lags(self, head: LedgerHead) -> bool:
        """Whether this head is an earlier block of the indexed chain: an endpoint that is behind."""
        row = self._db.execute("SELECT hash FROM blocks WHERE number = ?", (head.block_number,)).fetchone()
        return row is not None and row[0] == head.block_hash and head.block_number < self._meta("block")

    def _drop_orphans(self, reader: LedgerReader, head: LedgerHead) -> list[Entry]:
        """Go back to the last block that is still on the chain; entries above it become orphans."""
        last = self._meta("block")
        if last is None or (last <= head.block_number and reader.block_hash(last) == self._meta("block_hash")):
            return []
        keep = None
        for number, block_hash, size in self._db.execute("SELECT number, hash, size FROM blocks ORDER BY number DESC"):
            if number <= head.block_number and reader.block_hash(number) == block_hash:
                keep = (number, block_hash, size)
                break
        number, block_hash, size = keep or (None, None, 0)
        dropped = self._rows("idx >= ?", (size,))
        self._db.execute(
            f"INSERT OR REPLACE INTO orphans SELECT {_COLUMNS}, ? FROM entries WHERE idx >= ?",  # noqa: S608
            (time.time(), size),
        )
        self._db.execute("DELETE FROM entries WHERE idx >= ?", (size,))
        self._db.execute("DELETE FROM mentions WHERE idx >= ?", (size,))
        self._db.execute("DELETE FROM nodes WHERE ((position + 1) << level) > ?", (size,))
        self._db.execute("DELETE FROM blocks WHERE number > ?", (-1 if number is None else number,))
        self._set(block=number, block_hash=block_hash, size=size)
        return dropped

    def _extend(self, reader: LedgerReader, head: LedgerHead) -> int:
        """Append the entries between the last synced block and the head, then compare the root."""
        start = self._stored_size()
        frontier = tree.Frontier.at(start, self._subtree)
        if head.size != start:
            done = self._meta("block")
            first = reader.identity.first_block if done is None else done + 1
            batch: list[RawLog] = []
            for log in reader.logs(first, head.block_number):
                batch.append(log)
                if len(batch) >= _BATCH:
                    self._append(frontier, batch)
                    batch = []
            self._append(frontier, batch)
        if frontier.size != head.size:
            raise _MovedError(f"got {frontier.size} entries, expected {head.size}")
        if frontier.root != head.root:
            raise _MovedError(f"got root {frontier.root.hex()}, expected {head.root.hex()}")
        self._db.execute(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", (head.block_number, head.block_hash, head.size)
        )
        self._set(
            block=head.block_number,
            block_hash=head.block_hash,
            size=head.size,
            root=head.root,
            highest_round=head.highest_round,
        )
        return head.size - start

    def _append(self, frontier: tree.Frontier, logs: Sequence[RawLog]) -> None:
        rows, mentions, nodes, blocks = [], [], [], {}
        for log in logs:
            index, time_s, body = codec.decode(log.topics, log.data)
            if index != frontier.size:
                raise _MovedError(f"got entry {index} after {frontier.size - 1}")
            leaf = tree.entry_leaf(log.topics, log.data)
            nodes += frontier.append(leaf)
            sequence = round_ = None
            if isinstance(body, UpdatePublished):
                sequence, round_ = body.update.sequence, body.update.round
                mentions += [(p.peer, p.sequence, index) for p in body.parents]
            elif isinstance(body, UpdatesAttested):
                mentions += [(a.peer, a.sequence, index) for a in body.items]
            elif isinstance(body, UpdateObjected):
                mentions.append((body.target.peer, body.target.sequence, index))
            rows.append(
                (
                    *(index, _signed(time_s), log.block_number, log.block_hash, log.tx_hash, b"".join(log.topics)),
                    *(log.data, leaf, type(body).__name__, getattr(body, "peer", None), sequence, round_),
                )
            )
            blocks[log.block_number] = (log.block_number, log.block_hash, index + 1)
        self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT OR IGNORE INTO mentions VALUES (?, ?, ?)", mentions)
        self._db.executemany("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", nodes)
        self._db.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", blocks.values())

    # ---- questions ---------------------------------------------------------------------------------------------

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
            query = f"SELECT {_COLUMNS}, orphaned_at FROM orphans ORDER BY orphaned_at, idx"  # noqa: S608
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

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> LedgerIndex:
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

    def _adopt(self, reader: LedgerReader) -> None:
        """Create the tables, or check that the file is of this very ledger."""
        identity = reader.identity
        name = f"{identity.chain_id}/{identity.address}/{identity.spec_digest.hex()}/{_VERSION}"
        self._db.executescript(_SCHEMA)
        stored = self._meta("ledger")
        if stored is None:
            with self._db:
                self._set(ledger=name, size=0)
        elif stored != name:
            raise WrongLedger(
                f"the index {self._path} is of ledger {stored}, expected {name}; "
                "delete the file or name another state folder"
            )

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

    def _set(self, **values: object) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

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

    def _rows(self, where: str, values: Sequence[object]) -> list[Entry]:
        with self._lock:
            query = f"SELECT {_COLUMNS} FROM entries WHERE {where} ORDER BY idx"  # noqa: S608
            return [_entry(row) for row in self._db.execute(query, values)]

    def _one(self, where: str, values: Sequence[object], what: str) -> Entry:
        found = self._rows(where, values)
        if not found:
            raise LookupError(f"{what} is not among the {self.size} entries of the log that this index has seen")
        return found[0]


class _MovedError(Exception):
    """What was read does not fit the head: a lie, or the chain moved meanwhile."""


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


def _signed(number: int) -> int:
    """SQLite integers end at 2**63 - 1; only a hostile chain has later times."""
    return min(number, 2**63 - 1)
