"""Training and scoring many peers at once: side by side in stacked tensors where that is faster, else several peers at
the same time, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch

from fl_node.errors import BudgetSpent, TrainingFailed, UsageError
from fl_node.learning.batch import BatchTrainer, Outcome, batchable
from fl_node.learning.dataset import Dataset
from fl_node.learning.metrics import Evaluation
from fl_node.learning.splits import Splits
from fl_node.merging.weights import Tensors
from fl_node.simulation.trainers import Ahead, SimulatedTrainer
from fl_node.spec import Spec, named_code

Batching = Literal["auto", "always", "never"]
T = TypeVar("T")


class Batcher:
    """Trains the peers of a tick, and leaves what came out with their trainers.

    Args:
        how: ``auto``: side by side where the model is one that is faster so and there is more than one peer; ``never``:
            one peer after the other, each by its own trainer, the reference.
        threads: so many at work at the same time; each has one of torch's. Small operations of torch are slower with
            several, which wait for each other.

    Raises:
        UsageError: ``always``, and the model cannot be trained so.
    """

    def __init__(self, spec: Spec, splits: Sequence[Splits], how: Batching, threads: int) -> None:
        if how == "always" and not batchable(spec):
            raise UsageError(
                f"--batch always: the model {spec.model.name} is not trained side by side; expected logistic or mlp "
                "without a loop of one's own or differential privacy, or --batch auto"
            )
        torch.set_num_threads(1)
        self._together = None
        self.splits = tuple(splits)
        # What a user's own code draws comes from torch's one generator, which threads would share.
        self._threads = 1 if how == "never" or named_code(spec) else threads
        if how == "always" or (how == "auto" and batchable(spec) and len(splits) > 1):
            numbers = range(1, len(splits) + 1)
            self._together = BatchTrainer(spec, splits, numbers, "cpu", threads)
            # Its rows are in one table; those that were dealt out need not stay in memory.
            self.splits = tuple(self._together.splits[number] for number in numbers)

    def train_ahead(self, jobs: Mapping[int, tuple[Tensors, int]], trainers: Mapping[int, SimulatedTrainer]) -> None:
        """Train some peers.

        Args:
            jobs: peer number -> whole model to start from, and sequence.
        """
        wanted = {number: job for number, job in jobs.items() if trainers[number].trains}
        if not wanted:
            return
        if self._together is not None:
            found = self._together.train(wanted)
        elif self._threads > 1:
            found = self._at_once(wanted, lambda number: _outcome(trainers[number], *wanted[number]))
        else:
            return
        for number, outcome in found.items():
            trainers[number].keep(Ahead(wanted[number][1], outcome))

    def scores(
        self, models: Mapping[int, Tensors], rows: Dataset, trainers: Mapping[int, SimulatedTrainer]
    ) -> dict[int, Evaluation]:
        """Score many peers' models, by peer number, on the same rows."""
        if self._together is not None:
            return self._together.evaluate_on(models, rows)
        return self._at_once(models, lambda number: trainers[number].evaluate_on(models[number], rows))

    def _at_once(self, numbers: Iterable[int], work: Callable[[int], T]) -> dict[int, T]:
        wanted = list(numbers)
        if self._threads == 1 or len(wanted) < 2:
            return {number: work(number) for number in wanted}
        with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return dict(zip(wanted, pool.map(work, wanted), strict=True))


def _outcome(trainer: SimulatedTrainer, start: Tensors, sequence: int) -> Outcome:
    try:
        return trainer.train_honestly(start, sequence)
    except (TrainingFailed, BudgetSpent) as failure:
        return failure
