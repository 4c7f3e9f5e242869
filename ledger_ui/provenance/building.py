"""From what was followed and what is to be drawn to the records that the page shows."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fl_node.records import PPM
from ledger_ui.provenance.choice import Choice, Drawn
from ledger_ui.provenance.records import Kin, Merge, Node, Side
from ledger_ui.provenance.sites import by_site, names_of
from ledger_ui.provenance.walk import Walk

GENESIS: Final = "genesis"
_SIDES: Final[dict[int, Side]] = {-1: "above", 0: "root", 1: "below"}


@dataclass(frozen=True, slots=True)
class Toggles:
    """Addresses of the same page with more or less in it: by an update's name, and by a round."""

    update: Callable[[str], str]
    round: Callable[[int], str]


def nodes(
    db: sqlite3.Connection, above: Walk, below: Walk, choice: Choice, opened: frozenset[int], toggles: Toggles
) -> list[Node]:
    """The nodes of the graph: updates and groups by round, the genesis first if anything drawn started there."""
    rows = _rows(db, [node.members[0] for node in choice.nodes if len(node.members) == 1])
    single = {_one(above, below, node.members, node.side)[0] for node in choice.nodes}
    names = names_of(db, [site for site in single if site is not None])
    ways = _ways(above) if any(len(node.members) > 1 for node in choice.nodes) else _Ways({}, frozenset(), frozenset())
    found = []
    for node in choice.nodes:
        if len(node.members) == 1:
            found.append(_update(above, below, choice, node, rows[node.members[0]], opened, toggles))
        else:
            walk = above if node.side < 0 else below
            found.append(_group(walk, node, names, ways, toggles))
    found.sort(key=lambda node: (node.round or 0, node.site or 0, node.peer or 0, node.key))
    starts = any(line.parent == GENESIS for line in choice.lines)
    return [*([_genesis(above)] if starts else []), *found]


def merges(choice: Choice) -> list[Merge]:
    """The lines of the graph."""
    return [
        Merge(parent=one.parent, child=one.child, merges=one.merges, share_ppm=one.share_ppm, nominal=one.nominal)
        for one in choice.lines
    ]


def kin(db: sqlite3.Connection, walk: Walk, choice: Choice) -> Kin:
    """All ancestors, or all descendants."""
    sites, total = by_site(db, walk)
    side = -1 if walk.upward else 1
    cut = (max if walk.upward else min)(walk.waiting, default=None)
    return Kin(
        updates=len(walk.shares) - 1,
        listed=sum(1 for one in choice.shown.values() if one == side),
        levels=max(walk.steps.values()),
        shown_levels=choice.levels[0 if walk.upward else 1],
        sites=sites,
        sites_total=total,
        cut=cut is not None,
        cut_entry=cut,
        cut_round=None if cut is None else walk.facts[cut].round,
        beyond=walk.beyond,
        genesis=walk.genesis if walk.upward else None,
        genesis_steps=walk.genesis_steps,
        unsound=walk.unsound,
        lost=walk.lost,
        merges=walk.looked,
    )


# ---- nodes ---------------------------------------------------------------------------------------------------------


def _update(
    above: Walk, below: Walk, choice: Choice, node: Drawn, row: Any, opened: frozenset[int], toggles: Toggles
) -> Node:
    idx = node.members[0]
    walk = above if node.side <= 0 else below
    sides = [above, below] if node.side == 0 else [walk]
    waits = any(idx in one.waiting for one in sides)
    ends = [other for one in sides for _, other, _ in one.links.get(idx, ())]
    relatives = sum(_recorded(one, idx, row) for one in sides)
    hidden = relatives if waits else sum(1 for other in ends if other not in choice.shown)
    ref = f"{row['peer']}#{row['sequence']}"
    can = not waits and (hidden or idx in opened)
    return Node(
        key=node.key,
        kind="update",
        side=_SIDES[node.side],
        update=ref,
        entry=idx,
        updates=1,
        round=row["round"],
        site=row["site"],
        site_name=row["name"],
        sites=1,
        peer=row["peer"],
        steps=walk.steps[idx],
        share=min(1.0, walk.shares[idx]),
        at_least=node.side != 0 and idx in walk.waiting,
        nominal=node.side != 0 and idx in walk.nominal,
        final=bool(row["final"]),
        withdrawn=bool(row["withdrawn"]),
        ignored=row["ignored"] is not None,
        state=row["state"],
        claimed_ppm=row["score_ppm"],
        test_samples=row["test_samples"],
        attested_ppm=row["attested_ppm"],
        attested_sites=row["attested_sites"],
        relatives=relatives,
        hidden=hidden,
        opened=idx in opened and not waits,
        toggle_url=toggles.update(ref) if can else "",
    )


