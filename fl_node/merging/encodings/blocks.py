"""Numbers as whole ones from -127 to 127, with a float32 scale for each block of them."""

from __future__ import annotations

from typing import Final

import numpy as np

from fl_node.merging.container import Array

#: Largest code.
TOP: Final = 127


def quantised(values: Array, block: int, top: int = TOP) -> tuple[Array, Array] | None:
    """Codes and scales of finite float64 values; ``None`` where a scale is beyond float32.

    A block's scale is its largest magnitude over ``top``, rounded to float32; a code is value / scale, rounded half to
    even. A block of zeros, or of values too small for a float32 scale, has scale 0 and codes 0.

    Args:
        values: float64 of shape ``[n]``, n >= 1.
        block: values that share a scale; the last block may have fewer.
        top: largest code, 1 to 127. Fewer different codes take fewer bytes once compressed.

    Returns:
        int8 codes of shape ``[n]`` and float32 scales of shape ``[ceil(n / block)]``.
    """
    largest = np.maximum.reduceat(np.abs(values), np.arange(0, values.size, block))
    with np.errstate(over="ignore", under="ignore"):
        scales = (largest / top).astype(np.float32)
    if not np.isfinite(scales).all():
        return None
    divisors = _spread(np.where(scales > 0, scales, np.float32(np.inf)), values.size, block)
    codes = np.rint(values / divisors)
    return np.clip(codes, -top, top).astype(np.int8), scales


def restored(codes: Array, scales: Array, block: int) -> Array:
    """float64 of shape ``[n]``: each code times its block's scale, exactly (8 and 24 bits fit 53).

    Args:
        codes: int8 of shape ``[n]``, n >= 1.
        scales: float32 of shape ``[ceil(n / block)]``.
    """
    values: Array = codes.astype(np.float64)
    values *= _spread(scales, codes.size, block)
    return values


def _spread(scales: Array, count: int, block: int) -> Array:
    """Each value's scale, as float64. A stranger's block may be longer than all values: none is spread further."""
    spread: Array = np.repeat(scales.astype(np.float64), min(block, count))[:count]
    return spread
