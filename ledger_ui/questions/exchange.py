"""Whom a peer or a site merges, who merges it, and how old what it merges is."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pydantic import Field

from ledger_ui.contexts import Context
from ledger_ui.questions.members import sites_of

#: Merges that are looked at, and edges that are read for it at most: a page's time must not grow with the federation.
MERGES: Final = 50
_MOST_EDGES: Final = 2500
_SHOWN: Final = 64
#: Ages beyond are told together.
OLDEST: Final = 8


#: Site and its name, by peer.
Sites: TypeAlias = Mapping[int, tuple[int, str]]


class Merged(Context):
    """One peer among those merged, or among the mergers."""

    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    times: int = Field(description="merges with a share above 0")
    mean_share_ppm: int = Field(description="mean share over all merges that were looked at, 0 where it had none")


class Staleness(Context):
    """Ages of other peers' updates when they were merged."""

    merged: int = Field(description="updates of others that were merged")
    by_own_updates: list[int] = Field(
        description="how many were merged after 0, 1, 2, ... updates of the merger's own since; the last: 8 or more"
    )
    by_rounds: list[int] = Field(description="how many were 0, 1, 2, ... rounds old; the last: 8 or more")
    oldest_own_updates: int | None = Field(description="most own updates since; none of none")
    oldest_rounds: int | None


class Exchange(Context):
    """Merging in both directions, over the last merges and the last updates."""

    merges: int = Field(description="merges that were looked at: the last that had parents, 50 at most")
    merged: list[Merged] = Field(description="whom it merges, the largest mean share first, itself too; 64 at most")
    merged_peers: int = Field(description="how many peers it merged")
    offered: int = Field(description="its updates that were looked at: the last ones, 50 at most")
    mergers: list[Merged] = Field(description="who merges it, other peers only, the most frequent first; 64 at most")
    merger_peers: int = Field(description="how many peers merged it")
    staleness: Staleness


def exchange(db: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> Exchange:
    """Of the updates that :func:`ledger_ui.questions.own.recent` gave."""
    counting = [row for row in rows if row["ignored"] is None]
    merges = _within([row for row in counting if row["merged"]], "considered")
    offered = _within([row for row in counting if not row["final"]], "children")
    edges = _parents(db, merges)
    children = _children(db, offered)
    sites = sites_of(db, [edge["peer"] for edge in edges] + [child["peer"] for child in children])
    merged = _mean_shares(edges, len(merges), sites)
    mergers = _mergers(children, len(offered), sites)
    return Exchange(
        merges=len(merges),
        merged=merged[:_SHOWN],
        merged_peers=len(merged),
        offered=len(offered),
        mergers=mergers[:_SHOWN],
        merger_peers=len(mergers),
        staleness=_staleness(edges, rows),
    )


def _within(rows: Sequence[sqlite3.Row], edges: str) -> list[sqlite3.Row]:
    """The first of these that have not too many edges together."""
    found: list[sqlite3.Row] = []
    many = 0
    for row in rows[:MERGES]:
        many += row[edges]
        if found and many > _MOST_EDGES:
            break
        found.append(row)
    return found


def _parents(db: sqlite3.Connection, merges: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    query = (
        "SELECT p.child, p.parent, p.peer, p.share_ppm, c.peer AS merger, c.round AS at_round, u.round AS of_round "
        "FROM json_each(?) j CROSS JOIN parents p ON p.child = j.value JOIN updates c ON c.idx = p.child "
        "LEFT JOIN updates u ON u.idx = p.parent WHERE p.share_ppm > 0 LIMIT ?"
    )
    return db.execute(query, (json.dumps([row["idx"] for row in merges]), _MOST_EDGES)).fetchall()


def _children(db: sqlite3.Connection, offered: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    query = (
        "SELECT p.parent, p.share_ppm, c.peer, o.peer AS publisher FROM json_each(?) j "
        "CROSS JOIN parents p ON p.parent = j.value JOIN updates c ON c.idx = p.child "
        "JOIN updates o ON o.idx = p.parent WHERE p.share_ppm > 0 AND c.ignored IS NULL AND c.peer != o.peer LIMIT ?"
    )
    return db.execute(query, (json.dumps([row["idx"] for row in offered]), _MOST_EDGES)).fetchall()


def _mean_shares(edges: Sequence[sqlite3.Row], merges: int, sites: Sites) -> list[Merged]:
    shares: dict[int, list[int]] = {}
    for edge in edges:
        shares.setdefault(edge["peer"], []).append(edge["share_ppm"])
    found = [_merged(peer, given, merges, sites) for peer, given in shares.items()]
    return sorted(found, key=lambda one: (-one.mean_share_ppm, one.peer))


def _mergers(children: Sequence[sqlite3.Row], offered: int, sites: Sites) -> list[Merged]:
    """One for each peer. An update that a peer merges again in a later round counts once."""
    shares: dict[int, dict[int, int]] = {}
    for child in children:
        given = shares.setdefault(child["peer"], {})
        given[child["parent"]] = max(given.get(child["parent"], 0), child["share_ppm"])
    found = [_merged(peer, list(given.values()), offered, sites) for peer, given in shares.items()]
    return sorted(found, key=lambda one: (-one.times, -one.mean_share_ppm, one.peer))


def _merged(peer: int, shares: Sequence[int], of: int, sites: Sites) -> Merged:
    site, name = sites.get(peer, (None, None))
    return Merged(
        peer=peer, site=site, site_name=name, times=len(shares), mean_share_ppm=round(sum(shares) / max(1, of))
    )


def _staleness(edges: Sequence[sqlite3.Row], rows: Sequence[sqlite3.Row]) -> Staleness:
    """Own updates since: as the spec counts staleness, those that the merger recorded after the parent's entry."""
    recorded: dict[int, list[int]] = {}
    for row in reversed(rows):
        recorded.setdefault(row["peer"], []).append(row["idx"])
    ages, rounds = [], []
    for edge in edges:
        if edge["peer"] == edge["merger"] or edge["parent"] is None:
            continue
        mine = recorded.get(edge["merger"], [])
        ages.append(bisect_left(mine, edge["child"]) - bisect_left(mine, edge["parent"]))
        if edge["of_round"] is not None:
            rounds.append(max(0, edge["at_round"] - edge["of_round"]))
    return Staleness(
        merged=len(ages),
        by_own_updates=_counted(ages),
        by_rounds=_counted(rounds),
        oldest_own_updates=max(ages, default=None),
        oldest_rounds=max(rounds, default=None),
    )


def _counted(ages: Sequence[int]) -> list[int]:
    counts = [0] * (OLDEST + 1)
    for age in ages:
        counts[min(age, OLDEST)] += 1
    return counts
