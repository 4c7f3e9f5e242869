"""What pictures and lists say of updates and shares, the same everywhere."""

from __future__ import annotations

from fl_node.lineage.kin import Edge, Lineage, Relative
from fl_node.prefix import UpdateEntry


def percentage(share: float) -> str:
    """A share for people; what is there and rounds to nothing is told as such.

    >>> percentage(1 / 3), percentage(0.0), percentage(0.000001)
    ('33.33 %', '0.00 %', '<0.01 %')
    """
    return "<0.01 %" if 0 < share < 0.00005 else f"{share * 100:.2f} %"


def of_ppm(ppm: int) -> str:
    """A recorded share for people."""
    return percentage(ppm / 1_000_000)


def claim(entry: UpdateEntry) -> str:
    """The publisher's own word on the score, and called so."""
    return f"claims {entry.update.score_ppm / 10_000:.2f} %"


def marks(entry: UpdateEntry, relative: Relative | None) -> list[str]:
    """What a reader should know of an update besides."""
    found = ["closing"] if entry.final else []
    if relative is not None:
        found += ["withdrawn by its publisher"] if relative.withdrawn else []
        found += [] if relative.counts else ["does not count: its publisher was retired from before it"]
    return found


def sentence(lineage: Lineage, entry: UpdateEntry, relative: Relative | None) -> str:
    """One update in a line, with its effective share in the root, or the root's in it."""
    parts = [f"{entry.ref} of {lineage.sites[entry.ref.peer]}", f"round {entry.round}", f"entry {entry.index}"]
    if relative is not None:
        kind = "nominal effective share" if relative.nominal else "effective share"
        parts.append(f"{kind} {percentage(float(relative.share))}")
    return ", ".join([*parts, claim(entry), *marks(entry, relative)])


def merged(edge: Edge) -> str:
    """One merge in a line."""
    if edge.parent is None:
        return f"{edge.child} started from the genesis"
    kind = "nominal share" if edge.nominal else "share"
    return f"{edge.child} merged {edge.parent}, {kind} {of_ppm(edge.share_ppm)}"


def subject(lineage: Lineage) -> str:
    """What the lineage is of."""
    if lineage.site:
        return f"all updates of {lineage.site}"
    root = lineage.roots[0]
    return f"update {root.ref} of {lineage.sites[root.ref.peer]}"
