"""The log of updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ledger_ui.contexts import Context, Paging, Ref
from ledger_ui.lists import ListQuery, Select
from ledger_ui.registry import Here, Listing, Page, add

State = Literal["merged", "submitted", "left-out", "closing", "ignored"]
Verdict = Literal["ok", "outlier", "unknown", "contradicted", "suspicious", "failed", "none"]
Sort = Literal["index", "round", "claimed", "attested", "time"]
_COLUMNS = {"index": "idx", "round": "round", "claimed": "score_ppm", "attested": "attested_ppm", "time": "time_s"}


class UpdatesQuery(ListQuery):
    """Filters of the list of updates; all that are given must hold."""

    peer: int | None = Field(None, ge=0, le=2**32, description="of this peer")
    site: int | None = Field(None, ge=0, le=2**32, description="of this site, by the number of its first peer")
    round: int | None = Field(None, ge=0, le=2**32, description="of this round")
    state: State | None = Field(None, description="what became of it")
    verdict: Verdict | None = Field(None, description="worst result of its last audit; none: not audited here")
    claimed_min: float | None = Field(None, ge=0, le=100, description="claimed score, percent")
    claimed_max: float | None = Field(None, ge=0, le=100)
    attested_min: float | None = Field(None, ge=0, le=100, description="attested score, percent")
    attested_max: float | None = Field(None, ge=0, le=100)
    since: int | None = Field(None, ge=0, le=2**62, description="block time, seconds since 1970")
    until: int | None = Field(None, ge=0, le=2**62)
    sort: Sort = Field("index", description="column to sort by")


class UpdateRow(Context):
    """One update in a list."""

    update: Ref
    entry: int = Field(description="entry index")
    peer: int
    site: int | None = Field(description="number of the site's first peer")
    site_name: str | None = Field(description="a stranger's text")
    round: int
    time_s: int = Field(description="block time, seconds since 1970")
    final: bool = Field(description="a closing update: untrained, its weights are its base")
    state: str = Field(description="merged, submitted, left-out, closing or ignored")
    claimed_ppm: int = Field(description="the publisher's claim, parts per million")
    base_ppm: int = Field(description="the publisher's claim for the base")
    test_samples: int = Field(description="rows that the claim is said to be measured on")
    attested_ppm: int | None = Field(description="median over other sites of what they attest; none: nobody has")
    attested_sites: int = Field(description="how many other sites attested it")
    merged: int = Field(description="parents with a share")
    merged_by: int = Field(description="other peers that merged it")
    objections: int
    verdict: str | None = Field(description="worst result of its last audit here; none: not audited here")


class UpdatesPage(Context):
    """A page of the list."""

    rows: list[UpdateRow]
    paging: Paging


SELECTED = (
    "u.idx, u.peer, u.sequence, u.site, s.name AS site_name, u.round, u.time_s, u.final, u.state, u.score_ppm, "
    "u.base_score_ppm, u.test_samples, u.attested_ppm, u.attested_sites, u.merged, u.merged_by, u.objections, u.verdict"
)


def row_of(row: object) -> UpdateRow:
    """A row of :data:`SELECTED` as a record."""
    got: dict[str, object] = dict(row)  # type: ignore[call-overload]
    return UpdateRow.model_validate(
        {
            "update": f"{got['peer']}#{got['sequence']}",
            "entry": got["idx"],
            "claimed_ppm": got["score_ppm"],
            "base_ppm": got["base_score_ppm"],
            "final": bool(got["final"]),
            **{
                name: got[name]
                for name in (
                    *("peer", "site", "site_name", "round", "time_s", "state", "test_samples", "attested_ppm"),
                    *("attested_sites", "merged", "merged_by", "objections", "verdict"),
                )
            },
        }
    )


def _select(query: UpdatesQuery) -> Select:
    found = Select(SELECTED, "updates u LEFT JOIN sites s ON s.site = u.site", key="u.idx")
    found.only("u.peer = ?", query.peer)
    found.only("u.site = ?", query.site)
    found.only("u.round = ?", query.round)
    found.only("u.state = ?", query.state)
    if query.verdict == "none":
        found.only("u.verdict IS NULL")
    else:
        found.only("u.verdict = ?", query.verdict)
    for column, low, high in (
        ("score_ppm", query.claimed_min, query.claimed_max),
        ("attested_ppm", query.attested_min, query.attested_max),
    ):
        found.only(f"u.{column} >= ?", None if low is None else round(low * 10_000))
        found.only(f"u.{column} <= ?", None if high is None else round(high * 10_000))
    found.only("u.time_s >= ?", query.since)
    found.only("u.time_s <= ?", query.until)
    return found


def updates(here: Here, query: UpdatesQuery) -> UpdatesPage:
    """One page of the log of updates."""
    select = _select(query)
    rows, after = select.page(here.db, f"u.{_COLUMNS[query.sort]}", query.order, query.after, query.limit)
    told = query.model_dump(exclude_defaults=True)
    paging = Paging(
        total=select.count(here.db),
        limit=query.limit,
        first_url=here.urls.updates(**{**told, "after": None}) if query.after else None,
        next_url=here.urls.updates(**{**told, "after": after}) if after else None,
    )
    return UpdatesPage(rows=[row_of(row) for row in rows], paging=paging)


def every_update(here: Here, query: UpdatesQuery) -> Iterator[UpdateRow]:
    """All updates that match."""
    for row in _select(query).all(here.db, f"u.{_COLUMNS[query.sort]}", query.order):
        yield row_of(row)


UPDATES = add(
    Page(
        name="updates",
        rule="/updates",
        summary="The log of updates, with claimed beside attested scores",
        context=UpdatesPage,
        template="updates.html",
        make=updates,
        query=UpdatesQuery,
        listing=Listing(UpdateRow, every_update, tuple(UpdateRow.model_fields)),
    )
)
