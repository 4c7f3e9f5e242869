"""The learning rate over the planned rounds."""

from __future__ import annotations

import math

from fl_node.tables import TrainingSpec


def learning_rate(training: TrainingSpec, planned: int, sequence: int, progress: float) -> float:
    """The rate of one step.

    ``constant``: ``learning_rate``. ``cosine``: final + (first - final) (1 + cos(pi t)) / 2, from ``learning_rate`` to
    ``final_learning_rate``, anew at every step (Loshchilov, Hutter 2017, https://arxiv.org/abs/1608.03983, without
    restarts). ``step``: ``learning_rate`` times ``decay`` once for every ``decay_rounds`` updates, the same for all
    steps of a round.

    The place in the plan is t = (sequence - 1 + progress) / planned: a peer's own updates count, also those between
    which it did not train. One that joined late or skipped rounds is behind in its schedule. After the planned rounds
    the rate stays what it was at their end.

    Args:
        planned: rounds.planned.
        sequence: the peer's own count of updates, from 1, of which this training makes one.
        progress: share of the round's steps that are done, 0 at the first.
    """
    if training.schedule == "cosine":
        place = min(1.0, (sequence - 1 + progress) / planned)
        first, final = training.learning_rate, training.final_learning_rate
        share = (1.0 + math.cos(math.pi * place)) / 2.0
        return first * share + final * (1.0 - share)  # no difference, so that it is never outside of the two
    if training.schedule == "step":
        done: int = (min(sequence, planned) - 1) // training.decay_rounds
        return training.learning_rate * training.decay**done
    return training.learning_rate