def _group(walk: Walk, node: Drawn, names: dict[int, str], ways: _Ways, toggles: Toggles) -> Node:
    shares = [min(1.0, walk.shares[idx]) for idx in node.members]
    number = walk.facts[node.members[0]].round
    site, sites = _one(walk, walk, node.members, node.side)
    return Node(
        key=node.key,
        kind="group",
        side=_SIDES[node.side],
        updates=len(node.members),
        round=number,
        site=site,
        site_name=names.get(site) if site is not None else None,
        sites=sites,
        steps=min(walk.steps[idx] for idx in node.members),
        share=max(shares),
        share_sum=_together(walk, node.members, ways) if walk.upward else None,
        at_least=any(idx in walk.waiting for idx in node.members),
        nominal=any(idx in walk.nominal for idx in node.members),
        toggle_url=toggles.round(number),
    )


def _genesis(above: Walk) -> Node:
    return Node(
        key=GENESIS,
        kind=GENESIS,
        side="above",
        updates=0,
        round=None,
        sites=0,
        steps=above.genesis_steps,
        share=above.genesis,
        at_least=bool(above.waiting),
    )


def _recorded(walk: Walk, idx: int, row: Any) -> int:
    if idx in walk.links:
        return len(walk.links[idx])
    return int(row["merged"] if walk.upward else row["children"])


def _one(above: Walk, below: Walk, members: tuple[int, ...], side: int) -> tuple[int | None, int]:
    """The one site of these updates, and how many sites there are."""
    walk = above if side <= 0 else below
    sites = {walk.facts[idx].site for idx in members}
    return (next(iter(sites)) if len(sites) == 1 else None), len(sites)


@dataclass(frozen=True, slots=True)
class _Ways:
    """How ways run through the rounds of a walk towards ancestors.

    Attributes:
        sizes: how many updates of each round were reached.
        within: rounds of which one update merged another.
        back: rounds that a way may leave and come back to, since some update merged one of a later round.
    """

    sizes: Mapping[int, int]
    within: frozenset[int]
    back: frozenset[int]


def _ways(walk: Walk) -> _Ways:
    rounds = {idx: facts.round for idx, facts in walk.facts.items()}
    within: set[int] = set()
    leaps: set[tuple[int, int]] = set()
    for idx, links in walk.links.items():
        here = rounds[idx]
        for _, other, _ in links:
            there = rounds[other]
            if there > here:
                leaps.add((here, there))
            elif there == here and idx != walk.root:
                within.add(here)
    sizes = Counter(rounds[idx] for idx in walk.relatives)
    back = frozenset(number for number in sizes if any(here <= number <= there for here, there in leaps))
    return _Ways(sizes, frozenset(within), back)


def _together(walk: Walk, members: tuple[int, ...], ways: _Ways) -> float | None:
    """The share of starting points that came through any of these, of one round: a way that meets two of them counts
    once. ``None`` where that cannot be told."""
    number = walk.facts[members[0]].round
    if number in ways.back or (number in ways.within and len(members) < ways.sizes[number]):
        return None
    own = set(members)
    total = sum(min(1.0, walk.shares[idx]) for idx in members)
    for idx in members if number in ways.within else ():
        total -= sum(
            walk.shares[idx] * share_ppm / PPM for _, other, share_ppm in walk.links.get(idx, ()) if other in own
        )
    return max(0.0, min(1.0, total))


def _rows(db: sqlite3.Connection, wanted: list[int]) -> dict[int, Any]:
    query = (
        "SELECT u.idx, u.peer, u.sequence, u.site, s.name, u.round, u.final, u.withdrawn, u.ignored, u.state, "
        "u.score_ppm, u.test_samples, u.attested_ppm, u.attested_sites, u.merged, u.children "
        "FROM updates u LEFT JOIN sites s ON s.site = u.site WHERE u.idx IN (SELECT value FROM json_each(?))"
    )
    return {row["idx"]: row for row in db.execute(query, (json.dumps(wanted),))}
