"""A lineage as an indented list for people. Each update is told of once, where it is nearest; elsewhere it is named."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fl_node.lineage import words
from fl_node.lineage.kin import Lineage, OfSite, Relative, Relatives
from fl_node.lineage.names import visible
from fl_node.prefix import UpdateEntry
from fl_node.records import UpdateRef

_NAMED: Final = 6
_NOTE: Final = (
    "An effective share is a share of starting points: shares multiplied along each way, summed over all. It does not",
    "measure influence on predictions. What a score claims is its publisher's word.",
)
_NOMINAL: Final = "Nominal: on the way lies a rule (a median or the like) whose shares do not say how much came along."


def tree(lineage: Lineage) -> str:
    """The list. Control characters in names of sites are made visible."""
    lines = []
    if lineage.ancestors is not None:
        lines += [*_ancestors(lineage, lineage.ancestors), ""]
    if lineage.descendants is not None:
        lines += [*_descendants(lineage, lineage.descendants), ""]
    lines += _NOTE
    if any(relative.nominal for relative in lineage.relatives().values()):
        lines.append(_NOMINAL)
    return "\n".join(visible(line) for line in lines) + "\n"


def _ancestors(lineage: Lineage, found: Relatives) -> Iterator[str]:
    root = lineage.roots[0]
    if found.genesis is None or not found.sites:
        yield f"{words.sentence(lineage, root, None)}: started from the genesis"
        return
    yield f"{words.sentence(lineage, root, None)}: made from {_count(found)}"
    yield ""
    yield from _list(lineage, found, upward=True)
    yield ""
    start = words.percentage(float(found.genesis))
    steps = f"{found.genesis_steps} step{'s' if found.genesis_steps > 1 else ''} away at least"
    yield f"genesis: effective share {start}, {steps}"
    yield ""
    yield from _columns(
        ("site", "direct share", "updates", "rounds", "largest effective share"),
        [_cells(item) for item in found.sites],
    )


def _descendants(lineage: Lineage, found: Relatives) -> Iterator[str]:
    subject = words.subject(lineage)
    if lineage.site:
        subject += f" ({len(lineage.roots)})"
    if not found.sites:
        yield f"{subject}: merged by nobody{' else' if lineage.site else ''}"
        return
    yield f"{subject}: reached {_count(found)}"
    yield ""
    yield from _list(lineage, found, upward=False)
    yield ""
    yield from _columns(
        ("site", "direct share", "updates", "rounds", "largest effective share", "in its latest update"),
        [
            [*_cells(item), "none" if item.latest is None else _share(float(item.latest), item.nominal)]
            for item in found.sites
        ],
    )
    own = {lineage.sites[entry.ref.peer] for entry in lineage.roots} if lineage.site else set()
    free = sorted(set(lineage.sites.values()) - {item.site for item in found.sites} - own)
    if free:
        yield f"sites not reached: {', '.join(free)}"


@dataclass(frozen=True, slots=True)
class _Step:
    """From an update of the list to one that lies a step farther away."""

    to: UpdateRef
    share_ppm: int


def _list(lineage: Lineage, found: Relatives, *, upward: bool) -> Iterator[str]:
    """The relatives, each below the nearest one that leads to it; others that lead there only name it."""
    relatives = {relative.ref: relative for relative in found.updates}
    entries, steps = lineage.entries(), _steps(lineage, relatives, upward=upward)
    roots = [entry.ref for entry in lineage.roots]
    below = _below(roots, steps)
    stack: list[tuple[UpdateRef, int, int | None]] = [(ref, 0, None) for ref in reversed(roots)]
    if not lineage.site:
        # The heading has told of it.
        stack = [(step.to, 1, step.share_ppm) for step in reversed(below.get(roots[0], ()))]
    while stack:
        ref, depth, share_ppm = stack.pop()
        yield "  " * depth + _line(lineage, entries[ref], relatives.get(ref), share_ppm, upward=upward)
        told = below.get(ref, [])
        others = [step for step in steps.get(ref, ()) if step not in told]
        if others:
            yield "  " * (depth + 1) + _named(others)
        stack += [(step.to, depth + 1, step.share_ppm) for step in reversed(told)]
    if found.farther:
        yield f"  ... and {found.farther:,} more, farther away: --levels 0 lists all"


def _steps(lineage: Lineage, relatives: Mapping[UpdateRef, Relative], *, upward: bool) -> dict[UpdateRef, list[_Step]]:
    """Where one gets from each root and relative by one step."""
    near: dict[UpdateRef, list[_Step]] = {}
    roots = {entry.ref for entry in lineage.roots}
    for edge in lineage.edges():
        if edge.parent is not None:
            start, end = (edge.child, edge.parent) if upward else (edge.parent, edge.child)
            if (start in relatives or start in roots) and end in relatives:
                near.setdefault(start, []).append(_Step(end, edge.share_ppm))
    return near


def _below(roots: Sequence[UpdateRef], steps: Mapping[UpdateRef, Sequence[_Step]]) -> dict[UpdateRef, list[_Step]]:
    """Where each relative is told of: below the first that leads to it by the fewest steps."""
    below: dict[UpdateRef, list[_Step]] = {}
    known, queue = set(roots), deque(roots)
    while queue:
        start = queue.popleft()
        for step in steps.get(start, ()):
            if step.to not in known:
                known.add(step.to)
                below.setdefault(start, []).append(step)
                queue.append(step.to)
    return below


def _line(
    lineage: Lineage, entry: UpdateEntry, relative: Relative | None, share_ppm: int | None, *, upward: bool
) -> str:
    parts = [f"round {entry.round}"]
    if share_ppm is not None:
        parts.append(f"{'share' if upward else 'gave it'} {words.of_ppm(share_ppm)}")
    if relative is not None:
        parts.append(f"effective {_share(float(relative.share), relative.nominal)}")
    parts += [words.claim(entry), *words.marks(entry, relative)]
    return f"{entry.ref} {lineage.sites[entry.ref.peer]}: {', '.join(parts)}"


def _named(steps: Sequence[_Step]) -> str:
    """Relatives that are told of elsewhere, those with the largest shares first."""
    ranked = sorted(steps, key=lambda step: (-step.share_ppm, step.to))
    shown = ", ".join(f"{step.to} {words.of_ppm(step.share_ppm)}" for step in ranked[:_NAMED])
    more = f" and {len(ranked) - _NAMED} more" if len(ranked) > _NAMED else ""
    return f"also, told of elsewhere: {shown}{more}"


def _cells(item: OfSite) -> list[str]:
    rounds = str(item.first_round) if item.first_round == item.last_round else f"{item.first_round}-{item.last_round}"
    largest = _share(float(item.largest), item.nominal)
    return [item.site, words.of_ppm(item.direct_ppm), str(item.updates), rounds, largest]


def _count(found: Relatives) -> str:
    many = sum(item.updates for item in found.sites)
    sites = len(found.sites)
    return f"{many:,} update{'s' if many > 1 else ''} of {sites} site{'s' if sites > 1 else ''}"


def _share(share: float, nominal: bool) -> str:
    return words.percentage(share) + (" (nominal)" if nominal else "")


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows below their head, the first column to the left and the others to the right."""
    table = [head, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(head))]
    for row in table:
        first = row[0].ljust(widths[0])
        yield "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
