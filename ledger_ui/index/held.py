"""What was kept through a making anew of the tables, held against the log: what is not of it goes."""

from __future__ import annotations

import sqlite3
from typing import Final

from fl_node.audit.verdicts import Result
from fl_node.errors import LedgerError
from fl_node.ledger.log_store import LogStore
from ledger_ui.index.fold import bump
from ledger_ui.index.told import tell_kept

_SEVERITY: Final = {result.value: rank for rank, result in enumerate(Result)}


def hold(log: LogStore, db: sqlite3.Connection) -> bool:
    """After the log was folded from its start: put away what was fetched for entries that are others now, and set the
    verdicts of audits that were of this very log. A step for :meth:`ledger_ui.index.follower.Follower.after_fold`."""
    known = dict(db.execute("SELECT key, value FROM ui_state WHERE key IN ('unheld', 'folded')").fetchall())
    if not known.get("unheld") or int(known.get("folded") or 0) < log.size:
        return False
    with db:
        db.execute("BEGIN IMMEDIATE")
        for table, column, digest in (("reports", "report", "digest"), ("holders", "content", "content")):
            same = f"SELECT 1 FROM updates u WHERE u.idx = {table}.idx AND u.{column} = {table}.{digest}"  # noqa: S608
            db.execute(f"DELETE FROM {table} WHERE NOT EXISTS ({same})")  # noqa: S608
        tell_kept(db)
        for audit, size, root in db.execute(
            "SELECT DISTINCT v.audit, a.size, a.root FROM verdicts v LEFT JOIN audits a ON a.id = v.audit"
        ).fetchall():
            if _is_of(log, size, root):
                _set_verdicts(db, audit, size)
            else:
                db.execute("DELETE FROM verdicts WHERE audit = ?", (audit,))
        db.execute("DELETE FROM verdicts WHERE idx NOT IN (SELECT idx FROM updates WHERE verdict IS NOT NULL)")
        db.execute("DELETE FROM ui_state WHERE key = 'unheld'")
        bump(db)
    return False


def _is_of(log: LogStore, size: int | None, root: bytes | None) -> bool:
    try:
        return size is not None and root is not None and log.root(size) == root
    except (LookupError, LedgerError):
        return False


def _set_verdicts(db: sqlite3.Connection, audit: int, size: int) -> None:
    """Each update's worst result in an audit."""
    worst: dict[int, str] = {}
    for idx, result in db.execute("SELECT idx, result FROM verdicts WHERE audit = ?", (audit,)).fetchall():
        if _SEVERITY.get(result, -1) > _SEVERITY.get(worst.get(idx, ""), -1):
            worst[idx] = result
    db.executemany(
        "UPDATE updates SET verdict = ?, verdict_size = ? WHERE idx = ?",
        [(result, size, idx) for idx, result in worst.items()],
    )
