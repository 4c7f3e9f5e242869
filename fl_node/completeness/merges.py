"""Who merged whom, and who left whom out and why: from what was recorded, and from the selections replayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fl_node.completeness.records import LeftOut
from fl_node.merging.outcomes import Considered, Outcome
from fl_node.merging.selection import Selection, selection_behind
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef
from fl_node.spec import Spec

#: What says nothing of an update that was there to be merged: there was none, or its merger had merged it before.
_NO_LEAVING: Final = frozenset({Outcome.NONE_YET, Outcome.MISSING, Outcome.ALREADY_MERGED})

_BY_RULE: Final = "share 0: left out by the aggregation rule, on account of its bytes"
_EXCUSED: Final = "called unavailable by that peer in an earlier round"
_NOT_RECORDED: Final = "a candidate by the policy, but not among the recorded parents"


@dataclass(slots=True)
class Merges:
    """By update: those that merged it, and those that left it out, by outcome and reason. By entry.

    ``unreplayed``: updates whose selection does not follow from the log that they claim to have seen.
    """

    merged_by: dict[UpdateRef, list[UpdateRef]] = field(default_factory=dict)
    left_out: dict[UpdateRef, dict[tuple[str, str], list[UpdateRef]]] = field(default_factory=dict)
    unreplayed: list[UpdateRef] = field(default_factory=list)

    def leavings(self, ref: UpdateRef) -> tuple[LeftOut, ...]:
        """Merges that left an update out, the most frequent reason first."""
        found = self.left_out.get(ref, {})
        items = (LeftOut(outcome, reason, tuple(by)) for (outcome, reason), by in found.items())
        return tuple(sorted(items, key=lambda item: (-len(item.by), item.outcome, item.reason)))


def merges_of(spec: Spec, prefix: Prefix, updates: Sequence[UpdateEntry], counting: Iterable[UpdateRef]) -> Merges:
    """Look at every merge.

    Args:
        updates: all of the log, in its order.
        counting: those that count; what others left out is of no consequence.
    """
    found, counts = Merges(), frozenset(counting)
    for child in updates:
        for parent in child.parents:
            if parent.share_ppm:
                found.merged_by.setdefault(parent.ref, []).append(child.ref)
        if child.ref not in counts:
            continue
        try:
            chosen = selection_behind(spec, prefix, child)
        except (ValueError, LookupError):
            found.unreplayed.append(child.ref)
            continue
        for ref, outcome, reason in left_out_by(prefix, child, chosen):
            found.left_out.setdefault(ref, {}).setdefault((outcome, reason), []).append(child.ref)
    return found


def left_out_by(prefix: Prefix, child: UpdateEntry, chosen: Selection) -> Iterator[tuple[UpdateRef, str, str]]:
    """Whom one merge left out, with outcome and reason. What a peer does with its own update is its own affair.

    Args:
        prefix: the log, up to the update at least.
        child: what was made from that merge.
        chosen: its selection, of :func:`fl_node.merging.selection.selection_behind`.
    """
    shares = {parent.ref: parent.share_ppm for parent in child.parents}
    for item in chosen.considered:
        entry = item.entry
        if entry is None and item.outcome is Outcome.RETIRED:
            entry = prefix.upto(chosen.size).trained(item.peer)  # what it left behind
        if entry is None or item.peer == child.ref.peer:
            continue
        words = _words(item, entry, shares.get(entry.ref), chosen)
        if words is not None:
            yield entry.ref, *words


def _words(item: Considered, entry: UpdateEntry, share_ppm: int | None, chosen: Selection) -> tuple[str, str] | None:
    """Outcome and reason of one considered update that was left out; ``None`` if it was not. What was merged against
    the policy was merged."""
    if share_ppm:
        return None
    if item.outcome is Outcome.MERGED:
        if share_ppm == 0:
            return Outcome.REJECTED.value, _BY_RULE
        excused = entry.ref in chosen.excusable
        return (Outcome.UNAVAILABLE.value, _EXCUSED) if excused else ("not-recorded", _NOT_RECORDED)
    if item.outcome in _NO_LEAVING:
        return None
    if item.outcome is Outcome.OTHER_ROUND and (chosen.cut is None or entry.round != chosen.cut.previous):
        return None  # of another round, which had its own merges
    return item.outcome.value, item.alike or item.reason
