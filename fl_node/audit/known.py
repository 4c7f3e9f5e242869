"""What the replay found out about each update's bytes, for the checks that come after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A model in short: what distances and predictions between models follow from, without their bytes.

    ``vector``: a random projection of all float tensors, float64 [1024]; linear, so differences of sketches are
    sketches of differences, and their lengths estimate the models' distances. ``votes``: predicted classes of fixed
    made-up inputs, int32 [n]; ``None`` where the model's layers are not known here.
    """

    vector: Floats
    votes: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True)
class Known:
    """One update's bytes in short. ``digest``: of its decoded tensors (never bound to a publisher). ``model`` and
    ``base``: sketches of what was published and of the base as replayed, ``None`` where the bytes could not be had."""

    digest: bytes
    model: Sketch
    base: Sketch | None
