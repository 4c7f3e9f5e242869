"""What other peers say of an update: what they measured, and what they object to; and whether that counts."""

from __future__ import annotations

import sqlite3
from typing import Final

from pydantic import Field

from fl_node.records import ZERO32, Reason
from ledger_ui.contexts import Context, Hex
from ledger_ui.questions.facts import REASONS

#: Rows of each kind on one page.
MOST: Final = 100
#: What an objection says of the bytes, and the checks of an audit that look at that.
_CHECKS: Final = {Reason.MALFORMED: ("well-formed",), Reason.DIGEST_MISMATCH: ("commitment", "merge")}


class AttestationRow(Context):
    """What one peer measured on its own data."""

    entry: int
    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    score_ppm: int
    base_ppm: int
    difference_ppm: int = Field(description="its score less the publisher's claim")
    evidence: Hex | None = Field(description="digest inside the CID of a report of how it was measured")
    counts: bool = Field(description="whether it is part of the attested score")
    why: str = Field(description="why not; empty where it counts")


class ObjectionRow(Context):
    """What one peer objects to."""

    entry: int
    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    reason: str = Field(description="unavailable, malformed, digest-mismatch or withdrawn")
    words: str
    evidence: Hex | None
    counts: bool = Field(description="whether its writer was a member then")
    contradicted: bool | None = Field(
        description="whether others' entries or an audit speak against it; none: not known"
    )
    why: str = Field(description="what speaks for or against it")


class Others(Context):
    """All that others say of one update."""

    attestations: list[AttestationRow]
    attestations_total: int
    objections: list[ObjectionRow]
    objections_total: int


def others_of(db: sqlite3.Connection, update: sqlite3.Row) -> Others:
    """What others say of an update.

    Args:
        update: its row of the table ``updates``.
    """
    index = update["idx"]
    said = db.execute("SELECT count(*) FROM attestations WHERE update_idx = ?", (index,)).fetchone()[0]
    against = db.execute("SELECT count(*) FROM objections WHERE update_idx = ?", (index,)).fetchone()[0]
    return Others(
        attestations=_attestations(db, update),
        attestations_total=said,
        objections=_objections(db, update),
        objections_total=against,
    )


def _attestations(db: sqlite3.Connection, update: sqlite3.Row) -> list[AttestationRow]:
    rows = db.execute(
        "SELECT a.idx, a.peer, a.score_ppm, a.base_score_ppm, a.evidence, p.site, s.name, p.retired_from, "
        "p.peer AS member FROM attestations a "
        "LEFT JOIN peers p ON p.peer = a.peer LEFT JOIN sites s ON s.site = p.site "
        "WHERE a.update_idx = ? ORDER BY a.idx LIMIT ?",
        (update["idx"], MOST),
    )
    found = []
    for row in rows:
        why = _uncounted(row)
        if not why and row["site"] == update["site"]:
            why = "of the publisher’s own site"
        found.append(
            AttestationRow(
                entry=row["idx"],
                peer=row["peer"],
                site=row["site"],
                site_name=row["name"],
                score_ppm=row["score_ppm"],
                base_ppm=row["base_score_ppm"],
                difference_ppm=row["score_ppm"] - update["score_ppm"],
                evidence=_evidence(row["evidence"]),
                counts=not why,
                why=why,
            )
        )
    return found


def _objections(db: sqlite3.Connection, update: sqlite3.Row) -> list[ObjectionRow]:
    rows = db.execute(
        "SELECT o.idx, o.peer, o.reason, o.evidence, p.site, s.name, p.retired_from, p.peer AS member "
        "FROM objections o LEFT JOIN peers p ON p.peer = o.peer LEFT JOIN sites s ON s.site = p.site "
        "WHERE o.update_idx = ? ORDER BY o.idx LIMIT ?",
        (update["idx"], MOST),
    )
    found = []
    for row in rows.fetchall():
        reason = Reason(row["reason"])
        uncounted = _uncounted(row)
        contradicted, why = _held_against(db, update, row["peer"], reason)
        found.append(
            ObjectionRow(
                entry=row["idx"],
                peer=row["peer"],
                site=row["site"],
                site_name=row["name"],
                reason=reason.name.lower().replace("_", "-"),
                words=REASONS[reason],
                evidence=_evidence(row["evidence"]),
                counts=not uncounted,
                contradicted=contradicted,
                why="; ".join(part for part in (uncounted, why) if part),
            )
        )
    return found


def _uncounted(row: sqlite3.Row) -> str:
    if row["member"] is None:
        return "its writer is no member"
    since = row["retired_from"]
    return f"its writer was retired from entry {since} on" if since is not None and row["idx"] >= since else ""


def _held_against(db: sqlite3.Connection, update: sqlite3.Row, peer: int, reason: Reason) -> tuple[bool | None, str]:
    """Whether something speaks against an objection, and what."""
    if reason is Reason.WITHDRAWN:
        own = peer == update["peer"]
        return None, "" if own else "only its publisher can withdraw it"
    if reason is Reason.UNAVAILABLE:
        had = _had_by(db, update, peer)
        return (True, f"yet {had}") if had else (None, "nobody else is on the ledger to have had it")
    results = [
        row[0]
        for row in db.execute(
            "SELECT result FROM verdicts WHERE idx = ? AND check_name IN (?, ?)",
            (update["idx"], *(_CHECKS[reason] * 2)[:2]),
        )
    ]
    if "failed" in results:
        return False, "the last audit here found it so"
    if len(results) == len(_CHECKS[reason]) and all(result == "ok" for result in results):
        return True, "the last audit here found its bytes good"
    return None, "not looked at by an audit here"


def _had_by(db: sqlite3.Connection, update: sqlite3.Row, but: int) -> str:
    """Who else had the bytes, by the ledger; empty: nobody is known to."""
    index, own = update["idx"], update["peer"]
    row = db.execute(
        "SELECT peer, idx FROM attestations WHERE update_idx = ? AND peer NOT IN (?, ?) ORDER BY idx LIMIT 1",
        (index, but, own),
    ).fetchone()
    if row is not None:
        return f"peer {row['peer']} attested it at entry {row['idx']}"
    row = db.execute(
        "SELECT c.peer, c.sequence FROM parents p JOIN updates c ON c.idx = p.child "
        "WHERE p.parent = ? AND p.share_ppm > 0 AND c.peer NOT IN (?, ?) ORDER BY p.child LIMIT 1",
        (index, but, own),
    ).fetchone()
    return "" if row is None else f"{row['peer']}#{row['sequence']} was made from it"


def _evidence(raw: bytes | None) -> str | None:
    return None if raw is None or raw == ZERO32 else raw.hex()
