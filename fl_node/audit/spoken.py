"""Who objected to what, and who merged what was objected to: one pass over the log, however often it is asked."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter

from fl_node.prefix import Fact, Prefix
from fl_node.records import UpdateObjected, UpdatePublished, UpdateRef


@dataclass(slots=True)
class _Spoken:
    """Of the first ``size`` entries: objections to others' updates by who objects, in the order of the log; and of each
    update that is objected to, the first update of each peer that merged it, by peer, with its entry."""

    size: int
    objections: dict[int, list[Fact]] = field(default_factory=dict)
    merged: dict[UpdateRef, dict[int, tuple[UpdateRef, int]]] = field(default_factory=dict)


def objections_by(prefix: Prefix, peer: int, start: int, stop: int) -> list[Fact]:
    """A peer's objections to others' updates at entries ``start <= index < stop``."""
    said = _spoken(prefix).objections.get(peer, [])
    first, last = (bisect_left(said, index, key=attrgetter("index")) for index in (start, stop))
    return said[first:last]


def merged_by(prefix: Prefix, ref: UpdateRef) -> dict[int, tuple[UpdateRef, int]]:
    """Of each peer the first update that merged one which somebody objects to, and its entry; by peer number."""
    return dict(sorted(_spoken(prefix).merged.get(ref, {}).items()))


def _spoken(prefix: Prefix) -> _Spoken:
    known: _Spoken | None = prefix.derived.get("objections and merges")
    if known is None or known.size != prefix.size:
        known = prefix.derived["objections and merges"] = _gathered(prefix)
    return known


def _gathered(prefix: Prefix) -> _Spoken:
    found = _Spoken(prefix.size)
    for fact in prefix.facts():
        body = fact.body
        if isinstance(body, UpdateObjected) and body.peer != body.target.peer:
            found.objections.setdefault(body.peer, []).append(fact)
            found.merged.setdefault(body.target, {})
    if found.merged:
        for fact in prefix.facts():
            body = fact.body
            if isinstance(body, UpdatePublished):
                for parent in body.parents:
                    if parent.share_ppm and parent.ref in found.merged:
                        found.merged[parent.ref].setdefault(body.peer, (body.ref, fact.index))
    return found
