"""One round from the index: what is kept of it, and what became of its updates."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledger_ui.index.summed import summed


@dataclass(frozen=True, slots=True)
class Told:
    """A round as it was worked out last. What only a replay can tell is ``None`` where there was none.

    Attributes:
        expected: peers that were waited for, or were to publish; ``None``: it has not begun, since none of its updates
            counts.
        first, last: entries of its first and last update.
    """

    number: int
    open: bool
    exact: bool
    expected: Sequence[int] | None
    submitted: Sequence[str]
    closing: Sequence[str]
    ignored: Sequence[str]
    late: Sequence[str] | None
    missing: Sequence[int]
    awaited: Sequence[int]
    given_up: Sequence[int] | None
    cut: int | None
    by_deadline: bool | None
    first: int
    last: int


def told_of(number: int, settled: int, told: str) -> Told:
    """A row of the table ``rounds``."""
    return _told(number, not settled, json.loads(told))


def round_told(db: sqlite3.Connection, number: int) -> Told | None:
    """A round, worked out here from members and updates where that was not done yet; ``None``: it holds no update."""
    row = db.execute("SELECT round, settled, told FROM rounds WHERE round = ?", (number,)).fetchone()
    if row is not None:
        return told_of(*row)
    one = summed(db, number)
    return None if one is None else _told(number, one.open, one.told)


def states_of(db: sqlite3.Connection, rounds: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many of each round's updates became what; of at most some hundred rounds."""
    found: dict[int, dict[str, int]] = {number: {} for number in rounds}
    marks = ",".join("?" * len(rounds))
    query = f"SELECT round, state, count(*) FROM updates WHERE round IN ({marks}) GROUP BY round, state"  # noqa: S608
    for number, state, many in db.execute(query, tuple(rounds)):
        found[number][state] = many
    return found


def times_of(db: sqlite3.Connection, indices: Sequence[int]) -> dict[int, int]:
    """Block times of entries that there are."""
    marks = ",".join("?" * len(indices))
    query = f"SELECT idx, time_s FROM entries WHERE idx IN ({marks})"  # noqa: S608
    return {row[0]: row[1] for row in db.execute(query, tuple(indices))}


def neighbours(db: sqlite3.Connection, number: int) -> tuple[int | None, int | None]:
    """The rounds with updates before and after one."""
    before = db.execute("SELECT max(round) FROM updates WHERE round < ?", (number,)).fetchone()[0]
    return before, db.execute("SELECT min(round) FROM updates WHERE round > ?", (number,)).fetchone()[0]


def _told(number: int, is_open: bool, known: dict[str, Any]) -> Told:
    same = ("exact", "expected", "submitted", "closing", "ignored", "late", "missing", "awaited", "given_up", "cut")
    fields = {name: known[name] for name in (*same, "by_deadline")}
    return Told(number=number, open=is_open, first=known["first_entry"], last=known["last_entry"], **fields)
