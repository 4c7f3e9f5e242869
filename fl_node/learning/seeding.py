"""Seeds and permutations that are the same on every machine and with every library version.

``numpy.random.RandomState`` is used on purpose: numpy promises that its stream never changes, and makes no such promise
for ``Generator`` (NEP 19). torch promises nothing of the kind.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def seed_bytes(purpose: str, *numbers: int) -> bytes:
    """SHA-256 of a purpose and whole numbers: 32 bytes, so that no two uses share a stream."""
    text = "/".join([purpose, *map(str, numbers)])
    return hashlib.sha256(text.encode()).digest()


def seed_integer(purpose: str, *numbers: int) -> int:
    """The same, as an integer from 0 to 2**63 - 1, which every library takes as a seed."""
    return int.from_bytes(seed_bytes(purpose, *numbers)[:8], "little") >> 1


def stream(purpose: str, *numbers: int) -> np.random.RandomState:
    """A random stream of its own for one purpose."""
    return np.random.RandomState(np.frombuffer(seed_bytes(purpose, *numbers), dtype="<u4").astype(np.uint32))


def permutation(count: int, purpose: str, *numbers: int) -> NDArray[np.intp]:
    """A permutation of 0 ... count - 1, [count]."""
    return stream(purpose, *numbers).permutation(count)
