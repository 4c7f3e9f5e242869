"""Training between two merges, and scoring, on a peer's own rows."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_node.budget import Account
from fl_node.errors import DataError, SpecError, TrainingDiverged, TrainingFailed, UsageError
from fl_node.learning.dataset import Dataset
from fl_node.learning.gradients import Gradients, autograd, clipped, mean_gradient, proximal
from fl_node.learning.linear import LinearGradients
from fl_node.learning.metrics import Evaluation, measure, measure_masks
from fl_node.learning.models import Weights, build, get_weights, set_weights
from fl_node.learning.named import resolve
from fl_node.learning.noise import Noise
from fl_node.learning.optimizer_state import OptimizerStates
from fl_node.learning.optimizers import optimizer
from fl_node.learning.private import Noises, Privacy
from fl_node.learning.schedule import learning_rate
from fl_node.learning.splits import Splits
from fl_node.spec import Spec

#: Rows at once where nothing is learned; a quarter where a gradient is asked for, since activations are kept then.
EVALUATION_ROWS = 1024
#: Of masks, so few rows at once that there are no more pixels than this.
EVALUATION_PIXELS = 1 << 18


@dataclass(frozen=True, slots=True)
class TrainReport:
    """``loss``: mean cross-entropy over the last epoch, in nats, with the class weights and without the proximal term
    (of a user's own loop: of the train split after it, without class weights). ``steps``: optimiser steps, 0 for a
    user's own loop. ``samples``: rows trained on.
    """

    loss: float
    steps: int
    seconds: float
    samples: int


class Trainer:
    """One peer's model and rows, on one device.

    The same spec, rows, peer number, sequence and starting weights give the same weights to the bit on the same machine
    with one thread (``torch.set_num_threads(1)``); with several threads or on a GPU they may differ in the last bits.
    Under differential privacy (``privacy.mechanism``) they never do: noise that can be drawn again hides nothing.

    Args:
        spec: the federation's.
        splits: the peer's own rows.
        peer: its number; part of the seed, so that peers shuffle differently.
        device: ``auto`` (a GPU if torch sees one), ``cpu``, ``cuda`` or ``cuda:N``.
        states: folder for optimiser states, so that they outlive the process; without one they are kept in memory. Used
            only if ``training.reset_optimizer`` is false.
        account: of the privacy budget; in memory where none is given. Used only under a mechanism.
        noises: the randomness of private training by sequence; secret unless given.

    Raises:
        SpecError: the model or the loop cannot be built, or not trained by the spec's privacy mechanism.
        UsageError: no such device, or what the mechanism needs is not installed.
    """

    def __init__(
        self,
        spec: Spec,
        splits: Splits,
        peer: int,
        device: str = "auto",
        states: Path | None = None,
        account: Account | None = None,
        noises: Noises | None = None,
    ) -> None:
        self.spec = spec
        self.splits = splits
        self.peer = peer
        self.device = chosen_device(device)
        self.module = build(spec).to(self.device)
        self._names = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        self._parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._rows: tuple[torch.Tensor, torch.Tensor] | None = None
        self._class_weights = _class_weights(spec, splits.train)
        self._loop = resolve(spec.training.loop, "training.loop", SpecError) if spec.training.loop else None
        self._states = None if spec.training.reset_optimizer else OptimizerStates(states)
        self.privacy: Privacy | None = None
        if spec.privacy.mechanism != "none":
            self.privacy = Privacy(spec, self.module, len(splits.train), account or Account(), noises)

    def train(self, weights: Mapping[str, NDArray[Any]], sequence: int) -> tuple[Weights, TrainReport]:
        """Train for ``training.epochs`` from these weights, which stay as they are.

        Under a privacy mechanism the account is charged first, durably, whatever comes of the training.

        Raises:
            BudgetSpent: the privacy budget does not allow it. Nothing was trained.
            TrainingDiverged: the loss or a weight is no longer finite.
            TrainingFailed: the user's own loop raised.
            MalformedWeights: the weights are not this model's.
        """
        start = time.perf_counter()
        set_weights(self.module, weights)
        seed = training_seed(self.spec.training.seed, self.peer, sequence)
        noise = None
        if self.privacy is not None:
            noise = self.privacy.spend(sequence)
            seed = noise.seed()
        self.module.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            if self._loop is not None:
                loss, steps = self._own_loop(self._loop, seed), 0
            elif self.privacy is not None and noise is not None and self.privacy.by_example:
                loss, steps = self._noisy_steps(self.privacy, noise, sequence)
            else:
                loss, steps = self._epochs(seed, sequence)
        found = get_weights(self.module)
        failure = diverged(self.spec, loss, found)
        if failure is None and self.privacy is not None and noise is not None:
            if self.privacy.by_example:
                found = self.privacy.only_trained(weights, found)
            else:
                found = self.privacy.noisy_change(weights, found, noise)
            failure = diverged(self.spec, loss, found)
        if failure is not None:
            raise failure
        return found, TrainReport(loss, steps, time.perf_counter() - start, len(self.splits.train))

    def evaluate(self, weights: Mapping[str, NDArray[Any]], full: bool = False) -> Evaluation:
        """Score weights on the test split; ``full`` adds the AUC where the metric does not need it."""
        return self.evaluate_on(weights, self.splits.test, full)

    def validate(self, weights: Mapping[str, NDArray[Any]]) -> Evaluation | None:
        """Score weights on the validation split; None if the spec sets no rows aside for it."""
        return self.evaluate_on(weights, self.splits.validation) if len(self.splits.validation) else None

    def validation_gradient(self, weights: Mapping[str, NDArray[Any]]) -> tuple[Weights, float]:
        """How the loss on the validation split changes with each weight, at these weights.

        Returns:
            dloss/dw of every trainable parameter by name, float64 of the parameter's shape, buffers not; and the loss:
            mean cross-entropy in nats (of masks: over all pixels), with the class weights that training uses. Numbers
            may be not finite where the weights are so large that logits overflow.

        Raises:
            DataError: the spec sets no validation rows aside.
            MalformedWeights: the weights are not this model's.
        """
        data = self.splits.validation
        if not len(data):
            raise DataError(
                "no validation rows to find a gradient on; expected at least one (is task.validation above 0?)"
            )
        set_weights(self.module, weights)
        self.module.eval()
        size = max(1, _at_once(data.labels) // 4)
        parts = zip(torch.split(_tensor(data.features), size), torch.split(_tensor(data.labels), size), strict=True)
        batches = ((inputs.to(self.device), targets.to(self.device)) for inputs, targets in parts)
        found, loss = mean_gradient(self.module, self._parameters, batches, self._loss_weights())
        return dict(zip(self._names, found, strict=True)), loss

    def evaluate_on(self, weights: Mapping[str, NDArray[Any]], data: Dataset, full: bool = False) -> Evaluation:
        """Score weights on any rows of the task's shape. Raises DataError if there is none."""
        set_weights(self.module, weights)
        return evaluate(self.module, data, self.spec, full)

    def _train_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._rows is None:
            train = self.splits.train
            self._rows = (_tensor(train.features).to(self.device), _tensor(train.labels).to(self.device))
        return self._rows

    def _noisy_steps(self, privacy: Privacy, noise: Noise, sequence: int) -> tuple[float, int]:
        """DP-SGD. The loss is the mean over the rows that were drawn, before each step; it stays with this peer."""
        features, labels = self._train_rows()
        training = self.spec.training
        rule = optimizer(training, self._parameters)
        if self._states is not None:
            self._states.load(rule, sequence)
        sums = privacy.sums(self.module)

        def noisy(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            loss, found = sums(inputs, targets)
            return torch.tensor(loss), privacy.noisy_mean(found, noise)

        gradients, total, drawn, steps = self._bounded(noisy), 0.0, 0, 0
        try:
            for chosen in privacy.batches(noise, len(labels)):
                rows = torch.from_numpy(chosen).to(self.device)
                loss, slopes = gradients(torch.index_select(features, 0, rows), labels[rows])
                rule.rate = learning_rate(training, self.spec.rounds.planned, sequence, steps / privacy.steps)
                rule.step(slopes)
                total, drawn, steps = total + float(loss), drawn + len(chosen), steps + 1
        finally:
            sums.close()
        if self._states is not None:
            self._states.save(rule, sequence)
        # One row's logits that overflow are no failure: it was left out of the sums.
        mean = total / max(1, drawn)
        return mean if math.isfinite(mean) else 0.0, steps

    def _epochs(self, seed: int, sequence: int) -> tuple[float, int]:
        features, labels = self._train_rows()
        training = self.spec.training
        size, count = training.batch_size, len(labels)
        scheduled, planned_steps = training.schedule != "constant", training.epochs * math.ceil(count / size)
        rule = optimizer(training, self._parameters)
        if self._states is not None:
            self._states.load(rule, sequence)
        gradients = self._gradients()
        batch = features.new_empty((min(size, count), *features.shape[1:]))
        total, steps = torch.zeros((), device=self.device), 0
        for order in _orders(seed, count, training.epochs):
            rows = torch.from_numpy(order).to(self.device)
            targets = labels[rows]
            total.zero_()
            for at in range(0, count, size):
                chosen = rows[at : at + size]
                inputs = torch.index_select(features, 0, chosen, out=batch[: len(chosen)])
                loss, slopes = gradients(inputs, targets[at : at + size])
                if scheduled:
                    rule.rate = learning_rate(training, self.spec.rounds.planned, sequence, steps / planned_steps)
                rule.step(slopes)
                total += loss * len(chosen)
                steps += 1
        if self._states is not None:
            self._states.save(rule, sequence)
        return float(total) / count, steps

    def _gradients(self) -> Gradients:
        """The closed form for the built-in linear model, at half the cost; else what autograd computes."""
        weights = self._loss_weights()
        if self.spec.model.name == "logistic":
            weight, bias = self._parameters
            found: Gradients = LinearGradients(weight, bias, weights)
        else:
            found = autograd(self.module, self._parameters, weights)
        return self._bounded(found)

    def _bounded(self, found: Gradients) -> Gradients:
        """With the spec's pull towards where the parameters are now, and its bound on the sum of both."""
        training = self.spec.training
        if training.proximal:
            found = proximal(found, self._parameters, training.proximal)
        return clipped(found, training.clip_gradient) if training.clip_gradient else found

    def _loss_weights(self) -> torch.Tensor | None:
        return None if self._class_weights is None else torch.from_numpy(self._class_weights).to(self.device)

    def _own_loop(self, loop: Callable[..., Any], seed: int) -> float:
        train = self.splits.train
        features, labels = _tensor(train.features).to(self.device), _tensor(train.labels).to(self.device)
        try:
            loop(self.module, features, labels, self.spec, seed)
        except Exception as cause:  # the user's code may raise anything
            name = self.spec.training.loop
            raise TrainingFailed(f"training.loop {name} raised {type(cause).__name__}: {cause}; mend it") from cause
        return evaluate(self.module, train, self.spec).loss


def diverged(spec: Spec, loss: float, weights: Weights) -> TrainingDiverged | None:
    """The error that says what is not finite, or None if everything is."""
    bad = [name for name, array in weights.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if not bad and np.isfinite(loss):
        return None
    return TrainingDiverged(
        f"training diverged: loss {loss}, not finite: {', '.join(bad) or 'the loss'}; expected finite numbers. "
        f"Lower training.learning_rate (now {spec.training.learning_rate:g}) in a new federation"
    )


def evaluate(module: nn.Module, data: Dataset, spec: Spec, full: bool = False) -> Evaluation:
    """Score a module on rows by the spec's metric. The module is left in evaluation mode.

    Weights that make logits overflow give a bad score, never an error: a stranger's update may be in what was merged.
    Raises DataError if there are no rows.
    """
    if not len(data):
        raise DataError("no rows to score on; expected at least one (is task.test above 0?)")
    if spec.task.kind == "segmentation":
        size = _at_once(data.labels)
        stretches = (slice(at, at + size) for at in range(0, len(data), size))
        return measure_masks((logits(module, data.features[some]), data.labels[some]) for some in stretches)
    return measure(logits(module, data.features), data.labels, spec.task.metric, full)


def logits(module: nn.Module, features: NDArray[np.float32]) -> NDArray[Any]:
    """The module's answers, [n, classes] or [n, classes, H, W], computed in evaluation mode and in batches."""
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    module.eval()
    with torch.inference_mode():
        parts = torch.split(_tensor(features), EVALUATION_ROWS)
        found: NDArray[Any] = torch.cat([module(part.to(device)).cpu() for part in parts]).numpy()
    return found


def training_seed(seed: int, peer: int, sequence: int) -> int:
    """63 bits of SHA-256 over the spec's seed, the peer's number and the sequence."""
    text = f"fl-node training {seed} {peer} {sequence}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def chosen_device(name: str) -> torch.device:
    """``auto`` is a GPU if torch sees one, else the CPU. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as cause:
        reason = str(cause).splitlines()[0]
        raise UsageError(f"device {name!r}: {reason}; expected auto, cpu, cuda or cuda:N") from cause
    return device


def _orders(seed: int, count: int, epochs: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(epochs):
        yield generator.permutation(count)


def _class_weights(spec: Spec, train: Dataset) -> NDArray[np.float32] | None:
    """n / (classes present * n_c) for each class, 0 for absent ones; of masks, n counts pixels. None if the spec does
    not ask for weights."""
    if not spec.training.class_weights:
        return None
    counts = np.bincount(train.labels.ravel(), minlength=spec.task.classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, train.labels.size / (present * np.maximum(counts, 1)), 0.0).astype(np.float32)


def _at_once(labels: NDArray[np.int64]) -> int:
    """Rows to look at in one go."""
    return min(EVALUATION_ROWS, max(1, EVALUATION_PIXELS // math.prod(labels.shape[1:])))


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Shares memory where torch allows it: it has no read-only tensors."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
