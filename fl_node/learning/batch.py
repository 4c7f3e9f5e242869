"""Local training and scoring of many peers in one process, for simulations.

Softmax regression and perceptrons are trained side by side, their weights stacked, one step for many peers at a time.
Other models keep each peer's own ``Trainer``, a few of which work at the same time, because stacking them was slower
(``benchmarks/batched.py`` measures both). Either way the result is what each peer's own trainer makes, up to rounding:
the same order of batches, the same steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fl_node.errors import BudgetSpent, TrainingFailed, UsageError
from fl_node.learning.batch_optimizers import StackedOptimizer, stacked_optimizer
from fl_node.learning.batch_rows import StackedRows
from fl_node.learning.batch_scores import Question, answers, questions
from fl_node.learning.batch_steps import Member, SideBySide
from fl_node.learning.dataset import Dataset
from fl_node.learning.metrics import Evaluation
from fl_node.learning.models import KNOWN, Weights, build, schema, set_weights
from fl_node.learning.optimizer_state import OptimizerStates
from fl_node.learning.optimizers import State
from fl_node.learning.splits import Splits
from fl_node.learning.training import Trainer, TrainReport, _class_weights, _tensor, chosen_device, diverged, evaluate
from fl_node.spec import Spec

#: What became of a peer's training: weights and report, or why there are none.
Outcome: TypeAlias = "tuple[Weights, TrainReport] | TrainingFailed | BudgetSpent"
#: Bytes of rows and weights in one step of one group of peers, on a CPU: less costs more calls, more leaves the caches.
WORKING_SET = 4 << 20
#: The same on a GPU, whose memory is the only bound.
GPU_WORKING_SET = 4 << 30

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def batchable(spec: Spec) -> bool:
    """Whether peers of this spec are trained side by side, their weights stacked; else each by its own trainer."""
    if spec.privacy.mechanism != "none":
        return False
    return spec.model.name in ("logistic", "mlp") and spec.task.kind == "classification" and not spec.training.loop


def _draws(spec: Spec) -> bool:
    """Whether training may draw from torch's generator, which all threads share."""
    return bool(spec.training.loop) or spec.model.name not in KNOWN


