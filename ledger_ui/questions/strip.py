"""The completeness strip: of each site, in each round of a range, whether it was there and what became of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from fl_node.completeness import State
from fl_node.completeness.records import MEANINGS, best_of
from ledger_ui.contexts import Context
from ledger_ui.questions.ranges import RoundsQuery, Worked, rounds_between, worked
from ledger_ui.registry import Here
from ledger_ui.urls import asked

DEFAULT_ROUNDS: Final = 60
#: Cells of one strip: what a browser loads at once stays small, however many sites there are.
MOST_CELLS: Final = 2000
_MOST_ROUNDS: Final = 200
_LEAST_SITES: Final = 10


class StripQuery(RoundsQuery):
    """What a page with a strip may be asked about it."""

    sites: int = Field(1, ge=1, le=10_000, description="page of sites on the strip, where there are too many for one")


class StripSite(Context):
    """One site's row."""

    site: int = Field(description="number of the site's first peer")
    name: str = Field(description="a stranger's text")
    states: list[str] = Field(description="of each round: that of the site's peer that got farthest")


class Strip(Context):
    """Rounds by sites."""

    rounds: list[int] = Field(description="rounds of the range that hold updates, ascending")
    sites: list[StripSite]
    meanings: dict[str, str] = Field(description="what each state means")
    total_sites: int
    page: int = Field(description="page of sites, from 1")
    pages: int
    gaps_first: bool = Field(description="sites with most rounds missing come first; else by number")
    earlier_url: str | None
    later_url: str | None
    previous_sites_url: str | None
    next_sites_url: str | None
    worked: Worked
    caution: str = Field(description="what was not worked out, in words; empty where all was")


def strip(
    here: Here,
    first: int | None = None,
    last: int | None = None,
    *,
    page: int = 1,
    site: int | None = None,
    url: str = "",
    cells: int = MOST_CELLS,
) -> Strip:
    """Who was there in each round.

    Args:
        first, last: range of rounds; default the last sixty. Cut where it is too long to be shown.
        page: of sites, where there are too many for one; those with most gaps come first then.
        site: this one only, by number.
        url: address of the page that shows it, without a query; earlier rounds and other sites are asked of it.
        cells: rounds times sites at most: fewer where a page shows much besides.
    """
    db = here.db
    names = _names(db, site)
    rounds_most = _rounds_shown(len(names), first, last, cells)
    span = rounds_between(db, first, last, rounds_most)
    per_page = max(_LEAST_SITES, cells // max(1, len(span.rounds)))
    pages = max(1, -(-len(names) // per_page))
    page = min(page, pages)
    order = sorted(names) if pages == 1 else _gaps_first(db, names, span.rounds)
    shown = order[(page - 1) * per_page : page * per_page]
    states = _states(db, span.rounds, shown)
    rows = [StripSite(site=number, name=names[number], states=states[number]) for number in shown]

    def at(**query: object) -> str:
        return url + asked(query)

    told = {"from": first, "to": last}
    known = worked(db)
    return Strip(
        rounds=list(span.rounds),
        sites=rows,
        meanings={state.value: meaning for state, meaning in MEANINGS.items()},
        total_sites=len(names),
        page=page,
        pages=pages,
        gaps_first=pages > 1,
        earlier_url=at(to=span.rounds[0] - 1) if span.earlier else None,
        later_url=at(**{"from": span.rounds[-1] + 1}) if span.later else None,
        previous_sites_url=at(**told, sites=page - 1 if page > 2 else None) if page > 1 else None,
        next_sites_url=at(**told, sites=page + 1) if page < pages else None,
        worked=known,
        caution=known.words(here.frame.size),
    )


def _names(db: sqlite3.Connection, site: int | None) -> dict[int, str]:
    rows = db.execute("SELECT site, name FROM sites WHERE ?1 IS NULL OR site = ?1", (site,))
    return {row[0]: row[1] or "" for row in rows}


def _rounds_shown(sites: int, first: int | None, last: int | None, cells: int) -> int:
    """Rounds that are shown at most: fewer by default where there are many sites; those asked for within reason."""
    if first is not None and last is not None:
        return _MOST_ROUNDS
    return max(20, min(DEFAULT_ROUNDS, cells // max(1, min(sites, 50))))


def _gaps_first(db: sqlite3.Connection, names: dict[int, str], rounds: Sequence[int]) -> list[int]:
    gaps = {
        row[0]: (row[1], row[2])
        for row in db.execute(
            "SELECT p.site, sum(a.state = 'missing'), sum(a.state = 'awaited') FROM absences a "
            "JOIN peers p ON p.peer = a.peer WHERE a.round BETWEEN ? AND ? GROUP BY p.site",
            (rounds[0], rounds[-1]) if rounds else (0, -1),
        )
    }
    return sorted(names, key=lambda site: (*(-many for many in gaps.get(site, (0, 0))), site))


def _states(db: sqlite3.Connection, rounds: Sequence[int], sites: Sequence[int]) -> dict[int, list[str]]:
    """By site, the state of each round."""
    marks = ",".join("?" * len(sites))
    peers = db.execute(f"SELECT peer, site FROM peers WHERE site IN ({marks})", list(sites)).fetchall()  # noqa: S608
    by_peer = {row[0]: [State.NOT_EXPECTED] * len(rounds) for row in peers}
    at_round = {number: at for at, number in enumerate(rounds)}
    # Of a round's updates and absences all are read where most of them are shown anyway; else those of some peers.
    most = len(by_peer) * 2 > db.execute("SELECT count(*) FROM peers").fetchone()[0]
    spans = [(rounds[0], rounds[-1])] if rounds and most else [(number,) for number in rounds]
    some = "" if most else f"AND peer IN ({','.join('?' * len(by_peer))})"
    values = [] if most else list(by_peer)
    between = "WHERE round BETWEEN ? AND ?" if most else f"WHERE round = ? {some}"
    for query in (
        f"SELECT round, peer, state FROM absences {between}",  # noqa: S608
        f"SELECT round, peer, state FROM updates {between} ORDER BY round, idx",  # noqa: S608
    ):
        for span in spans:
            for number, peer, state in db.execute(query, (*span, *values)):
                if peer in by_peer and number in at_round:
                    by_peer[peer][at_round[number]] = State(state)
    found: dict[int, list[list[State]]] = {site: [] for site in sites}
    for peer, site in peers:
        found[site].append(by_peer[peer])
    return {site: [best_of(each).value for each in zip(*lines, strict=True)] for site, lines in found.items()}
