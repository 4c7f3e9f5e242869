"""The graph as an indented list: each update below the nearest one that leads to it, and named where others do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger_ui.provenance.records import Merge, Node

#: Deeper ones follow at the end, without indentation.
DEEPEST: Final = 10


@dataclass(slots=True)
class Branch:
    """A node in the list.

    Attributes:
        share_ppm: with which the one above it merged it, or it merged the one above; ``None``: it stands by itself.
        nominal: that share is nominal.
        below: those that are told of beneath it.
        others: further nodes that it leads to, told of elsewhere, with the share in ppm.
    """

    node: Node
    share_ppm: int | None = None
    nominal: bool = False
    below: list[Branch] = field(default_factory=list)
    others: list[tuple[Node, int]] = field(default_factory=list)


def indented(nodes: Sequence[Node], merges: Sequence[Merge], root: str, side: str) -> list[Branch]:
    """The nodes of one side, each once, by the fewest steps from the root; then those that lie deeper."""
    known = {node.key: node for node in nodes if node.side == side}
    steps: dict[str, list[tuple[str, int, bool]]] = {}
    for one in merges:
        start, end = (one.child, one.parent) if side == "above" else (one.parent, one.child)
        if end in known and (start in known or start == root):
            steps.setdefault(start, []).append((end, one.share_ppm, one.nominal))
    top: list[Branch] = []
    done: set[str] = set()
    branches: dict[str, tuple[list[Branch], int]] = {root: (top, 0)}
    flat: list[Branch] = []
    queue = deque([root])
    own: dict[str, Branch] = {}
    while queue:
        start = queue.popleft()
        into, depth = branches[start]
        for end, share_ppm, nominal in sorted(steps.get(start, ()), key=lambda step: (-step[1], step[0])):
            if end in done:
                if start in own:
                    own[start].others.append((known[end], share_ppm))
                continue
            done.add(end)
            own[end] = Branch(known[end], share_ppm, nominal)
            (into if depth < DEEPEST else flat).append(own[end])
            branches[end] = own[end].below, depth + 1
            queue.append(end)
    flat += [Branch(node) for key, node in known.items() if key not in done]
    return top + flat


def by_round(nodes: Sequence[Node], side: str) -> list[tuple[int | None, list[Node]]]:
    """The nodes of one side by their rounds, the nearest first."""
    found: dict[int | None, list[Node]] = {}
    for node in nodes:
        if node.side == side:
            found.setdefault(node.round, []).append(node)
    sign = -1 if side == "above" else 1
    return sorted(found.items(), key=lambda item: sign * (-1 if item[0] is None else item[0]))
