"""The Merkle tree over the log: RFC 6962, section 2.1, with SHA-256.

A leaf is ``SHA-256(0x00 || preimage)``, an inner node ``SHA-256(0x01 || left || right)``, the root of the empty tree
``SHA-256("")``. The preimage of an entry is its event log: topics, then data. A *subtree* ``(level, position)`` covers
the ``2**level`` leaves from ``position << level``; a tree of n leaves is made of at most ``log2(n) + 1`` complete ones,
its *peaks*. Pure functions over 32-byte strings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Subtree: TypeAlias = Callable[[int, int], bytes]
"""``(level, position)`` -> hash of that complete subtree; level 0 are the leaf hashes."""


def leaf_hash(preimage: bytes) -> bytes:
    """Hash of one leaf from its preimage."""
    return hashlib.sha256(b"\x00" + preimage).digest()


def entry_leaf(topics: Sequence[bytes], data: bytes) -> bytes:
    """Leaf hash of a ledger entry from its raw event log."""
    return hashlib.sha256(b"\x00" + b"".join(topics) + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def peaks(size: int) -> list[tuple[int, int]]:
    """The complete subtrees of a tree of ``size`` leaves as ``(level, position)``, left (largest) to right."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def root_at(size: int, subtree: Subtree) -> bytes:
    """Root of the first ``size`` leaves from the hashes of complete subtrees: log2(size) look-ups."""
    return _range_hash(0, size, subtree) if size else EMPTY_ROOT


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes, in order."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root


class Grown:
    """A whole tree in memory, for many proofs: twice 32 bytes a leaf, and what Python adds."""

    __slots__ = ("_levels", "size")

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self._levels = [list(leaves)]
        self.size = len(self._levels[0])
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            self._levels.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])

    def subtree(self, level: int, position: int) -> bytes:
        """Hash of a complete subtree: a :data:`Subtree`."""
        return self._levels[level][position]


class Frontier:
    """The right edge of a growing tree: its size and the hashes of its peaks, largest first."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peak_hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peak_hashes)
        if len(self._peaks) != size.bit_count():
            raise ValueError(f"got {len(self._peaks)} peaks for a tree of {size} leaves; expected {size.bit_count()}")

    @classmethod
    def at(cls, size: int, subtree: Subtree) -> Frontier:
        """The frontier of the first ``size`` leaves of a tree whose subtree hashes are known."""
        return cls(size, [subtree(level, position) for level, position in peaks(size)])

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf hash. Returns the inner subtrees that it completed: ``(level, position, hash)``."""
        index, node, completed = self.size, leaf, []
        level = 0
        while index >> level & 1:
            node = node_hash(self._peaks.pop(), node)
            level += 1
            completed.append((level, index >> level, node))
        self._peaks.append(node)
        self.size = index + 1
        return completed

    @property
    def root(self) -> bytes:
        """Root of the tree so far."""
        if not self._peaks:
            return EMPTY_ROOT
        node = self._peaks[-1]
        for left in self._peaks[-2::-1]:
            node = node_hash(left, node)
        return node


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Audit path of leaf ``index`` in the tree of the first ``size`` leaves (RFC 6962, 2.1.1), leaf to root.

    Raises:
        ValueError: ``index`` is not a leaf of that tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"got leaf {index} of a tree of {size} leaves; expected 0 <= leaf < size")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_hash(middle, high, subtree))
            high = middle
        else:
            path.append(_range_hash(low, middle, subtree))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Proof that the tree of ``old`` leaves is a prefix of the tree of ``new`` leaves (RFC 6962, 2.1.2).

    Raises:
        ValueError: not ``1 <= old <= new``.
    """
    if not 1 <= old <= new:
        raise ValueError(f"got sizes {old} and {new}; expected 1 <= old <= new")
    path, low, high, whole = [], 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_hash(middle, high, subtree))
            high = middle
        else:
            path.append(_range_hash(low, middle, subtree))
            low, whole = middle, False
    if not whole:
        path.append(_range_hash(low, high, subtree))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether ``proof`` shows that the leaf hash stands at ``index`` of that tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == expected_root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree (old, old_root) is a prefix of (new, new_root) (RFC 9162, 2.1.4.2).

    The empty tree is a prefix of every tree, with an empty proof.
    """
    if old == 0 or old == new:
        return 0 <= old <= new and not proof and old_root == (EMPTY_ROOT if old == 0 else new_root)
    if not 0 < old < new or not proof:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(count: int) -> int:
    """Largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _range_hash(low: int, high: int, subtree: Subtree) -> bytes:
    """Hash over leaves ``low <= i < high``, where ``low`` is a multiple of the range's enclosing power of two."""
    parts: list[bytes] = []
    while low < high:
        level = (high - low).bit_length() - 1
        parts.append(subtree(level, low >> level))
        low += 1 << level
    node = parts[-1]
    for left in parts[-2::-1]:
        node = node_hash(left, node)
    return node
