"""The graph as SVG: whole without script, so that it is also printed; a script moves it and follows the keys.

Colours and dashes come from the style sheet; every text goes through ``escape``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from markupsafe import Markup, escape

from ledger_ui.provenance import words
from ledger_ui.provenance.layout import LEFT, TOP, Layout, Spot, lay_out, side_of_square
from ledger_ui.provenance.records import Merge, Node
from ledger_ui.text import visible

_THINNEST, _THICKEST = 0.8, 7.0
_LONGEST_NAME: Final = 20


def draw(nodes: Sequence[Node], merges: Sequence[Merge], round_url: Callable[[int], str]) -> Markup:
    """The whole graph.

    Args:
        round_url: what a round's heading leads to; empty: nowhere.
    """
    layout = lay_out(nodes)
    return Markup("\n".join(_parts(nodes, merges, layout, round_url)))  # noqa: S704  escaped below


def _parts(
    nodes: Sequence[Node], merges: Sequence[Merge], layout: Layout, round_url: Callable[[int], str]
) -> Iterator[str]:
    width, height = f"{layout.width:.0f}", f"{layout.height:.0f}"
    yield (
        f'<svg class="lineage" id="lineage" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="group" aria-labelledby="graph-title" aria-describedby="graph-keys"><g class="world">'
    )
    for row in layout.rows:
        yield f'<line class="grid" x1="{LEFT:.0f}" y1="{row.y:.1f}" x2="{layout.width - 8:.0f}" y2="{row.y:.1f}"/>'
    names = {node.key: words.name(node) for node in nodes}
    colours = {node.key: _colour(node) for node in nodes}
    yield '<g class="edges" aria-hidden="true">'
    for one in sorted(merges, key=lambda one: -one.share_ppm):  # broad ones first, so that thin ones stay in sight
        yield _edge(one, layout, names, colours[one.parent])
    yield "</g>"
    for node in sorted(nodes, key=lambda node: node.side == "root"):
        yield from _node(node, layout.spots[node.key])
    yield from _heads(layout, round_url)
    yield "</g></svg>"


def _heads(layout: Layout, round_url: Callable[[int], str]) -> Iterator[str]:
    """Names of rows and columns. The script keeps them in sight."""
    yield f'<g class="rows"><rect class="ground" x="0" y="0" width="{LEFT - 8:.0f}" height="{layout.height:.0f}"/>'
    for row in layout.rows:
        colour = "no-site" if row.site is None else f"c{(row.site - 1) % 12}"
        shown = "no member" if row.site is None else visible(row.site_name or f"site of peer {row.site}", _LONGEST_NAME)
        yield f'<circle class="node-mark {colour}" cx="12" cy="{row.y - 2:.1f}" r="5"/>'
        yield f'<text class="row-name" x="23" y="{row.y - 1:.1f}">{escape(shown)}</text>'
        if row.peer is not None:
            yield f'<text x="23" y="{row.y + 12:.1f}">peer {row.peer}</text>'
    yield "</g>"
    yield f'<g class="columns"><rect class="ground" x="0" y="0" width="{layout.width:.0f}" height="{TOP - 14:.0f}"/>'
    for column in layout.columns:
        if column.number is None:
            continue
        text = f'<text x="{column.x:.1f}" y="24" text-anchor="middle">round {column.number}</text>'
        url = round_url(column.number)
        yield f'<a href="{escape(url)}" tabindex="-1">{text}</a>' if url else text
    yield f'</g><rect class="ground corner" x="0" y="0" width="{LEFT - 8:.0f}" height="{TOP - 14:.0f}"/>'


def _edge(one: Merge, layout: Layout, names: dict[str, str], colour: str) -> str:
    start, end = layout.spots[one.parent], layout.spots[one.child]
    width = _THINNEST + (_THICKEST - _THINNEST) * (0 if one.parent == "genesis" else one.share_ppm / 1_000_000)
    # Leaves to the right and arrives from the left, also where a slow peer merged what was of a later round.
    bend = max(abs(end.x - start.x) / 2, 40.0)
    path = (
        f"M{start.x:.1f} {start.y:.1f}C{start.x + bend:.1f} {start.y:.1f} {end.x - bend:.1f} {end.y:.1f} "
        f"{end.x:.1f} {end.y:.1f}"
    )
    dashed = " dashed" if one.nominal else ""
    return (
        f'<path class="edge {colour}{dashed}" data-from="{one.parent}" data-to="{one.child}" '
        f'data-share="{one.share_ppm}" stroke-width="{width:.2f}" d="{path}">'
        f"<title>{escape(words.told_merge(one, names))}</title></path>"
    )


def _node(node: Node, spot: Spot) -> Iterator[str]:
    x, y, radius = spot.x, spot.y, spot.radius
    told = escape(words.sentence(node))
    classes = f"node {node.kind} {_colour(node)}" + (" root" if node.side == "root" else "")
    url = node.toggle_url or f"#in-{node.key}"
    more = ' data-more="1"' if node.toggle_url else ""
    yield (
        f'<a class="{classes}" id="at-{node.key}" data-key="{node.key}" data-x="{x:.1f}" data-y="{y:.1f}"{more} '
        f'href="{escape(url)}" aria-label="{told}"><title>{told}</title>'
    )
    yield f'<circle class="reach" cx="{x:.1f}" cy="{y:.1f}" r="{max(16.0, radius + 5):.1f}"/>'
    if node.kind == "group":
        yield (
            f'<rect class="node-mark" x="{x - radius:.1f}" y="{y - spot.height / 2:.1f}" width="{2 * radius:.1f}" '
            f'height="{spot.height:.1f}" rx="7"/><text class="count" x="{x:.1f}" y="{y + 4:.1f}" '
            f'text-anchor="middle">{node.updates}</text>'
        )
    elif node.final:
        side = side_of_square(radius)
        yield (
            f'<rect class="node-mark" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" '
            f'height="{side:.1f}"/>'
        )
    else:
        yield f'<circle class="node-mark" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
    if node.nominal or node.side == "root":
        dashed = " dashed" if node.nominal else ""
        yield f'<circle class="ring{dashed}" cx="{x:.1f}" cy="{y:.1f}" r="{max(radius, spot.below) + 4:.1f}"/>'
    if node.toggle_url and node.kind == "update":
        outward = x + (radius + 9) * (-1 if node.side == "above" else 1)
        sign = "−" if node.opened else "+"
        at = f'x="{outward:.1f}" y="{y + 4:.1f}"'
        yield f'<text class="more" aria-hidden="true" {at} text-anchor="middle">{sign}</text>'
    below = y + spot.below + (15 if node.side != "root" else 19)
    yield f'<text class="halo" x="{x:.1f}" y="{below:.1f}" text-anchor="middle">{escape(words.label(node))}</text></a>'


def _colour(node: Node) -> str:
    if node.kind == "genesis" or node.sites > 1:
        return "all-sites"
    return "no-site" if node.site is None else f"c{(node.site - 1) % 12}"
