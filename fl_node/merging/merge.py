"""The exact merge: a weighted mean that every machine computes to the same bit.

    acc = 0.0;  for each parent, in order:  acc = acc + float64(x) * share;   result = type(acc / 1_000_000) + 0.0

Only elementwise numpy, one operation a call, so nothing is fused or reordered; how the tensors are cut into blocks and
over threads cannot change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from fl_node.errors import FlNodeError, MalformedWeights
from fl_node.merging.weights import Array, Tensors, schema_of
from fl_node.records import PPM

#: Elements per block: accumulator and scratch, 8 bytes each, stay in a core's own cache.
BLOCK: Final = 1 << 16
#: Elements per piece of work given to a thread.
PIECE: Final = 1 << 20


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
        FlNodeError: this machine's arithmetic is not IEEE 754 (:func:`self_test`).
        ValueError: lists of different lengths, shares that do not sum to the whole, equal order keys.
    """
    _check_arguments(models, shares_ppm, order_keys)
    schema = schema_of(models[0])
    for model in models[1:]:
        if schema_of(model) != schema:
            raise MalformedWeights(
                "models with different names, dtypes or shapes cannot be merged; expected equal ones"
            )
    order = sorted((k for k in range(len(models)) if shares_ppm[k]), key=lambda k: order_keys[k])
    shares = [shares_ppm[k] for k in order]
    heaviest = order[shares.index(max(shares))]
    merged: dict[str, Array] = {}
    pieces: list[tuple[Array, list[Array]]] = []
    for name in sorted(schema):
        if models[0][name].dtype.kind != "f":
            merged[name] = np.array(models[heaviest][name], order="C", copy=True)
            continue
        merged[name] = np.empty(schema[name].shape, models[0][name].dtype)
        sources = [np.ascontiguousarray(models[k][name]).reshape(-1) for k in order]
        pieces.extend(_pieces(merged[name].reshape(-1), sources))
    if threads <= 1 or len(pieces) < 2:
        _mean(pieces, shares, block, forget)
    else:
        with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
            parts = [pieces[start::threads] for start in range(min(threads, len(pieces)))]
            for done in [pool.submit(_mean, part, shares, block, forget) for part in parts]:
                done.result()
    return merged


def _check_arguments(models: Sequence[Tensors], shares_ppm: Sequence[int], order_keys: Sequence[bytes]) -> None:
    if not len(models) == len(shares_ppm) == len(order_keys) or not models:
        raise ValueError(f"got {len(models)} models, {len(shares_ppm)} shares, {len(order_keys)} order keys")
    if min(shares_ppm) < 0 or sum(shares_ppm) != PPM:
        raise ValueError(
            f"shares sum to {sum(shares_ppm)} with least {min(shares_ppm)}, expected {PPM} and none below 0"
        )
    if len(set(order_keys)) != len(order_keys):
        raise ValueError("two models have the same order key, so their order is not defined")


def _pieces(target: Array, sources: list[Array]) -> Iterator[tuple[Array, list[Array]]]:
    for start in range(0, target.size, PIECE):
        end = start + PIECE
        yield target[start:end], [source[start:end] for source in sources]


def _mean(
    pieces: Sequence[tuple[Array, list[Array]]], shares: Sequence[int], block: int, forget: Callable[[], None] | None
) -> None:
    """Fill each target with the weighted mean of its sources; K sources of the target's size each."""
    # Checked in the very thread that computes: flush-to-zero is a register of a thread, and libraries set it.
    self_test()
    acc_B = np.empty(block, np.float64)
    scratch_B = np.empty(block, np.float64)
    factors = [np.float64(share) for share in shares]
    whole = np.float64(PPM)
    for target, sources in pieces:
        for start in range(0, target.size, block):
            end = min(start + block, target.size)
            acc, scratch = acc_B[: end - start], scratch_B[: end - start]
            # 0.0 + x * share, without the first addition: it only turns -0.0 into 0.0, which the last line does too.
            np.copyto(acc, sources[0][start:end])
            np.multiply(acc, factors[0], out=acc)
            for source, factor in zip(sources[1:], factors[1:], strict=True):
                np.copyto(scratch, source[start:end])
                np.multiply(scratch, factor, out=scratch)
                np.add(acc, scratch, out=acc)
            np.divide(acc, whole, out=acc)
            out = target[start:end]
            np.copyto(out, acc, casting="same_kind")
            np.add(out, out.dtype.type(0.0), out=out)
        if forget is not None and target.size == PIECE:
            forget()


def self_test() -> None:
    """Check that this thread's arithmetic is IEEE 754: subnormals kept, round half to even, nothing fused.

    Takes microseconds. Run at start-up and in every merging thread.

    Raises:
        FlNodeError: naming what is wrong and how to mend it.
    """
    tiny = np.array([5e-324, 2.0**-1050, -5e-324])
    least = np.array([2.0**-149, 2.0**-140], np.float32)
    kept = (
        (tiny + 0.0).tolist() == tiny.tolist()
        and (tiny * 3.0)[0] == 1.5e-323
        and float((np.array([2.0**-1022]) / 4.0)[0]) == 2.0**-1024
        and (least + np.float32(0)).tolist() == [2.0**-149, 2.0**-140]
        and least.astype(np.float64).tolist() == [2.0**-149, 2.0**-140]
        and np.array([2.0**-149, 2.0**-140]).astype(np.float32).view(np.uint32).tolist() == [1, 512]
    )
    if not kept:
        raise FlNodeError(
            "this process flushes subnormal numbers to zero, so its merges would differ from everybody else's; "
            "do not call torch.set_flush_denormal(True), and load no library built with -ffast-math"
        )
    one = np.array([1.0, -1.0])
    half_ulp = np.array([2.0**-53, -(2.0**-53)])
    exact = (one + half_ulp).tolist() == [1.0, -1.0]
    exact = exact and (one + half_ulp * 3.0).tolist() == [1.0 + 2.0**-51, -1.0 - 2.0**-51]
    exact = exact and np.array([1.0 + 2.0**-24, 1.0 + 3 * 2.0**-24]).astype(np.float32).tolist() == [1.0, 1 + 2.0**-22]
    square = np.array([1.0 + 2.0**-27])
    product = np.multiply(square, square)
    exact = exact and float(np.subtract(product, 1.0 + 2.0**-26)[0]) == 0.0
    if not exact:
        raise FlNodeError(
            "this process does not round to the nearest double (got another rounding mode, extended precision or "
            "fused operations); merges need IEEE 754 defaults"
        )
