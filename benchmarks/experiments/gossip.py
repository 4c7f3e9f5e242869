"""What gossip costs and gives as peers grow in number: accuracy and bytes against everybody merging everybody."""

from __future__ import annotations

from typing import Final

from benchmarks.experiments.experiment import Case, Experiment, Goal, Table, accuracies
from benchmarks.experiments.tables import cell, comparisons, mean, paired, table
from fl_node.simulation import Settings

CROWDS: Final = (5, 10, 20, 50, 100)
PRESETS: Final = ("gossip", "fedavg")
ROUNDS: Final = 10


def name(preset: str, peers: int) -> str:
    """A case's name."""
    return f"{preset}, {peers} peers"


def _settings(preset: str, peers: int) -> Settings:
    return Settings(preset=preset, peers=(peers,), rounds=ROUNDS, dataset="mnist", partition="iid")


def _page(found: Table) -> str:
    rows, pairs = [], []
    for peers in CROWDS:
        for preset in PRESETS:
            case = name(preset, peers)
            each = mean(found, case, "fetched_mb") / peers / ROUNDS * 1000
            cost = [cell(found, case, "fetched_mb", 1), f"{each:.0f}", cell(found, case, "seconds", 1)]
            rows.append([f"{peers}", preset, cell(found, case), *cost])
        pairs.append((f"{peers} peers: gossip - fedavg", paired(found, name("gossip", peers), name("fedavg", peers))))
    head = ["peers", "preset", "accuracy", "MB fetched by all", "kB a peer and round", "seconds of simulation"]
    return f"""
MNIST, logistic regression, shuffled equal parts, {ROUNDS} rounds of one epoch, gradient descent with learning rate 0.1
and batches of 64. In `gossip` a peer averages with up to five others; in `fedavg` with all, at most 63. More peers have
fewer rows each, and so make fewer steps in a round. Accuracy in per cent on the common test images, mean over peers.

{table(head, rows)}

{comparisons(pairs)}
"""


def _goals(found: Table) -> list[Goal]:
    return [
        Goal(
            f"gossip against fedavg, {peers} peers, MNIST",
            f"fedavg: {cell(found, name('fedavg', peers))} %, {cell(found, name('fedavg', peers), 'fetched_mb', 0)} MB",
            f"{cell(found, name('gossip', peers))} %, {cell(found, name('gossip', peers), 'fetched_mb', 0)} MB",
            "told",
        )
        for peers in (10, 100)
    ]


GOSSIP = Experiment(
    "gossip",
    "Gossip as peers grow in number",
    [Case(name(preset, peers), _settings(preset, peers)) for peers in CROWDS for preset in PRESETS],
    accuracies,
    _page,
    _goals,
)
