"""Where the nodes of a graph stand: columns are rounds, rows are peers, those of a site beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Final

from ledger_ui.provenance.records import Node

LEFT: Final = 168.0
TOP: Final = 52.0
RIGHT: Final = 60.0
BOTTOM: Final = 44.0
#: Between rows: where they are few, and where they are many.
_HIGH, _LOW = 48.0, 40.0
_FEW: Final = 16
#: Between columns: where there are single updates, and where there are rounds only.
_WIDE, _NARROW = 112.0, 76.0
_LEAST_RADIUS, _MOST_RADIUS = 4.0, 15.0
#: Boxes for the updates of a round.
_SHORTEST, _TALLEST = 30.0, 120.0
_LEAST_WIDTH, _LEAST_HEIGHT = 420.0, 190.0


@dataclass(frozen=True, slots=True)
class Row:
    """A peer's row, or a site's where only several of its updates stand in it."""

    y: float
    site: int | None
    site_name: str | None
    peer: int | None


@dataclass(frozen=True, slots=True)
class Column:
    """A round's. ``number`` is ``None`` for the genesis."""

    x: float
    number: int | None


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a node stands, and how large it is; of a group, ``height`` is that of its box."""

    x: float
    y: float
    radius: float
    height: float = 0.0

    @property
    def below(self) -> float:
        """Half of its height."""
        return self.height / 2 or self.radius


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole graph's."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    spots: dict[str, Spot]
    width: float
    height: float


def lay_out(nodes: Sequence[Node]) -> Layout:
    """Find each node a place; none stands upon another."""
    columns = _columns(nodes)
    rows, y_of, apart = _rows(nodes, TOP + 28.0)
    # What has no row of its own stands in line with the root.
    root = next((node for node in nodes if node.side == "root"), None)
    middle = y_of[_row_of(root)] if root is not None else TOP + _LEAST_HEIGHT / 2
    if any(node.kind == "group" and node.sites > 1 for node in nodes) and middle < TOP + _TALLEST / 2:
        rows, y_of, apart = _rows(nodes, TOP + 28.0 + TOP + _TALLEST / 2 - middle)
        middle = TOP + _TALLEST / 2
    most = max((node.updates for node in nodes), default=1)
    x_of = {column.number: column.x for column in columns}
    spots: dict[str, Spot] = {}
    taken: dict[tuple[float, float], int] = {}
    for node in nodes:
        x = x_of[node.round]
        y = y_of.get(_row_of(node), middle)
        again = taken[x, y] = taken.get((x, y), -1) + 1
        y += again * apart / 2
        spots[node.key] = _spot(node, x, y, most)
    bottom = max((spot.y + spot.below for spot in spots.values()), default=middle)
    width = max(_LEAST_WIDTH, columns[-1].x + RIGHT)
    return Layout(tuple(rows), tuple(columns), spots, width, max(_LEAST_HEIGHT, bottom + BOTTOM))


def _spot(node: Node, x: float, y: float, most: int) -> Spot:
    radius = _LEAST_RADIUS + (_MOST_RADIUS - _LEAST_RADIUS) * sqrt(min(1.0, node.share))
    if node.kind == "genesis":
        return Spot(x, y, 7.0)
    if node.kind == "update":
        return Spot(x, y, radius)
    if node.sites == 1:
        return Spot(x, y, 13.0, 24.0)
    return Spot(x, y, 15.0, _SHORTEST + (_TALLEST - _SHORTEST) * sqrt(node.updates / most))


def side_of_square(radius: float) -> float:
    """Of a square of the same area as the circle."""
    return radius * sqrt(pi)


def _columns(nodes: Sequence[Node]) -> list[Column]:
    single = {node.round for node in nodes if node.kind == "update"}
    found: list[Column] = []
    x = LEFT + 56.0
    last: int | None = None
    for number in sorted({node.round for node in nodes}, key=lambda number: -1 if number is None else number):
        if found:
            x += _WIDE if number in single or last in single else _NARROW
        found.append(Column(x, number))
        last = number
    return found


def _row_of(node: Node) -> tuple[int, int] | None:
    """Site and peer; of a site's group, peer 0; ``None`` for what has no row of its own."""
    if node.kind == "update":
        return (node.site or 0, node.peer or 0)
    return (node.site or 0, 0) if node.kind == "group" and node.sites == 1 else None


def _rows(nodes: Sequence[Node], y: float) -> tuple[list[Row], dict[tuple[int, int] | None, float], float]:
    """From ``y`` on downwards: the rows, where each is, and how far apart they are."""
    peers = {(node.site or 0, node.peer or 0): node for node in nodes if node.kind == "update"}
    groups = {(node.site or 0, 0): node for node in nodes if node.kind == "group" and node.sites == 1}
    of_site: dict[int, list[int]] = {}
    for site, peer in sorted(peers):
        of_site.setdefault(site, []).append(peer)
    apart = _HIGH if sum(map(len, of_site.values())) <= _FEW else _LOW
    rows: list[Row] = []
    y_of: dict[tuple[int, int] | None, float] = {}
    for site in sorted({site for site, _ in [*peers, *groups]}):
        first = y
        for peer in of_site.get(site, [0]):
            node = peers[site, peer] if peer else groups[site, 0]
            rows.append(Row(y, node.site, node.site_name, node.peer))
            y_of[site, peer] = y
            y += apart
        if (site, 0) in groups:
            y_of[site, 0] = (first + y - apart) / 2
    return rows, y_of, apart
