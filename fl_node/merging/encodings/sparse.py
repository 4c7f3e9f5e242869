"""Which values of a tensor are sent: the largest changes, their places as gaps or as a bitmap."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from fl_node.errors import MalformedWeights
from fl_node.merging.container import Array
from fl_node.merging.encodings.blocks import TOP
from fl_node.merging.encodings.kinds import BITMAP, GAPS

#: Part of a step that is rounded up to one.
_LEAST: Final = 0.6
_CHUNK: Final = 1 << 18
_WORDS: Final = (np.dtype("u1"), np.dtype("<u2"), np.dtype("<u4"))


def largest(change: Array, density: float) -> Array:
    """Ascending places of the ``ceil(density * n)`` largest magnitudes that are not zero; of equal ones the first.

    Args:
        change: float64 of shape ``[n]``, finite.
    """
    sizes = np.abs(change)
    k = min(change.size, max(1, math.ceil(density * change.size)))
    least = np.partition(sizes, change.size - k)[change.size - k]
    if not least > 0:
        return np.flatnonzero(sizes)
    above = np.flatnonzero(sizes > least)
    ties = np.flatnonzero(sizes == least)[: k - above.size]
    return np.sort(np.concatenate([above, ties]))


def coarse(values: Array) -> tuple[Array, Array] | None:
    """Codes and one scale of values that were chosen to be sent; ``None`` where the scale is beyond float32.

    The step follows from the least of them, which gets the code 1: step = least / 0.6, code = floor(|value| / step +
    0.4), 1 to 127, with the value's sign. Rounding down a little makes small codes frequent, which zstd writes in few
    bits. The scale is what fits best then, sum(code x value) / sum(code^2), rounded to float32.

    Args:
        values: float64 of shape ``[n]``, finite, none of them 0, n >= 1.

    Returns:
        int8 codes of shape ``[n]``, none of them 0, and a float32 scale of shape ``[1]``.
    """
    sizes = np.abs(values)
    with np.errstate(over="ignore"):
        steps = sizes / (sizes.min() / _LEAST)
    codes = np.copysign(np.clip(np.floor(steps + (1 - _LEAST)), 1, TOP), values)
    # Of means, not sums: values near the largest double must not overflow.
    scale = np.float64((codes / codes.size * values).sum() / np.square(codes).mean())
    with np.errstate(over="ignore", under="ignore"):
        scales = np.array([scale], np.float32)
    return (codes.astype(np.int8), scales) if np.isfinite(scales).all() else None


def written(places: Array, count: int) -> tuple[str, Array]:
    """Places in the form of the fewest bytes: its key, and the array.

    Gaps: how many values are passed over before each one that is sent, as words of 1, 2 or 4 bytes. The largest word
    passes over as many values as it says, and sends none. Bitmap: bit ``i % 8`` of byte ``i // 8`` is set where value
    ``i`` is sent. Of equal sizes the first of U8, U16, U32, bitmap.

    Args:
        places: ascending, at least one, each below ``count``.
    """
    gaps = np.diff(places, prepend=-1) - 1
    sizes = [(places.size + int((gaps // np.iinfo(word).max).sum())) * word.itemsize for word in _WORDS]
    sizes.append(-(-count // 8))
    best = sizes.index(min(sizes))
    if best == len(_WORDS):
        bits = np.zeros(count, np.bool_)
        bits[places] = True
        return BITMAP, np.packbits(bits, bitorder="little")
    word = _WORDS[best]
    pass_over = np.iinfo(word).max
    over = gaps // pass_over
    words = np.full(places.size + int(over.sum()), pass_over, word)
    words[np.cumsum(over + 1) - 1] = gaps % pass_over
    return GAPS, words


def read_gaps(words: Array, count: int) -> Array:
    """Ascending places that a stranger's gaps name.

    Raises:
        MalformedWeights: no place, one beyond the values, or words behind the last one.
    """
    if words.ndim != 1 or words.dtype not in _WORDS:
        raise MalformedWeights(
            f"the payload has gaps of dtype {words.dtype} and shape {list(words.shape)}, expected a list of U8, U16 "
            "or U32"
        )
    # Each word passes over one value at least.
    if not 1 <= words.size <= count:
        raise MalformedWeights(f"the payload has {words.size} gaps, expected 1 to {count}")
    pass_over = np.iinfo(words.dtype).max
    if int(words[-1]) == pass_over:
        raise MalformedWeights("the payload has a gap at the end with no value behind it")
    found, at = [], -1
    for start in range(0, words.size, _CHUNK):
        chunk = words[start : start + _CHUNK]
        sent = chunk != pass_over
        reached = np.cumsum(chunk.astype(np.int64) + sent) + at
        found.append(reached[sent])
        at = int(reached[-1])
        if at >= count:
            raise MalformedWeights(f"the payload's gaps reach value {at}, expected below {count}")
    return np.concatenate(found)


def read_bitmap(bitmap: Array, count: int) -> Array:
    """Ascending places that a stranger's bitmap names.

    Raises:
        MalformedWeights: not as many bits as values, or none of them set.
    """
    if bitmap.dtype != np.uint8 or bitmap.shape != (-(-count // 8),):
        raise MalformedWeights(
            f"the payload has a bitmap of dtype {bitmap.dtype} and shape {list(bitmap.shape)}, expected U8 of "
            f"[{-(-count // 8)}]"
        )
    bits = np.unpackbits(bitmap, bitorder="little")
    places: Array = np.flatnonzero(bits)
    if not places.size or int(places[-1]) >= count:
        raise MalformedWeights(f"the payload has a bitmap with no bit set, or one behind its {count} values")
    return places
