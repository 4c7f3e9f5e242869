"""Trust: which shares peers, or sites, gave one another over a range of rounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ledger_ui.contexts import Context
from ledger_ui.lists import asked_of
from ledger_ui.questions.ranges import RoundsQuery
from ledger_ui.questions.trust import Trust, trust
from ledger_ui.registry import Here, Listing, Page, add


class TrustQuery(RoundsQuery):
    """Which rounds, and who."""

    by: Literal["peer", "site"] = Field("peer", description="peers, or sites with all of their peers")
    page: int = Field(1, ge=1, le=100_000, description="page of those that give, where they are too many for one")


class TrustPage(Context):
    """The heat map."""

    trust: Trust
    highest_round: int | None = Field(description="of any update; none: there is none yet")
    previous_url: str | None = Field(description="those that give before these")
    next_url: str | None = Field(description="further ones that give")
    earlier_url: str | None = Field(description="as many rounds before")
    later_url: str | None


class TrustRow(Context):
    """What one gave another, as a line of a list. Pairs of which one never considered the other are left out."""

    giver: int = Field(description="number of the peer; of a site, that of its first peer")
    giver_site: str | None = Field(description="a stranger's text")
    taker: int
    taker_site: str | None = Field(description="a stranger's text")
    mean_ppm: int = Field(description="mean share over all merges of the giver; 0: considered, never merged")
    merges: int = Field(description="merges of the giver in these rounds")
    nominal: int = Field(description="of these, by rules whose shares are nominal")
    merged: int = Field(description="parents with a share")
    considered: int = Field(description="parents of any share")
    first_round: int
    last_round: int


def trust_page(here: Here, query: TrustQuery) -> TrustPage:
    """The map of a range of rounds."""
    found = trust(here.db, query.first, query.last, query.by, query.page)
    told = {**asked_of(query), "page": None}
    highest = here.db.execute("SELECT max(round) FROM updates").fetchone()[0]
    span = found.last - found.first if found.first is not None and found.last is not None else 0

    def at(**changes: object) -> str:
        return here.urls.trust(**{**told, **changes})

    return TrustPage(
        trust=found,
        highest_round=highest,
        previous_url=at(page=found.page - 1 if found.page > 2 else None) if found.page > 1 else None,
        next_url=at(page=found.page + 1) if found.page < found.pages else None,
        earlier_url=at(**{"from": max(0, found.first - 1 - span), "to": found.first - 1}) if found.first else None,
        later_url=at(**{"from": found.last + 1, "to": found.last + 1 + span})
        if found.last is not None and highest is not None and found.last < highest
        else None,
    )


def every_pair(here: Here, query: TrustQuery) -> Iterator[TrustRow]:
    """All pairs of the range, of all pages."""
    page, pages = 1, 1
    while page <= pages:
        found = trust(here.db, query.first, query.last, query.by, page, whole=True)
        pages = found.pages
        for cell in found.cells:
            giver, taker = found.rows[cell.row], found.columns[cell.column]
            yield TrustRow(
                giver=giver.number,
                giver_site=giver.site_name,
                taker=taker.number,
                taker_site=taker.site_name,
                mean_ppm=cell.mean_ppm,
                merges=giver.merges,
                nominal=giver.nominal,
                merged=cell.merged,
                considered=cell.considered,
                first_round=found.first or 0,
                last_round=found.last or 0,
            )
        page += 1


TRUST = add(
    Page(
        name="trust",
        rule="/trust",
        summary="Shares that peers, or sites, gave one another over a range of rounds",
        context=TrustPage,
        template="trust.html",
        make=trust_page,
        query=TrustQuery,
        listing=Listing(TrustRow, every_pair, tuple(TrustRow.model_fields)),
    )
)
