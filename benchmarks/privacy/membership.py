"""Membership inference: was this row trained on? Scores from losses, and how well they tell. Pure numpy.

All scores are higher for rows that look trained on:

- *loss threshold*: ``-loss(x)``. Yeom et al. 2018, https://arxiv.org/abs/1709.01604.
- *calibrated*: ``mean of reference losses(x) - loss(x)``, the references being models that never saw x: what is easy
  for everybody is no sign of membership. Watson et al. 2022, https://arxiv.org/abs/2111.08440.
- *since the base*: ``loss of the base(x) - loss(x)``: what this one round changed. Any reader of the ledger who can
  read an update can read its base as well, and needs no rows of its own. The same formula, with the base as reference.

How well is told by the area under the ROC curve and, because an attack that is sure of a few rows does more harm than
one that is vaguely right about all, by the true positive rate where hardly anybody is accused wrongly: Carlini et al.
2022, https://arxiv.org/abs/2112.03570.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Told:
    """``auc``: probability that a member scores above a stranger, ties half; 0.5 is a coin. ``at_1_percent``,
    ``at_0_1_percent``: part of the members found with at most this part of the strangers accused."""

    auc: float
    at_1_percent: float
    at_0_1_percent: float


def cross_entropy(logits_NC: NDArray[Any], labels_N: NDArray[np.int64]) -> Values:
    """The loss of each row in nats, float64 [n], from logits [n, classes]."""
    logits = logits_NC.astype(np.float64)
    top = logits.max(axis=1)
    found: Values = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(logits)), labels_N]
    return found


def loss_threshold(losses: Values) -> Values:
    """The attacker has the model only."""
    return -losses


def calibrated(losses: Values, references: Sequence[Values]) -> Values:
    """The attacker has models, one or more, that were not trained on the rows in question.

    Raises:
        ValueError: no reference.
    """
    if not references:
        raise ValueError("no reference losses; expected those of at least one model")
    found: Values = np.mean(np.stack(references), axis=0) - losses
    return found


def tell(members: Values, strangers: Values) -> Told:
    """Raises ValueError where one side is empty."""
    return Told(
        auc(members, strangers),
        true_positives(members, strangers, 0.01),
        true_positives(members, strangers, 0.001),
    )


def auc(members: Values, strangers: Values) -> float:
    """P(member's score > stranger's) + P(equal) / 2: Mann, Whitney 1947.

    Raises:
        ValueError: no members or no strangers.
    """
    _check(members, strangers)
    ranked = np.sort(strangers)
    below = np.searchsorted(ranked, members, side="left")
    upto = np.searchsorted(ranked, members, side="right")
    return float((below + upto).mean() / (2 * len(strangers)))


def true_positives(members: Values, strangers: Values, false_positives: float) -> float:
    """Part of the members above the least threshold that at most this part of the strangers passes. Ties with a
    stranger who must not pass do not pass.

    Raises:
        ValueError: no members or no strangers.
    """
    _check(members, strangers)
    allowed = math.floor(false_positives * len(strangers) + 1e-9)
    if allowed >= len(strangers):
        return 1.0
    first_kept_out = np.sort(strangers)[::-1][allowed]
    return float((members > first_kept_out).mean())


def most_true_positives(epsilon: float, delta: float, false_positives: float) -> float:
    """What (epsilon, delta)-differential privacy leaves to *any* attack that decides whether one row was there:

        TPR <= min(e^epsilon FPR + delta,  1 - e^-epsilon (1 - delta - FPR),  1)

    Kairouz, Oh, Viswanath 2015, https://arxiv.org/abs/1311.0776; Wasserman, Zhou 2010,
    https://arxiv.org/abs/0811.2501.
    """
    upper = 1.0 - math.exp(-epsilon) * (1.0 - delta - false_positives)
    return max(false_positives, min(1.0, math.exp(epsilon) * false_positives + delta, upper))


def most_auc(epsilon: float, delta: float) -> float:
    """The area under the bound of :func:`most_true_positives`; e^epsilon / (1 + e^epsilon) where delta is 0."""
    grown = math.exp(epsilon)
    bend = (1.0 - delta) / (grown + 1.0)
    rest = 1.0 - delta - bend
    return grown * bend**2 / 2 + delta * bend + rest - rest**2 / (2 * grown) + delta


def _check(members: Values, strangers: Values) -> None:
    if not len(members) or not len(strangers):
        raise ValueError(f"got {len(members)} members and {len(strangers)} strangers; expected at least one of each")
