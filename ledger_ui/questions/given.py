"""What a peer says of others' updates, and others of its own: attestations and objections."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from fl_node.merging.scores import lower_median
from fl_node.records import Reason
from ledger_ui.contexts import Context, Ref
from ledger_ui.questions.members import Whose

#: Of the last attestations, as many are compared with what others say; and as many others of one update.
COMPARED: Final = 40
_MOST_OTHERS: Final = 200
_LISTED: Final = 20


class Objected(Context):
    """One objection."""

    entry: int
    update: Ref | None = Field(description="what it is about; none: an update that is not in the log")
    by: int = Field(description="the peer that objected")
    reason: str = Field(description="unavailable, malformed, digest-mismatch, withdrawn, or another number")


class Given(Context):
    """Words on updates."""

    entries: int = Field(description="entries by which it attested updates of others")
    attested: int = Field(description="updates that it attested, one by one")
    compared: int = Field(description="of its last attestations, those of updates that other sites attested too")
    mean_difference_ppm: float | None = Field(
        description="mean of its score less the median over other sites, parts per million; none: nothing to compare"
    )
    objections_made: int
    made: list[Objected] = Field(description="the last 20 that it made")
    received: list[Objected] = Field(description="those against the updates that were looked at; the last 20")
    received_many: int = Field(description="how many these are")


def given(db: sqlite3.Connection, whose: Whose, rows: Sequence[sqlite3.Row]) -> Given:
    """Words of these peers, and about the updates that :func:`ledger_ui.questions.own.recent` gave."""
    differences = _differences(db, whose)
    made = _made(db, whose)
    received = _received(db, rows)
    return Given(
        entries=_sum(db, whose, "SELECT count(*) FROM entries WHERE kind = 'UpdatesAttested' AND peer = ?"),
        attested=_sum(db, whose, "SELECT count(*) FROM attestations WHERE peer = ?"),
        compared=len(differences),
        mean_difference_ppm=sum(differences) / len(differences) if differences else None,
        objections_made=_sum(db, whose, "SELECT count(*) FROM objections WHERE peer = ?"),
        made=made,
        received=received[:_LISTED],
        received_many=len(received),
    )


def reason_words(reason: int) -> str:
    """An objection's reason by name.

    >>> reason_words(1), reason_words(9)
    ('unavailable', 'reason 9')
    """
    try:
        return Reason(reason).name.lower().replace("_", "-")
    except ValueError:
        return f"reason {reason}"


def _sum(db: sqlite3.Connection, whose: Whose, query: str) -> int:
    return sum(int(db.execute(query, (peer,)).fetchone()[0]) for peer in whose.peers)


def _differences(db: sqlite3.Connection, whose: Whose) -> list[int]:
    """Its score less the median over sites that are neither its own nor the publisher's, of its last words."""
    query = (
        "SELECT a.idx, a.update_idx, a.score_ppm, u.site AS publisher, p.site FROM attestations a "
        "JOIN updates u ON u.idx = a.update_idx LEFT JOIN peers p ON p.peer = a.peer WHERE a.peer = ? "
        "ORDER BY a.idx DESC LIMIT ?"
    )
    words = [row for peer in whose.peers for row in db.execute(query, (peer, COMPARED))]
    words.sort(key=lambda row: -row["idx"])
    found = []
    for word in words[:COMPARED]:
        median = _median_of_others(db, word["update_idx"], (word["site"], word["publisher"]))
        if median is not None:
            found.append(word["score_ppm"] - median)
    return found


def _median_of_others(db: sqlite3.Connection, update: int, but: tuple[int | None, int | None]) -> int | None:
    query = (
        "SELECT a.score_ppm, p.site FROM attestations a JOIN peers p ON p.peer = a.peer WHERE a.update_idx = ? "
        "AND (p.retired_from IS NULL OR a.idx < p.retired_from) LIMIT ?"
    )
    by_site: dict[int, list[int]] = {}
    for score, site in db.execute(query, (update, _MOST_OTHERS)):
        if site not in but:
            by_site.setdefault(site, []).append(score)
    return lower_median([lower_median(scores) for scores in by_site.values()]) if by_site else None


def _made(db: sqlite3.Connection, whose: Whose) -> list[Objected]:
    query = (
        "SELECT o.idx, o.peer, o.reason, u.peer AS publisher, u.sequence FROM objections o "
        "LEFT JOIN updates u ON u.idx = o.update_idx WHERE o.peer = ? ORDER BY o.idx DESC LIMIT ?"
    )
    rows = [row for peer in whose.peers for row in db.execute(query, (peer, _LISTED))]
    return [_objected(row) for row in sorted(rows, key=lambda row: -row["idx"])[:_LISTED]]


def _received(db: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Objected]:
    query = "SELECT idx, peer, reason FROM objections WHERE update_idx = ? ORDER BY idx DESC LIMIT ?"
    found = [(word, row) for row in rows if row["objections"] for word in db.execute(query, (row["idx"], _MOST_OTHERS))]
    found.sort(key=lambda pair: -pair[0]["idx"])
    return [
        Objected(
            entry=word["idx"],
            update=f"{row['peer']}#{row['sequence']}",
            by=word["peer"],
            reason=reason_words(word["reason"]),
        )
        for word, row in found
    ]


def _objected(row: sqlite3.Row) -> Objected:
    update = None if row["publisher"] is None else f"{row['publisher']}#{row['sequence']}"
    return Objected(entry=row["idx"], update=update, by=row["peer"], reason=reason_words(row["reason"]))
