"""Activity: how many entries of which kind a stretch of time brought.

Entries stand in the order of block time, so the bounds of a stretch are found by halving, and what lies between is
counted in narrow indexes: no entry is read.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from pydantic import Field

from ledger_ui.contexts import Context

#: Stretches that the whole log is cut into, about.
_STRETCHES: Final = 48
_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86_400
_LENGTHS: Final = (
    *(part * _SECOND for part in (1, 2, 5, 10, 15, 30)),
    *(part * _MINUTE for part in (1, 2, 5, 10, 15, 30)),
    *(part * _HOUR for part in (1, 2, 3, 6, 12)),
    *(part * _DAY for part in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_MOST_MEMBERS: Final = 20_000


class Stretch(Context):
    """A stretch of time, and the entries that it brought."""

    start_s: int = Field(description="block time, seconds since 1970")
    updates: int
    objections: int
    members: int = Field(description="peers admitted, retired or announcing an endpoint")
    attestations: int = Field(description="entries that attest updates, and whatever else there is")


class Activity(Context):
    """The log from its first entry to its last, in stretches of one length."""

    length_s: int
    stretches: list[Stretch]


def activity(db: sqlite3.Connection, size: int) -> Activity:
    """The first ``size`` entries over time."""
    if not size:
        return Activity(length_s=1, stretches=[])
    first, last = _time(db, 0), _time(db, size - 1)
    length = _length(max(1, last - first + 1))
    begin = first - first % length
    starts = [begin + length * number for number in range(max(0, (last - begin) // length) + 1)]
    bounds = list(_bounds(db, starts, size))
    members = _members(db)
    stretches = []
    for start, low, high in zip(starts, bounds, [*bounds[1:], size], strict=True):
        updates = _between(db, "SELECT count(*) FROM updates WHERE time_s >= ? AND time_s < ?", start, start + length)
        objections = _between(db, "SELECT count(*) FROM objections WHERE idx >= ? AND idx < ?", low, high)
        of_members = _between(db, "SELECT count(*) FROM announcements WHERE idx >= ? AND idx < ?", low, high)
        of_members += bisect_left(members, high) - bisect_left(members, low)
        rest = max(0, high - low - updates - objections - of_members)
        stretches.append(
            Stretch(start_s=start, updates=updates, objections=objections, members=of_members, attestations=rest)
        )
    return Activity(length_s=length, stretches=stretches)


def _length(span: int) -> int:
    """The shortest of the usual lengths by which a span is cut into few enough stretches."""
    least = span / _STRETCHES
    return next((length for length in _LENGTHS if length >= least), -(-span // _STRETCHES))


def _bounds(db: sqlite3.Connection, starts: list[int], size: int) -> Iterator[int]:
    """Of each stretch the first entry that is not before it, ascending."""
    low = 0
    for start in starts:
        before = db.execute(
            "SELECT idx FROM updates WHERE time_s < ? ORDER BY time_s DESC, idx DESC LIMIT 1", (start,)
        ).fetchone()
        after = db.execute(
            "SELECT idx FROM updates WHERE time_s >= ? ORDER BY time_s, idx LIMIT 1", (start,)
        ).fetchone()
        bottom = max(low, before[0] + 1 if before else 0)
        top = max(bottom, min(size, after[0] if after else size))
        low = _first(db, bottom, top, start)
        yield low


def _first(db: sqlite3.Connection, low: int, high: int, start: int) -> int:
    """The first entry from ``low`` up to ``high`` whose time is ``start`` or later."""
    while low < high:
        middle = (low + high) // 2
        if _time(db, middle) >= start:
            high = middle
        else:
            low = middle + 1
    return low


def _time(db: sqlite3.Connection, index: int) -> int:
    row = db.execute("SELECT time_s FROM entries WHERE idx = ?", (index,)).fetchone()
    return int(row[0]) if row else 0


def _members(db: sqlite3.Connection) -> list[int]:
    rows = db.execute("SELECT admitted, retired FROM peers LIMIT ?", (_MOST_MEMBERS,))
    return sorted(index for row in rows for index in row if index is not None)


def _between(db: sqlite3.Connection, query: str, low: int, high: int) -> int:
    return int(db.execute(query, (low, high)).fetchone()[0])
