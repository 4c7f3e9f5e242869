"""What an experiment is: named cases of the simulation, what is noted of each run, and the page made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from fl_node.simulation import Run, Settings, simulate

#: What is noted of one run: numbers by name.
Noted: TypeAlias = dict[str, float]
#: Noted numbers by case, then seed.
Table: TypeAlias = Mapping[str, Mapping[int, Noted]]


@dataclass(frozen=True, slots=True)
class Case:
    """One setting that is run with every seed. ``seeds``: at most so many of them; 0: all."""

    name: str
    settings: Settings
    seeds: int = 0

    @property
    def digest(self) -> str:
        """Of what decides about the result: with other settings, what was noted before is of no use."""
        settings = self.settings
        spec = settings.federation(settings.peers[0], 0).spec
        # Defaults count, for they may change; but not those of a table that nobody reads here.
        unread = set() if spec.merging.aggregation == "trust" else {"trust"}
        told = {
            "spec": spec.model_dump(mode="json", exclude=unread),
            "peers": settings.peers,
            "partition": settings.partition,
            "shift": settings.shift,
            "test_rows": settings.test_rows,
            "baselines": settings.baselines,
            "faults": asdict(settings.faults),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, seed: int, data_dir: Path) -> Run:
        """The run of one seed."""
        result = simulate(replace(self.settings, data_dir=data_dir, seeds=1, seed=seed, threads=1))
        if result.interrupted:
            raise KeyboardInterrupt
        return result.runs[0]


@dataclass(frozen=True, slots=True)
class Goal:
    """A line of the overview: what was to be reached, and what was."""

    what: str
    target: str
    reached: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """A page of docs/experiments. ``page`` makes its Markdown, without the heading, and ``goals`` its lines of the
    overview, from what was noted."""

    name: str
    title: str
    cases: Sequence[Case]
    note: Callable[[Run], Noted]
    page: Callable[[Table], str]
    goals: Callable[[Table], Sequence[Goal]]


def accuracies(run: Run) -> Noted:
    """In per cent: honest peers' final merged models on the common test set (``accuracy``) and on rows of each one's
    own distribution (``own``), means over peers; where baselines were asked for, ``pooled``, ``alone`` and
    ``alone_own``. Bytes in MB that all peers took from each other; seconds of this process."""
    noted = {
        "accuracy": percent([one.accuracy for one in run.common if one]),
        "own": percent([one.accuracy for one in run.own if one]),
        "fetched_mb": run.fetched_bytes / 1e6,
        "seconds": run.seconds,
        "stopped": float(len(run.failures)),
    }
    if run.pooled is not None:
        noted["pooled"] = 100 * run.pooled.accuracy
    if run.alone:
        noted["alone"] = percent([one.accuracy for one in run.alone if one])
    if run.alone_own:
        noted["alone_own"] = percent([one.accuracy for one in run.alone_own if one])
    return noted


def percent(fractions: Sequence[float]) -> float:
    """The mean in per cent; 0 where there is nothing: a federation that nobody could finish is worth nothing."""
    return 100 * sum(fractions) / len(fractions) if fractions else 0.0
