"""Nodes and merges in words: the same in the graph, in the list and in the panel beside."""

from __future__ import annotations

from fl_node.lineage.words import of_ppm, percentage
from ledger_ui.provenance.records import Merge, Node
from ledger_ui.text import visible

__all__ = ["name", "of_ppm", "percentage", "sentence", "share", "told_merge"]


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


def sentence(node: Node) -> str:
    """All that the graph shows of a node."""
    parts = [name(node)]
    if node.kind == "update":
        parts += [site_of(node), f"peer {node.peer}", f"round {node.round}"]
    kind = "nominal effective share" if node.nominal else "effective share"
    told = ("at least " if node.at_least else "") + percentage(node.share)
    if node.side == "root":
        parts.append("the update that this page is of")
    elif node.kind == "group":
        parts.append(f"largest {kind} {told}")
        if node.share_sum is not None:
            parts.append(f"together {percentage(node.share_sum)}")
    else:
        parts.append(f"{kind} {told}")
    parts += marks(node)
    if node.kind == "group":
        parts.append("Enter shows each")
    elif node.hidden and node.toggle_url:
        kin = "relatives" if node.side == "root" else "parents" if node.side == "above" else "children"
        parts.append(f"{node.hidden:,} {kin} not drawn: Enter shows them")
    return ", ".join(parts)


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
