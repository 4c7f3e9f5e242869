"""Training many peers at once, where that is faster than one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from fl_node.errors import UsageError
from fl_node.learning.batch import BatchTrainer, batchable
from fl_node.learning.dataset import Dataset
from fl_node.learning.metrics import Evaluation
from fl_node.learning.splits import Splits
from fl_node.merging.weights import Tensors
from fl_node.simulation.trainers import Ahead, SimulatedTrainer
from fl_node.spec import Spec

Batching = Literal["auto", "always", "never"]


class Batcher:
    """Trains the peers of a tick side by side, and leaves what came out with their trainers.

    Args:
        how: ``auto`` where the model is one that is faster so and there is more than one peer; ``never``: each peer's
            own trainer, the reference.

    Raises:
        UsageError: ``always``, and the model cannot be trained so.
    """

    def __init__(self, spec: Spec, splits: Sequence[Splits], how: Batching, threads: int) -> None:
        if how == "always" and not batchable(spec):
            raise UsageError(
                f"--batch always: the model {spec.model.name} is not trained side by side; expected logistic or mlp "
                "without a loop of one's own, or --batch auto"
            )
        self._together = None
        self.splits = tuple(splits)
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
        if self._together is None or not wanted:
            return
        for number, outcome in self._together.train(wanted).items():
            trainers[number].keep(Ahead(wanted[number][1], outcome))

    def scores(
        self, models: Mapping[int, Tensors], rows: Dataset, trainers: Mapping[int, SimulatedTrainer]
    ) -> dict[int, Evaluation]:
        """Score many peers' models, by peer number, on the same rows."""
        if self._together is not None:
            return self._together.evaluate_on(models, rows)
        return {number: trainers[number].evaluate_on(model, rows) for number, model in models.items()}
