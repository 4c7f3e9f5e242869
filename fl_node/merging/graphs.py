"""Who is whose neighbour: graphs over the members of a view, the same for everybody who builds them.

Nodes are the active members that publish, in the order of their numbers. What is random comes from SHA-256 under the
spec's digest. docs/replay-rules.md, section 9.4, has every construction in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from itertools import combinations
from typing import Final, TypeAlias

from fl_node.merging.board import members_of
from fl_node.prefix import Prefix
from fl_node.spec import Spec
from fl_node.tables import MergingSpec

Edge: TypeAlias = tuple[int, int]
_DOMAIN: Final = b"fl-node graph 1"
#: Double-edge swaps tried for each edge before a random regular graph is looked at, and how often that is done.
_SWAPS_PER_EDGE: Final = 10
_TRIES: Final = 20


def neighbours_of(spec: Spec, view: Prefix, own_peer: int | None = None) -> Mapping[int, frozenset[int]]:
    """Each active publishing member's neighbours in the spec's graph; found once for the same members.

    Args:
        own_peer: one who is in the graph even if it is admitted after this view only: otherwise a newcomer to a
            synchronous round would have no neighbours, and begin at the genesis.
    """
    there = members_of(view)
    members = there.publishing
    if not members:
        return {}
    if own_peer is not None and own_peer not in there.sites:
        members = tuple(sorted({*members, own_peer}))
    rules = spec.merging
    key = ("graph", rules.graph, rules.degree, rules.rewire, rules.edges)
    kept: dict[tuple[int, ...], Mapping[int, frozenset[int]]] = view.derived.setdefault(key, {})
    found = kept.get(members)
    if found is None:
        found = kept[members] = build(rules, members, view.opened.spec_digest)
    return found


def build(rules: MergingSpec, members: Sequence[int], spec_digest: bytes) -> dict[int, frozenset[int]]:
    """The spec's graph over these peer numbers, ascending: number -> neighbours. Symmetric, without loops.

    Args:
        spec_digest: what a random graph is drawn from.
    """
    if rules.graph == "edges":
        there = set(members)
        edges = {(a, b) for a, b in rules.edges if a in there and b in there}
        return _adjacent(members, edges)
    seed = sha256(_DOMAIN + spec_digest).digest()
    positions = _NAMED[rules.graph](len(members), rules, seed)
    return _adjacent(members, {(members[a], members[b]) for a, b in positions})


def components(graph: Mapping[int, frozenset[int]]) -> list[tuple[int, ...]]:
    """The connected parts of a graph, each ascending, by their smallest member."""
    rest, parts = set(graph), []
    for start in sorted(graph):
        if start not in rest:
            continue
        rest.discard(start)
        part, border = {start}, [start]
        while border:
            for peer in graph[border.pop()] & rest:
                rest.discard(peer)
                part.add(peer)
                border.append(peer)
        parts.append(tuple(sorted(part)))
    return parts


def _adjacent(nodes: Sequence[int], edges: set[Edge]) -> dict[int, frozenset[int]]:
    sets: dict[int, set[int]] = {node: set() for node in nodes}
    for a, b in edges:
        if a != b:
            sets[a].add(b)
            sets[b].add(a)
    return {node: frozenset(near) for node, near in sets.items()}


def _connected(nodes: int, edges: set[Edge]) -> bool:
    return len(components(_adjacent(range(nodes), edges))) <= 1


def _edge(a: int, b: int) -> Edge:
    return (a, b) if a < b else (b, a)


def _line(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    return {(at, at + 1) for at in range(nodes - 1)}


def _ring(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    return _circulant(nodes, 2)


def _star(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    return {(0, at) for at in range(1, nodes)}


def _full(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    return set(combinations(range(nodes), 2))


def _grid(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    """Row by row, as square as it gets: ceil(sqrt(n)) columns; the last row may be short."""
    columns = math.isqrt(max(0, nodes - 1)) + 1
    across = {(at, at + 1) for at in range(nodes - 1) if (at + 1) % columns}
    down = {(at, at + columns) for at in range(nodes - columns)}
    return across | down


def _circulant(nodes: int, degree: int) -> set[Edge]:
    """Each linked to the ``degree // 2`` next on either side and, if the degree is odd, to the one opposite."""
    steps = list(range(1, degree // 2 + 1)) + ([nodes // 2] if degree % 2 else [])
    return {_edge(at, (at + step) % nodes) for at in range(nodes) for step in steps if (at + step) % nodes != at}


def usable_degree(nodes: int, degree: int) -> int:
    """The degree that a regular graph of so many nodes can have: at most ``degree``; nodes times it is even."""
    degree = max(0, min(degree, nodes - 1))
    return degree - (nodes * degree) % 2


def _random_regular(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    """A circulant graph shuffled by double-edge swaps, which keep every degree. Disconnected ones are shuffled on."""
    degree = usable_degree(nodes, rules.degree)
    plain = _circulant(nodes, degree)
    listed, there = sorted(plain), set(plain)
    swaps = _SWAPS_PER_EDGE * len(listed)
    for start in range(0, swaps * _TRIES, swaps or 1):
        for count in range(start, start + swaps):
            _swap(listed, there, sha256(seed + count.to_bytes(4, "big")).digest())
        if degree < 2 or _connected(nodes, there):
            return there
    return plain


def _swap(listed: list[Edge], there: set[Edge], draw: bytes) -> None:
    """Edges (a, b) and (c, d) become (a, d) and (c, b), the second one turned round first if the draw says so; unless
    that would make a loop or a second edge between two nodes."""
    one = int.from_bytes(draw[:8], "big") % len(listed)
    two = int.from_bytes(draw[8:16], "big") % len(listed)
    (a, b), (c, d) = listed[one], listed[two]
    if draw[16] & 1:
        c, d = d, c
    if a == d or c == b:
        return
    new_one, new_two = _edge(a, d), _edge(c, b)
    if new_one == new_two or new_one in there or new_two in there:
        return
    there -= {listed[one], listed[two]}
    there |= {new_one, new_two}
    listed[one], listed[two] = new_one, new_two


def _small_world(nodes: int, rules: MergingSpec, seed: bytes) -> set[Edge]:
    """Watts and Strogatz (1998): a circulant graph in which each edge's far end moves with probability ``rewire``."""
    reach = max(1, min(rules.degree, nodes - 1) // 2)
    plain = _circulant(nodes, 2 * reach)
    bar = Fraction(repr(rules.rewire)) * 2**64
    for attempt in range(_TRIES):
        edges = set(plain)
        for step in range(1, reach + 1):
            for at in range(nodes):
                name = attempt.to_bytes(4, "big") + step.to_bytes(4, "big") + at.to_bytes(4, "big")
                draw = sha256(seed + name).digest()
                if int.from_bytes(draw[:8], "big") < bar:
                    _move(edges, nodes, at, (at + step) % nodes, int.from_bytes(draw[8:16], "big"))
        if _connected(nodes, edges):
            return edges
    return plain


def _move(edges: set[Edge], nodes: int, at: int, end: int, draw: int) -> None:
    """The edge from ``at`` to ``end`` goes to one of the nodes that ``at`` has no edge to, if it is still there."""
    if _edge(at, end) not in edges:
        return
    free = [node for node in range(nodes) if node != at and _edge(at, node) not in edges]
    if free:
        edges.discard(_edge(at, end))
        edges.add(_edge(at, free[draw % len(free)]))


_NAMED: Final[Mapping[str, Callable[[int, MergingSpec, bytes], set[Edge]]]] = {
    "ring": _ring,
    "line": _line,
    "star": _star,
    "full": _full,
    "grid": _grid,
    "random-regular": _random_regular,
    "small-world": _small_world,
}
