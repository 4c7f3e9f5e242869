"""Krum and Multi-Krum: keep the models that have the nearest neighbours, however far the hostile ones stand off.

    score(i) = sum of the n - f - 2 least squared distances from i to another model

The lowest scores win; Krum keeps one, Multi-Krum averages the m lowest. Up to f hostile models of n are withstood if
n >= 2 f + 3.

Source: Blanchard et al. 2017, arXiv 1703.02757.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_node.merging.gram import added, counted


@dataclass(frozen=True, slots=True)
class KrumChoice:
    """``scores`` of the n models; ``ranking``: their positions, lowest score first; ``kept`` of those are averaged."""

    scores: tuple[float, ...]
    ranking: tuple[int, ...]
    kept: int
    nearest: int

    @property
    def chosen(self) -> frozenset[int]:
        return frozenset(self.ranking[: self.kept])

    def reason(self, position: int) -> str:
        """Why a model was left out, in numbers."""
        rank = self.ranking.index(position) + 1
        worst = self.scores[self.ranking[self.kept - 1]]
        return (
            f"krum score {self.scores[position]:.6g} over the {self.nearest} nearest ranks {rank} of "
            f"{len(self.scores)}; the {self.kept} lowest are merged, up to {worst:.6g}"
        )


def enough_for_krum(count: int, byzantine: int) -> bool:
    """Whether n models withstand f hostile ones: n >= 2 f + 3."""
    return count >= 2 * byzantine + 3


def choose(
    squared_distances: Sequence[Sequence[float]], order_keys: Sequence[bytes], byzantine: int, keep: int
) -> KrumChoice:
    """Rank n models by their squared distances.

    Args:
        squared_distances: n by n, symmetric; the diagonal is not looked at.
        order_keys: n distinct byte strings that break ties: the smaller key first.
        byzantine: f, with n >= 2 f + 3.
        keep: m, how many are averaged; 0 and what is more than n - f count as n - f.

    The distances of a model are added from the least up, in float64. One that is not a number counts as infinite.

    Raises:
        ValueError: too few models for f.
    """
    count = len(order_keys)
    if not enough_for_krum(count, byzantine):
        raise ValueError(f"krum got {count} models for f = {byzantine}, expected at least {2 * byzantine + 3}")
    nearest = count - byzantine - 2
    scores = []
    for i, row in enumerate(squared_distances):
        others = sorted(counted(value) for j, value in enumerate(row) if j != i)
        scores.append(added(others[:nearest]))
    ranking = sorted(range(count), key=lambda i: (scores[i], order_keys[i]))
    most = count - byzantine
    return KrumChoice(tuple(scores), tuple(ranking), min(keep or most, most), nearest)