class BatchTrainer:
    """The models and rows of many peers, on one device.

    Peers are independent: one whose training fails costs the others nothing.

    Args:
        spec: the federation's.
        splits: each peer's own rows. The training rows are copied into one table, unless they are consecutive slices of
            one array already; :attr:`splits` are views of it, so that a caller can drop its own.
        numbers: the peers' numbers, in the same order; part of the seed of batch orders.
        device: as of ``Trainer``.
        threads: how many groups of peers (or peers, where they are not stacked) are worked on at the same time, each by
            one thread of torch. Where a model or a training loop of the user's own may draw from torch's generator,
            peers are trained one after the other, with the threads that torch has been given.
        states: as of ``Trainer``; each peer has a folder in it, named by its number.

    Raises:
        SpecError: the model or the loop cannot be built.
        UsageError: no such device, no peers, a number twice, or not as many numbers as splits.
    """

    def __init__(
        self,
        spec: Spec,
        splits: Sequence[Splits],
        numbers: Sequence[int],
        device: str = "auto",
        threads: int = 1,
        states: Path | None = None,
    ) -> None:
        if not numbers or len(set(numbers)) != len(numbers) or len(splits) != len(numbers):
            raise UsageError(
                f"got {len(splits)} peers' rows for the peer numbers {list(numbers)[:10]}; expected at least one peer, "
                "and as many different numbers as splits"
            )
        if threads < 1:
            raise UsageError(f"{threads} threads: expected at least 1")
        self.spec = spec
        self.device = chosen_device(device)
        self.threads = threads
        self._batched = batchable(spec)
        self._module = build(spec).to(self.device)
        self._schema = schema(self._module)
        self._places = {number: place for place, number in enumerate(numbers)}
        self._states = states
        self._trainers: dict[int, Trainer] = {}
        self.splits: dict[int, Splits] = dict(zip(numbers, splits, strict=True))
        if self._batched:
            self._rows = StackedRows([part.train for part in splits])
            self._features = _tensor(self._rows.features).flatten(1).to(self.device)
            for number, place in self._places.items():
                part = splits[place]
                self.splits[number] = Splits(self._rows.part(place), part.validation, part.test)
        self._kept: dict[int, OptimizerStates] = {}

    def trainer(self, number: int) -> Trainer:
        """This peer's own ``Trainer``, for what is not done side by side."""
        if number not in self._trainers:
            states = self._states / str(number) if self._states else None
            self._trainers[number] = Trainer(self.spec, self.splits[number], number, str(self.device), states)
        return self._trainers[number]

    def train(self, jobs: Mapping[int, tuple[Mapping[str, NDArray[Any]], int]]) -> dict[int, Outcome]:
        """Train some peers as ``Trainer.train`` does.

        Args:
            jobs: peer number -> (weights to start from, sequence).

        Returns:
            peer number -> (weights, report), or the ``BudgetSpent`` or ``TrainingFailed`` (``TrainingDiverged`` where
            numbers are no longer finite) that its trainer would have raised. Seconds are those of its group divided by
            its peers.

        Raises:
            MalformedWeights: weights to start from are not this model's.
            UsageError: a number that is none of the peers.
        """
        unknown = sorted(jobs.keys() - self._places.keys())
        if unknown:
            raise UsageError(f"no rows of peer {', '.join(map(str, unknown))}; expected numbers of this batch's peers")
        if not self._batched:
            return self._one_by_one(jobs)
        for weights, _ in jobs.values():
            self._refuse_malformed(weights)
        found: dict[int, Outcome] = {}
        for part in self._at_once(lambda group: self._side_by_side(jobs, group), self._groups(jobs)):
            found |= part
        return {number: found[number] for number in jobs}

    def evaluate(self, models: Mapping[int, Mapping[str, NDArray[Any]]], full: bool = False) -> dict[int, Evaluation]:
        """Score each peer's model on its own test split. As ``Trainer.evaluate``."""
        return self._scores({number: self.splits[number].test for number in models}, models, full)

    def validate(self, models: Mapping[int, Mapping[str, NDArray[Any]]]) -> dict[int, Evaluation | None]:
        """Score each peer's model on its own validation split; None where the spec sets no rows aside for it."""
        rows = {number: self.splits[number].validation for number in models}
        found = self._scores({number: data for number, data in rows.items() if len(data)}, models, False)
        return {number: found.get(number) for number in models}

    def evaluate_on(
        self, models: Mapping[int, Mapping[str, NDArray[Any]]], data: Dataset, full: bool = False
    ) -> dict[int, Evaluation]:
        """Score many models, by any key, on the same rows."""
        return self._scores(dict.fromkeys(models, data), models, full)

    # ---- training ---------------------------------------------------------------------------------------------------

    def _groups(self, jobs: Mapping[int, object]) -> list[list[int]]:
        """Peers of about equal row counts together, as many as one step can hold in the cache, and at least as many
        groups as threads."""
        ordered = sorted(jobs, key=lambda number: -int(self._rows.counts[self._places[number]]))
        size = min(self.spec.training.batch_size, int(self._rows.counts.max(initial=1)))
        parameters = sum(math.prod(shape) for _, shape in self._schema.values())
        room = WORKING_SET if self.device.type == "cpu" else GPU_WORKING_SET
        together = max(1, room // (4 * (size * self._features.shape[1] + parameters)))
        groups = math.ceil(max(1, len(ordered)) / together / self.threads) * self.threads  # as many for each thread
        together = max(1, math.ceil(len(ordered) / groups))
        return [ordered[at : at + together] for at in range(0, len(ordered), together)]

    @torch.no_grad()
    def _side_by_side(
        self, jobs: Mapping[int, tuple[Mapping[str, NDArray[Any]], int]], group: Sequence[int]
    ) -> dict[int, Outcome]:
        start = time.perf_counter()
        members = [Member(self._places[number], number, jobs[number][1]) for number in group]
        parameters = [self._stacked(name, [jobs[number][0][name] for number in group]) for name in self._schema]
        rule = stacked_optimizer(self.spec.training, parameters)
        keeps = not self.spec.training.reset_optimizer
        for place, member in enumerate(members if keeps else ()):
            self._states_of(member.number).load(_OfOne(rule, place), member.sequence)
        work = SideBySide(
            self.spec, self._rows, self._features, members, parameters, rule, self._class_weights(members)
        )
        losses, steps = work.train()
        for place, member in enumerate(members if keeps else ()):
            self._states_of(member.number).save(_OfOne(rule, place), member.sequence)
        finite = torch.stack([torch.isfinite(parameter).flatten(1).all(1) for parameter in parameters]).all(0).tolist()
        arrays = [parameter.cpu().numpy() for parameter in parameters]
        seconds = (time.perf_counter() - start) / len(group)
        found: dict[int, Outcome] = {}
        for place, member in enumerate(members):
            weights = {
                name: array[place].reshape(shape).copy()
                for (name, (_, shape)), array in zip(self._schema.items(), arrays, strict=True)
            }
            loss = float(losses[place])
            samples = int(self._rows.counts[member.place])
            report = TrainReport(loss, int(steps[place]), seconds, samples)
            good = finite[place] and math.isfinite(loss)
            found[member.number] = (weights, report) if good else self._diverged(loss, weights)
        return found

    def _diverged(self, loss: float, weights: Weights) -> TrainingFailed:
        failure = diverged(self.spec, loss, weights)
        assert failure is not None
        return failure

    def _stacked(self, name: str, arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
        """[P, O, I] of a weight, [P, O, 1] of a bias."""
        tensor = torch.from_numpy(np.stack(arrays))
        return tensor.reshape(len(arrays), self._schema[name][1][0], -1).to(self.device)

    def _class_weights(self, members: Sequence[Member]) -> NDArray[np.float32] | None:
        found = [_class_weights(self.spec, self.splits[member.number].train) for member in members]
        there = [weights for weights in found if weights is not None]
        return np.stack(there) if there else None

    def _states_of(self, number: int) -> OptimizerStates:
        if number not in self._kept:
            self._kept[number] = OptimizerStates(self._states / str(number) if self._states else None)
        return self._kept[number]

    def _one_by_one(self, jobs: Mapping[int, tuple[Mapping[str, NDArray[Any]], int]]) -> dict[int, Outcome]:
        def alone(number: int) -> Outcome:
            try:
                return self.trainer(number).train(*jobs[number])
            except (TrainingFailed, BudgetSpent) as failure:
                return failure

        if _draws(self.spec):
            return {number: alone(number) for number in jobs}
        for number in jobs:
            self.trainer(number)
        with torch.random.fork_rng(devices=[]):  # each trainer puts back what another may just have seeded
            return dict(zip(jobs, self._at_once(alone, jobs), strict=True))

    def _refuse_malformed(self, weights: Mapping[str, NDArray[Any]]) -> None:
        if {name: (array.dtype.name, array.shape) for name, array in weights.items()} != self._schema:
            set_weights(self._module, weights)  # raises, and says what differs

    # ---- scores -----------------------------------------------------------------------------------------------------

    def _scores(
        self, rows: Mapping[int, Dataset], models: Mapping[int, Mapping[str, NDArray[Any]]], full: bool
    ) -> dict[int, Evaluation]:
        empty = [number for number, data in rows.items() if not len(data)]
        if self._batched and not empty:
            for number in rows:
                self._refuse_malformed(models[number])
            parts = self._at_once(lambda asked: self._answers(asked, models, full), questions(rows))
            answered = {number: score for part in parts for number, score in part.items()}
            return {number: answered[number] for number in rows}
        found = {}
        for number, data in rows.items():
            set_weights(self._module, models[number])
            found[number] = evaluate(self._module, data, self.spec, full)
        return found

    @torch.no_grad()
    def _answers(
        self, asked: Question, models: Mapping[int, Mapping[str, NDArray[Any]]], full: bool
    ) -> dict[int, Evaluation]:
        parameters = [self._stacked(name, [models[number][name] for number in asked.models]) for name in self._schema]
        scores = answers(parameters, asked.rows, self.spec.task.metric, full)
        return dict(zip(asked.models, scores, strict=True))

    def _at_once(self, work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
        """The results of all items, in their order, by as many threads as were asked for, each with one of torch's: the
        work is cut so coarsely that nobody waits for anybody, as torch's own threads do after every operation."""

        def alone(item: _In) -> _Out:
            torch.set_num_threads(1)
            return work(item)

        before = torch.get_num_threads()
        try:
            if self.threads == 1:
                return [alone(item) for item in items]
            with ThreadPoolExecutor(self.threads) as pool:
                return list(pool.map(alone, items))
        finally:
            torch.set_num_threads(before)


class _OfOne:
    """One peer's part of a stacked optimiser, for :class:`OptimizerStates`."""

    def __init__(self, rule: StackedOptimizer, place: int) -> None:
        self._rule, self._place = rule, place

    def export(self) -> State:
        return self._rule.export(self._place)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._rule.restore(self._place, state)
