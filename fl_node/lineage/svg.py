"""A lineage as one SVG file that needs nothing else: columns are rounds, rows are peers, colours are sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Final

from fl_node.errors import UsageError
from fl_node.lineage import colours, words
from fl_node.lineage.kin import Edge, Lineage, Relative
from fl_node.lineage.names import for_xml
from fl_node.prefix import UpdateEntry
from fl_node.records import PPM, UpdateRef

#: Beyond, nobody could tell one line from another, and browsers get slow.
MOST_UPDATES: Final = 600
MOST_EDGES: Final = 8_000

# Pixels.
_COLUMN, _ROW = 118.0, 74.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 250.0, 96.0, 70.0, 74.0
_LEAST_WIDTH: Final = 760.0  # title and notes
_LEAST_RADIUS, _MOST_RADIUS = 4.0, 16.0
_THINNEST, _THICKEST = 0.8, 7.0
_LONGEST_SITE: Final = 24

_NOTE: Final = (
    "Width of a line: share. Area of a circle: effective share. Square: closing update, untrained. "
    "Dashed, in brackets: nominal."
)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand. ``rounds`` and ``peers``: their column and row, from 0."""

    rounds: Mapping[int, int]
    peers: Mapping[int, int]
    genesis: bool

    def at(self, entry: UpdateEntry) -> tuple[float, float]:
        return self.column(self.rounds[entry.round] + self.genesis), self.row(self.peers[entry.ref.peer])

    def column(self, place: int) -> float:
        return _LEFT + place * _COLUMN

    def row(self, place: float) -> float:
        return _TOP + place * _ROW

    @property
    def origin(self) -> tuple[float, float]:
        """Where the genesis stands: left of everything, in the middle."""
        return self.column(0), self.row((len(self.peers) - 1) / 2)

    @property
    def width(self) -> float:
        return max(_LEAST_WIDTH, self.column(len(self.rounds) + self.genesis - 1) + _RIGHT)

    @property
    def height(self) -> float:
        return self.row(len(self.peers) - 1) + _BOTTOM


def svg(lineage: Lineage) -> str:
    """The picture. Lines run from an update to those that merged it; their width is the share. The area of
    a circle grows with the effective share; dashes mean that a share is nominal.

    Raises:
        UsageError: more updates or merges than anybody could tell apart.
    """
    entries, edges = lineage.entries(), list(lineage.edges())
    if len(entries) > MOST_UPDATES or len(edges) > MOST_EDGES:
        raise UsageError(
            f"the picture would have {len(entries):,} updates and {len(edges):,} merges; expected at most "
            f"{MOST_UPDATES:,} and {MOST_EDGES:,}: show fewer with --levels or --direction, or take --format json"
        )
    return "\n".join(_lines(lineage, entries, edges)) + "\n"


def _lines(lineage: Lineage, entries: Mapping[UpdateRef, UpdateEntry], edges: Sequence[Edge]) -> Iterator[str]:
    layout = _Layout(
        {number: place for place, number in enumerate(sorted({entry.round for entry in entries.values()}))},
        {peer: place for place, peer in enumerate(sorted({ref.peer for ref in entries}))},
        any(edge.parent is None for edge in edges),
    )
    places = colours.numbered(lineage.sites[peer] for peer in layout.peers)
    title = f"Lineage of {words.subject(lineage)}"
    size = f'width="{layout.width:.0f}" height="{layout.height:.0f}"'
    box = f'viewBox="0 0 {layout.width:.0f} {layout.height:.0f}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img" aria-labelledby="title about">'
    yield f'<title id="title">{for_xml(title)}</title>'
    yield f'<desc id="about">{for_xml(_about(lineage))}</desc>'
    yield _style(places)
    yield '<rect class="ground" width="100%" height="100%"/>'
    yield f'<text class="head" x="24" y="34">{for_xml(title)}</text>'
    yield from _axes(lineage, layout, places)
    relatives, roots = lineage.relatives(), {root.ref for root in lineage.roots}
    # Broad lines first, so that thin ones stay in sight.
    for edge in sorted(edges, key=lambda edge: -edge.share_ppm):
        yield _edge(lineage, layout, entries, places, edge)
    if layout.genesis:
        x, y = layout.origin
        yield f'<g class="none"><title>{for_xml(_genesis_words(lineage))}</title>'
        yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{_MOST_RADIUS / 2:.1f}"/></g>'
        yield f'<text class="small" x="{x:.1f}" y="{y + 26:.1f}" text-anchor="middle">genesis</text>'
    for ref, entry in entries.items():
        yield from _node(lineage, layout, places, entry, relatives.get(ref), root=ref in roots)
    yield f'<text class="small" x="24" y="{layout.height - 18:.0f}">{_NOTE}</text>'
    yield "</svg>"


