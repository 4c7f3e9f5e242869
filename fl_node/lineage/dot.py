"""A lineage for Graphviz: ``dot -Tpdf lineage.dot``. Columns are rounds, colours are sites."""

from __future__ import annotations

from collections.abc import Iterator

from fl_node.lineage import colours, words
from fl_node.lineage.kin import Lineage
from fl_node.lineage.names import for_dot
from fl_node.records import UpdateRef


def dot(lineage: Lineage) -> str:
    """The text of the graph. Arrows go from an update to those that merged it; dashed ones have nominal shares."""
    return "\n".join(_lines(lineage)) + "\n"


def _lines(lineage: Lineage) -> Iterator[str]:
    entries, relatives = lineage.entries(), lineage.relatives()
    places = colours.numbered(lineage.sites[ref.peer] for ref in entries)
    roots = {root.ref for root in lineage.roots}
    edges = list(lineage.edges())
    yield "digraph lineage {"
    yield f"  graph [rankdir=LR, ranksep=1.2, label={for_dot('Lineage of ' + words.subject(lineage))}, labelloc=t];"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif", fontsize=10];'
    yield '  edge [arrowsize=0.6, fontname="sans-serif", fontsize=8];'
    if any(edge.parent is None for edge in edges):
        yield '  genesis [label="genesis", shape=ellipse];'
    rounds: dict[int, list[UpdateRef]] = {}
    for ref, entry in entries.items():
        rounds.setdefault(entry.round, []).append(ref)
        relative = relatives.get(ref)
        lines = [str(ref), lineage.sites[ref.peer]]
        if relative is not None:
            share = words.percentage(float(relative.share))
            lines.append(f"({share})" if relative.nominal else share)
        tip = words.sentence(lineage, entry, relative)
        strong = ", penwidth=3" if ref in roots else ""
        colour = colours.light(places[lineage.sites[ref.peer]])
        yield f'  {_id(ref)} [label={for_dot(*lines)}, tooltip={for_dot(tip)}, color="{colour}"{strong}];'
    for number, refs in sorted(rounds.items()):
        yield f"  {{ rank=same; /* round {number} */ {' '.join(f'{_id(ref)};' for ref in refs)} }}"
    for edge in edges:
        parent = "genesis" if edge.parent is None else _id(edge.parent)
        site = None if edge.parent is None else lineage.sites[edge.parent.peer]
        colour = "#777777" if site is None else colours.light(places[site])
        width = 0.5 + 4 * edge.share_ppm / 1_000_000
        dashed = ", style=dashed" if edge.nominal else ""
        tip = for_dot(words.merged(edge))
        yield f'  {parent} -> {_id(edge.child)} [penwidth={width:.2f}, color="{colour}", tooltip={tip}{dashed}];'
    yield "}"


def _id(ref: UpdateRef) -> str:
    return f"u{ref.peer}_{ref.sequence}"
