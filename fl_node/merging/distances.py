"""Squared distances and inner products of whole models, by one fixed tree: the same bits on every machine.

A sum over a model's float elements is taken leaf by leaf (:data:`stack.LEAF` elements of one tensor): a halving tree
within each leaf, and a halving tree over the leaves' sums in order. So it needs one pass and no memory, and neither
threads nor blocks can change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np

from fl_node.merging.halving import halve, halving_sum
from fl_node.merging.stack import LEAF, Doubles, Leaf, Reader, Stack, sweep
from fl_node.merging.weights import Array

#: A point that models are looked at from: called once with each thread's reader, it gives a function of a leaf to the
#: point's elements there; read only.
Point: TypeAlias = Callable[[Reader], Callable[[Leaf], Array]]
Terms: TypeAlias = Callable[[Leaf, "_Sums"], None]
#: Partial sums of a leaf that are left for the last steps, which all sums of the leaf take together. Only speed.
_TAIL: Final = 128
#: Sums that are worked on at once: enough for threads to run side by side, few enough for a core's own cache.
_BATCH: Final = 8


def squared_distances(stack: Stack) -> list[list[float]]:
    """``D[i][j] = sum over all float elements of (x_i - x_j)^2``, K by K, symmetric, zeros on the diagonal."""
    count = len(stack)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]

    def make(reader: Reader) -> Terms:
        def terms(leaf: Leaf, sums: _Sums) -> None:
            block_KN = reader.doubles(leaf)
            for i in range(count):
                for others in _batches(block_KN[i + 1 :]):
                    term_MN = sums.room(others)
                    np.subtract(others, block_KN[i], out=term_MN)
                    np.multiply(term_MN, term_MN, out=term_MN)
                    sums.add(term_MN)

        return terms

    return _symmetric(count, pairs, _totals(stack, len(pairs), make))


def squared_norms(stack: Stack, point: Point) -> list[float]:
    """``sum of (x_k - p)^2`` for each of the K models."""

    def make(reader: Reader) -> Terms:
        place = point(reader)

        def terms(leaf: Leaf, sums: _Sums) -> None:
            origin = place(leaf)
            for rows in _batches(reader.doubles(leaf)):
                np.subtract(rows, origin, out=rows)
                np.multiply(rows, rows, out=rows)
                sums.add(rows)

        return terms

    return _totals(stack, len(stack), make)


def inner_products(stack: Stack, point: Point) -> list[list[float]]:
    """The Gram matrix ``G[i][j] = sum of (x_i - p) * (x_j - p)``, K by K, symmetric."""
    count = len(stack)
    pairs = [(i, j) for i in range(count) for j in range(i, count)]

    def make(reader: Reader) -> Terms:
        place = point(reader)

        def terms(leaf: Leaf, sums: _Sums) -> None:
            origin, block_KN = place(leaf), reader.doubles(leaf)
            np.subtract(block_KN, origin, out=block_KN)
            for i in range(count):
                for others in _batches(block_KN[i:]):
                    term_MN = sums.room(others)
                    np.multiply(others, block_KN[i], out=term_MN)
                    sums.add(term_MN)

        return terms

    return _symmetric(count, pairs, _totals(stack, len(pairs), make))


def _symmetric(count: int, pairs: Sequence[tuple[int, int]], values: Sequence[float]) -> list[list[float]]:
    """A symmetric table from its values at some pairs; 0 elsewhere."""
    table = [[0.0] * count for _ in range(count)]
    for (i, j), value in zip(pairs, values, strict=True):
        table[i][j] = table[j][i] = value
    return table


class _Sums:
    """The sums of one leaf, gathered batch by batch, in order."""

    def __init__(self, count: int) -> None:
        self._term = np.empty(_BATCH * LEAF)
        self._tails = np.empty((count, _TAIL))
        self._left = self._next = 0

    def begin(self) -> None:
        self._next = 0

    def room(self, like_MN: Doubles) -> Doubles:
        """Scratch of the shape of a batch."""
        return self._term[: like_MN.size].reshape(like_MN.shape)

    def add(self, terms_MN: Doubles) -> None:
        """Take M sums of n terms each; overwrites the terms."""
        after = self._next + len(terms_MN)
        self._left = halve(terms_MN.T, _TAIL)
        self._tails[self._next : after, : self._left] = terms_MN[:, : self._left]
        self._next = after

    def totals(self) -> Doubles:
        halve(self._tails[:, : self._left].T)
        total: Doubles = self._tails[:, 0]
        return total


def _batches(rows_KN: Doubles) -> Iterator[Doubles]:
    for start in range(0, len(rows_KN), _BATCH):
        yield rows_KN[start : start + _BATCH]


def _totals(stack: Stack, count: int, make: Callable[[Reader], Terms]) -> list[float]:
    """Sums over the model of ``count`` series of terms."""
    if not count:
        return []
    by_leaf = np.empty((len(stack.leaves()), count))

    def begin(reader: Reader) -> Callable[[Leaf], None]:
        terms, sums = make(reader), _Sums(count)

        def work(leaf: Leaf) -> None:
            sums.begin()
            terms(leaf, sums)
            by_leaf[leaf.index] = sums.totals()

        return work

    sweep(stack, begin)
    with np.errstate(over="ignore", invalid="ignore"):
        return [float(total) for total in halving_sum(by_leaf)]