def _style(places: Mapping[str, int]) -> str:
    """Plain rules, no variables, so that viewers besides browsers draw it as well."""
    rules = [
        "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1b1f24}",
        ".head{font-size:18px;font-weight:600}.small{font-size:11px;fill:#57606a}",
        ".ground{fill:#ffffff}.rule{stroke:#d8dee4}.e{fill:none;stroke-opacity:.45}.e:hover{stroke-opacity:1}",
        ".dot{stroke:#ffffff;stroke-width:1.5}.ring{fill:none;stroke-width:2.5}.dashed{stroke-dasharray:5 4}",
        ".halo{paint-order:stroke;stroke:#ffffff;stroke-width:4px;stroke-linejoin:round}",
        ".none .dot{fill:#6e7781}.none.e{stroke:#6e7781}",
    ]
    night = [
        "text{fill:#e6edf3}.small{fill:#9198a1}.ground{fill:#0d1117}.rule{stroke:#30363d}.dot{stroke:#0d1117}",
        ".halo{stroke:#0d1117}.none .dot{fill:#9198a1}.none.e{stroke:#9198a1}.e{stroke-opacity:.5}",
    ]
    for place in places.values():
        for rule, colour in ((rules, colours.light(place)), (night, colours.dark(place))):
            rule.append(f".s{place} .dot{{fill:{colour}}}.s{place} .ring,.s{place}.e{{stroke:{colour}}}")
    return f"<style>{''.join(rules)}@media(prefers-color-scheme:dark){{{''.join(night)}}}</style>"


def _axes(lineage: Lineage, layout: _Layout, places: Mapping[str, int]) -> Iterator[str]:
    bottom = layout.height - _BOTTOM + 34
    for number, place in layout.rounds.items():
        x = layout.column(place + layout.genesis)
        yield f'<line class="rule" x1="{x:.1f}" y1="{_TOP - 24}" x2="{x:.1f}" y2="{bottom:.1f}"/>'
        yield f'<text class="small" x="{x:.1f}" y="{_TOP - 32}" text-anchor="middle">round {number}</text>'
    for peer, place in layout.peers.items():
        site, y = lineage.sites[peer], layout.row(place)
        shown = site if len(site) <= _LONGEST_SITE else site[: _LONGEST_SITE - 1] + "…"
        yield f'<g class="s{places[site]}"><title>{for_xml(f"peer {peer} of {site}")}</title>'
        yield f'<circle class="dot" cx="32" cy="{y:.1f}" r="6"/></g>'
        yield f'<text x="46" y="{y + 1:.1f}">{for_xml(shown)}</text>'
        yield f'<text class="small" x="46" y="{y + 16:.1f}">peer {peer}</text>'


def _edge(
    lineage: Lineage,
    layout: _Layout,
    entries: Mapping[UpdateRef, UpdateEntry],
    places: Mapping[str, int],
    edge: Edge,
) -> str:
    child = layout.at(entries[edge.child])
    parent = layout.origin if edge.parent is None else layout.at(entries[edge.parent])
    of = "none" if edge.parent is None else f"s{places[lineage.sites[edge.parent.peer]]}"
    width = _THINNEST if edge.parent is None else _THINNEST + (_THICKEST - _THINNEST) * edge.share_ppm / PPM
    dashed = " dashed" if edge.nominal else ""
    (x1, y1), (x2, y2) = parent, child
    # Leaves to the right and arrives from the left, also where a slow peer merged what was of a later round.
    bend = max(abs(x2 - x1) / 2, _COLUMN / 2)
    path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    told = for_xml(words.merged(edge))
    return f'<path class="e {of}{dashed}" stroke-width="{width:.2f}" d="{path}"><title>{told}</title></path>'


def _node(
    lineage: Lineage,
    layout: _Layout,
    places: Mapping[str, int],
    entry: UpdateEntry,
    relative: Relative | None,
    *,
    root: bool,
) -> Iterator[str]:
    (x, y), place = layout.at(entry), places[lineage.sites[entry.ref.peer]]
    share = 1.0 if relative is None else float(relative.share)
    radius = _LEAST_RADIUS + (_MOST_RADIUS - _LEAST_RADIUS) * sqrt(min(share, 1.0))
    yield f'<g class="s{place}"><title>{for_xml(words.sentence(lineage, entry, relative))}</title>'
    yield _shape(entry, x, y, radius)
    if root or (relative is not None and relative.nominal):
        dashed = "" if root else " dashed"
        yield f'<circle class="ring{dashed}" cx="{x:.1f}" cy="{y:.1f}" r="{radius + 4:.1f}"/>'
    yield "</g>"
    below = y + radius + (18 if root else 14)
    told = f"{entry.ref}{_share(relative)}"
    yield f'<text class="small halo" x="{x:.1f}" y="{below:.1f}" text-anchor="middle">{told}</text>'


def _shape(entry: UpdateEntry, x: float, y: float, radius: float) -> str:
    """A circle; for a closing update, which holds no training of its own, a square of the same area."""
    if not entry.final:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
    side = radius * sqrt(pi)
    half = side / 2
    return f'<rect class="dot" x="{x - half:.1f}" y="{y - half:.1f}" width="{side:.1f}" height="{side:.1f}"/>'


def _share(relative: Relative | None) -> str:
    if relative is None:
        return ""
    shown = words.percentage(float(relative.share))
    return f" · ({for_xml(shown)})" if relative.nominal else f" · {for_xml(shown)}"


def _about(lineage: Lineage) -> str:
    parts = []
    if lineage.ancestors is not None:
        parts.append(f"{len(lineage.ancestors.updates)} updates that it came from")
    if lineage.descendants is not None:
        parts.append(f"{len(lineage.descendants.updates)} updates that came of it")
    return "; ".join(parts) + ". Columns are rounds, rows are peers, lines are merges."


def _genesis_words(lineage: Lineage) -> str:
    found = lineage.ancestors
    if found is None or found.genesis is None:
        return "genesis"
    return f"genesis, the initial weights: effective share {words.percentage(float(found.genesis))}"
