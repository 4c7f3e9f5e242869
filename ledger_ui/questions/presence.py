"""Where a peer serves content, who has its updates, and in which rounds it was not there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from fl_node.completeness import State
from fl_node.completeness.records import MEANINGS
from fl_node.merging.outcomes import ranges
from ledger_ui.contexts import Context, Hex, Ref
from ledger_ui.questions.members import Whose

_LISTED: Final = 20
_MOST_GAPS: Final = 200


class Announced(Context):
    """Where a peer said that it serves content, and with which keys."""

    entry: int
    time_s: int | None = Field(description="block time, seconds since 1970")
    peer: int
    epoch: int
    endpoint: str = Field(description="as it was announced; a stranger's text")
    recipient_key: Hex = Field(description="key that content is encrypted for")
    tls_pin: Hex = Field(description="digest of its TLS key")


class Holding(Context):
    """Who had the content of one update, when that was last asked."""

    update: Ref
    entry: int
    haves: int | None = Field(description="gateways that have it; none: only its size was asked for")
    lacks: int | None
    silent: int | None = Field(description="gateways that did not answer")
    publisher: bool | None = Field(description="whether its publisher has it; none: it did not answer")
    size_bytes: int | None
    asked_at: float | None = Field(description="local time, seconds since 1970")
    detail: str = Field(description="who said what, by peer number")


class Held(Context):
    """The content of the updates that were looked at."""

    asked: int = Field(description="updates among them whose holders were asked for")
    by_others: int = Field(description="of those, had by another gateway than the publisher's")
    by_publisher_only: int
    by_nobody: int = Field(description="nobody that answered had it")
    latest: list[Holding] = Field(description="the last 10 that were asked for")


class Gap(Context):
    """Rounds in which a peer has no update, for one reason."""

    state: str = Field(description="missing, awaited, retired or not-expected")
    meaning: str
    peer: int
    rounds: str = Field(description="numbers and ranges, as 3,7-9")
    many: int


class Presence(Context):
    """All of that."""

    announcements: list[Announced] = Field(description="the last 20, newest first")
    announcements_many: int
    held: Held
    gaps: list[Gap] = Field(description="over the last 200 rounds without an update of each peer")
    gaps_cut: bool = Field(description="there are earlier rounds without an update, which are not told here")


def presence(db: sqlite3.Connection, whose: Whose, rows: Sequence[sqlite3.Row]) -> Presence:
    """Of these peers, and the updates that :func:`ledger_ui.questions.own.recent` gave."""
    gaps, cut = _gaps(db, whose)
    many = sum(
        db.execute("SELECT count(*) FROM announcements WHERE peer = ?", (peer,)).fetchone()[0] for peer in whose.peers
    )
    return Presence(
        announcements=_announced(db, whose), announcements_many=many, held=_held(db, rows), gaps=gaps, gaps_cut=cut
    )


def _announced(db: sqlite3.Connection, whose: Whose) -> list[Announced]:
    query = (
        "SELECT a.idx, e.time_s, a.peer, a.epoch, a.endpoint, a.recipient_key, a.tls_pin FROM announcements a "
        "LEFT JOIN entries e ON e.idx = a.idx WHERE a.peer = ? ORDER BY a.idx DESC LIMIT ?"
    )
    rows = [row for peer in whose.peers for row in db.execute(query, (peer, _LISTED))]
    return [
        Announced(
            entry=row["idx"],
            time_s=row["time_s"],
            peer=row["peer"],
            epoch=row["epoch"],
            endpoint=row["endpoint"],
            recipient_key=row["recipient_key"].hex(),
            tls_pin=row["tls_pin"].hex(),
        )
        for row in sorted(rows, key=lambda row: -row["idx"])[:_LISTED]
    ]


def _held(db: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> Held:
    query = (
        "SELECT h.*, u.peer, u.sequence FROM json_each(?) j CROSS JOIN holders h ON h.idx = j.value "
        "JOIN updates u ON u.idx = h.idx WHERE h.asked_at IS NOT NULL ORDER BY h.idx DESC"
    )
    found = [_holding(row) for row in db.execute(query, (json.dumps([row["idx"] for row in rows]),))]
    others = [(one.haves or 0) - (1 if one.publisher else 0) for one in found]
    return Held(
        asked=len(found),
        by_others=sum(1 for many in others if many > 0),
        by_publisher_only=sum(1 for one, many in zip(found, others, strict=True) if many <= 0 and one.publisher),
        by_nobody=sum(1 for one in found if not one.haves),
        latest=found[:10],
    )


def _holding(row: sqlite3.Row) -> Holding:
    return Holding(
        update=f"{row['peer']}#{row['sequence']}",
        entry=row["idx"],
        haves=row["haves"],
        lacks=row["lacks"],
        silent=row["silent"],
        publisher=None if row["publisher"] is None else bool(row["publisher"]),
        size_bytes=row["size_bytes"],
        asked_at=row["asked_at"],
        detail=row["detail"] or "",
    )


def _gaps(db: sqlite3.Connection, whose: Whose) -> tuple[list[Gap], bool]:
    query = "SELECT round, state FROM absences WHERE peer = ? ORDER BY round DESC LIMIT ?"
    found, cut = [], False
    for peer in whose.peers:
        rows = db.execute(query, (peer, _MOST_GAPS + 1)).fetchall()
        cut = cut or len(rows) > _MOST_GAPS
        by_state: dict[str, list[int]] = {}
        for number, state in rows[:_MOST_GAPS]:
            by_state.setdefault(state, []).append(number)
        found += [
            Gap(
                state=state,
                meaning=MEANINGS.get(State(state), "") if state in set(State) else "",
                peer=peer,
                rounds=ranges(sorted(numbers)),
                many=len(numbers),
            )
            for state, numbers in sorted(by_state.items())
        ]
    return found, cut
