"""Rounds as the explorer keeps them, and what of one can be said without replaying any selection.

A log may be too long to be held in memory, as a replay needs it. Who is missing then follows from members and updates
alone: who might publish when the round began, was not retired before its end, had not closed, and sent nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_node.completeness import RoundNow, State
from fl_node.completeness.records import round_json
from fl_node.records import Role


@dataclass(frozen=True, slots=True)
class KeptRound:
    """One round to be kept. ``told``: JSON-ready, as :func:`fl_node.completeness.records.round_json` has it, with
    ``exact``: whether selections were replayed; what only a replay can tell is ``None`` where they were not."""

    number: int
    told: dict[str, Any]
    absences: Mapping[int, State]
    closed_at: int | None

    @property
    def open(self) -> bool:
        return self.closed_at is None


def exactly(one: RoundNow) -> KeptRound:
    """A round as a replay has it."""
    return KeptRound(one.row.number, {**round_json(one.row), "exact": True}, one.absences, one.closed_at)


def keep(db: sqlite3.Connection, one: KeptRound) -> None:
    """Write a round, instead of what was known of it. Inside a transaction."""
    told = json.dumps(one.told, separators=(",", ":"))
    row = (one.number, one.told["first_entry"], one.told["last_entry"], one.closed_at or 0, told)
    db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?)", row)
    db.execute("DELETE FROM absences WHERE round = ?", (one.number,))
    absent = ((one.number, peer, state.value) for peer, state in one.absences.items())
    db.executemany("INSERT INTO absences VALUES (?, ?, ?)", absent)


def summed(db: sqlite3.Connection, number: int) -> KeptRound | None:
    """A round from the tables alone; ``None`` where it holds no update."""
    updates = db.execute(
        "SELECT idx, peer, sequence, final, ignored FROM updates WHERE round = ? ORDER BY idx", (number,)
    ).fetchall()
    if not updates:
        return None
    later = db.execute("SELECT min(idx) FROM updates WHERE round = ?", (number + 1,)).fetchone()[0]
    first = next((idx for idx, _, _, _, ignored in updates if ignored is None), None)
    members = _members(db, updates[0][0] if first is None else first)
    able = sorted(peer for peer, (takes_part, _) in members.items() if takes_part)
    there = {row[1] for row in updates}
    absences: dict[int, State] = {}
    for peer, (takes_part, retired) in members.items():
        if peer in there or first is None:
            continue
        if retired is not None and (later is None or retired < later):
            absences[peer] = State.RETIRED
        elif takes_part:
            absences[peer] = State.AWAITED if later is None else State.MISSING
    told = {
        "round": number,
        "first_entry": updates[0][0],
        "last_entry": updates[-1][0],
        "expected": None if first is None else able,
        "submitted": [f"{row[1]}#{row[2]}" for row in updates if row[4] is None and not row[3]],
        "closing": [f"{row[1]}#{row[2]}" for row in updates if row[4] is None and row[3]],
        "ignored": [f"{row[1]}#{row[2]}" for row in updates if row[4] is not None],
        "late": None,
        "missing": sorted(peer for peer, state in absences.items() if state is State.MISSING),
        "awaited": sorted(peer for peer, state in absences.items() if state is State.AWAITED),
        "given_up": None,
        "cut": None,
        "by_deadline": None,
        "exact": False,
    }
    return KeptRound(number, told, absences, None if later is None else later + 1)


def _members(db: sqlite3.Connection, size: int) -> dict[int, tuple[bool, int | None]]:
    """Those admitted before entry ``size``: whether each was to take part in a round that began there, and the entry
    of its retirement, whenever that was."""
    rows = db.execute(
        "SELECT peer, roles, retired, (SELECT u.final FROM updates u WHERE u.peer = peers.peer AND u.idx < ?1 "
        "AND u.ignored IS NULL ORDER BY u.idx DESC LIMIT 1) FROM peers WHERE admitted < ?1",
        (size,),
    )
    return {
        peer: (bool((roles or 0) & Role.PUBLISH) and not closed and (retired is None or retired >= size), retired)
        for peer, roles, retired, closed in rows
    }
