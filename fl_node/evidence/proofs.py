"""Proofs for third parties: each entry's place in the log, and that earlier logs are prefixes of it (RFC 9162)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fl_node.audit.verdicts import Finding, Result
from fl_node.evidence.lines import Consistency, Inclusion
from fl_node.ledger import tree
from fl_node.ledger.checkpoint import SignedCheckpoint
from fl_node.prefix import UpdateEntry

_INCLUDED: Final = "included"
_CONSISTENT: Final = "consistent"


class Tree:
    """A whole log's tree in memory: proofs without a look-up on disk.

    Args:
        leaves: leaf hashes by entry.
    """

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self.leaves: list[bytes] = []
        self._nodes: dict[tuple[int, int], bytes] = {}
        frontier = tree.Frontier()
        for leaf in leaves:
            self.leaves.append(leaf)
            for level, position, node in frontier.append(leaf):
                self._nodes[level, position] = node
        self.root = frontier.root

    @property
    def size(self) -> int:
        return len(self.leaves)

    def root_at(self, size: int) -> bytes:
        """Root of the first ``size`` entries."""
        return tree.root_at(size, self._subtree)

    def inclusion(self, index: int) -> Inclusion:
        """Proof of one entry under the whole log's root."""
        return Inclusion(index, self.leaves[index], tuple(tree.inclusion_proof(index, self.size, self._subtree)))

    def consistency(self, old: int) -> Consistency:
        """Proof that the first ``old`` entries, at least one, are a prefix of the whole log."""
        path = tree.consistency_proof(old, self.size, self._subtree)
        return Consistency(old, self.root_at(old), tuple(path))

    def _subtree(self, level: int, position: int) -> bytes:
        return self.leaves[position] if level == 0 else self._nodes[level, position]


def sizes_to_prove(updates: Iterable[UpdateEntry], checkpoints: Iterable[SignedCheckpoint], size: int) -> list[int]:
    """Sizes that somebody vouched for: what publishers had seen, and checkpoints; those that the log reaches."""
    sizes = {update.update.seen for update in updates} | {signed.checkpoint.size for signed in checkpoints}
    return sorted(one for one in sizes if 1 <= one <= size)


def check_inclusion(proof: Inclusion, log: Tree) -> Finding | None:
    """What is wrong with a proof: it is exactly the one that the log gives, or it is wrong."""
    if proof.index < log.size and proof == log.inclusion(proof.index):
        return None
    data = {"entry": proof.index, "leaf": proof.leaf.hex()}
    text = f"the pack's proof of entry {proof.index} does not lead from its leaf to the root"
    return Finding(_INCLUDED, Result.FAILED, text, data)


def check_consistency(proof: Consistency, log: Tree) -> Finding | None:
    """What is wrong with a proof that an earlier log is a prefix of this one."""
    if 1 <= proof.old <= log.size and proof == log.consistency(proof.old):
        return None
    data = {"old": proof.old, "old_root": proof.old_root.hex()}
    text = f"the pack's proof that the first {proof.old} entries are a prefix of all {log.size} does not hold"
    return Finding(_CONSISTENT, Result.FAILED, text, data)
