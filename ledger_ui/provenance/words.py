"""Nodes and merges in words: the same in the graph, in the list and in the panel beside."""

from __future__ import annotations

from fl_node.lineage.words import of_ppm, percentage
from ledger_ui.provenance.records import Merge, Node
from ledger_ui.text import visible

__all__ = ["kin", "label", "marks", "name", "of_ppm", "percentage", "sentence", "share", "site_of", "told_merge"]


def name(node: Node) -> str:
    """What a node is called."""
    if node.kind == "genesis":
        return "genesis"
    if node.update is not None:
        return node.update
    of = site_of(node) if node.sites == 1 else f"{node.sites} sites"
    return f"{node.updates:,} updates of {of} in round {node.round}"


def site_of(node: Node) -> str:
    """A site's name, as a stranger wrote it."""
    if node.site is None:
        return "no member"
    return visible(node.site_name or f"site of peer {node.site}", 40)


def share(node: Node) -> str:
    """An effective share; in brackets where it is nominal."""
    told = ("≥ " if node.at_least else "") + percentage(node.share)
    return f"({told})" if node.nominal else told


def label(node: Node) -> str:
    """What stands at a node in the graph; of a group, the number in its box stands before it."""
    if node.side == "root":
        return name(node)
    if node.kind == "group":
        return f"max {share(node)}"
    return f"{name(node)} · {share(node)}"


def sentence(node: Node) -> str:
    """All that the graph shows of a node. It begins with what can be read there, so that it may be called by that."""
    kind = "nominal effective share" if node.nominal else "effective share"
    parts = [label(node)]
    if node.side == "root":
        parts.append("the update that this page is of")
    elif node.kind == "group":
        parts = [f"{node.updates} {label(node)}", f"{name(node)}, {kind} of the largest"]
    else:
        parts.append(kind)
    if node.kind == "update":
        parts += [site_of(node), f"peer {node.peer}", f"round {node.round}"]
    if node.share_sum is not None:
        parts.append(f"together {percentage(node.share_sum)}")
    parts += marks(node)
    if node.kind == "group":
        parts.append("Enter shows each")
    elif node.toggle_url and node.opened:
        parts.append(f"Enter hides its {kin(node)}")
    elif node.toggle_url:
        parts.append(f"Enter shows {node.hidden:,} more {kin(node)}")
    return ", ".join(parts)


def kin(node: Node) -> str:
    """Who lies behind it."""
    return {"root": "relatives", "above": "parents", "below": "children"}[node.side]


def marks(node: Node) -> list[str]:
    """What a reader should know besides."""
    found = ["closing update"] if node.final else []
    found += ["withdrawn by its publisher"] if node.withdrawn else []
    return found + (["does not count: its publisher was retired from before it"] if node.ignored else [])


def told_merge(one: Merge, names: dict[str, str]) -> str:
    """One line of the graph."""
    child, parent = names[one.child], names[one.parent]
    if one.parent == "genesis":
        return f"{child}{f': {one.merges:,} of them' if one.merges > 1 else ''} started from the genesis"
    kind = "nominal share" if one.nominal else "share"
    if one.merges > 1:
        return f"{child} merged {parent}: {one.merges:,} merges, mean {kind} {of_ppm(one.share_ppm)}"
    return f"{child} merged {parent}, {kind} {of_ppm(one.share_ppm)}"
