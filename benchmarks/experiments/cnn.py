"""Ten peers, a small convolutional network, Fashion-MNIST."""

from __future__ import annotations

from typing import Final

from benchmarks.experiments.experiment import Case, Experiment, Goal, Table, accuracies
from benchmarks.experiments.tables import cell, mean, table, verdict
from fl_node.simulation import Settings

ROUNDS: Final = 10
TARGETS: Final = {"iid": ("iid", 89.2), "Dirichlet(0.5)": ("dirichlet:0.5", 88.1)}


def _settings(partition: str) -> Settings:
    return Settings(
        preset="fedavg",
        peers=(10,),
        rounds=ROUNDS,
        epochs=1,
        dataset="fashion-mnist",
        model="cnn",
        partition=partition,
        test_rows="common",
        overrides={
            "task.validation": 0.0,
            "model.hidden": (8, 16),
            "training.optimizer": "adam",
            "training.learning_rate": 5e-3,
            "training.schedule": "cosine",
            "training.batch_size": 32,
        },
    )


def _page(found: Table) -> str:
    rows = []
    for label, (_, target) in TARGETS.items():
        seconds = cell(found, label, "seconds", 0)
        rows.append([label, f"{target}", cell(found, label), verdict(mean(found, label), target), f"{ROUNDS}", seconds])
    return f"""
Accuracy in per cent on the 10,000 common test images, of the merged model after the last round. All 60,000 training
rows are dealt out. Model `cnn` with 8 and 16 channels (9,146 weights): 3 x 3 convolution, group norm, ReLU and pooling,
twice, then a linear layer. Adam, learning rate 0.005 falling to 0 by a cosine, batches of 32, one epoch in each round.

{table(["data", "target", "reached", "verdict", "epochs in all", "seconds on one core"], rows)}
"""


def _goals(found: Table) -> list[Goal]:
    return [
        Goal(
            f"Fashion-MNIST CNN, 10 peers, {label}, {ROUNDS} epochs",
            f">= {target} %",
            cell(found, label),
            verdict(mean(found, label), target),
        )
        for label, (_, target) in TARGETS.items()
    ]


CNN = Experiment(
    "cnn",
    "Ten peers, a CNN, Fashion-MNIST",
    [Case(label, _settings(partition)) for label, (partition, _) in TARGETS.items()],
    accuracies,
    _page,
    _goals,
)
