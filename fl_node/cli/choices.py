"""What a peer had to merge, worked out again from the log: for ``fl-node show``."""

from __future__ import annotations

from typing import Any

from fl_node.merging.outcomes import Outcome
from fl_node.merging.selection import selection_behind
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Rule, UpdateRef
from fl_node.spec import Spec


def candidates_of(spec: Spec, prefix: Prefix, update: UpdateEntry) -> list[dict[str, Any]] | None:
    """What became of each peer's update when this one was made, by the policy and the log it had seen.

    The bytes are not looked at: of a candidate that the aggregation rule left out, or that is not among the recorded
    parents at all, only that is said. ``None``: the policy gives nothing for what the update claims to have seen.

    Args:
        prefix: the log, up to the update at least.
    """
    try:
        chosen = selection_behind(spec, prefix, update)
    except (ValueError, LookupError):
        return None
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


def rule_name(number: int) -> str:
    """The aggregation rule of an update as the spec calls it; its number where this version knows no name.

    >>> rule_name(6), rule_name(99)
    ('trimmed-mean', '99')
    """
    try:
        return Rule(number).name.lower().replace("_", "-")
    except ValueError:
        return str(number)


def in_words(items: list[dict[str, Any]] | None) -> list[str] | str:
    """Those that were left out, with the reason; for people."""
    if items is None:
        return "unknown: the policy gives nothing for what this update had seen"
    words = []
    for item in items:
        if item["outcome"] == Outcome.MERGED:
            continue
        name = f"peers {item['peers']}" if "peers" in item else f"peer {item['peer']}"
        if item.get("sequence"):
            name = f"{item['peer']}#{item['sequence']}"
        words.append(f"{name} {item['outcome']} ({item['reason']})" if item["reason"] else f"{name} {item['outcome']}")
    return words or "nobody"
