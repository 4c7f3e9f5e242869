"""Error feedback: what an update could not carry is added to the next one, as far as that is stable.

Here a change holds the way to the merge, v = (merge - own last update) + residual + training, and that way comes again
by itself in the next round. With residual = beta r, where r is what was dropped of v, it counts double where beta is 1:
with nothing trained and a merge that stands still, the next change is

    v' = (1 + beta) r - beta r_before.

With a part kappa = |r| / |v| dropped each time it shrinks if kappa (1 + 2 beta) < 1. So beta is the most for which that
is 0.9, and at most 1; of encodings that drop little it is 1, the usual error feedback (Stich et al. 2018,
https://arxiv.org/abs/1809.07599). It does what the consensus step of CHOCO-SGD does (Koloskova et al. 2019,
https://arxiv.org/abs/1902.00340), which also has to shrink with what is dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fl_node.merging.container import Array

#: What kappa (1 + 2 beta) may be.
_CONTRACTION: Final = 0.9


def damping(dropped: float, change: float) -> float:
    """beta, from 0 to 1, for the squared norms of what was dropped and of the change."""
    if not dropped:
        return 1.0
    kappa = math.sqrt(dropped / change) if change else math.inf
    return min(1.0, max(0.0, (_CONTRACTION / kappa - 1.0) / 2.0))


@dataclass(slots=True)
class Memory:
    """What one update drops, tensor by tensor."""

    _dropped: dict[str, Array] = field(default_factory=dict)
    _squares: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def note(self, name: str, goal: Array, before: Array, decoded: Array) -> None:
        """A float tensor that was to become ``goal``, and became ``decoded``."""
        with np.errstate(over="ignore", invalid="ignore"):
            rest = np.asarray(goal - decoded)  # of no dimension, numpy makes a scalar
            squares = _square(rest), _square(np.asarray(goal - before))
        if not all(map(math.isfinite, squares)):
            return  # so large that nobody goes on from there
        for place, square in enumerate(squares):
            self._squares[place] += square
        if rest.any():
            self._dropped[name] = rest

    def residual(self) -> dict[str, Array] | None:
        """What to add to the next update; ``None`` for nothing."""
        beta = damping(*self._squares)
        if not beta or not self._dropped:
            return None
        return {name: np.asarray(rest * rest.dtype.type(beta)) for name, rest in self._dropped.items()}


def _square(array: Array) -> float:
    """The sum of squares, in float64."""
    return float(np.square(array, dtype=np.float64).sum())
