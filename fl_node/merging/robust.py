"""Rules that look at each coordinate by itself: the median and the trimmed mean of K models.

Sorting is exact, so no share and no order of the models enters. Both are of breakdown point "fewer than half":
f of n models, whatever they hold, cannot move a coordinate out of the range of the others if n > 2f.

Source: Yin et al. 2018, arXiv 1803.01498.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fl_node.merging.network import Network, selecting, sort
from fl_node.merging.stack import Doubles, Leaf, Reader, Stack, settle, sweep
from fl_node.merging.weights import Array


def median(stack: Stack) -> dict[str, Array]:
    """The coordinate median; for an even number of models the mean of the two in the middle."""
    return trimmed_mean(stack, most_trimmed(len(stack)))


def trimmed_mean(stack: Stack, trim: int) -> dict[str, Array]:
    """The mean of what is left in each coordinate without the ``trim`` least and the ``trim`` greatest values.

        s = sort(x_1 ... x_K);  acc = s[trim] + s[trim + 1] + ... + s[K - 1 - trim];  result = type(acc / count) + 0.0

    in float64, added from the least up. Integers and booleans take their lower median, ``s[(K - 1) // 2]``.

    Args:
        stack: K models.
        trim: 0 <= trim, 2 * trim < K.

    Raises:
        ValueError: nothing would be left.
    """
    network = selecting(len(stack), trim, len(stack) - 1 - trim)
    result = stack.blank()
    middle_integers(stack, result)

    def make(reader: Reader) -> Callable[[Leaf], None]:
        kept_mean = mean_of_middle(reader, network)

        def work(leaf: Leaf) -> None:
            settle(result[leaf.name].reshape(-1)[leaf.start : leaf.end], kept_mean(leaf))

        return work

    sweep(stack, make)
    return result


def most_trimmed(count: int) -> int:
    """How many may be dropped at either end so that one or two are left: the median."""
    return (count - 1) // 2


def mean_of_middle(reader: Reader, network: Network) -> Callable[[Leaf], Doubles]:
    """A function of a leaf: the mean of the network's outputs, in float64, before it is rounded to the dtype."""
    acc_N, scratch_N = np.empty(reader.size), np.empty(reader.size)
    kept = np.float64(len(network.outputs))

    def work(leaf: Leaf) -> Doubles:
        acc, scratch = acc_N[: leaf.end - leaf.start], scratch_N[: leaf.end - leaf.start]
        first, *rest = sort(reader.rows(leaf), network, reader.buffers(network.buffers, leaf))
        np.copyto(acc, first)
        for row in rest:
            np.copyto(scratch, row)
            np.add(acc, scratch, out=acc)
        np.divide(acc, kept, out=acc)
        return acc

    return work


def middle_integers(stack: Stack, result: dict[str, Array]) -> None:
    """Fill in the tensors that are not of floats: the lower median of the models, element by element.

    It is a value that some model has, and a minority cannot choose it, as it could by a share or a content digest.
    """
    middle = most_trimmed(len(stack))
    network = selecting(len(stack), middle, middle)
    for name in result.keys() - stack.flat.keys():
        rows = [model[name] for model in stack.models]
        buffers = [np.empty_like(result[name]) for _ in range(network.buffers)]
        np.copyto(result[name], sort(rows, network, buffers)[0])
