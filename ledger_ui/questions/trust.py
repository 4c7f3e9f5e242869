"""Trust as the log has it: the shares that peers, or sites, gave one another over a range of rounds."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from fl_node.records import Role
from ledger_ui.contexts import Context
from ledger_ui.questions.merges import is_nominal
from ledger_ui.questions.ranges import rounds_between

DEFAULT_ROUNDS: Final = 20
#: Lines and columns of one map.
MOST_LINES: Final = 50
#: Parents that are added up for one page: beyond, the range is cut at its beginning.
_MOST_PARENTS: Final = 30_000
_MOST_ROUNDS: Final = 2000
_ALL: Final = 2**31
By = Literal["peer", "site"]


class TrustLine(Context):
    """One peer, or site, and its merges in the range. Updates that do not count are left aside."""

    number: int = Field(description="of the peer; of a site, that of its first peer")
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    merges: int = Field(description="its updates with parents")
    nominal: int = Field(description="of these, by rules whose shares do not say how much of each is in the base")
    own_ppm: int | None = Field(description="mean share that it gave its own updates; none: no merges")
    others: int = Field(description="others that it gave a share")
    elsewhere_ppm: int = Field(description="mean share that it gave to those that have no column here, all together")


class TrustCell(Context):
    """What one gave another, over all of its merges. Where there is no cell, it never considered it."""

    row: int = Field(description="place in rows, from 0")
    column: int = Field(description="place in columns, from 0")
    mean_ppm: int = Field(description="mean share, parts per million; 0: considered, never merged")
    merged: int = Field(description="parents with a share")
    considered: int = Field(description="parents of any share")


class TrustColumn(Context):
    """Who received."""

    number: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")


class Trust(Context):
    """The map: a row gives, a column receives."""

    by: By
    first: int | None = Field(description="first round that is added up; none: there is none")
    last: int | None
    rounds: int = Field(description="rounds with updates in the range")
    cut: bool = Field(description="the range was longer than can be added up at once: its last rounds are shown")
    rows: list[TrustLine]
    columns: list[TrustColumn]
    cells: list[TrustCell]
    page: int = Field(description="page of rows, from 1")
    pages: int
    all_columns: int = Field(description="more than are shown: those with the largest shares are")

    def table(self) -> list[tuple[TrustLine, list[str]]]:
        """Each row with percentages for its cells."""
        found = [[""] * len(self.columns) for _ in self.rows]
        for cell in self.cells:
            found[cell.row][cell.column] = f"{cell.mean_ppm / 10_000:.2f}" if cell.merged else "0"
        return list(zip(self.rows, found, strict=True))


@dataclass(slots=True)
class _Pair:
    shares: int = 0
    merged: int = 0
    considered: int = 0


def trust(
    db: sqlite3.Connection, first: int | None, last: int | None, by: By = "peer", page: int = 1, *, whole: bool = False
) -> Trust:
    """Shares over a range of rounds, by default the last twenty.

    Args:
        page: of those that give, where they are too many for one.
        whole: all rounds of the range and all that received, however long that takes.
    """
    span = rounds_between(db, first, last, DEFAULT_ROUNDS if first is None else _ALL if whole else _MOST_ROUNDS)
    peers = {row[0]: row[1] for row in db.execute("SELECT peer, site FROM peers")}
    names = {row[0]: row[1] for row in db.execute("SELECT site, name FROM sites")}
    givers = _givers(db, by)
    pages = max(1, -(-len(givers) // MOST_LINES))
    page = min(page, pages)
    shown = givers[(page - 1) * MOST_LINES : page * MOST_LINES]
    at_row = {number: at for at, number in enumerate(shown)}
    members = [peer for peer, site in peers.items() if (peer if by == "peer" else site) in at_row]
    rounds = list(span.rounds) if whole else _within(db, span.rounds, members)
    pairs, merges, nominal = _added_up(db, rounds, members, peers if by == "site" else {})
    columns, all_columns = _columns(pairs, _ALL if whole else MOST_LINES)
    at_column = {number: at for at, number in enumerate(columns)}

    given: dict[int, dict[int, _Pair]] = {}
    for (giver, taker), pair in pairs.items():
        given.setdefault(giver, {})[taker] = pair

    def site_of(number: int) -> int | None:
        return peers.get(number) if by == "peer" else number

    cells = [
        TrustCell(
            row=at_row[giver],
            column=at_column[taker],
            mean_ppm=_mean(pair.shares, merges[giver], pair.merged),
            merged=pair.merged,
            considered=pair.considered,
        )
        for (giver, taker), pair in sorted(pairs.items())
        if giver in at_row and taker in at_column
    ]
    return Trust(
        by=by,
        first=rounds[0] if rounds else None,
        last=rounds[-1] if rounds else None,
        rounds=len(rounds),
        cut=len(rounds) < len(span.rounds) or (first is not None and span.earlier and span.rounds[0] > first),
        rows=[
            _line(number, site_of(number), names, given.get(number, {}), merges, nominal, at_column) for number in shown
        ],
        columns=[
            TrustColumn(number=number, site=site_of(number), site_name=names.get(site_of(number) or -1))
            for number in columns
        ],
        cells=cells,
        page=page,
        pages=pages,
        all_columns=all_columns,
    )


def _givers(db: sqlite3.Connection, by: By) -> list[int]:
    """Who may publish, or could before it was retired; by number."""
    column = "peer" if by == "peer" else "site"
    query = f"SELECT DISTINCT {column} FROM peers WHERE roles & ? ORDER BY 1"  # noqa: S608
    return [row[0] for row in db.execute(query, (int(Role.PUBLISH),))]


def _within(db: sqlite3.Connection, rounds: Sequence[int], members: Sequence[int]) -> list[int]:
    """The last rounds of a range whose parents can be added up at once, as some of these rounds let expect; one at
    least."""
    if not rounds or not members:
        return list(rounds)
    marks = ",".join("?" * len(members))
    query = f"SELECT coalesce(sum(considered), 0) + count(*) FROM updates WHERE round = ? AND +peer IN ({marks})"  # noqa: S608
    some = sorted({0, len(rounds) // 4, len(rounds) // 2, 3 * len(rounds) // 4, len(rounds) - 1})
    most = max(db.execute(query, (rounds[at], *members)).fetchone()[0] for at in some)
    return list(rounds[-max(1, _MOST_PARENTS // max(1, most)) :])


def _added_up(
    db: sqlite3.Connection, rounds: Sequence[int], members: Sequence[int], sites: Mapping[int, int | None]
) -> tuple[dict[tuple[int, int], _Pair], Counter[int], Counter[int]]:
    """By giver and taker; merges of each giver, and those with a rule whose shares are nominal.

    Args:
        sites: by peer, where sites are asked for; else empty.
    """
    merges: Counter[int] = Counter()
    nominal: Counter[int] = Counter()
    pairs: dict[tuple[int, int], _Pair] = {}
    if not rounds:
        return pairs, merges, nominal
    marks = ",".join("?" * len(members))
    # The rounds are what narrows it: + keeps the peers' index out.
    among = f"c.round BETWEEN ? AND ? AND +c.peer IN ({marks}) AND c.state != 'ignored'"
    values = (rounds[0], rounds[-1], *members)
    rules = f"SELECT c.peer, rule, count(*) FROM updates c WHERE {among} AND considered > 0 GROUP BY +c.peer, rule"  # noqa: S608
    for peer, rule, many in db.execute(rules, values):
        giver = _of(peer, sites)
        merges[giver] += many
        nominal[giver] += many * is_nominal(rule)
    shares = (
        "SELECT c.peer, p.peer, sum(p.share_ppm), sum(p.share_ppm > 0), count(*) "  # noqa: S608
        f"FROM updates c CROSS JOIN parents p ON p.child = c.idx WHERE {among} GROUP BY +c.peer, p.peer"
    )
    for peer, other, given, merged, considered in db.execute(shares, values):
        pair = pairs.setdefault((_of(peer, sites), _of(other, sites)), _Pair())
        pair.shares += given
        pair.merged += merged
        pair.considered += considered
    return pairs, merges, nominal


def _of(peer: int, sites: Mapping[int, int | None]) -> int:
    site = sites.get(peer)
    return peer if site is None else site


def _columns(pairs: Mapping[tuple[int, int], _Pair], many: int) -> tuple[list[int], int]:
    """Who received, by number; of too many, those that received most."""
    given: Counter[int] = Counter()
    for (_, taker), pair in pairs.items():
        given[taker] += pair.shares
    most = sorted(given, key=lambda taker: (-given[taker], taker))[:many]
    return sorted(most), len(given)


def _line(
    number: int,
    site: int | None,
    names: Mapping[int, str],
    mine: Mapping[int, _Pair],
    merges: Mapping[int, int],
    nominal: Mapping[int, int],
    columns: Mapping[int, int],
) -> TrustLine:
    many, own = merges.get(number, 0), mine.get(number)
    elsewhere = sum(pair.shares for taker, pair in mine.items() if taker not in columns)
    return TrustLine(
        number=number,
        site=site,
        site_name=names.get(-1 if site is None else site),
        merges=many,
        nominal=nominal.get(number, 0),
        own_ppm=(0 if own is None else _mean(own.shares, many, own.merged)) if many else None,
        others=sum(1 for taker, pair in mine.items() if pair.merged and taker != number),
        elsewhere_ppm=_mean(elsewhere, many, 0) if many else 0,
    )


def _mean(shares: int, merges: int, merged: int) -> int:
    """Rounded, but never to 0 where something was given."""
    mean = round(shares / merges) if merges else 0
    return max(mean, 1) if merged else mean
