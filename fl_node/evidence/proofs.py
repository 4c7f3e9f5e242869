"""Proofs for third parties: each entry's place in the log, and that earlier logs are prefixes of it (RFC 9162)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fl_node.audit.verdicts import Finding, Result
from fl_node.errors import MalformedEvidence
from fl_node.evidence.limits import MOST_FINDINGS
from fl_node.evidence.lines import (
    Consistency,
    Inclusion,
    consistency_line,
    inclusion_line,
    read_consistency,
    read_inclusion,
)
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


def wrong_inclusion(given: Iterator[tuple[str, bytes]], entries: Iterable[int], log: Tree) -> dict[int, Finding]:
    """What is wrong with a pack's inclusion proofs, by entry: they are exactly those that the log gives.

    Args:
        given: the pack's lines, each with where it stands.
        entries: which ones there must be, in order.

    Raises:
        MalformedEvidence: proofs of other entries than these, or no proofs at all.
    """
    wrong = _wrong(
        given,
        entries,
        lambda index: inclusion_line(log.inclusion(index)),
        lambda line, where: read_inclusion(line, where).index,
        "entry {}",
    )
    return {
        index: Finding(
            _INCLUDED,
            Result.FAILED,
            f"the pack's proof of entry {index} does not lead from its leaf to the root",
            {"entry": index, "leaf": log.leaves[index].hex()},
        )
        for index in wrong
    }


def wrong_consistency(given: Iterator[tuple[str, bytes]], sizes: Iterable[int], log: Tree) -> list[Finding]:
    """As :func:`wrong_inclusion`, of the proofs that the logs of these sizes are prefixes of the whole."""
    wrong = _wrong(
        given,
        sizes,
        lambda size: consistency_line(log.consistency(size)),
        lambda line, where: read_consistency(line, where).old,
        "the first {} entries",
    )
    return [
        Finding(
            _CONSISTENT,
            Result.FAILED,
            f"the pack's proof that the first {size} entries are a prefix of all {log.size} does not hold",
            {"old": size, "old_root": log.root_at(size).hex()},
        )
        for size in wrong
    ]


def _wrong(
    given: Iterator[tuple[str, bytes]],
    wanted: Iterable[int],
    right: Callable[[int], bytes],
    number_of: Callable[[bytes, str], int],
    name: str,
) -> list[int]:
    found: list[int] = []
    for number in wanted:
        where, line = next(given, ("", b""))
        if not line:
            raise MalformedEvidence(f"the pack lacks the proof of {name.format(number)}; expected one of each")
        if line == right(number):
            continue
        got = number_of(line, where)
        if got != number:
            raise MalformedEvidence(
                f"{where}: got a proof of {name.format(got)}, expected one of {name.format(number)}"
            )
        if len(found) < MOST_FINDINGS:
            found.append(number)
    if (left := next(given, None)) is not None:
        raise MalformedEvidence(f"{left[0]}: a proof more than the pack is to have")
    return found
