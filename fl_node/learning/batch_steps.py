"""The local training of some peers side by side: the loop of ``training`` over stacked parameters.

Shapes: P peers in the order of falling row counts, O outputs and I inputs of a layer, C classes, B rows of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from fl_node.learning.batch_gradients import StackedPerceptron, losses
from fl_node.learning.batch_optimizers import StackedOptimizer
from fl_node.learning.batch_rows import StackedRows, Step, one_pass
from fl_node.learning.schedule import learning_rate
from fl_node.learning.training import _orders, training_seed
from fl_node.spec import Spec


@dataclass(frozen=True, slots=True)
class Member:
    """A peer of a batch: its place in the stacked rows, its number and the sequence that it trains for."""

    place: int
    number: int
    sequence: int


class SideBySide:
    """Trains some peers at once, in place.

    Args:
        spec: the federation's; its model logistic or mlp, without a training loop of its own.
        rows: all peers' rows. features: the same rows as a tensor [n, I] on the wanted device.
        members: whom to train, by falling row count.
        parameters: weight [P, O, I] and bias [P, O, 1] of each layer from below, alternating; they are changed.
        rule: the optimiser over them.
        class_weights_PC: weights of the classes for each peer, or None.
    """

    def __init__(
        self,
        spec: Spec,
        rows: StackedRows,
        features: torch.Tensor,
        members: Sequence[Member],
        parameters: Sequence[torch.Tensor],
        rule: StackedOptimizer,
        class_weights_PC: NDArray[np.float32] | None,
    ) -> None:
        self._spec, self._rows, self._features, self._members = spec, rows, features, members
        self._parameters, self._rule, self._class_weights_PC = list(parameters), rule, class_weights_PC
        self._perceptron = StackedPerceptron(self._parameters)
        training = spec.training
        self._size = min(training.batch_size, int(rows.counts[members[0].place]))
        self._inputs = features.new_empty(len(members) * self._size, features.shape[1])
        self._base = [parameter.clone() for parameter in self._parameters] if training.proximal else []
        #: Nothing has to be known of a gradient before it is applied, so it need not be held.
        self._plain = training.optimizer == "sgd" and not (
            training.momentum or training.weight_decay or training.proximal or training.clip_gradient
        )

    def train(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Train for the spec's epochs. Gives each peer's mean loss over the last one, [P], and its steps, [P]."""
        training = self._spec.training
        places = [member.place for member in self._members]
        counts = self._rows.counts[places]
        steps_P = -(-counts // training.batch_size)
        rates_PS = self._rates(steps_P * training.epochs)
        orders = [
            _orders(training_seed(training.seed, member.number, member.sequence), int(count), training.epochs)
            for member, count in zip(self._members, counts, strict=True)
        ]
        total_P = self._features.new_zeros(len(places), dtype=torch.float64)
        for epoch in range(training.epochs):
            shuffled = [next(order) for order in orders]
            steps = one_pass(self._rows, places, shuffled, self._size, self._class_weights_PC, self._features.device)
            for number, step in enumerate(steps):
                peers = len(step.sizes_P)
                rates_P = rates_PS[np.arange(peers), epoch * steps_P[:peers] + number]
                logits_PCB = self._step(step, rates_P)
                if epoch == training.epochs - 1:
                    total_P[:peers] += losses(logits_PCB, step.targets_P1B, step.shares_P1B) * step.sizes_P
        return total_P.cpu().numpy() / counts, steps_P * training.epochs

    def _step(self, step: Step, rates_P: NDArray[np.float64]) -> torch.Tensor:
        peers = len(step.sizes_P)
        width, chosen = self._features.shape[1], self._inputs[: len(step.rows_PB)]
        torch.index_select(self._features, 0, step.rows_PB, out=chosen)
        inputs_PIB = chosen.view(peers, -1, width).transpose(1, 2)
        if self._plain and (rates_P == rates_P[0]).all():
            return self._perceptron.descend(inputs_PIB, step.targets_P1B, step.shares_P1B, float(rates_P[0]))
        logits_PCB, slopes = self._perceptron.gradients(inputs_PIB, step.targets_P1B, step.shares_P1B)
        for slope, parameter, base in zip(slopes, self._parameters, self._base, strict=False):
            slope.add_(parameter[:peers] - base[:peers], alpha=self._spec.training.proximal)
        if self._spec.training.clip_gradient:
            _clip(slopes, self._spec.training.clip_gradient)
        self._rule.step(slopes, rates_P)
        return logits_PCB

    def _rates(self, steps_P: NDArray[np.int64]) -> NDArray[np.float64]:
        """The learning rate of every step of every peer, [P, most steps]; 0 beyond its last."""

        @cache
        def rates(sequence: int, steps: int) -> list[float]:
            training, planned = self._spec.training, self._spec.rounds.planned
            return [learning_rate(training, planned, sequence, step / steps) for step in range(steps)]

        found = np.zeros((len(steps_P), int(steps_P.max())))
        for row, member, steps in zip(found, self._members, steps_P.tolist(), strict=True):
            row[:steps] = rates(member.sequence, steps)
        return found


def _clip(slopes: Sequence[torch.Tensor], largest: float) -> None:
    """Scale each peer's gradients by min(1, largest / (norm + 1e-6)), norm being the L2 norm of them all as one vector,
    as ``gradients.clipped`` does."""
    norms = torch.stack([torch.linalg.vector_norm(slope, dim=(1, 2), keepdim=True) for slope in slopes])
    factors_P11 = torch.clamp(largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6), max=1.0)
    for slope in slopes:
        slope.mul_(factors_P11)
