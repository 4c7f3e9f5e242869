"""The geometric median: the point with the least sum of distances to K models, by a fixed number of Weiszfeld steps.

    weight_k = 1 / max(nu, ||x_k - v||);   v = sum(weight_k * x_k) / sum(weight_k)

Source: Pillutla et al. 2019, arXiv 1912.13445 (RFA, the smoothed Weiszfeld algorithm). Two things differ. The steps
start at the coordinate median instead of the mean: a step from the mean of far outliers only about halves the error,
and the number of steps is fixed. And no step but the last touches the models: every v after the start is a combination
of them, so its distances follow from the inner products of the models, seen from the coordinate median, where honest
models are close and nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from fl_node.merging.distances import inner_products
from fl_node.merging.gram import added, counted, distances_to_combination
from fl_node.merging.network import selecting
from fl_node.merging.robust import mean_of_middle, middle_integers, most_trimmed
from fl_node.merging.stack import Leaf, Reader, Stack, settle, sweep
from fl_node.merging.weights import Array

#: No distance counts as less: 2^-20, so that its inverse is a whole number.
NU: Final = 2.0**-20


def geometric_median(stack: Stack, iterations: int) -> dict[str, Array]:
    """The geometric median of K models after ``iterations`` steps; integers and booleans take their lower median.

    Equal float32 models give back the same bits.
    """
    middle = most_trimmed(len(stack))
    network = selecting(len(stack), middle, len(stack) - 1 - middle)

    def start(reader: Reader) -> Callable[[Leaf], Array]:
        middle_of = mean_of_middle(reader, network)

        def place(leaf: Leaf) -> Array:
            acc = middle_of(leaf)
            rounded = reader.buffers(network.buffers + 1, leaf)[-1]
            settle(rounded, acc)
            return rounded

        return place

    weights = weiszfeld(inner_products(stack, start), iterations)
    result = stack.blank()
    middle_integers(stack, result)
    factors = [np.float64(weight) for weight in weights]
    whole = np.float64(added(weights))

    def make(reader: Reader) -> Callable[[Leaf], None]:
        acc_N = np.empty(reader.size)

        def work(leaf: Leaf) -> None:
            acc = acc_N[: leaf.end - leaf.start]
            acc.fill(0.0)
            for row, factor in zip(reader.doubles(leaf), factors, strict=True):
                np.multiply(row, factor, out=row)
                np.add(acc, row, out=acc)
            np.divide(acc, whole, out=acc)
            settle(result[leaf.name].reshape(-1)[leaf.start : leaf.end], acc)

        return work

    sweep(stack, make)
    return result


def weiszfeld(gram: Sequence[Sequence[float]], iterations: int) -> list[float]:
    """The weights of the last step, from the Gram matrix of the models around the starting point.

        first step:   d_k^2 = G[k][k]
        later ones:   c_i = weight_i / sum(weight);   d_k^2 = G[k][k] - 2 (G c)_k + c' G c

    All sums are added in order from the first, terms with c_i = 0 left out.
    """
    count = len(gram)
    distances = [math.sqrt(counted(gram[k][k])) for k in range(count)]
    weights = [1.0 / max(NU, distance) for distance in distances]
    for _ in range(iterations - 1):
        whole = added(weights)
        if whole == 0.0:
            break
        distances = distances_to_combination(gram, [weight / whole for weight in weights])
        weights = [1.0 / max(NU, distance) for distance in distances]
    return weights if added(weights) else [1.0] * count
