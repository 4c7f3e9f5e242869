"""Which updates a graph shows, and which of them as one node, so that it stays readable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from fl_node.records import PPM
from ledger_ui.provenance.records import Collapse
from ledger_ui.provenance.walk import Walk
from ledger_ui.questions.merges import is_nominal

#: Drawn at once at most: beyond, nobody could tell one from another, and browsers get slow.
MOST_NODES: Final = 300
MOST_MERGES: Final = 1_200
#: Where the address does not say how much to show: updates on each side, and what is still drawn one by one.
NEAR: Final = 24
_EASY_NODES: Final = {"none": 100, "site": 160, "round": MOST_NODES}
_EASY_MERGES: Final = {"none": 420, "site": 700, "round": MOST_MERGES}
_COARSER: Final[tuple[Collapse, ...]] = ("none", "site", "round")
_WORDS: Final[dict[Collapse, str]] = {
    "none": "every update by itself",
    "site": "a node for each round and site",
    "round": "a node for each round",
}
_ABOVE, _BELOW = -1, 1
_PLACES: Final = {_ABOVE: "above", _BELOW: "below"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader asks for.

    Attributes:
        up, down: levels of ancestors and of descendants; ``None``: as many as are easy to read.
        collapse: how updates are put together; ``None``: as is easy to read.
        opened: updates, by entry, whose relatives are wanted too.
        expanded: rounds whose updates are wanted one by one.
    """

    up: int | None
    down: int | None
    collapse: Collapse | None
    opened: frozenset[int]
    expanded: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A node: one update, or several of one round and one side.

    Attributes:
        key: ``3-12`` for an update; ``above-7`` for those of a round, ``above-7-3`` of a round and a site.
        side: -1 above, 0 the root, 1 below.
        members: entries; one for an update.
    """

    key: str
    side: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Merges between two nodes; ``parent`` is ``genesis`` where a child started from the initial weights."""

    parent: str
    child: str
    merges: int
    share_ppm: int
    nominal: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What is drawn.

    Attributes:
        levels: within so many steps, all are shown: above, below.
        shown: entries of all updates that are drawn, by themselves or among several, with their side.
        collapse: how they were put together.
        expanded: rounds whose updates are drawn one by one though others are not.
        notices: what the reader asked for and did not get.
    """

    levels: tuple[int, int]
    shown: dict[int, int]
    collapse: Collapse
    expanded: tuple[int, ...]
    nodes: tuple[Drawn, ...]
    lines: tuple[Line, ...]
    notices: tuple[str, ...]


def choose(above: Walk, below: Walk, wish: Wish) -> Choice:
    """What to draw of what was followed."""
    levels = (_levels(above, wish.up), _levels(below, wish.down))
    shown = {above.root: 0}
    for walk, most, side in ((above, levels[0], _ABOVE), (below, levels[1], _BELOW)):
        for idx in _within(walk, most, wish.opened):
            shown.setdefault(idx, side)
    found = _put_together(above, below, shown, wish)
    notices = []
    if wish.collapse and found.collapse != wish.collapse:
        notices.append(
            f"Asked for {_WORDS[wish.collapse]}: that would be more than {MOST_NODES} nodes or {MOST_MERGES:,} merges "
            f"at once. Shown {_WORDS[found.collapse]} instead; expand the rounds that you are looking for."
        )
    found, more = _bounded(above, below, found)
    return replace(found, levels=levels, notices=(*notices, *more))


def _put_together(above: Walk, below: Walk, shown: dict[int, int], wish: Wish) -> Choice:
    """As finely as asked for, or coarser until it may be drawn, or is easy to read where nothing was asked for."""
    for collapse in _COARSER[_COARSER.index(wish.collapse or "none") :]:
        most = (MOST_NODES, MOST_MERGES) if wish.collapse else (_EASY_NODES[collapse], _EASY_MERGES[collapse])
        expanded = wish.expanded if collapse != "none" else ()
        if len(shown) > most[0] and collapse == "none":
            continue
        nodes = _groups(above, below, shown, collapse, expanded)
        if len(nodes) > most[0] and collapse != "round":
            continue
        lines = _lines(above, below, nodes)
        if len(lines) <= most[1] or collapse == "round":
            return Choice((0, 0), shown, collapse, expanded, nodes, lines, ())
    raise AssertionError("a graph by rounds is always taken")


def _bounded(above: Walk, below: Walk, found: Choice) -> tuple[Choice, list[str]]:
    """The same, with less expanded, less far, and with the broadest lines only, until it may be drawn."""
    notices, shown, nodes, expanded = [], found.shown, found.nodes, found.expanded
    while len(nodes) > MOST_NODES and expanded:
        notices.append(f"Round {expanded[-1]} has too many updates to draw each; see the list of that round's updates.")
        expanded = expanded[:-1]
        nodes = _groups(above, below, shown, found.collapse, expanded)
    if len(nodes) > MOST_NODES:
        rounds = {idx: (above if side <= 0 else below).facts[idx].round for idx, side in shown.items()}
        home = rounds[above.root]
        near = set(sorted(set(rounds.values()), key=lambda number: abs(number - home))[: MOST_NODES // 2])
        shown = {idx: side for idx, side in shown.items() if rounds[idx] in near}
        nodes = _groups(above, below, shown, found.collapse, expanded)
        notices.append(f"More than {MOST_NODES} nodes: the {len(near)} rounds that are nearest are shown.")
    lines = found.lines if nodes is found.nodes else _lines(above, below, nodes)
    if len(lines) > MOST_MERGES:
        notices.append(f"Of {len(lines):,} merges, the {MOST_MERGES:,} with the largest shares are drawn.")
        lines = tuple(sorted(lines, key=lambda line: (-line.share_ppm, line.parent, line.child))[:MOST_MERGES])
    return replace(found, shown=shown, nodes=nodes, lines=lines, expanded=expanded), notices


# ---- which updates -------------------------------------------------------------------------------------------------


def _levels(walk: Walk, wanted: int | None) -> int:
    """Levels to show: as asked, or as many as hold about :data:`NEAR` updates, and one at least."""
    sizes: dict[int, int] = {}
    for steps in walk.steps.values():
        sizes[steps] = sizes.get(steps, 0) + 1
    farthest = max(sizes)
    if wanted is not None:
        return min(wanted, farthest)
    levels, total = min(1, farthest), sizes.get(1, 0)
    while levels < farthest and total + sizes[levels + 1] <= NEAR:
        levels += 1
        total += sizes[levels]
    return levels


def _within(walk: Walk, levels: int, opened: frozenset[int]) -> Iterator[int]:
    """Relatives within so many steps, and those behind the opened ones among them."""
    found = {idx for idx in walk.relatives if walk.steps[idx] <= levels}
    queue = [idx for idx in (walk.root, *found) if idx in opened]
    while queue:
        for _, other, _ in walk.links.get(queue.pop(), ()):
            if other not in found:
                found.add(other)
                if other in opened:
                    queue.append(other)
    yield from sorted(found)


# ---- several as one ------------------------------------------------------------------------------------------------


def _groups(
    above: Walk, below: Walk, shown: dict[int, int], collapse: Collapse, expanded: Iterable[int]
) -> tuple[Drawn, ...]:
    apart = set(expanded)
    groups: dict[str, list[int]] = {}
    for idx, side in shown.items():
        facts = (above if side <= 0 else below).facts[idx]
        if side == 0 or collapse == "none" or facts.round in apart:
            key = f"{facts.peer}-{facts.sequence}"
        elif collapse == "site":
            key = f"{_PLACES[side]}-{facts.round}-{facts.site or 0}"
        else:
            key = f"{_PLACES[side]}-{facts.round}"
        groups.setdefault(key, []).append(idx)
    nodes = []
    for key, members in groups.items():
        side = shown[members[0]]
        if len(members) == 1:
            facts = (above if side <= 0 else below).facts[members[0]]
            key = f"{facts.peer}-{facts.sequence}"
        nodes.append(Drawn(key, side, tuple(members)))
    return tuple(nodes)


def _lines(above: Walk, below: Walk, nodes: Iterable[Drawn]) -> tuple[Line, ...]:
    """The merges between nodes, by side; the root is on both."""
    found: list[Line] = []
    for walk, own in ((above, _ABOVE), (below, _BELOW)):
        mine = [node for node in nodes if node.side in (0, own)]
        where = {idx: node.key for node in mine for idx in node.members}
        size = {node.key: len(node.members) for node in mine}
        for node in mine:
            for key, (many, total, nominal) in _merges(walk, node, where).items():
                parent, child = (key, node.key) if walk.upward else (node.key, key)
                found.append(Line(parent, child, many, min(PPM, round(total / size[child])), nominal))
    return tuple(found)


def _merges(walk: Walk, node: Drawn, where: dict[int, str]) -> dict[str, tuple[int, int, bool]]:
    """The merges that lead on from a node to each other one: how many, the sum of their shares, and whether any share
    is nominal."""
    many: dict[str, int] = {}
    total: dict[str, int] = {}
    nominal: set[str] = set()
    for idx in node.members:
        links = walk.links.get(idx)
        if links is None:
            continue
        named = walk.upward and is_nominal(walk.facts[idx].rule)
        for _, other, share_ppm in links:
            key = where.get(other)
            if key is None:
                continue
            if key in many:
                many[key] += 1
                total[key] += share_ppm
            else:
                many[key], total[key] = 1, share_ppm
            if named or (not walk.upward and is_nominal(walk.facts[other].rule)):
                nominal.add(key)
        if walk.upward and not links and not walk.facts[idx].merged:
            many["genesis"] = many.get("genesis", 0) + 1
            total["genesis"] = total.get("genesis", 0) + PPM
    return {key: (many[key], total[key], key in nominal) for key in many if key != node.key}
