"""A hostile peer's replaced step: what it publishes instead of what it trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_node.simulation.attacks import Attack

Weights = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class Malice:
    """One hostile peer's replaced step.

    Args:
        seed: of its noise and of whom it copies.
        most: largest weight that nobody calls malformed; what it publishes stays within.
        others: the latest published weights of another peer, given a random number; ``None`` where there are none yet.
    """

    attack: Attack
    seed: int
    most: float
    others: Callable[[int], Weights | None]
    _first: Weights | None = None

    def published(self, base: Weights, trained: Weights, sequence: int) -> Weights:
        """What is published instead of what was trained; new arrays of the same dtypes and shapes."""
        name, strength = self.attack.name, self.attack.strength
        if name in ("sign-flip", "scaled-sign-flip"):
            return {key: self._changed(base[key], base[key] - strength * (trained[key] - base[key])) for key in base}
        if name == "gaussian":
            generator = self._generator(sequence)
            return {key: self._changed(base[key], base[key] + self._noise(generator, base[key])) for key in base}
        if name == "copycat":
            copied = self.others(int(self._generator(sequence).integers(2**31)))
            return base if copied is None else copied
        if name == "stale-replay":
            if self._first is None:
                self._first = trained
            return self._first
        return base if name == "inflated-claim" else trained

    def _noise(self, generator: np.random.Generator, like: NDArray[Any]) -> NDArray[Any]:
        return generator.normal(0.0, self.attack.strength, like.shape)

    def _changed(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
        """Floats only, within what is not malformed."""
        if before.dtype.kind != "f":
            return before
        clipped: NDArray[Any] = np.clip(after, -self.most, self.most).astype(before.dtype)
        return clipped

    def _generator(self, sequence: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, sequence]))
