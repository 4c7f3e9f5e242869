"""Search: one box for everything that the ledger names."""

from __future__ import annotations

from pydantic import Field

from ledger_ui.contexts import Query
from ledger_ui.questions.search import Found, find
from ledger_ui.registry import Here, Page, add

MOST_CHARACTERS = 200


class SearchQuery(Query):
    """What is looked for."""

    q: str = Field(
        "",
        max_length=MOST_CHARACTERS,
        description="CID, digest or the start of one, transaction, block, address, site, update such as 3#12, round 4, "
        "entry 7, or a number",
    )


class SearchPage(Found):
    """What was found. Browsers are sent straight to the only thing that it can be."""

    q: str


def search(here: Here, query: SearchQuery) -> SearchPage:
    """Look something up."""
    return SearchPage(q=query.q, **find(here, query.q).model_dump())


SEARCH = add(
    Page(
        name="search",
        rule="/search",
        summary="Search by CID, digest, transaction, block, address, site, update, round or entry",
        context=SearchPage,
        template="search.html",
        make=search,
        query=SearchQuery,
        elsewhere=lambda page: page.unique,
    )
)
