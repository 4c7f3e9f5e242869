"""Figures out of reports that lists and sums need, a row for each report that can be read.

They follow from the reports that are kept, and go with them.
"""

from __future__ import annotations

import sqlite3

from ledger_ui.index.claims import bytes_in, privacy_in, traffic_in
from ledger_ui.strange import json_of


def tell(db: sqlite3.Connection, idx: int, body: bytes) -> None:
    """Keep the figures of the report of the update at an entry. Inside the transaction that keeps the report; nothing
    for what is no report, or of no update."""
    update = db.execute("SELECT peer, round FROM updates WHERE idx = ?", (idx,)).fetchone()
    try:
        report = json_of(body)
    except ValueError:
        return
    if update is None or not isinstance(report, dict):
        return
    size, spent, traffic = bytes_in(report), privacy_in(report), traffic_in(report)
    compared = size is not None and size.plain is not None
    db.execute("DELETE FROM told WHERE idx = ?", (idx,))  # not replaced: the triggers that add up must see it go
    db.execute(
        "INSERT INTO told VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(idx, update[0], update[1], size.update if size else None),
            *((size.update, size.plain) if size and compared else (None, None)),
            *((spent.mechanism, spent.epsilon, spent.delta, spent.budget_epsilon) if spent else (None,) * 4),
            *((traffic.sent_bytes, traffic.received_bytes) if traffic else (None, None)),
        ),
    )


def tell_kept(db: sqlite3.Connection) -> None:
    """Keep the figures of all reports that are kept, where they are not yet: after the tables were made anew."""
    query = (
        "SELECT r.idx FROM reports r LEFT JOIN told t ON t.idx = r.idx "
        "WHERE r.status = 'ok' AND r.body IS NOT NULL AND t.idx IS NULL"
    )
    for (idx,) in db.execute(query).fetchall():
        tell(db, idx, bytes(db.execute("SELECT body FROM reports WHERE idx = ?", (idx,)).fetchone()[0]))
