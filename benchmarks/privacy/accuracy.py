"""What differential privacy costs in accuracy: a federation of ten against all rows in one place, at the same epsilon.

    .venv/bin/python -m benchmarks.privacy.accuracy [--only mnist,fashion,cnn] [--seeds 5] [--data-dir DIR] [--tune]

DP-SGD (``privacy.mechanism = "example"``) at delta 1e-5, neighbours by one row more or less. *Federation*: ten peers
with 6,000 rows each, dealt out iid, whose updates are averaged after every round; each peer's own epsilon is the one
given. *Pooled*: the same software with one peer that has all 60,000 rows. Both take 20 noisy steps a round with 5% of
their rows in each; learning rates fall to zero by a cosine. Accuracy is that of the final model on 10,000 test rows.

The learning rate and the clipping norm of each side, data set and epsilon were chosen among the same candidates by
``--tune``, on seed 1000; results are on seeds 0, 1, ... Finished runs are kept in
``results/privacy-accuracy.runs.json`` and not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.record import RESULTS, write_results
from fl_node.simulation import Settings, simulate

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = RESULTS / "privacy-accuracy.runs.json"
DELTA, ROWS, PEERS, RATE = 1e-5, 60_000, 10, 0.05
TUNED_ON = 1000
#: (learning rate, clipping norm) to choose from.
CANDIDATES = ((20.0, 0.3), (20.0, 1.0))
#: Points that a federation may be below pooled training.
ALLOWED = {1.0: 2.5, 3.0: 1.5, 8.0: 1.0}


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison: a data set and a model at some epsilons."""

    name: str
    dataset: str
    model: str
    rounds: int
    epsilons: tuple[float, ...]
    candidates: tuple[tuple[float, float], ...] = CANDIDATES
    most_seeds: int = 1000


PARTS = {
    part.name: part
    for part in (
        Part("mnist", "mnist", "logistic", 20, (1.0, 3.0, 8.0)),
        Part("fashion", "fashion-mnist", "logistic", 20, (1.0, 3.0, 8.0)),
        Part("cnn", "mnist", "cnn", 8, (3.0,), ((2.0, 1.0), (4.0, 1.0), (8.0, 1.0)), 2),
    )
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training, and the accuracy that came of it."""

    part: str
    peers: int
    epsilon: float
    learning_rate: float
    clip_norm: float
    seed: int
    accuracy: float
    seconds: float


def trained(part: Part, peers: int, epsilon: float, rate: float, clip: float, seed: int, data: Path) -> Run:
    """Simulate one federation, of one peer for pooled training."""
    overrides = {
        "task.validation": 0.0,
        "training.schedule": "cosine",
        "privacy.encrypt": False,
        "privacy.mechanism": "example",
        "privacy.epsilon": epsilon,
        "privacy.delta": DELTA,
        "privacy.clip_norm": clip,
    }
    if part.model == "cnn":
        overrides["model.hidden"] = [8, 16]
    began = time.perf_counter()
    result = simulate(
        Settings(
            preset="fedavg",
            peers=(peers,),
            rounds=part.rounds,
            dataset=part.dataset,
            data_dir=data,
            model=part.model,
            mode="sync",
            epochs=1,
            batch_size=round(RATE * ROWS / peers),
            learning_rate=rate,
            overrides=overrides,
            seed=seed,
            test_rows="common",
            threads=1,
        )
    )
    (run,) = result.runs
    found = result.summary("accuracy").mean
    if run.failures or found is None:
        raise SystemExit(f"{part.name}, {peers} peers, epsilon {epsilon}: {run.failures or 'no final model'}")
    return Run(part.name, peers, epsilon, rate, clip, seed, found, round(time.perf_counter() - began, 1))


class Runs:
    """Those that are finished, on disk after each."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._runs = [Run(**one) for one in json.loads(KEPT.read_text())] if KEPT.is_file() else []

    def get(self, part: Part, peers: int, epsilon: float, rate: float, clip: float, seed: int) -> Run:
        wanted = (part.name, peers, epsilon, rate, clip, seed)
        for run in self._runs:
            if (run.part, run.peers, run.epsilon, run.learning_rate, run.clip_norm, run.seed) == wanted:
                return run
        run = trained(part, peers, epsilon, rate, clip, seed, self._data)
        print(run, flush=True)
        self._runs.append(run)
        KEPT.write_text(json.dumps([asdict(one) for one in self._runs], indent=1) + "\n")
        return run

    def chosen(self, part: Part, peers: int, epsilon: float) -> Run:
        """The best of the candidates on the seed for tuning."""
        found = [self.get(part, peers, epsilon, rate, clip, TUNED_ON) for rate, clip in part.candidates]
        return max(found, key=lambda run: run.accuracy)


def compared(runs: Runs, part: Part, seeds: int) -> Iterator[tuple[str, str]]:
    """A line of the table for each epsilon."""
    for epsilon in part.epsilons:
        told, means = [], []
        for peers in (1, PEERS):
            best = runs.chosen(part, peers, epsilon)
            found = [
                100 * runs.get(part, peers, epsilon, best.learning_rate, best.clip_norm, seed).accuracy
                for seed in range(min(seeds, part.most_seeds))
            ]
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            means.append(statistics.fmean(found))
            side = "pooled" if peers == 1 else f"{PEERS} peers"
            setting = f"rate {best.learning_rate:g}, clip {best.clip_norm:g}"
            told.append(f"{side} {means[-1]:.2f} +- {spread:.2f} ({setting}; {len(found)} seeds)")
        below = means[0] - means[1]
        allowed = f", allowed {ALLOWED[epsilon]:g}" if part.name == "mnist" else ""
        yield f"{part.name}, epsilon {epsilon:g}", f"{'; '.join(told)}; **{below:.2f} points below**{allowed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--tune", action="store_true", help="only choose settings")
    arguments = parser.parse_args()
    runs, found = Runs(arguments.data_dir), {}
    for part in (PARTS[name] for name in arguments.only.split(",")):
        if arguments.tune:
            for epsilon, peers in itertools.product(part.epsilons, (1, PEERS)):
                best = runs.chosen(part, peers, epsilon)
                print(part.name, epsilon, peers, best, flush=True)
            continue
        found |= dict(compared(runs, part, arguments.seeds))
        command = f".venv/bin/python -m benchmarks.privacy.accuracy --seeds {arguments.seeds}"
        write_results("privacy-accuracy", command, found)


if __name__ == "__main__":
    main()
