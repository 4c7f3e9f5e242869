"""How far a federation has come, as far as no single member decides it."""

from __future__ import annotations

from fl_node.prefix import Prefix


def common_round(prefix: Prefix) -> int:
    """The lower median of the active members' latest rounds; 0 while nobody has published. Found once for each size.

    The highest round is one member's word: it may publish a round after another by itself.
    """
    size, found = prefix.derived.get("common round", (-1, 0))
    if size != prefix.size:
        latest = (prefix.latest(facts.number) for facts in prefix.peers() if facts.publishes)
        rounds = sorted(entry.round for entry in latest if entry is not None)
        found = rounds[(len(rounds) - 1) // 2] if rounds else 0
        prefix.derived["common round"] = (prefix.size, found)
    return int(found)
