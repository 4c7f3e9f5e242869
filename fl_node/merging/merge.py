"""The exact merge: a weighted mean that every machine computes to the same bit.

    acc = 0.0;  for each parent, in order:  acc = acc + float64(x) * share;   result = type(acc / 1_000_000) + 0.0

Only elementwise numpy, one operation a call, so nothing is fused or reordered; how the tensors are cut into blocks and
over threads cannot change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from fl_node.merging.stack import Leaf, Reader, Stack, settle, sweep
from fl_node.merging.weights import Array, Tensors
from fl_node.records import PPM

#: Elements per block: accumulator and scratch, 8 bytes each, stay in a core's own cache.
BLOCK: Final = 1 << 16


def merge(
    models: Sequence[Tensors],
    shares_ppm: Sequence[int],
    order_keys: Sequence[bytes],
    *,
    threads: int = 1,
    block: int = BLOCK,
    forget: Callable[[], None] | None = None,
) -> dict[str, Array]:
    """The mean of K models weighted by integer shares; new arrays of the models' dtypes and shapes.

    Args:
        models: K models with the same names, dtypes and shapes; finite (see :func:`weights.decode`).
        shares_ppm: K shares >= 0 that sum to 1,000,000. A model of share 0 takes no part.
        order_keys: K distinct byte strings; the models are added in their ascending order. For updates: the content
            digest, then peer and sequence (:func:`aggregation.order_key`).
        threads: worker threads; the result does not depend on it.
        block: elements at a time; the result does not depend on it.
        forget: called now and then, between pieces: gives back the memory of models that are mapped from disk.

    float32 and float64 are averaged; integers and booleans take the value of the largest share, the first in order
    among equals.

    Raises:
        MalformedWeights: the models do not have the same names, dtypes and shapes.
        FlNodeError: this machine's arithmetic is not IEEE 754 (:func:`arithmetic.self_test`).
        ValueError: lists of different lengths, shares that do not sum to the whole, equal order keys.
    """
    if len(models) != len(shares_ppm):
        raise ValueError(f"got {len(models)} models, {len(shares_ppm)} shares, {len(order_keys)} order keys")
    stack = Stack(models, order_keys, threads=threads, forget=forget)
    return mean(stack, [shares_ppm[k] for k in stack.order], block=block)


def mean(stack: Stack, shares_ppm: Sequence[int], *, block: int = BLOCK) -> dict[str, Array]:
    """:func:`merge` of a stack; ``shares_ppm`` in the stack's order."""
    if len(shares_ppm) != len(stack) or min(shares_ppm) < 0 or sum(shares_ppm) != PPM:
        raise ValueError(
            f"shares sum to {sum(shares_ppm)} with least {min(shares_ppm)}, expected {PPM} and none below 0"
        )
    parts = stack.only([k for k, share in enumerate(shares_ppm) if share])
    shares = [share for share in shares_ppm if share]
    merged = parts.blank()
    heaviest = parts.models[shares.index(max(shares))]
    for name in merged.keys() - parts.flat.keys():
        np.copyto(merged[name], heaviest[name])
    factors = [np.float64(share) for share in shares]

    def make(reader: Reader) -> Callable[[Leaf], None]:
        acc_B, scratch_B = np.empty(reader.size), np.empty(reader.size)

        def work(leaf: Leaf) -> None:
            count = leaf.end - leaf.start
            acc, scratch = acc_B[:count], scratch_B[:count]
            rows = reader.rows(leaf)
            # 0.0 + x * share, without the first addition: it only turns -0.0 into 0.0, which the last line does too.
            np.copyto(acc, rows[0])
            np.multiply(acc, factors[0], out=acc)
            for row, factor in zip(rows[1:], factors[1:], strict=True):
                np.copyto(scratch, row)
                np.multiply(scratch, factor, out=scratch)
                np.add(acc, scratch, out=acc)
            np.divide(acc, np.float64(PPM), out=acc)
            settle(merged[leaf.name].reshape(-1)[leaf.start : leaf.end], acc)

        return work

    sweep(parts, make, size=block)
    return merged
