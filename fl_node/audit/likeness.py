"""How alike pairs of models are, from their sketches, a whole round at a time.

Three measures, each small for models that are alike:

    distance     |a - b|^2 / min(|da|, |db|)^2    between models, by the shorter of what training changed
    angle        1 - cos(da, db)                  between what training changed
    predictions  the share of made-up inputs to which the two give different classes

d is a model less the base that it was trained from. A copy with relative noise e has a distance of e^2 and an angle of
e^2 / 2. The angle sees through scaling, the predictions through another order of neurons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_node.audit.known import Floats, Known

#: Fewest honest pairs that a limit follows from.
FEWEST_PAIRS: Final = 3
#: Three quarters of the pairs within this angle show that peers have like data.
_ALIKE_ANGLE: Final = 0.8
#: The largest limit of a distance where peers have like data, and where that is not known; half of it for an angle.
_MOST_ALIKE: Final = 0.02
_MOST_UNLIKE: Final = 0.001
#: A copy is nearer than the nearest honest pair by this factor, at least.
_MARGIN: Final = 4.0
#: Honest pairs are taken to differ in at most this share of predictions. The least that was measured among two peers of
#: like data is 0.023.
_MOST_DIFFERENT: Final = 0.02
_FEW_DIFFERENT: Final = 0.004
_RARE: Final = 1e-6
#: What training changed is lost in the rounding of a sketch below this part of the model's length.
_LOST: Final = 1e-5
#: Predictions tell nothing of a model that gives almost all inputs the same class.
_FEWEST_OTHER: Final = 64


@dataclass(frozen=True, slots=True)
class Models:
    """Sketches of several updates, one in a row. ``vectors``, ``deltas`` float64 [n, 1024]; ``moved`` [n]: lengths of
    the deltas, NaN where the base is not known or nothing was changed; ``votes`` int32 [n, inputs] if there are any;
    ``telling`` [n]: whether a model's votes differ among themselves."""

    vectors: Floats
    deltas: Floats
    moved: Floats
    votes: NDArray[np.int32] | None
    telling: NDArray[np.bool_]

    @classmethod
    def of(cls, knowns: Sequence[Known]) -> Models:
        """Of at least one update."""
        vectors = np.stack([known.model.vector for known in knowns])
        nowhere = np.full_like(vectors[0], np.nan)
        bases = np.stack([nowhere if known.base is None else known.base.vector for known in knowns])
        deltas = vectors - bases
        moved = np.sqrt(np.einsum("ij,ij->i", deltas, deltas))
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        moved[~(moved > _LOST * lengths)] = np.nan
        asked = [known.model.votes for known in knowns]
        there = [votes for votes in asked if votes is not None]
        if len(there) < len(knowns) or len({len(votes) for votes in there}) != 1:
            return cls(vectors, deltas, moved, None, np.zeros(len(knowns), np.bool_))
        votes = np.stack(there)
        usual = np.array([np.bincount(row).max() for row in votes])
        return cls(vectors, deltas, moved, votes, votes.shape[1] - usual >= _FEWEST_OTHER)


@dataclass(frozen=True, slots=True)
class Likeness:
    """The measures of all pairs of two lists of updates, float64 [n, m]; NaN where one cannot be had. ``inputs``: how
    many the predictions are of."""

    distance: Floats
    angle: Floats
    predictions: Floats
    inputs: int


def compare(later: Models, earlier: Models) -> Likeness:
    """All pairs of n later and m earlier updates."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Around a common centre, so that what all models share does not drown how they differ.
        centre = earlier.vectors.mean(axis=0)
        between = _squares(later.vectors - centre, earlier.vectors - centre)
        shorter = np.fmin(later.moved[:, None], earlier.moved)
        distance = between / np.square(shorter)
        unit_later, unit_earlier = later.deltas / later.moved[:, None], earlier.deltas / earlier.moved[:, None]
        angle = _squares(unit_later, unit_earlier) / 2
    predictions, inputs = np.full(distance.shape, np.nan), 0
    if later.votes is not None and earlier.votes is not None and later.votes.shape[1] == earlier.votes.shape[1]:
        inputs = later.votes.shape[1]
        for row, votes in enumerate(later.votes):
            predictions[row] = (earlier.votes != votes).mean(axis=1)
        predictions[~(later.telling[:, None] & earlier.telling)] = np.nan
    return Likeness(distance, angle, predictions, inputs)


def _squares(a: Floats, b: Floats) -> Floats:
    """Squared distances of all pairs of rows. Not by BLAS: for so little its threads cost more than they give."""
    products = np.einsum("ik,jk->ij", a, b)
    found: Floats = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2.0 * products
    return np.maximum(found, 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Below (predictions: at) which two models are alike as copies are; ``None`` where that cannot be told. ``pairs``:
    how many honest ones that follows from. ``alike``: whether those show that peers have like data."""

    distance: float | None
    angle: float | None
    predictions: float | None
    pairs: int
    alike: bool


def limits(distance: Floats, angle: Floats, predictions: Floats, inputs: int) -> Limits:
    """From the measures of pairs that are taken for honest, each float64 [pairs]; NaN where one cannot be had.

    Honest peers of like data can be very alike: from the same base, two of them that hold the same classes came within
    a distance of 0.003 (with one large batch for an epoch; 0.01 to 0.2 is usual). Where all pairs of a round are near
    each other, they show how near like data come. Where they are far apart, they do not: two peers among many may have
    like data, and be the only ones. So the limit is a quarter of the nearest honest pair, but at most some number,
    which is much lower where the pairs are far apart.

    Up to a quarter of the pairs may be copies themselves: those that look like one are left out.
    """
    pairs = int(np.isfinite(distance).sum())
    there = angle[np.isfinite(angle)]
    alike = bool(there.size and np.quantile(there, 0.75) < _ALIKE_ANGLE)
    most = _MOST_ALIKE if alike else _MOST_UNLIKE
    low = _lowest(predictions, _FEW_DIFFERENT)
    return Limits(
        _limit(distance, most),
        _limit(angle, most / 2),
        None if low is None else _fewest(min(low / 2, _MOST_DIFFERENT), inputs),
        pairs,
        alike,
    )


def _limit(values: Floats, most: float) -> float | None:
    low = _lowest(values, most)
    return None if low is None else min(most, low / _MARGIN)


def _lowest(values: Floats, suspect: float) -> float | None:
    """The lowest value, up to a quarter of them left out that are below ``suspect``; ``None`` of fewer than three."""
    there = np.sort(values[np.isfinite(values)])
    if there.size < FEWEST_PAIRS:
        return None
    suspects = int(np.searchsorted(there, suspect))
    return float(there[min(suspects, there.size // 4)])


def _fewest(rate: float, inputs: int) -> float | None:
    """The share of inputs to which two models give different classes by chance, that differ in ``rate`` of all, no more
    often than once in a million pairs (Poisson); ``None`` where even no difference at all is more usual."""
    mean = rate * inputs
    term = total = math.exp(-mean)
    if total > _RARE:
        return None
    count = 0
    while True:
        term *= mean / (count + 1)
        if total + term > _RARE:
            return count / inputs
        total, count = total + term, count + 1
