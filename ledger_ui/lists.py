"""Lists that are cut into pages by a key, so that a page stays the same while the log grows.

A list is ordered by one column and then by entry index. The address of the next page names the last row of this one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from ledger_ui.contexts import Context, Link, Query

_BATCH = 500
_Condition: TypeAlias = tuple[str, tuple[int, ...]]
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


class Sorting(Context):
    """A column that a list can be sorted by."""

    column: str
    order: Literal["asc", "desc"] | None = Field(description="how the list is sorted by it; none: it is not")
    url: str = Field(description="the list sorted by it, or the other way round")


def sortings(columns: Sequence[str], sort: str, query: ListQuery, url: Callable[..., str]) -> list[Sorting]:
    """The list's other orders. Largest first, unless it is so already.

    Args:
        sort: the column that the list is sorted by.
        url: gives the list's address from what it is asked.
    """
    told = {**asked_of(query), "after": None}
    found = []
    for column in columns:
        other = "asc" if column == sort and query.order == "desc" else "desc"
        address = url(**{**told, "sort": column, "order": other})
        found.append(Sorting(column=column, order=query.order if column == sort else None, url=address))
    return found


def chips(words: Mapping[str, str], query: ListQuery, url: Callable[..., str]) -> list[Link]:
    """The filters in force, in words; each leads to the list without it.

    Args:
        words: by name of the parameter.
    """
    told = {**asked_of(query), "after": None}
    return [Link(words=said, url=url(**{**told, name: None})) for name, said in words.items()]


def asked_of(query: Query) -> dict[str, Any]:
    """What a page was asked beyond what it takes anyway, for the addresses of its neighbours."""
    return query.model_dump(exclude_defaults=True, exclude_none=True, by_alias=True)


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
        sign, way = (">", "ASC") if order == "asc" else ("<", "DESC")
        value, _, number = (after or "").rpartition(".")
        key = _fit(number) if after else None
        beyond: list[_Condition]
        if sort == self.key:
            beyond = [] if key is None else [(f"{self.key} {sign} ?", (key,))]
            return self._part(db, sort, beyond, f"{self.key} {way}", limit)
        rows: list[sqlite3.Row] = []
        if key is None or value:  # rows without a value come last, either way; an index serves both parts
            beyond = [(f"{sort} IS NOT NULL", ())]
            if key is not None:
                beyond.append((f"({sort}, {self.key}) {sign} (?, ?)", (_fit(value), key)))
            rows = self._part(db, sort, beyond, f"{sort} {way}, {self.key} {way}", limit)
            key = None
        if len(rows) < limit:
            beyond = [(f"{sort} IS NULL", ())]
            if key is not None:
                beyond.append((f"{self.key} {sign} ?", (key,)))
            rows += self._part(db, sort, beyond, f"{self.key} {way}", limit - len(rows))
        return rows

    def _part(
        self, db: sqlite3.Connection, sort: str, beyond: Sequence[_Condition], order: str, limit: int
    ) -> list[sqlite3.Row]:
        where = [*self.where, *(condition for condition, _ in beyond)]
        values = [*self.values, *(value for _, given in beyond for value in given)]
        query = (
            f"SELECT {self.columns}, {self.key} AS key, {sort} AS sorted FROM {self.source}"  # noqa: S608
            f"{_joined(where)} ORDER BY {order} LIMIT ?"
        )
        return db.execute(query, [*values, limit]).fetchall()

    def _where(self) -> str:
        return _joined(self.where)


def _joined(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _fit(number: str) -> int:
    """A number as SQLite can hold it; none of ours is larger."""
    return max(-(2**63), min(int(number), 2**63 - 1))
