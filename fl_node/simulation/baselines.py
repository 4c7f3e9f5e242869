"""What peers would have had without a federation: one model of all rows in one place, and each peer's own."""

from __future__ import annotations

from dataclasses import dataclass

from fl_node.errors import TrainingFailed
from fl_node.learning.dataset import joined
from fl_node.learning.metrics import Evaluation
from fl_node.learning.models import Weights, genesis
from fl_node.learning.splits import Splits
from fl_node.simulation.batches import Batcher, Batching
from fl_node.simulation.deal import Dealt
from fl_node.simulation.faults import Cast
from fl_node.simulation.trainers import SimulatedTrainer
from fl_node.spec import Spec
from fl_node.training_step import trains_in


@dataclass(frozen=True, slots=True)
class Baselines:
    """Scores after as many rounds of training as the federation plans, from the same genesis. ``alone`` by peer number
    on the common test set, ``alone_own`` on each peer's own test rows; ``None`` for a hostile peer, or where training
    failed."""

    pooled: Evaluation | None
    alone: tuple[Evaluation | None, ...]
    alone_own: tuple[Evaluation | None, ...]


def train_baselines(spec: Spec, dealt: Dealt, cast: Cast, how: Batching, threads: int) -> Baselines:
    """Train on the rows of honest peers, pooled and peer by peer."""
    numbers = [number for number in range(1, len(dealt.splits) + 1) if number not in cast.malicious]
    rounds = [number for number in range(1, spec.rounds.planned + 1) if trains_in(spec, number)]
    alone, alone_own = _alone(spec, dealt, numbers, rounds, how, threads)
    return Baselines(_pooled(spec, dealt, numbers, rounds), alone, alone_own)


def _pooled(spec: Spec, dealt: Dealt, numbers: list[int], rounds: list[int]) -> Evaluation | None:
    rows = joined([dealt.splits[number - 1].train for number in numbers])
    trainer = SimulatedTrainer(spec, Splits(rows, rows, dealt.common), 0)
    model: Weights = genesis(spec)
    try:
        for number in rounds:
            model, _ = trainer.train(model, number)
    except TrainingFailed:
        return None
    return trainer.evaluate(model)


def _alone(
    spec: Spec, dealt: Dealt, numbers: list[int], rounds: list[int], how: Batching, threads: int
) -> tuple[tuple[Evaluation | None, ...], tuple[Evaluation | None, ...]]:
    batcher = Batcher(spec, dealt.splits, how, threads)
    trainers = {number: SimulatedTrainer(spec, batcher.splits[number - 1], number) for number in numbers}
    models = dict.fromkeys(numbers, genesis(spec))
    for round_number in rounds:
        batcher.train_ahead({number: (model, round_number) for number, model in models.items()}, trainers)
        for number in list(models):
            try:
                models[number], _ = trainers[number].train(models[number], round_number)
            except TrainingFailed:
                del models[number]
    common = batcher.scores(models, dealt.common, trainers) if models else {}
    own = {number: trainers[number].evaluate(model) for number, model in models.items()}
    whole = range(1, len(dealt.splits) + 1)
    return tuple(map(common.get, whole)), tuple(map(own.get, whole))
