"""What is left to fetch, the newest first: new entries as they come, then further and further back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

_TOP: Final = 2**63 - 1


@dataclass(slots=True)
class Newest:
    """A walk over a table's rows that have nothing yet.

    Args:
        query: SQL of ours that gives rows, the entry index first, between ``:low`` (inclusive) and ``:high``, ordered
            by it with ``{way}``, at most ``:most``.
    """

    query: str
    _low: int = _TOP
    _high: int = _TOP
    _known: tuple[int, int] = (0, 0)

    def next(self, db: sqlite3.Connection, most: int, floor: int = 0) -> list[sqlite3.Row]:
        """The next rows; none when there are none, for now.

        Args:
            floor: entries before this one are left alone.
        """
        size = _state(db, "folded")
        self._notice(db, size)
        if self._low == _TOP:
            self._low = self._high = size
        found: list[sqlite3.Row] = []
        if self._high < size:
            found = self._between(db, self._high, size, "ASC", most)
            self._high = found[-1][0] + 1 if len(found) == most else size
        if not found and floor < self._low:
            found = self._between(db, floor, self._low, "DESC", most)
            self._low = found[-1][0] if len(found) == most else floor
        return found

    def again(self) -> None:
        """Begin anew, at the top."""
        self._low = self._high = _TOP

    def _between(self, db: sqlite3.Connection, low: int, high: int, way: str, most: int) -> list[sqlite3.Row]:
        return db.execute(self.query.format(way=way), {"low": low, "high": high, "most": most}).fetchall()

    def _notice(self, db: sqlite3.Connection, size: int) -> None:
        """After a reorganisation, or in a new index, other entries may stand where one looked."""
        undone = _state(db, "undone")
        if undone != self._known[0] or size < self._known[1]:
            self.again()
        self._known = (undone, size)


def _state(db: sqlite3.Connection, key: str) -> int:
    row = db.execute("SELECT value FROM ui_state WHERE key = ?", (key,)).fetchone()
    return int(row[0] or 0) if row else 0
