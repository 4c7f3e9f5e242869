"""Who has the content of updates, and how large it is, as the peers' gateways say."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fl_node.audit.gateways import GatewayBlobs
from fl_node.audit.means import Holders
from fl_node.content.cid import Cid
from fl_node.content.unixfs import CHUNK_BYTES
from fl_node.records import Flag, UpdateRef
from ledger_ui.index.newest import Newest
from ledger_ui.index.store import Store

#: Seconds after which everybody is asked again about each peer's latest update.
ASKED_S: Final = 300.0
#: And about an update whose page somebody looks at.
LOOKED_S: Final = 30.0
#: Sizes of what was published in so many of the latest entries are asked for: what is older, nobody keeps.
MOST_ENTRIES: Final = 50_000
#: A file of a thousand gigabytes is a hostile log's joke, and sums of such do not fit into anything.
_MOST_BYTES: Final = 1 << 40

_COLUMNS: Final = "u.idx, u.peer, u.sequence, u.content, u.flags"
_UNSIZED: Final = (
    f"SELECT {_COLUMNS} FROM updates u LEFT JOIN holders h ON h.idx = u.idx "  # noqa: S608
    "WHERE u.idx >= :low AND u.idx < :high AND h.size_bytes IS NULL ORDER BY u.idx {way} LIMIT :most"
)
#: Each active peer's latest update, those asked about longest ago first.
_LATEST: Final = (
    f"SELECT {_COLUMNS}, h.asked_at FROM updates u LEFT JOIN holders h ON h.idx = u.idx "  # noqa: S608
    "WHERE u.idx IN (SELECT (SELECT max(v.idx) FROM updates v WHERE v.peer = p.peer) FROM peers p "
    "WHERE p.retired IS NULL) AND (h.asked_at IS NULL OR h.asked_at < ?) ORDER BY h.asked_at, u.idx DESC LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of one update."""

    idx: int
    ref: UpdateRef
    cid: Cid


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateways said of it. ``holders``: ``None`` where only the size was asked for."""

    content: Content
    size_bytes: int | None
    holders: Holders | None = None


class Contents:
    """Which contents to ask about, and what was answered."""

    def __init__(self, store: Store) -> None:
        self._store, self._newest = store, Newest(_UNSIZED)

    def latest(self, db: sqlite3.Connection, most: int) -> list[Content]:
        """Of those updates that others may merge now."""
        return [_content(row) for row in db.execute(_LATEST, (time.time() - ASKED_S, most))]

    def looked_at(self, db: sqlite3.Connection, indices: Iterable[int]) -> list[Content]:
        """Of these updates, unless they were asked about a moment ago."""
        found = []
        query = (
            f"SELECT {_COLUMNS} FROM updates u LEFT JOIN holders h ON h.idx = u.idx "  # noqa: S608
            "WHERE u.idx = ? AND (h.asked_at IS NULL OR h.asked_at < ?)"
        )
        for idx in indices:
            row = db.execute(query, (idx, time.time() - LOOKED_S)).fetchone()
            if row is not None:
                found.append(_content(row))
        return found

    def unsized(self, db: sqlite3.Connection, most: int) -> list[Content]:
        """Of those whose size nobody has said yet, the newest first; each is asked about once while this runs."""
        size = db.execute("SELECT value FROM ui_state WHERE key = 'folded'").fetchone()
        floor = max(0, int(size[0] or 0) - MOST_ENTRIES) if size else 0
        return [_content(row) for row in self._newest.next(db, most, floor)]

    def keep(self, answers: Iterable[Answer]) -> None:
        """Write answers down, as far as the log still has these updates."""
        now = time.time()
        with self._store.writing() as db:
            for one in answers:
                there = db.execute("SELECT content FROM updates WHERE idx = ?", (one.content.idx,)).fetchone()
                if there is None or bytes(there["content"]) != one.content.cid.digest:
                    continue
                _put(db, one, now)


def asked(blobs: GatewayBlobs, content: Content) -> Answer:
    """Ask everybody."""
    return Answer(content, sized(blobs, content), blobs.asked(content.cid, content.ref))


def sized(blobs: GatewayBlobs, content: Content) -> int | None:
    """Ask the publisher, or the first who has it."""
    size = blobs.size(content.cid, content.ref)
    most = CHUNK_BYTES if content.cid.codec == "raw" else _MOST_BYTES
    return size if size is not None and 0 <= size <= most else None


def _put(db: sqlite3.Connection, one: Answer, now: float) -> None:
    idx, content = one.content.idx, one.content.cid.digest
    size = (
        "INSERT INTO holders (idx, size_bytes, content) VALUES (?, ?, ?) ON CONFLICT (idx) DO UPDATE SET "
        "size_bytes = coalesce(excluded.size_bytes, size_bytes), content = excluded.content"
    )
    db.execute(size, (idx, one.size_bytes, content))
    said = one.holders
    if said is not None:
        publisher = None if said.publisher is None else int(said.publisher)
        db.execute(
            "UPDATE holders SET haves = ?, lacks = ?, silent = ?, publisher = ?, asked_at = ?, detail = ? "
            "WHERE idx = ?",
            (len(said.having), len(said.lacking), len(said.silent), publisher, now, words(said), idx),
        )


def words(said: Holders) -> str:
    """Who said what, by peer number.

    >>> words(Holders(("peer 1 http://a:1", "peer 3 http://c:1"), (), ("peer 2 http://b:1",), True))
    'has it: 1, 3; no answer: 2'
    """
    parts = (("has it", said.having), ("has not", said.lacking), ("no answer", said.silent))
    return "; ".join(f"{what}: {_numbers(names)}" for what, names in parts if names) or "nobody to ask"


def _numbers(names: tuple[str, ...]) -> str:
    numbers = [found[1] for name in names if (found := re.match("peer ([0-9]+)", name))]
    return ", ".join(numbers[:20]) + (f" and {len(numbers) - 20} more" if len(numbers) > 20 else "")


def _content(row: sqlite3.Row) -> Content:
    codec = "dag-pb" if Flag(row["flags"]) & Flag.DAG_PB else "raw"
    return Content(row["idx"], UpdateRef(row["peer"], row["sequence"]), Cid(codec, bytes(row["content"])))  # type: ignore[arg-type]
