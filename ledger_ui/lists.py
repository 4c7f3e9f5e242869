"""Lists that are cut into pages by a key, so that a page stays the same while the log grows.

A list is ordered by one column and then by entry index. The address of the next page names the last row of this one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from ledger_ui.contexts import Query

_BATCH = 500
Order = Literal["asc", "desc"]


class ListQuery(Query):
    """What every list may be asked."""

    order: Order = Field("desc", description="asc or desc")
    after: str | None = Field(
        None,
        max_length=64,
        pattern=r"^(?:-?[0-9]{1,19}|)(?:\.[0-9]{1,18})?$",
        description="the last row of the page before, as its next_url has it",
    )
    limit: Annotated[int, Field(ge=1, le=500)] = Field(50, description="rows on a page")


@dataclass(slots=True)
class Select:
    """A query that grows filter by filter.

    ``columns`` and ``source`` are SQL of ours; values come as parameters only.
    """

    columns: str
    source: str
    key: str = "idx"
    where: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def only(self, condition: str, *values: object) -> None:
        """Narrow it. A condition with a value that is ``None`` is left out."""
        if values and any(value is None for value in values):
            return
        self.where.append(condition)
        self.values += values

    def count(self, db: sqlite3.Connection) -> int:
        query = f"SELECT count(*) FROM {self.source}{self._where()}"  # noqa: S608
        return int(db.execute(query, self.values).fetchone()[0])

    def page(
        self, db: sqlite3.Connection, sort: str, order: Order, after: str | None, limit: int
    ) -> tuple[list[sqlite3.Row], str | None]:
        """One page, and what the next one is asked with; ``None`` on the last.

        Args:
            sort: a column of ours, or the key.
        """
        rows = self._rows(db, sort, order, after, limit + 1)
        if len(rows) <= limit:
            return rows, None
        rows = rows[:limit]
        last = rows[-1]
        if sort == self.key:
            return rows, str(last["key"])
        value = last["sorted"]
        return rows, f"{'' if value is None else value}.{last['key']}"

    def all(self, db: sqlite3.Connection, sort: str, order: Order) -> Iterator[sqlite3.Row]:
        """Every row, a batch at a time."""
        after = None
        while True:
            rows, after = self.page(db, sort, order, after, _BATCH)
            yield from rows
            if after is None:
                return

    def _rows(
        self, db: sqlite3.Connection, sort: str, order: Order, after: str | None, limit: int
    ) -> list[sqlite3.Row]:
        where, values = list(self.where), list(self.values)
        sign, way = (">", "ASC") if order == "asc" else ("<", "DESC")
        if after:
            value, _, key = after.rpartition(".") if sort != self.key else ("", "", after.rpartition(".")[2])
            if sort == self.key:
                where.append(f"{self.key} {sign} ?")
                values.append(int(key))
            elif value == "":  # rows without a value come last, either way
                where.append(f"({sort} IS NULL AND {self.key} {sign} ?)")
                values.append(int(key))
            else:
                where.append(f"({sort} {sign} ? OR ({sort} = ? AND {self.key} {sign} ?) OR {sort} IS NULL)")
                values += [int(value), int(value), int(key)]
        ordered = f"{self.key} {way}" if sort == self.key else f"{sort} IS NULL, {sort} {way}, {self.key} {way}"
        query = (
            f"SELECT {self.columns}, {self.key} AS key, {sort} AS sorted FROM {self.source}"  # noqa: S608
            f"{_joined(where)} ORDER BY {ordered} LIMIT ?"
        )
        return db.execute(query, [*values, limit]).fetchall()

    def _where(self) -> str:
        return _joined(self.where)


def _joined(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
