"""The local copy of the log that follows the chain, checks it and survives its reorganisations.

Every entry's leaf goes into the tree, and the tree's root is compared with the contract's at the same block before
anything is kept: what an endpoint altered or left out is found out here. Entries of blocks that a reorganisation
dropped move to their own table and stay readable.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.errors import InconsistentLog, LedgerError, WrongLedger
from fl_node.ledger import codec, tree
from fl_node.ledger.log_store import COLUMNS, SCHEMA, LogStore
from fl_node.ledger.protocol import LedgerReader, News, RawLog
from fl_node.records import Entry, LedgerHead, UpdateObjected, UpdatePublished, UpdatesAttested

_VERSION: Final = 1
_BATCH: Final = 2000
_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Synced:
    """Outcome of one look at the chain: where the index stands, entries added, entries that a reorg dropped."""

    head: LedgerHead
    added: int = 0
    orphaned: tuple[Entry, ...] = ()


class LedgerIndex(LogStore):
    """A checked, queryable copy of one ledger's log; its questions are those of :class:`LogStore`.

    Args:
        path: the file; ``":memory:"`` keeps it in memory.
        reader: where the log comes from; ``None`` opens an existing file for reading only.
        depth: blocks on top of an entry before it counts as seen.

    Raises:
        WrongLedger: the file belongs to another ledger.
        LedgerError: no such file (reading only), or it cannot be opened.
    """

    def __init__(self, path: Path | str, reader: LedgerReader | None = None, depth: int = 0) -> None:
        super().__init__(path, writable=reader is not None)
        self._reader, self._depth = reader, depth
        self._following = threading.Lock()
        try:
            if reader is not None:
                self._adopt(reader)
        except BaseException as cause:
            self._db.close()
            if isinstance(cause, sqlite3.Error):
                raise LedgerError(f"cannot write the index {self._path}: {cause}; check its disk") from cause
            raise

    def sync(self) -> Synced:
        """Follow the chain to its head (less ``depth``).

        Raises:
            InconsistentLog: the endpoint's entries do not have the contract's root; nothing of them is kept.
            ChainUnavailable: the endpoint does not answer; nothing was changed.
        """
        reader = self._reader
        if reader is None:
            raise LedgerError(f"the index {self._path} was opened for reading only; open it with a ledger to sync")
        with self._following:
            return self._follow(reader)

    def ahead(self) -> tuple[Entry, ...]:
        """Entries that the chain has beyond the last sync, as its tip has them: not deep enough to count as seen, and
        not checked against the root. For their own writer, who must not act as if it had not spoken.

        Raises:
            ChainUnavailable: the endpoint does not answer.
        """
        known = self._known()
        news = self._reader.news(known) if self._reader is not None else None
        if news is None or not news.follows:
            return ()
        found = []
        for log in news.logs:
            index, time_s, body = codec.decode(log.topics, log.data)
            where = log.block_number, log.block_hash, log.tx_hash
            found.append(Entry(index, time_s, *where, log.topics, log.data, body))
        return tuple(found)

    def _follow(self, reader: LedgerReader) -> Synced:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_PAUSE_S * 5 ** (attempt - 1))
            with self._lock:
                known = self._known()
            news = reader.news(known, self._depth)
            with self._lock:
                if news is None or self._lags(news.head):
                    return Synced(self.head)
                head = news.head
                try:
                    with self._db:
                        self._db.execute("BEGIN IMMEDIATE")
                        if self._known() != known:
                            raise _MovedError("another process writes this index")
                        dropped = [] if news.follows else self._drop_orphans(reader, head)
                        added = self._extend(reader, news)
                    return Synced(head, added, tuple(dropped))
                except _MovedError as cause:
                    # The chain may have moved between two calls, and development nodes answer for a block with the
                    # state of the next one while they make it; a lie repeats itself.
                    if attempt + 1 == _ATTEMPTS:
                        raise InconsistentLog(
                            f"the log up to block {head.block_number} does not match the contract: {cause}; "
                            "expected the contract's own size and root: the RPC endpoint altered or left out entries; "
                            "use another one"
                        ) from cause
                except sqlite3.Error as cause:
                    raise LedgerError(f"cannot write the index {self._path}: {cause}; check its disk") from cause
        raise AssertionError("unreachable")

    def _known(self) -> tuple[int, bytes] | None:
        """Number and hash of the last synced block."""
        number = self._meta("block")
        return None if number is None else (number, self._meta("block_hash"))

    def _lags(self, head: LedgerHead) -> bool:
        """Whether this head is an earlier block of the indexed chain: an endpoint that is behind."""
        row = self._db.execute("SELECT hash FROM blocks WHERE number = ?", (head.block_number,)).fetchone()
        return row is not None and row[0] == head.block_hash and head.block_number < self._meta("block")

    def _drop_orphans(self, reader: LedgerReader, head: LedgerHead) -> list[Entry]:
        """Go back to the last block that is still on the chain; entries above it become orphans."""
        keep = None
        for number, block_hash, size in self._db.execute("SELECT number, hash, size FROM blocks ORDER BY number DESC"):
            if number <= head.block_number and reader.block_hash(number) == block_hash:
                keep = (number, block_hash, size)
                break
        number, block_hash, size = keep or (None, None, 0)
        dropped = self._rows("idx >= ?", (size,))
        self._db.execute(
            f"INSERT OR REPLACE INTO orphans SELECT {COLUMNS}, ? FROM entries WHERE idx >= ?",  # noqa: S608
            (time.time(), size),
        )
        self._db.execute("DELETE FROM entries WHERE idx >= ?", (size,))
        self._db.execute("DELETE FROM mentions WHERE idx >= ?", (size,))
        self._db.execute("DELETE FROM nodes WHERE ((position + 1) << level) > ?", (size,))
        self._db.execute("DELETE FROM blocks WHERE number > ?", (-1 if number is None else number,))
        self._set(block=number, block_hash=block_hash, size=size)
        return dropped

    def _extend(self, reader: LedgerReader, news: News) -> int:
        """Append the entries between the last synced block and the head, then compare the root."""
        head, start = news.head, self._stored_size()
        frontier = tree.Frontier.at(start, self._subtree)
        if head.size != start:
            logs = news.logs
            if not news.follows:
                kept = self._meta("block")
                first = reader.identity.first_block if kept is None else kept + 1
                logs = reader.logs(first, head.block_number)
            batch: list[RawLog] = []
            for log in logs:
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

    def _adopt(self, reader: LedgerReader) -> None:
        """Create the tables, or check that the file is of this very ledger."""
        identity = reader.identity
        name = f"{identity.chain_id}/{identity.address}/{identity.spec_digest.hex()}/{_VERSION}"
        self._db.executescript(SCHEMA)
        stored = self._meta("ledger")
        if stored is None:
            with self._db:
                self._set(ledger=name, size=0)
        elif stored != name:
            raise WrongLedger(
                f"the index {self._path} is of ledger {stored}, expected {name}; "
                "delete the file or name another state folder"
            )

    def _set(self, **values: object) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


class _MovedError(Exception):
    """What was read does not fit the head: a lie, or the chain moved meanwhile."""


def _signed(number: int) -> int:
    """SQLite integers end at 2**63 - 1; only a hostile chain has later times."""
    return min(number, 2**63 - 1)
