"""Sites: all of them, and whether one of them is in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field

from ledger_ui.contexts import Context, Paging, Ref
from ledger_ui.lists import ListQuery, Order, Select, Sorting, paging, sortings
from ledger_ui.questions.exchange import Exchange, exchange
from ledger_ui.questions.given import Given, given
from ledger_ui.questions.inclusion import Inclusion, inclusion
from ledger_ui.questions.members import Member, Whose, site_peers
from ledger_ui.questions.own import Own, own, recent
from ledger_ui.questions.presence import Presence, presence
from ledger_ui.questions.ranges import RoundsQuery
from ledger_ui.questions.recipients import RecipientKey, recipient_keys
from ledger_ui.questions.strip import Strip, strip
from ledger_ui.registry import Here, Listing, Page, add, not_here

Sort = Literal["number", "updates", "round", "last", "peers"]
_LATEST: Final = (
    "(SELECT v.idx FROM updates v WHERE v.site = s.site AND v.state != 'ignored' ORDER BY v.idx DESC LIMIT 1)"
)
_UPDATES: Final = "(SELECT count(*) FROM updates c WHERE c.site = s.site)"
_PEERS: Final = "(SELECT count(*) FROM peers p WHERE p.site = s.site)"
_COLUMNS: Final = {
    "number": "s.site",
    "updates": _UPDATES,
    "round": f"(SELECT w.round FROM updates w WHERE w.idx = {_LATEST})",  # noqa: S608
    "last": _LATEST,
    "peers": _PEERS,
}


class SitesQuery(ListQuery):
    """Order of the list of sites."""

    sort: Sort = Field("number", description="column to sort by; round and last are of its last update that counts")
    order: Order = Field("asc", description="asc or desc")


class SiteRow(Context):
    """One site in a list."""

    site: int = Field(description="number of its first peer")
    name: str = Field(description="a stranger's text")
    peers: int
    active: int = Field(description="of them, those that are not retired")
    updates: int
    last_update: Ref | None = Field(description="its last update that counts; none: there is none")
    last_round: int | None
    last_time_s: int | None = Field(description="block time of that, seconds since 1970")
    last_state: str | None = Field(description="merged, submitted, left-out or closing")
    last_merged_by: int | None = Field(description="other peers that merged that")
    claimed_ppm: int | None = Field(description="claim of that update, parts per million")
    test_samples: int | None = Field(description="rows that the claim is said to be measured on")
    attested_ppm: int | None = Field(description="median over other sites; none: nobody has attested it")
    attested_sites: int | None


class SitesPage(Context):
    """A page of the list."""

    rows: list[SiteRow]
    paging: Paging
    sorts: list[Sorting]


_ACTIVE: Final = "(SELECT count(*) FROM peers p WHERE p.site = s.site AND p.retired IS NULL)"
_SELECTED: Final = (
    f"s.site, s.name, {_PEERS} AS peers, {_ACTIVE} AS active, "
    f"{_UPDATES} AS updates, u.peer, u.sequence, u.round, u.time_s, u.state, u.merged_by, u.score_ppm, "
    "u.test_samples, u.attested_ppm, u.attested_sites"
)


def _select() -> Select:
    return Select(_SELECTED, "sites s", key="s.site", beside=f"LEFT JOIN updates u ON u.idx = {_LATEST}")


def _row(row: Any) -> SiteRow:
    return SiteRow(
        site=row["site"],
        name=row["name"] or "",
        peers=row["peers"],
        active=row["active"],
        updates=row["updates"],
        last_update=None if row["sequence"] is None else f"{row['peer']}#{row['sequence']}",
        last_round=row["round"],
        last_time_s=row["time_s"],
        last_state=row["state"],
        last_merged_by=row["merged_by"],
        claimed_ppm=row["score_ppm"],
        test_samples=row["test_samples"],
        attested_ppm=row["attested_ppm"],
        attested_sites=row["attested_sites"],
    )


def sites(here: Here, query: SitesQuery) -> SitesPage:
    """One page of the list of sites."""
    select = _select()
    rows, after = select.page(here.db, _COLUMNS[query.sort], query.order, query.after, query.limit)
    return SitesPage(
        rows=[_row(row) for row in rows],
        paging=paging(query, after, select.count(here.db), here.urls.sites),
        sorts=sortings(list(_COLUMNS), query.sort, query, here.urls.sites),
    )


def every_site(here: Here, query: SitesQuery) -> Iterator[SiteRow]:
    """All sites."""
    for row in _select().all(here.db, _COLUMNS[query.sort], query.order):
        yield _row(row)


SITES = add(
    Page(
        name="sites",
        rule="/sites",
        summary="All sites, with their last updates",
        context=SitesPage,
        template="sites.html",
        make=sites,
        query=SitesQuery,
        listing=Listing(SiteRow, every_site, tuple(SiteRow.model_fields)),
    )
)


# ---- one site --------------------------------------------------------------------------------------------------------


class SiteQuery(RoundsQuery):
    """Which rounds the strip shows."""


class SitePage(Context):
    """One site: whether it is in, its peers, and what they did together."""

    site: int = Field(description="number of its first peer")
    name: str = Field(description="a stranger's text")
    inclusion: Inclusion
    peers: list[Member] = Field(description="its peers; two hundred at most")
    updates: int = Field(description="all that they published, those that do not count among them")
    own: Own
    exchange: Exchange
    max_staleness: int = Field(description="own updates since an entry after which the spec has it merged no more")
    given: Given
    presence: Presence
    keys: list[RecipientKey] = Field(description="of its peers, newest first; the last thirty")
    strip: Strip


def site(here: Here, query: SiteQuery, number: int) -> SitePage:
    """One site, by the number of its first peer."""
    db = here.db
    row = db.execute("SELECT name FROM sites WHERE site = ?", (number,)).fetchone()
    if row is None:
        raise not_here(f"site whose first peer is {number}", here.frame)
    members = site_peers(db, number)
    whose = Whose("site", number, tuple(one.peer for one in members))
    rows = recent(db, whose)
    return SitePage(
        site=number,
        name=row[0] or "",
        inclusion=inclusion(db, number, members, rows),
        peers=members,
        updates=db.execute("SELECT count(*) FROM updates WHERE site = ?", (number,)).fetchone()[0],
        own=own(rows),
        exchange=exchange(db, rows),
        max_staleness=here.shown.spec.merging.max_staleness,
        given=given(db, whose, rows),
        presence=presence(db, whose, rows),
        keys=recipient_keys(db, whose),
        strip=strip(here, query.first, query.last, site=number, url=here.urls.site(number)),
    )


SITE = add(
    Page(
        name="site",
        rule="/sites/<int:number>",
        summary="One site: is it in, its peers, rounds, claimed against attested, merges both ways, gaps",
        context=SitePage,
        template="site.html",
        make=site,
        query=SiteQuery,
        path={"number": "the number of the site's first peer"},
    )
)
