"""The candidates of an update in words: for ``fl-node show``."""

from __future__ import annotations

from typing import Any

from fl_node.merging.outcomes import Outcome


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
