"""A model in 1024 numbers: what distances between models follow from when their bytes are no longer at hand.

A count sketch (Charikar, Chen, Farach-Colton 2002, https://doi.org/10.1007/3-540-45465-9_59) whose buckets are places
modulo a prime: every element times a fixed random sign is added to a bucket. It is linear, and the squared length of a
difference of two sketches is that of the models, with a standard deviation of about 4.5 % (sqrt(2 / 1021)) at most for
weights that are spread out. The signs are public, so whoever tries can deceive it: what follows from it is advice.

Only elementwise products and sums in a fixed order are used, so that every machine gets the same bits.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_node.audit.forward import votes_of
from fl_node.audit.known import Floats, Sketch
from fl_node.merging.weights import Array, Tensors
from fl_node.spec import Spec

#: Length of a vector. The buckets are fewer, a prime number: rows and channels of a layer, whose lengths are round
#: numbers, then do not fall into the same buckets again and again.
LENGTH: Final = 1024
BUCKETS: Final = 1021
#: Rows of buckets that are summed at a time: a block of 256 KiB, which with its signs stays in a core's cache.
_ROWS: Final = 64
_BLOCK: Final = _ROWS * BUCKETS
#: Each block takes its signs from another of so many places.
_PLACES: Final = 1 << 16
_SIGNS: Final = b"fl-node audit sketch signs 1"
_PLACE: Final = b"fl-node audit sketch place 1"


def sketch_of(spec: Spec, tensors: Tensors, *, votes: bool = True) -> Sketch:
    """A model's sketch: its projection, and what it predicts of made-up inputs.

    Args:
        tensors: as published, personal ones not among them. Read once, block by block; beside them some MiB are taken.
        votes: without, ``votes`` is ``None``: of bases nobody asks what they predict.
    """
    return Sketch(projected(tensors), votes_of(spec, tensors) if votes else None)


def projected(tensors: Tensors) -> Floats:
    """The projection of all float32 and float64 tensors in name order, float64 [1024]; the last three are 0.

    Sums within a block are in the tensor's own type, and of blocks in float64. Weights so large that sums overflow give
    infinities, which no comparison takes for alike.
    """
    total = np.zeros(LENGTH)
    number = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for name in sorted(tensors):
            array = tensors[name]
            if array.dtype.kind != "f":
                continue
            flat = np.ascontiguousarray(array).reshape(-1)
            scratch = np.empty(min(_BLOCK, -(-flat.size // BUCKETS) * BUCKETS), flat.dtype)
            for start in range(0, flat.size, _BLOCK):
                total[:BUCKETS] += _folded(flat[start : start + _BLOCK], number, scratch)
                number += 1
    return total


def _folded(block: Array, number: int, scratch: Array) -> Array:
    """One block times its signs, its rows of buckets summed by halves."""
    rows = -(-block.size // BUCKETS)
    space = scratch[: rows * BUCKETS]
    place = int.from_bytes(hashlib.sha256(_PLACE + number.to_bytes(8, "big")).digest()[:2], "big")
    np.multiply(block, _signs(block.dtype.str)[place : place + block.size], out=space[: block.size])
    space[block.size :] = 0
    table = space.reshape(rows, BUCKETS)
    while rows > 1:
        half = (rows + 1) // 2
        np.add(table[: rows - half], table[half:rows], out=table[: rows - half])
        rows = half
    folded: Array = table[0]
    return folded


@lru_cache(maxsize=2)
def _signs(dtype: str) -> NDArray[np.floating]:
    """+1 and -1 from a hash's bits, as many as the last place of a block needs."""
    count = _PLACES + _BLOCK
    raw = np.frombuffer(hashlib.shake_256(_SIGNS).digest(-(-count // 8)), np.uint8)
    bits = np.unpackbits(raw)[:count].astype(dtype)
    signs: NDArray[np.floating] = 1 - 2 * bits
    signs.flags.writeable = False
    return signs
