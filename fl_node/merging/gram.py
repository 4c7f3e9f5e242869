"""What inner products of models say about their combinations: scalars only, in Python's own doubles, in a fixed order.

With ``G[i][j] = <y_i, y_j>`` every point ``v = sum(c_i y_i)`` has ``||y_k - v||^2 = G[k][k] - 2 (G c)_k + c' G c``, so
rules that go through many such points look at the models once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def distances_to_combination(gram: Sequence[Sequence[float]], coefficients: Sequence[float]) -> list[float]:
    """``||y_k - sum(c_i y_i)||`` for each of K points, where ``G[i][j]`` is the inner product of y_i and y_j.

    Args:
        gram: K by K. A point of coefficient 0 is left out of the sums, so it may be infinitely far away.
        coefficients: K numbers.
    """
    used = [i for i, coefficient in enumerate(coefficients) if coefficient]
    towards = [added([row[i] * coefficients[i] for i in used]) for row in gram]
    own = added([coefficients[i] * towards[i] for i in used])
    return [math.sqrt(counted(gram[k][k] - 2.0 * towards[k] + own)) for k in range(len(gram))]


def added(terms: Sequence[float]) -> float:
    """The sum from the first term on; Python's own ``sum`` compensates, from one version to the next in other ways."""
    total = 0.0
    for term in terms:
        total += term
    return total


def counted(squared_distance: float) -> float:
    """A squared distance as the rules take it: what is not a number is infinite, and nothing is below 0."""
    if squared_distance != squared_distance:
        return float("inf")
    return squared_distance if squared_distance > 0.0 else 0.0
