"""The rounds: who was expected, who came, and what became of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Literal

from pydantic import Field

from ledger_ui.contexts import Context, Link, Paging
from ledger_ui.lists import ListQuery, Select, chips, paging
from ledger_ui.questions.ranges import RoundsQuery, Worked, worked
from ledger_ui.questions.rounds import Told, states_of, times_of, told_of
from ledger_ui.questions.traffic import Volume, volumes_of_rounds
from ledger_ui.registry import Here, Listing, Page, add

_BATCH: Final = 500


class RoundsListQuery(RoundsQuery, ListQuery):
    """Filters of the list of rounds; all that are given must hold."""

    only: Literal["gaps", "open"] | None = Field(
        None, description="gaps: rounds in which somebody was missing, or given up; open: those that are not over"
    )


class RoundRow(Context):
    """One round in the list; numbers of peers and of updates."""

    round: int
    open: bool = Field(description="the next round has not begun")
    expected: int | None = Field(
        description="peers that were waited for, or were to publish; none: it has not begun, since no update counts"
    )
    submitted: int = Field(description="updates that count and are not closing ones")
    merged: int = Field(description="of these, by another peer at least")
    left_out: int = Field(description="of these, looked at, or late, and merged by no other peer")
    late: int | None = Field(description="of these, after the next round's cut; none: not worked out for this round")
    closing: int = Field(description="closing updates: untrained")
    ignored: int = Field(description="updates that do not count")
    missing: int = Field(description="expected, not retired meanwhile, and nothing came")
    awaited: int = Field(description="expected, and nothing has come yet")
    given_up: int | None = Field(
        description="active members that were not waited for any more: silent for too long; none: not worked out"
    )
    cut: int | None = Field(description="log size at which the next round looks, where rounds are synchronous")
    by_deadline: bool | None = Field(description="the cut is where it is because time had run out")
    first_entry: int
    last_entry: int
    began_s: int | None = Field(description="block time of its first update")
    last_s: int | None = Field(description="block time of its last update")
    replayed: bool = Field(description="whether selections were replayed for it: else nobody is said to be left out")
    bytes_of: int = Field(description="updates whose reports tell their size and that of plain weights")
    update_bytes: int | None = Field(description="of these, published in all, by their publishers' word; none: of none")
    plain_bytes: int | None = Field(description="the same as plain float32 weights, by the same word")


class RoundsPage(Context):
    """A page of the list."""

    rows: list[RoundRow]
    paging: Paging
    filters: list[Link] = Field(description="filters in force; each leads to the list without it")
    mode: str = Field(description="async: nobody waits; sync: all look at the same cut of the log")
    caution: str = Field(description="what was not worked out, in words; empty where all was")
    worked: Worked


def rounds(here: Here, query: RoundsListQuery) -> RoundsPage:
    """One page of the rounds."""
    select = _select(query)
    rows, after = select.page(here.db, "r.round", query.order, query.after, query.limit)
    known = worked(here.db)
    return RoundsPage(
        rows=rows_of(here, rows),
        paging=paging(query, after, select.count(here.db), here.urls.rounds),
        filters=chips(_filters(query), query, here.urls.rounds),
        mode=here.shown.spec.rounds.mode,
        caution=known.words(here.frame.size),
        worked=known,
    )


def every_round(here: Here, query: RoundsListQuery) -> Iterator[RoundRow]:
    """All rounds that match."""
    found = iter(_select(query).all(here.db, "r.round", query.order))
    while batch := list(islice(found, _BATCH)):
        yield from rows_of(here, batch)


def _select(query: RoundsListQuery) -> Select:
    found = Select("r.round, r.settled, r.told", "rounds r", key="r.round")
    found.only("r.round >= ?", query.first)
    found.only("r.round <= ?", query.last)
    if query.only == "gaps":
        found.only("EXISTS (SELECT 1 FROM absences a WHERE a.round = r.round AND a.state = 'missing')")
    elif query.only == "open":
        found.only("r.settled = 0")
    return found


def _filters(query: RoundsListQuery) -> dict[str, str]:
    words: dict[str, str] = {}
    if query.first is not None:
        words["from"] = f"from round {query.first}"
    if query.last is not None:
        words["to"] = f"up to round {query.last}"
    if query.only is not None:
        words["only"] = "somebody missing" if query.only == "gaps" else "not over"
    return words


def rows_of(here: Here, rows: Sequence[sqlite3.Row]) -> list[RoundRow]:
    """Rows of the table as the list has them."""
    return listed(here, [told_of(row["round"], row["settled"], row["told"]) for row in rows])


def listed(here: Here, told: Sequence[Told]) -> list[RoundRow]:
    """Rounds as the list has them, with three questions for all of them."""
    states = states_of(here.db, [one.number for one in told])
    times = times_of(here.db, [index for one in told for index in (one.first, one.last)])
    volumes = volumes_of_rounds(here.db, [one.number for one in told])
    return [_row_of(one, states[one.number], times, volumes[one.number]) for one in told]


def _row_of(told: Told, states: Mapping[str, int], times: Mapping[int, int], bytes_told: Volume) -> RoundRow:
    return RoundRow(
        round=told.number,
        open=told.open,
        expected=None if told.expected is None else len(told.expected),
        submitted=len(told.submitted),
        merged=states.get("merged", 0),
        left_out=states.get("left-out", 0),
        late=None if told.late is None else len(told.late),
        closing=len(told.closing),
        ignored=len(told.ignored),
        missing=len(told.missing),
        awaited=len(told.awaited),
        given_up=None if told.given_up is None else len(told.given_up),
        cut=told.cut,
        by_deadline=told.by_deadline,
        first_entry=told.first,
        last_entry=told.last,
        began_s=times.get(told.first),
        last_s=times.get(told.last),
        replayed=told.exact,
        bytes_of=bytes_told.of,
        update_bytes=bytes_told.update_bytes,
        plain_bytes=bytes_told.plain_bytes,
    )


ROUNDS = add(
    Page(
        name="rounds",
        rule="/rounds",
        summary="The rounds: who was expected, who came, and what became of their updates",
        context=RoundsPage,
        template="rounds.html",
        make=rounds,
        query=RoundsListQuery,
        listing=Listing(RoundRow, every_round, tuple(RoundRow.model_fields)),
    )
)
