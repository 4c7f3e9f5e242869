"""Training under differential privacy: what it costs, the entry in the account, and the noise.

``example`` (DP-SGD: Abadi et al. 2016, https://arxiv.org/abs/1607.00133): in each step every row is in the batch with
probability q, independently; the gradients of the rows in it are clipped one by one to ``clip_norm`` and added up, and
Gaussian noise of ``noise_multiplier * clip_norm`` is added to each coordinate of the sum, which is then divided by the
expected number of rows. Everything after that (momentum, weight decay, the proximal pull, ``clip_gradient``) sees only
noisy sums. Personal tensors are trained by the same steps, for what they hold flows into later gradients of the others.

``update``: training is as it is; what it changed in the published trainable tensors is clipped as one vector, and
noise is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_node.budget import Account, shown
from fl_node.errors import BudgetSpent, SpecError
from fl_node.learning import accountant
from fl_node.learning.accountant import Stretch
from fl_node.learning.example_sums import ClippedSums, check_module, clipped_sums
from fl_node.learning.models import Weights
from fl_node.learning.noise import GeneratorNoise, Noise, SystemNoise
from fl_node.spec import Spec

#: sequence -> the randomness of its training.
Noises = Callable[[int], Noise]


class Privacy:
    """One peer's mechanism, its account, and what it adds to training.

    Args:
        spec: the federation's; ``privacy.mechanism`` is not ``none``.
        module: the model, in training mode.
        rows: of the train split.
        account: where what is spent is kept.
        noises: the randomness; the operating system's, or generators seeded by it, where none is given.

    Raises:
        SpecError: the model, or the number of rows, does not allow the mechanism that the spec asks for; or not even
            one training stays within the budget.
        UsageError: Opacus is needed and not installed.
    """

    def __init__(
        self, spec: Spec, module: nn.Module, rows: int, account: Account, noises: Noises | None = None
    ) -> None:
        asked = spec.privacy
        assert asked.mechanism != "none", "only made where the spec asks for a mechanism"
        self._mechanism: accountant.Mechanism = asked.mechanism
        self._spec, self._asked, self._rows, self.account = spec, asked, rows, account
        self._noises = noises or (lambda sequence: SystemNoise() if asked.secure_random else GeneratorNoise())
        if rows and asked.delta >= 1.0 / rows:
            raise SpecError(
                f"privacy.delta = {asked.delta:g} with {rows:,} rows to train on; expected below 1 / {rows:,} = "
                f"{1.0 / rows:.2g}: at a larger one, publishing some row as it is would count as private"
            )
        trainable = {id(one) for one in module.parameters() if one.requires_grad}
        groups: dict[int, list[str]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if id(parameter) in trainable:
                groups.setdefault(id(parameter), []).append(name)
        self._tensors = tuple(tuple(names) for names in groups.values())
        if self._mechanism == "example":
            check_module(spec, module)
        self.noise_multiplier = asked.noise_multiplier or self._least_noise()
        alone = accountant.epsilon(self._mechanism, [self.training], asked.delta)
        if alone > asked.epsilon:
            raise SpecError(
                f"privacy.noise_multiplier = {self.noise_multiplier:g}: one round of training alone spends epsilon "
                f"{shown(alone)}, more than privacy.epsilon = {asked.epsilon:g}; expected more noise, fewer epochs or "
                "fewer rows in a step, or noise_multiplier = 0 for the least that will do"
            )

    @property
    def rate(self) -> float:
        """Probability that a row is in a step's batch."""
        return min(1.0, self._spec.training.batch_size / max(1, self._rows)) if self._mechanism == "example" else 1.0

    @property
    def steps(self) -> int:
        """Noisy steps of one round's training."""
        if self._mechanism == "update":
            return 1
        return self._spec.training.epochs * max(1, math.ceil(self._rows / self._spec.training.batch_size))

    @property
    def training(self) -> Stretch:
        """What one round's training costs."""
        return self.noise_multiplier, self.rate, self.steps

    @property
    def planned(self) -> int:
        """Trainings in the planned rounds."""
        return math.ceil(self._spec.rounds.planned / self._spec.training.every)

    @property
    def by_example(self) -> bool:
        """Whether it is rows that are protected, step by step."""
        return self._mechanism == "example"

    def left(self, most: int | None = None) -> int:
        """How many more trainings the budget allows, ``most`` (those planned) at most. May take seconds."""
        if self.account.assumed_spent:
            return 0
        most = self.planned if most is None else most
        return accountant.trainings_left(
            self._mechanism, self._history(), self.training, self._asked.delta, self._asked.epsilon, most
        )

    def summary(self) -> tuple[str, dict[str, Any]]:
        """What an operator should know when a peer starts: a line, and the numbers in it."""
        asked, left = self._asked, self.left()
        whose = "each row" if self.by_example else "each update"
        spent = self.account.told(asked.epsilon)
        text = (
            f"differential privacy of {whose}: epsilon {shown(spent)} of {asked.epsilon:g} spent at delta "
            f"{asked.delta:g}, noise {self.noise_multiplier:.4g} times {asked.clip_norm:g}; "
        )
        if self.account.assumed_spent:
            text += "the rest was given up"
        else:
            more = " or more" if left == self.planned else ""
            text += f"the rest is enough for {left}{more} further round{'s' * (left != 1)} of training, "
            text += f"planned are {self.planned} in all"
        return text, self.told() | {"trainings_left": left, "trainings_planned": self.planned}

    def spend(self, sequence: int) -> Noise:
        """Enter the training of an update into the account, durably, and only then give its randomness.

        Raises:
            BudgetSpent: it would spend more than the spec allows. Noted, so that the account knows of the update.
            StoreFull: the account cannot be written.
        """
        asked = self._asked
        found = accountant.epsilon(self._mechanism, [*self._history(), self.training], asked.delta)
        if self.account.assumed_spent or found > asked.epsilon:
            self.account.skip(sequence)
            why = "was given up" if self.account.assumed_spent else f"would be {shown(found)} with another training"
            raise BudgetSpent(
                f"the privacy budget of epsilon {asked.epsilon:g} at delta {asked.delta:g}: spent are "
                f"{shown(self.account.told(asked.epsilon))}, which {why}; this peer goes on merging, and trains no more"
            )
        noise, rate, steps = self.training
        self.account.spend(sequence, noise_multiplier=noise, sample_rate=rate, steps=steps, epsilon=found)
        return self._noises(sequence)

    def told(self) -> dict[str, Any]:
        """For the report of an update: what was spent so far, and by what mechanism."""
        return {
            "mechanism": self._mechanism,
            "accountant": accountant.NAMES[self._mechanism],
            "epsilon": self.account.told(self._asked.epsilon),
            "delta": self._asked.delta,
            "budget_epsilon": self._asked.epsilon,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": self._asked.clip_norm,
            "sample_rate": self.rate,
            "steps": self.steps,
            "trainings": len(self.account.spent),
            "secure_random": self._asked.secure_random,
            "scores": self._asked.scores,
            "score_step_ppm": self._asked.score_step_ppm,
        }

    def sums(self, module: nn.Module) -> ClippedSums:
        """``example``: clipped sums of gradients; to be closed when training ends."""
        return clipped_sums(self._spec, module)

    def batches(self, noise: Noise, count: int) -> Iterator[NDArray[np.int64]]:
        """``example``: the rows of each step, drawn anew; some may be empty."""
        for _ in range(self.steps):
            yield np.flatnonzero(noise.chosen(count, self.rate))

    def noisy_mean(self, sums: list[torch.Tensor], noise: Noise) -> list[torch.Tensor]:
        """``example``: noise added to a step's sums, over the expected number of rows, which says nothing of how many
        there were."""
        scale, rows = self.noise_multiplier * self._asked.clip_norm, self.rate * self._rows
        found = []
        for total in sums:
            drawn = torch.from_numpy(noise.normals(total.numel())).view(total.shape)
            noisy = (total.detach().cpu().double() + scale * drawn) / rows
            found.append(noisy.to(dtype=total.dtype, device=total.device))
        return found

    def only_trained(self, start: Mapping[str, NDArray[Any]], model: Weights) -> Weights:
        """The model with everything but its trainable tensors as it was at the start: buffers change without noise."""
        trained = {name for names in self._tensors for name in names}
        return {name: array if name in trained else np.array(start[name], copy=True) for name, array in model.items()}

    def noisy_change(self, start: Mapping[str, NDArray[Any]], model: Weights, noise: Noise) -> Weights:
        """``update``: start + clipped change + noise, in the published trainable tensors; personal ones as trained.

        The change is one vector over all of these tensors; computed in float64 and rounded once.
        """
        shared = [names for names in self._tensors if not all(map(self._personal, names))]
        changes = [model[names[0]].astype(np.float64) - start[names[0]].astype(np.float64) for names in shared]
        norm = math.sqrt(sum(float(np.sum(np.square(change))) for change in changes))
        factor = min(1.0, self._asked.clip_norm / norm) if norm else 1.0
        scale = self.noise_multiplier * self._asked.clip_norm
        found = self.only_trained(start, model)
        for names, change in zip(shared, changes, strict=True):
            drawn = noise.normals(change.size).reshape(change.shape)
            value = start[names[0]].astype(np.float64) + factor * change + scale * drawn
            for name in names:
                found[name] = value.astype(model[name].dtype)
        return found

    def _personal(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._spec.merging.personal)

    def _history(self) -> list[Stretch]:
        return [(one.noise_multiplier, one.sample_rate, one.steps) for one in self.account.spent]

    def _least_noise(self) -> float:
        steps = self.steps * self.planned
        return accountant.least_noise(self._mechanism, self.rate, steps, self._asked.delta, self._asked.epsilon)
