"""Ranges of rounds, and how far what pages say of them was worked out."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pydantic import ConfigDict, Field

from ledger_ui.contexts import Context, Query

_MOST = 2**62


class RoundsQuery(Query):
    """A range of rounds, as ``?from=5&to=9``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    first: int | None = Field(None, alias="from", ge=0, le=_MOST, description="first round; none: some before the last")
    last: int | None = Field(None, alias="to", ge=0, le=_MOST, description="last round; none: the highest there is")


class Worked(Context):
    """How far selections were worked out again for these pages."""

    size: int = Field(description="entries that completeness was worked out for")
    exact: int = Field(
        description="of them, those whose selections were replayed; beyond, nobody is said to be left out or late, and "
        "absences follow from members and updates alone"
    )
    trouble: str = Field(description="why the replay ended, where something is wrong; empty else")

    def words(self, size: int) -> str:
        """What a reader of a log of so many entries must know; empty where nothing is missing."""
        if self.trouble and self.exact == self.size:
            return f"Not everything could be replayed ({self.trouble}); the rest stands as it is told here."
        if self.trouble:
            return (
                f"Selections could not be replayed beyond entry {self.exact:,} ({self.trouble}). Who was left out "
                "after that is not told here; fl-node completeness and fl-node show tell."
            )
        if self.exact < self.size:
            return (
                f"Selections were replayed for the first {self.exact:,} entries only: not replayed on a log this long. "
                "Who was left out after that is not told here; fl-node show 3#12 tells."
            )
        return "" if self.size >= size else f"Selections are replayed up to entry {self.size:,} so far."


def worked(db: sqlite3.Connection) -> Worked:
    """How far the index behind this snapshot has come."""
    known = dict(
        db.execute(
            "SELECT key, value FROM ui_state WHERE key IN ('replayed', 'replay_exact', 'replay_trouble')"
        ).fetchall()
    )
    size, exact = int(known.get("replayed") or 0), known.get("replay_exact")
    trouble = known.get("replay_trouble") or ""
    return Worked(size=size, exact=size if exact is None else min(int(exact), size), trouble=trouble)


@dataclass(frozen=True, slots=True)
class Span:
    """Rounds of a range that hold updates, ascending, and whether there are others before and after."""

    rounds: tuple[int, ...]
    earlier: bool
    later: bool


def rounds_between(db: sqlite3.Connection, first: int | None, last: int | None, most: int) -> Span:
    """Up to ``most`` rounds with updates: the last of the range, or the first where only its beginning is given."""
    low, high = (0 if first is None else first), (_MOST * 2 - 1 if last is None else last)
    forward = first is not None and last is None
    way = "ASC" if forward else "DESC"
    query = f"SELECT round FROM rounds WHERE round BETWEEN ? AND ? ORDER BY round {way} LIMIT ?"  # noqa: S608
    found = sorted(row[0] for row in db.execute(query, (low, high, most)))
    if not found:
        return Span((), False, False)
    earlier = db.execute("SELECT 1 FROM rounds WHERE round < ? LIMIT 1", (found[0],)).fetchone()
    later = db.execute("SELECT 1 FROM rounds WHERE round > ? LIMIT 1", (found[-1],)).fetchone()
    return Span(tuple(found), earlier is not None, later is not None)
