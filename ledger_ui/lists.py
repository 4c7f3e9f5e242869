"""Lists that are cut into pages by a key, so that a page stays the same while the log grows.

A list is ordered by one column and then by its key, mostly the entry index. The address of the next page names the last
row of this one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field

from ledger_ui.contexts import Context, Link, Paging, Query

_BATCH: Final = 500
#: Steps of SQLite's machine between two looks at whether a count takes too long, and until it does: some 20 ms.
_STEPS: Final = 50_000
_MOST_STEPS: Final = 2_000_000
_Condition: TypeAlias = tuple[str, list[int]]
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


def paging(query: ListQuery, after: str | None, total: int | None, url: Callable[..., str]) -> Paging:
    """Where a list stands.

    Args:
        after: what the next page is asked with; ``None`` on the last.
        url: gives the list's address from what it is asked.
    """
    told = asked_of(query)
    return Paging(
        total=total,
        limit=query.limit,
        first_url=url(**{**told, "after": None}) if query.after else None,
        next_url=url(**{**told, "after": after}) if after else None,
    )


@dataclass(slots=True)
class Select:
    """A query that grows filter by filter.

    What a list is cut and sorted by is looked up first, and only the page's rows are read then: with an index that has
    the filters' and the sort's columns, no filter costs more than a walk through that index.

    Attributes:
        columns, source: SQL of ours, as everything here but values.
        key: a column that no two rows have the same of, whole numbers; mostly the entry's index.
        beside: left joins that only ``columns`` need: ``LEFT JOIN sites s ON s.site = u.site``.
        ordered: for every order there is an index that has the filters' columns too. It is walked through then, rather
            than that all rows of a filter are looked up and sorted.
    """

    columns: str
    source: str
    key: str = "idx"
    where: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)
    beside: str = ""
    ordered: bool = False

    def only(self, condition: str, *values: object) -> None:
        """Narrow it. A condition with a value that is ``None`` is left out."""
        if values and any(value is None for value in values):
            return
        self.where.append(condition)
        self.values += values

    def count(self, db: sqlite3.Connection, most_steps: int = _MOST_STEPS) -> int | None:
        """How many rows match; ``None`` where counting them takes long. The same log gives the same answer."""
        query = f"SELECT count(*) FROM {self.source}{_joined(self.where)}"  # noqa: S608
        rounds = iter(range(max(1, most_steps // _STEPS)))
        db.set_progress_handler(lambda: next(rounds, None) is None, _STEPS)
        try:
            return int(db.execute(query, self.values).fetchone()[0])
        except sqlite3.OperationalError as cause:
            if cause.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return None
        finally:
            db.set_progress_handler(None, 0)

    def page(
        self, db: sqlite3.Connection, sort: str, order: Order, after: str | None, limit: int
    ) -> tuple[list[sqlite3.Row], str | None]:
        """One page, and what the next one is asked with; ``None`` on the last. Rows without a value in the column that
        is sorted by come last, either way.

        Args:
            sort: a column of ours with whole numbers, or the key.
        """
        found = self._found(db, sort, order, after, limit + 1)
        rows = self._rows(db, sort, [key for key, _ in found[:limit]])
        if len(found) <= limit:
            return rows, None
        key, value = found[limit - 1]
        if sort == self.key:
            return rows, str(key)
        return rows, f"{'' if value is None else value}.{key}"

    def all(self, db: sqlite3.Connection, sort: str, order: Order) -> Iterator[sqlite3.Row]:
        """Every row, a batch at a time."""
        after = None
        while True:
            rows, after = self.page(db, sort, order, after, _BATCH)
            yield from rows
            if after is None:
                return

    # ---- below -----------------------------------------------------------------------------------------------------

    def _found(
        self, db: sqlite3.Connection, sort: str, order: Order, after: str | None, limit: int
    ) -> list[tuple[int, int | None]]:
        """Keys, and the values they are sorted by."""
        way, beyond = ("ASC", ">") if order == "asc" else ("DESC", "<")
        value, key = _place(after)
        if sort == self.key:
            told: list[_Condition] = [] if key is None else [(f"{self.key} {beyond} ?", [key])]
            return self._keys(db, sort, told, f"{self.key} {way}", limit)
        found: list[tuple[int, int | None]] = []
        if key is None or value is not None:
            told = [(f"{sort} IS NOT NULL", [])]
            if key is not None and value is not None:
                told.append((f"({sort}, {self.key}) {beyond} (?, ?)", [value, key]))
            found = self._keys(db, sort, told, f"{sort} {way}, {self.key} {way}", limit)
            key = None
        if len(found) < limit:
            told = [(f"{sort} IS NULL", [])]
            if key is not None:
                told.append((f"{self.key} {beyond} ?", [key]))
            found += self._keys(db, sort, told, f"{self.key} {way}", limit - len(found))
        return found

    def _keys(
        self, db: sqlite3.Connection, sort: str, told: list[_Condition], ordered: str, limit: int
    ) -> list[tuple[int, int | None]]:
        # The place comes first: of two bounds of a key, SQLite goes by the first.
        filters = map(_unindexed, self.where) if self.ordered and sort != self.key else self.where
        where = _joined([*(condition for condition, _ in told), *filters])
        query = f"SELECT {self.key}, {sort} FROM {self.source}{where} ORDER BY {ordered} LIMIT ?"  # noqa: S608
        values = [*(value for _, given in told for value in given), *self.values, limit]
        return [(row[0], row[1]) for row in db.execute(query, values)]

    def _rows(self, db: sqlite3.Connection, sort: str, keys: Sequence[int]) -> list[sqlite3.Row]:
        """Rows of these keys, in their order."""
        if not keys:
            return []
        where = _joined([f"{self.key} IN ({','.join('?' * len(keys))})", *map(_unindexed, self.where)])
        query = f"SELECT {self.columns}, {self.key} AS key, {sort} AS sorted FROM {self.source} {self.beside}{where}"  # noqa: S608
        rows = {row["key"]: row for row in db.execute(query, [*keys, *self.values])}
        return [rows[key] for key in keys]


def _place(after: str | None) -> tuple[int | None, int | None]:
    """Value and key of the last row of the page before; whatever was asked, SQLite must be able to hold it."""
    if not after:
        return None, None
    value, _, key = after.rpartition(".")
    return (_held(value) if value else None), _held(key)


def _held(digits: str) -> int:
    return max(-(2**63), min(int(digits), 2**63 - 1))


def _unindexed(condition: str) -> str:
    """A condition that SQLite does not look for an index for."""
    return f"+({condition})"


def _joined(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
