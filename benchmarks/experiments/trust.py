"""Learned trust against fixed shares and no sharing, where peers differ and where two of six are mislabelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.experiments.experiment import Case, Experiment, Goal, Noted, Table, accuracies
from benchmarks.experiments.statistics import LEVEL, Comparison, compare, estimate, holm
from benchmarks.experiments.tables import comparisons, p_value, shown, table
from fl_node.simulation import Run, Settings

PEERS: Final = 6


@dataclass(frozen=True, slots=True)
class Task:
    """What six peers hold. ``own``: what counts is the test rows of each peer's own distribution; else the common test
    set, for the peers ``clean``, and told for all six."""

    name: str
    partition: str
    shift: str
    own: bool
    clean: tuple[int, ...] = (1, 2, 3, 4, 5, 6)


TASKS: Final = (
    Task("three classes each", "label-skew:3", "none", True),
    Task("Dirichlet(0.3)", "dirichlet:0.3", "none", True),
    Task("two clusters of three, one with permuted labels", "iid", "clusters:2", True),
    Task("two of six with 90 % wrong labels", "iid", "label-noise:0.9@5,6", False, (1, 2, 3, 4)),
    Task(
        "two of six with permuted labels, 75 % of them wrong again",
        "iid",
        "wrong-labels@5,6+label-noise:0.75@5,6",
        False,
        (1, 2, 3, 4),
    ),
    Task(
        "sizes 1:2:3:4:5:6, the fourth and fifth with 90 % wrong labels",
        "unequal",
        "label-noise:0.9@4,5",
        False,
        (1, 2, 3, 6),
    ),
)
#: The preset ``trust`` and what replaces its learned rows.
MODES: Final[Mapping[str, Mapping[str, object]]] = {
    "fixed, by samples": {"merging.aggregation": "fedavg"},
    "fixed, equal": {"merging.aggregation": "uniform"},
    "learned": {},
    "learned, faster": {"trust.learning_rate": 4.0, "trust.prior_pull": 0.2},
}
#: The mode that also trains each peer alone, for as many epochs.
BASELINE: Final = "fixed, by samples"
NONE: Final = "none"


def _cases() -> list[Case]:
    return [
        Case(
            f"{task.name}; {mode}",
            Settings(
                preset="trust",
                peers=(PEERS,),
                rounds=10,
                dataset="digits",
                partition=task.partition,
                shift=task.shift,
                baselines=mode == BASELINE,
                overrides=overrides,
            ),
        )
        for task in TASKS
        for mode, overrides in MODES.items()
    ]


def note(run: Run) -> Noted:
    """Every peer's accuracy in per cent: ``common.1``, ``own.1``, ``alone.1``, ``alone_own.1`` and so on."""
    told = accuracies(run)
    noted = {name: told[name] for name in ("seconds", "fetched_mb", "stopped")}
    for name in ("common", "own", "alone", "alone_own"):
        for number, found in enumerate(getattr(run, name), 1):
            if found is not None:
                noted[f"{name}.{number}"] = round(100 * found.accuracy, 2)
    return noted


def scores(found: Table, task: Task, mode: str, own: bool, peers: Sequence[int]) -> dict[int, float]:
    """Mean accuracy of some peers by seed."""
    case = f"{task.name}; {BASELINE if mode == NONE else mode}"
    what = {(True, True): "alone_own", (True, False): "alone", (False, True): "own", (False, False): "common"}
    kind = what[mode == NONE, own]
    by_seed = {}
    for seed, noted in sorted(found.get(case, {}).items()):
        there = [noted[f"{kind}.{peer}"] for peer in peers if f"{kind}.{peer}" in noted]
        if len(there) == len(peers):
            by_seed[seed] = sum(there) / len(there)
    return by_seed


def difference(
    found: Table, task: Task, left: str, right: str, peers: Sequence[int] | None = None
) -> Comparison | None:
    """``left - right`` in what counts for a task; ``peers``: of these instead of those with right labels."""
    ours, theirs = (scores(found, task, mode, task.own, peers or task.clean) for mode in (left, right))
    seeds = sorted(ours.keys() & theirs.keys())
    return compare([ours[s] for s in seeds], [theirs[s] for s in seeds]) if len(seeds) > 1 else None


def _cell(values: Mapping[int, float]) -> str:
    return shown(estimate(list(values.values()))) if values else "-"


def _page(found: Table) -> str:
    everybody = range(1, PEERS + 1)
    own_rows, common_rows, pairs = [], [], []
    for task in TASKS:
        for mode in (NONE, *MODES):
            counted = _cell(scores(found, task, mode, task.own, task.clean))
            if task.own:
                common = _cell(scores(found, task, mode, False, everybody))
                own_rows.append([task.name, mode, counted, common])
            else:
                everyone = _cell(scores(found, task, mode, False, everybody))
                common_rows.append([task.name, mode, counted, everyone])
        for left, right in (("learned", BASELINE), ("learned", "fixed, equal"), ("learned", NONE), (BASELINE, NONE)):
            pairs.append((f"{task.name}: {left} - {right}", difference(found, task, left, right)))
            if not task.own:
                named = f"{task.name}, all six: {left} - {right}"
                pairs.append((named, difference(found, task, left, right, everybody)))
    return f"""
Six peers, the 1,797 digits of scikit-learn, logistic regression, ten rounds of three epochs, preset `trust`: in each
round a peer draws three of the others and weighs them and itself. *Learned* is the preset as it is; *faster* has eight
times its learning rate and twice its pull to the sample prior; *fixed* has the same draws with shares by samples or
equal ones; *none* is each peer alone, for as many epochs. Accuracies in per cent, means over peers. The results were
first looked at after ten seeds, which gave the same signs throughout; ten more narrowed the intervals.

## Each peer's own distribution

The test rows are of the peer's own distribution; the common test set has all classes alike (and, with clusters, the
labels of the first).

{table(["data", "sharing", "own test rows", "common test set"], own_rows)}

## Two of six mislabelled

On the common test set, whose labels are right. The mislabelled peers' validation rows are mislabelled, too: learned
trust serves what a peer takes for the truth, and with a fast rate they end up trusting themselves and each other. Both
settings came from other seeds; that the slower one is the preset's was decided after seeing these results.

{table(["data", "sharing", "the four others", "all six"], common_rows)}

## Differences

In the column that counts, and of all six where two are mislabelled.

{comparisons(pairs)}

Where peers differ as much as here, no sharing is hard to beat on their own rows: see the rows *learned - none*.
"""


def _goals(found: Table) -> list[Goal]:
    wanted = []
    for task in TASKS:
        sides = [("learned", BASELINE)] if task.own else [(BASELINE, NONE), ("learned", BASELINE)]
        for left, right in sides:
            wanted.append((f"{task.name}: {left} - {right}", difference(found, task, left, right)))
            if not task.own:
                one = difference(found, task, left, right, range(1, PEERS + 1))
                wanted.append((f"{task.name}, all six: {left} - {right}", one))
    adjusted = iter(holm([one.p for _, one in wanted if one is not None]))
    goals = []
    for what, one in wanted:
        if one is None:
            goals.append(Goal(what, "> 0", "-", "not run"))
            continue
        p = next(adjusted)
        sure = "**missed**" if one.difference.mean <= 0 else "reached" if p < 1 - LEVEL else "not shown"
        goals.append(Goal(what, "> 0", f"{shown(one.difference)} points", f"{sure} (p {p_value(p)} after Holm)"))
    return goals


TRUST = Experiment("trust", "Learned trust", _cases(), note, _page, _goals)
