"""Numbers as whole ones from -127 to 127, with a float32 scale for each block of them."""

from __future__ import annotations

import numpy as np

from fl_node.errors import MalformedWeights
from fl_node.merging.container import Array

_TOP = 127


def quantised(values: Array, block: int) -> tuple[Array, Array] | None:
    """Codes and scales of finite float64 values; ``None`` where a scale is beyond float32.

    A block's scale is its largest magnitude over 127, rounded to float32; a code is value / scale, rounded half to
    even. A block of zeros, or of values too small for a float32 scale, has scale 0 and codes 0.

    Args:
        values: float64 of shape ``[n]``, n >= 1.
        block: values that share a scale, at most. They are spread evenly: ``ceil(n / ceil(n / block))`` each.

    Returns:
        int8 codes of shape ``[n]`` and float32 scales of shape ``[m]``.
    """
    length = block_length(values.size, -(-values.size // block))
    largest = np.maximum.reduceat(np.abs(values), np.arange(0, values.size, length))
    with np.errstate(over="ignore", under="ignore"):
        scales = (largest / _TOP).astype(np.float32)
    if not np.isfinite(scales).all():
        return None
    divisors = np.where(scales > 0, scales, np.float32(1)).astype(np.float64)
    codes = np.rint(values / np.repeat(divisors, length)[: values.size])
    codes[np.repeat(scales == 0, length)[: values.size]] = 0
    return np.clip(codes, -_TOP, _TOP).astype(np.int8), scales


def restored(codes: Array, scales: Array) -> Array:
    """float64 of shape ``[n]``: each code times its block's scale, exactly (8 and 24 bits fit 53).

    Args:
        codes, scales: as they pass :func:`check_blocks`.
    """
    length = block_length(codes.size, scales.size)
    values: Array = codes.astype(np.float64)
    values *= np.repeat(scales.astype(np.float64), length)[: codes.size]
    return values


def check_blocks(name: str, codes: Array, scales: Array, count: int) -> None:
    """Hold a stranger's codes and scales against the number of values.

    Raises:
        MalformedWeights: counts that do not fit each other, a code of -128, or a negative scale.
    """
    if codes.shape != (count,):
        raise MalformedWeights(f"tensor {name!r} has codes of shape {list(codes.shape)}, expected [{count}]")
    blocks = scales.size
    if scales.ndim != 1 or not 1 <= blocks <= count or -(-count // block_length(count, blocks)) != blocks:
        raise MalformedWeights(
            f"tensor {name!r} has scales of shape {list(scales.shape)}, expected one for each block of {count} values"
        )
    if int(codes.min()) < -_TOP:
        raise MalformedWeights(f"tensor {name!r} has the code {int(codes.min())}, expected -{_TOP} to {_TOP}")
    if float(scales.min()) < 0:
        raise MalformedWeights(f"tensor {name!r} has the scale {float(scales.min()):g}, expected 0 or above")


def block_length(count: int, blocks: int) -> int:
    """Values in each block but the last: ``ceil(count / blocks)``."""
    return -(-count // blocks)
