"""Bounding how far one model can pull: norm clipping before any rule, and self-centred clipping as a rule.

The centre is the merging peer's own latest trained model, and the genesis where it has none.

Sources: Karimireddy et al. 2020, arXiv 2012.10333 (centred clipping); He et al. 2022, arXiv 2202.01545 (self-centred,
for peers without a server).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fl_node.merging.distances import Point, inner_products, squared_norms
from fl_node.merging.gram import added, counted, distances_to_combination
from fl_node.merging.robust import middle_integers
from fl_node.merging.stack import Leaf, Reader, Stack, flat, settle, sweep
from fl_node.merging.weights import Array, Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Reason


def latest_own(view: Prefix, by: int) -> UpdateEntry | None:
    """A peer's latest trained update, unless it withdrew that one: the centre of its clipping. Others: the genesis."""
    latest = view.trained(by)
    if latest is None or any(
        word.peer == by and word.reason is Reason.WITHDRAWN for word in view.objections(latest.ref)
    ):
        return None
    return latest


def clipped(stack: Stack, centre: Tensors, limit: float | None) -> Stack:
    """The models with their distance from a centre bounded: ``x -> c + (x - c) * min(1, tau / ||x - c||)``.

    Computed in float64 and rounded once to each tensor's dtype. A model that is near enough stays as it is.

    Args:
        limit: tau, an L2 distance over all float tensors; ``None``: the median of the models' own distances.

    Raises:
        MalformedWeights: the centre's names, dtypes or shapes are not those of the models.
    """
    stack.check(centre)
    squares = squared_norms(stack, _point(stack, centre))
    distances = [math.sqrt(counted(square)) for square in squares]
    scales = scales_of(distances, median_of(distances) if limit is None else limit)
    return stack.bounded(centre, scales)


def scales_of(distances: Sequence[float], limit: float) -> list[float]:
    """``min(1, limit / distance)``; 1 where the distance is within the limit, though both be 0 or infinite."""
    return [limit / distance if distance > limit else 1.0 for distance in distances]


def median_of(values: Sequence[float]) -> float:
    """The middle value, or half the sum of the two in the middle."""
    ranked = sorted(values)
    low, high = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
    return low if low == high else (low + high) / 2.0


def centred_clipping(
    stack: Stack,
    centre: Tensors,
    limit: float,
    iterations: int,
) -> dict[str, Array]:
    """Start at the centre and go, step by step, the mean of the clipped ways to the models.

        v = c;   repeat:   s_k = min(1, tau / ||x_k - v||);   v = v + sum((x_k - v) * s_k) / K

    so that no model moves the result by more than ``iterations * tau / K``. With ``v = c + sum(a_k (x_k - c))`` a step
    is ``a_k = a_k * (1 - sum(s) / K) + s_k / K``, and the distances follow from the inner products of the ``x_k - c``.
    Integers and booleans take their lower median.

    Args:
        limit: tau, an L2 distance over all float tensors.
        iterations: at least 1.

    Raises:
        MalformedWeights: the centre's names, dtypes or shapes are not those of the models.
    """
    stack.check(centre)
    origin = _point(stack, centre)
    ways = pulls(inner_products(stack, origin), limit, iterations)
    result = stack.blank()
    middle_integers(stack, result)
    factors = [np.float64(way) for way in ways]

    def make(reader: Reader) -> Callable[[Leaf], None]:
        acc_N, place = np.empty(reader.size), origin(reader)

        def work(leaf: Leaf) -> None:
            acc = acc_N[: leaf.end - leaf.start]
            acc.fill(0.0)
            start = place(leaf)
            for row, factor in zip(reader.doubles(leaf), factors, strict=True):
                np.subtract(row, start, out=row)
                np.multiply(row, factor, out=row)
                np.add(acc, row, out=acc)
            np.add(acc, start, out=acc)
            settle(result[leaf.name].reshape(-1)[leaf.start : leaf.end], acc)

        return work

    sweep(stack, make)
    return result


def pulls(gram: Sequence[Sequence[float]], limit: float, iterations: int) -> list[float]:
    """The coefficients ``a_k`` after all steps, from the Gram matrix of the ``x_k - c``."""
    count = len(gram)
    ways = [0.0] * count
    for _ in range(iterations):
        scales = scales_of(distances_to_combination(gram, ways), limit)
        rest = 1.0 - added(scales) / count
        ways = [way * rest + scale / count for way, scale in zip(ways, scales, strict=True)]
    return ways


def _point(stack: Stack, centre: Tensors) -> Point:
    flats = {name: flat(centre[name]) for name in stack.floats}

    def place(leaf: Leaf) -> Array:
        return flats[leaf.name][leaf.start : leaf.end]

    return lambda reader: place
