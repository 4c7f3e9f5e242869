"""Sorting a few arrays against each other, element by element: a fixed network of minima and maxima.

The k-th output holds, at every position, the k-th smallest of the inputs there. Minimum and maximum are exact, run at
the speed of an addition and need no copy of the inputs; only what leads to the wanted outputs is computed. Which
network it is cannot change a result.

Source: merge exchange (Batcher 1968; Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M), pruned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fl_node.merging.weights import Array


@dataclass(frozen=True, slots=True)
class Network:
    """``steps``: (take the greater, left slot, right slot, target slot), in order. Slots below ``inputs`` are the
    inputs, which are never written to; ``buffers`` more are needed. ``outputs``: slots of the wanted ones, ascending.
    """

    inputs: int
    buffers: int
    steps: tuple[tuple[bool, int, int, int], ...]
    outputs: tuple[int, ...]


@lru_cache(maxsize=256)
def selecting(count: int, first: int, last: int) -> Network:
    """The network that gives the ``first``-th to ``last``-th smallest (from 0, both included) of ``count`` inputs.

    Raises:
        ValueError: not 0 <= first <= last < count.
    """
    if not 0 <= first <= last < count:
        raise ValueError(f"got the {first}-th to {last}-th smallest of {count}, expected 0 <= first <= last < count")
    needed = set(range(first, last + 1))
    kept: list[tuple[int, int, bool, bool]] = []
    for low, high in reversed(list(_exchanges(count))):
        lesser, greater = low in needed, high in needed
        if lesser or greater:
            kept.append((low, high, lesser, greater))
            needed |= {low, high}
    return _placed(count, kept[::-1], range(first, last + 1))


def sort(rows: Sequence[Array], network: Network, buffers: Sequence[Array]) -> list[Array]:
    """The wanted order statistics of K arrays, position by position: some of ``rows`` or of ``buffers``.

    Args:
        rows: K arrays of shape (n,) and one dtype, without NaN; not written to.
        buffers: at least ``network.buffers`` arrays of that shape and dtype; overwritten.
    """
    slots = [*rows, *buffers]
    for greater, left, right, target in network.steps:
        if greater:
            np.maximum(slots[left], slots[right], out=slots[target])
        else:
            np.minimum(slots[left], slots[right], out=slots[target])
    return [slots[output] for output in network.outputs]


def _exchanges(count: int) -> Iterator[tuple[int, int]]:
    """Pairs of wires to be put in order, first pair first."""
    top = 1
    while 2 * top < count:
        top *= 2
    stride = top if count > 1 else 0
    while stride > 0:
        limit, rest, distance = top, 0, stride
        while True:
            for low in range(count - distance):
                if low & stride == rest:
                    yield low, low + distance
            if limit == stride:
                break
            distance, rest = limit - stride, stride
            limit //= 2
        stride //= 2


def _placed(inputs: int, exchanges: Sequence[tuple[int, int, bool, bool]], wanted: range) -> Network:
    """Give each intermediate value a buffer, and a buffer that is read no more to the next value."""
    slots = list(range(inputs))
    free: list[int] = []
    used = inputs
    steps: list[tuple[bool, int, int, int]] = []
    for low, high, lesser, greater in exchanges:
        left, right = slots[low], slots[high]
        for wire, take_greater, asked in ((low, False, lesser), (high, True, greater)):
            if not asked:
                continue
            if free:
                target = free.pop()
            else:
                target, used = used, used + 1
            steps.append((take_greater, left, right, target))
            slots[wire] = target
        free.extend(slot for slot in (left, right) if slot >= inputs)
    return Network(inputs, used - inputs, tuple(steps), tuple(slots[wire] for wire in wanted))
