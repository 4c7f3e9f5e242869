"""Where the randomness of private training comes from: Gaussian noise, and which rows are in a batch.

It must be secret. Whoever can compute the noise again can take it off, and is told what it was to hide; so it never
comes from a spec's seed, a peer's number or a sequence, from which batch orders come. Only a simulation, whose rows are
its own, draws it from a seed.
"""

from __future__ import annotations

import math
import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Noise(Protocol):
    """A source of randomness, for one training."""

    def normals(self, count: int) -> NDArray[np.float64]:
        """Independent standard normal numbers, [count]."""

    def chosen(self, count: int, rate: float) -> NDArray[np.bool_]:
        """Poisson sampling: each of ``count`` rows is chosen with probability ``rate``, independently."""

    def seed(self) -> int:
        """63 bits, for torch's generator: what a model draws, such as dropout masks."""


class GeneratorNoise:
    """From numpy's PCG64: fast, and not made to withstand somebody who computes its state from what it gave.

    Args:
        seed: its state; 256 bits of the operating system's where none is given.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is None:
            seed = int.from_bytes(os.urandom(32), "big")
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def normals(self, count: int) -> NDArray[np.float64]:
        return self._generator.standard_normal(count)

    def chosen(self, count: int, rate: float) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self._generator.random(count) < rate
        return found

    def seed(self) -> int:
        return int(self._generator.integers(1 << 63))


class SystemNoise:
    """Every bit from the operating system's cryptographic generator.

    A normal number is the sum of four by Box and Muller (1958), halved. A single one in floating point takes only some
    of the values around it, so that a noisy result can tell what was below the noise (Mironov 2012, On Significance of
    the Least Significant Bits for Differential Privacy). Of a sum of several, nobody can search all the ways in which
    it may have come about (Holohan, Braghin 2021, https://arxiv.org/abs/2107.10138, section 4); Opacus's secure mode
    does the same. Sums are float64 and what is published is float32, which rounds 29 more bits away.
    """

    _SUMMED = 4

    def normals(self, count: int) -> NDArray[np.float64]:
        pairs = (count + 1) // 2
        found = np.zeros(2 * pairs)
        for _ in range(self._SUMMED):
            # (0, 1], with as many bits near 0 as a float64 has, so that tails are not cut short.
            radius = np.sqrt(-2.0 * np.log((_words(pairs) + 0.5) * 2.0**-64))
            angle = _words(pairs) * (2.0 * math.pi * 2.0**-64)
            found[:pairs] += radius * np.cos(angle)
            found[pairs:] += radius * np.sin(angle)
        return found[:count] / math.sqrt(self._SUMMED)

    def chosen(self, count: int, rate: float) -> NDArray[np.bool_]:
        below = int(rate * 2.0**64)
        words = np.frombuffer(os.urandom(8 * count), dtype="<u8")
        return np.ones(count, dtype=np.bool_) if below >= 1 << 64 else words < np.uint64(below)

    def seed(self) -> int:
        return int.from_bytes(os.urandom(8), "big") >> 1


def _words(count: int) -> NDArray[np.float64]:
    """Uniform over the integers below 2**64, rounded to float64."""
    return np.frombuffer(os.urandom(8 * count), dtype="<u8").astype(np.float64)
