"""What a peer had to merge, worked out again from the log, as JSON."""

from __future__ import annotations

from typing import Any

from fl_node.merging.selection import Selection, selection_behind
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef
from fl_node.spec import Spec


def candidates_of(spec: Spec, prefix: Prefix, update: UpdateEntry) -> list[dict[str, Any]] | None:
    """What became of each peer's update when this one was made, by the policy and the log it had seen.

    ``None``: the policy gives nothing for what the update claims to have seen. See :func:`outcomes_of`.

    Args:
        prefix: the log, up to the update at least.
    """
    try:
        return outcomes_of(selection_behind(spec, prefix, update), update)
    except (ValueError, LookupError):
        return None


def outcomes_of(chosen: Selection, update: UpdateEntry) -> list[dict[str, Any]]:
    """What became of each peer's update in a selection, given what was recorded after it.

    The bytes are not looked at: of a candidate that the aggregation rule left out, or that is not among the recorded
    parents at all, only that is said.

    Args:
        chosen: of :func:`fl_node.merging.selection.selection_behind`.
    """
    shares = {parent.ref: parent.share_ppm for parent in update.parents}
    rejected = {
        entry.ref: "share 0: left out by the aggregation rule, on account of its bytes"
        for entry in chosen.candidates
        if shares.get(entry.ref) == 0
    }
    items = [dict(item) for item in chosen.outcomes_after({}, rejected)]
    absent = {(entry.ref.peer, entry.ref.sequence) for entry in chosen.candidates if entry.ref not in shares}
    for item in items:
        if (item.get("peer"), item.get("sequence")) in absent:
            excused = UpdateRef(item["peer"], item["sequence"]) in chosen.excusable
            item["outcome"] = "unavailable" if excused else "not-recorded"
            item["reason"] = (
                "called so by this peer in an earlier round"
                if excused
                else "a candidate by the policy, but not among the recorded parents"
            )
    return items
