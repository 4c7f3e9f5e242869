"""Public reports of updates, fetched by digest from the peers' gateways."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from fl_node.audit.gateways import GatewayBlobs
from fl_node.content.cid import Cid
from fl_node.content.protocol import Held
from fl_node.errors import ContentError, ContentMismatch, ContentTooLarge
from fl_node.records import ZERO32, UpdateRef
from ledger_ui.index.newest import Newest
from ledger_ui.index.store import Store
from ledger_ui.index.told import tell
from ledger_ui.strange import json_of

MOST_BYTES: Final = 256 << 10
#: What is kept in all.
MOST_REPORTS: Final = 20_000
MOST_STORED: Final = 200 << 20
_AT_ONCE: Final = 16
_THREADS: Final = 4
_FIRST_PAUSE_S: Final = 20.0
_MOST_PAUSE_S: Final = 3600.0

_MISSING: Final = (
    "SELECT u.idx, u.peer, u.sequence, u.report, 0 AS tries FROM updates u LEFT JOIN reports r ON r.idx = u.idx "
    "WHERE u.idx >= :low AND u.idx < :high AND r.idx IS NULL ORDER BY u.idx {way} LIMIT :most"
)
_DUE: Final = (
    "SELECT u.idx, u.peer, u.sequence, u.report, r.tries FROM reports r JOIN updates u ON u.idx = r.idx "
    "WHERE r.due_at IS NOT NULL AND r.due_at < ? ORDER BY r.due_at LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One report to fetch."""

    idx: int
    ref: UpdateRef
    digest: bytes
    tries: int


@dataclass(frozen=True, slots=True)
class Got:
    """What came of it: ``ok``, ``gone`` (nobody gives it now), ``malformed`` (no JSON object), ``refused`` (too large)
    or ``none`` (the update names none)."""

    wanted: Wanted
    status: str
    detail: str = ""
    body: bytes | None = None


class Reports:
    """Fetches some reports at a time."""

    def __init__(self, store: Store) -> None:
        self._store, self._newest, self._floor = store, Newest(_MISSING), 0

    def wanted(self, db: sqlite3.Connection) -> list[Wanted]:
        """The next to fetch: new ones, then those to be tried again, then older ones."""
        rows = self._newest.next(db, _AT_ONCE, self._floor)
        if len(rows) < _AT_ONCE:
            rows += db.execute(_DUE, (time.time(), _AT_ONCE - len(rows))).fetchall()
        return [Wanted(row[0], UpdateRef(row[1], row[2]), bytes(row[3]), row[4] or 0) for row in rows]

    def fetch(self, blobs: GatewayBlobs, wanted: Sequence[Wanted]) -> list[Got]:
        """Ask for them."""
        with ThreadPoolExecutor(_THREADS, "reports") as pool:
            return list(pool.map(lambda one: fetched(blobs, one), wanted))

    def keep(self, got: Sequence[Got]) -> None:
        """Write them down, as far as the log still has their updates."""
        now = time.time()
        with self._store.writing() as db:
            for one in got:
                there = db.execute("SELECT report FROM updates WHERE idx = ?", (one.wanted.idx,)).fetchone()
                if there is None or bytes(there["report"]) != one.wanted.digest:
                    continue
                tries = one.wanted.tries + 1
                due = (
                    now + min(_MOST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries - 1, 20)) if one.status == "gone" else None
                )
                # Not replaced: then the triggers that add up would not see the old row go.
                db.execute("DELETE FROM reports WHERE idx = ?", (one.wanted.idx,))
                row = (one.wanted.idx, one.status, one.body, now, one.detail[:1000], one.wanted.digest, tries, due)
                db.execute("INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                if one.status == "ok" and one.body is not None:
                    tell(db, one.wanted.idx, one.body)
            self._make_room(db)

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Beyond what is kept the oldest go, and are not fetched again."""
        query = "SELECT key, value FROM ui_state WHERE key IN ('reports', 'reports_of')"
        kept = dict(db.execute(query).fetchall())
        over = kept.get("reports_of", 0) - MOST_REPORTS
        if kept.get("reports", 0) > MOST_STORED:
            over = max(over, _AT_ONCE)
        if over > 0:
            oldest = "SELECT idx FROM reports WHERE body IS NOT NULL ORDER BY idx LIMIT ?"
            db.execute(f"DELETE FROM reports WHERE idx IN ({oldest})", (over,))  # noqa: S608
            row = db.execute("SELECT min(idx) FROM reports WHERE body IS NOT NULL").fetchone()
            self._floor = max(self._floor, row[0] or 0)


def fetched(blobs: GatewayBlobs, wanted: Wanted) -> Got:
    """One report; never raises for what a stranger does."""
    if wanted.digest == ZERO32:
        return Got(wanted, "none", "the update names no report")
    try:
        held: Held = blobs.hold(Cid("raw", wanted.digest), MOST_BYTES, wanted.ref)
    except ContentTooLarge as cause:
        return Got(wanted, "refused", str(cause))
    except (ContentMismatch, ContentError) as cause:
        return Got(wanted, "gone", str(cause))
    body = bytes(held.data)
    if hashlib.sha256(body).digest() != wanted.digest:  # the client has checked it: one look more costs nothing
        return Got(wanted, "gone", "other bytes were given")
    trouble = not_json(body)
    return Got(wanted, "malformed", trouble, body) if trouble else Got(wanted, "ok", "", body)


def not_json(body: bytes) -> str:
    """Why some bytes are no report's JSON; empty: they are."""
    try:
        table = json_of(body)
    except ValueError as cause:
        return f"it is no JSON: {str(cause)[:200]}"
    return "" if isinstance(table, dict) else "it is JSON, but no object"
