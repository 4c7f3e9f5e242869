"""Six peers, logistic regression, 20 epochs in all, every one of the 60,000 training rows in somebody's hands."""

from __future__ import annotations

from benchmarks.experiments.experiment import Case, Experiment, Goal, Table, accuracies
from benchmarks.experiments.tables import cell, comparisons, mean, paired, table, verdict
from fl_node.simulation import Settings

PARTITIONS = {"iid": "iid", "Dirichlet(0.5), equal sizes": "dirichlet:0.5:equal", "sizes 1:2:3:4:5:6": "unequal"}
TARGETS = {
    "mnist": dict(zip(PARTITIONS, (92.3, 91.1, 92.4), strict=True)),
    "fashion-mnist": dict(zip(PARTITIONS, (84.2, 82.7, 84.0), strict=True)),
}
#: What falls to 0 over the rounds, and what most comparisons use.
COSINE = {"training.schedule": "cosine", "training.learning_rate": 5e-3}
CONSTANT = {"training.schedule": "constant", "training.learning_rate": 1e-3}
BASELINE_SEEDS = 3


def settings(dataset: str, partition: str, rate: dict[str, object], *, baselines: bool = False) -> Settings:
    """Six peers, 20 rounds of one epoch, Adam, batches of 64; each round all peers' models are averaged."""
    return Settings(
        preset="fedavg",
        peers=(6,),
        rounds=20,
        epochs=1,
        dataset=dataset,
        partition=partition,
        test_rows="common",
        baselines=baselines,
        overrides={
            "task.validation": 0.0,
            "training.optimizer": "adam",
            "training.batch_size": 64,
            "merging.aggregation": "fedavg",
            **rate,
        },
    )


def _cases() -> list[Case]:
    cases = []
    for dataset in TARGETS:
        for label, partition in PARTITIONS.items():
            cases.append(Case(f"{dataset}, {label}", settings(dataset, partition, COSINE)))
    for dataset in TARGETS:
        for label, partition in PARTITIONS.items():
            cases.append(Case(f"{dataset}, {label}, constant", settings(dataset, partition, CONSTANT)))
    for dataset in TARGETS:
        label = "Dirichlet(0.5), equal sizes"
        alone = settings(dataset, PARTITIONS[label], COSINE, baselines=True)
        cases.append(Case(f"{dataset}, {label}, baselines", alone, BASELINE_SEEDS))
    return cases


def _page(found: Table) -> str:
    rows, pairs, base = [], [], []
    for dataset, targets in TARGETS.items():
        for label, target in targets.items():
            name = f"{dataset}, {label}"
            reached = mean(found, name)
            constant = f"{name}, constant"
            rows.append([name, f"{target}", cell(found, name), verdict(reached, target), cell(found, constant)])
            pairs.append((f"{name}: cosine - constant", paired(found, name, constant)))
        with_baselines = f"{dataset}, Dirichlet(0.5), equal sizes, baselines"
        base.append([dataset, *(cell(found, with_baselines, what) for what in ("pooled", "alone", "accuracy"))])
    return f"""
Accuracy in per cent on the 10,000 common test images, of the merged model after the last round. The recipe: Adam,
learning rate 0.005 falling to 0 by a cosine over 20 rounds of one epoch, batches of 64, fresh optimiser state in each
round, averages weighted by samples. No rows are set aside: peers claim scores on shares of the test images.

{table(["data", "target", "reached", "verdict", "Adam 0.001, constant"], rows)}

{comparisons(pairs)}

Baselines, {BASELINE_SEEDS} seeds, the same recipe and as many epochs; without sharing, each peer trains alone:

{table(["data, Dirichlet(0.5)", "all rows in one place", "no sharing (mean of peers)", "federation, same seeds"], base)}
"""


def _goals(found: Table) -> list[Goal]:
    return [
        Goal(name, f">= {target} %", cell(found, name), verdict(mean(found, name), target))
        for dataset, targets in TARGETS.items()
        for name, target in ((f"{dataset}, {label}", target) for label, target in targets.items())
    ]


LOGISTIC = Experiment("logistic", "Six peers, logistic regression, 20 epochs", _cases(), accuracies, _page, _goals)
