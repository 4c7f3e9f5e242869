"""Intervals and tests for experiments with repeated seeds. Pure functions on sequences of numbers.

Settings are compared on the same seeds: same data split, same genesis weights, same order of batches. What is tested is
therefore the mean of the *differences*, by Student's t; over several comparisons of one experiment the p-values are
adjusted after Holm 1979, https://www.jstor.org/stable/4615733.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its confidence interval, of ``count`` values. One value has no interval: ``low`` and ``high`` are
    infinite."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean of paired differences, its interval, and the two-sided p-value of "the mean is 0"."""

    difference: Estimate
    p: float


def estimate(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean of independent values with Student's interval: mean -+ t(n - 1) s / sqrt(n).

    Raises:
        ValueError: no values, or a level that is not between 0 and 1.
    """
    if not values:
        raise ValueError("no values; expected at least one")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    half = quantile(len(values) - 1, level) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half, len(values))


def compare(left: Sequence[float], right: Sequence[float], level: float = LEVEL) -> Comparison:
    """``left - right``, pair by pair: the paired t-test. Differences that are all the same have p 1 where they are 0,
    else 0.

    Raises:
        ValueError: fewer than two pairs, or not as many of each.
    """
    if len(left) != len(right) or len(left) < 2:
        raise ValueError(f"got {len(left)} and {len(right)} values; expected as many of each, at least 2")
    differences = [a - b for a, b in zip(left, right, strict=True)]
    found = estimate(differences, level)
    deviation = statistics.stdev(differences)
    if deviation == 0.0:
        return Comparison(found, 1.0 if found.mean == 0.0 else 0.0)
    return Comparison(found, two_sided_p(found.mean / (deviation / math.sqrt(len(differences))), len(differences) - 1))


def two_sided_p(t: float, freedom: int) -> float:
    """P(\\|T\\| >= \\|t\\|) of Student's distribution, by the finite sums for a whole number of degrees of freedom.

    Abramowitz, Stegun 1964, 26.7.3 and 26.7.4. Exact to about 1e-15, so that smaller p-values come out as 0.

    Raises:
        ValueError: less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom; expected at least 1")
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    # Odd: cos + 2/3 cos^3 + 2*4/(3*5) cos^5 ...; even: 1 + 1/2 cos^2 + 1*3/(2*4) cos^4 ...; up to cos^(freedom - 2).
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        total += term
    inside = (angle + sine * total) * 2 / math.pi if odd else sine * total
    return min(1.0, max(0.0, 1.0 - inside))


def quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(\\|T\\| < t) = level, by bisection.

    Raises:
        ValueError: a level that is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level {level}; expected a number between 0 and 1")
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > 1.0 - level:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, freedom) > 1.0 - level else (low, middle)
    return high


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted for as many tests, in the same order: the k-th smallest times (m - k + 1), never below that of
    a smaller one, at most 1."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return tuple(adjusted)
