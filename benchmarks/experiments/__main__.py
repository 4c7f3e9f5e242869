"""Run experiments and write their pages: ``python -m benchmarks.experiments NAME ...``.

    python -m benchmarks.experiments logistic --seeds 10
    python -m benchmarks.experiments --pages

What was run already with the same settings is not run again: a run that was stopped goes on, and ``--pages`` writes
the pages from what is there. Raw numbers are in ``docs/experiments/results``.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from pathlib import Path

from benchmarks.experiments.catalogue import EXPERIMENTS
from benchmarks.experiments.experiment import Experiment
from benchmarks.experiments.overview import overview
from benchmarks.experiments.results import Results
from fl_node.errors import FlNodeError

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ROOT / "docs" / "experiments"
#: Settings were chosen with seeds from 100 on; these are reported.
FIRST_SEED = 0


def main() -> int:
    options = _options()
    unknown = [name for name in options.names if name not in EXPERIMENTS]
    if unknown:
        print(f"unknown experiment {', '.join(unknown)}; expected some of {', '.join(EXPERIMENTS)}", file=sys.stderr)
        return 2
    try:
        for name in options.names or EXPERIMENTS:
            experiment = EXPERIMENTS[name]
            if not options.pages:
                run(experiment, options.seeds, options.data_dir.resolve(), options.case)
            write_page(experiment)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except FlNodeError as error:
        print(f"benchmarks.experiments: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        (PAGES / "README.md").write_text(overview(PAGES), "utf-8")
    return 0


def run(experiment: Experiment, seeds: int, data_dir: Path, only: str) -> None:
    """Run what is missing, seed by seed, so that a run that is stopped has whole pairs."""
    results = Results.load(_raw(experiment))
    results.machine = _machine()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for case in experiment.cases:
            enough = case.seeds and seed - FIRST_SEED >= case.seeds
            if enough or not re.search(only, case.name) or seed in results.of(case):
                continue
            began = time.perf_counter()
            noted = experiment.note(case.run(seed, data_dir))
            results.add(case, seed, noted)
            told = " ".join(f"{name}={value:.2f}" for name, value in noted.items())
            print(
                f"{experiment.name} {case.name} seed {seed}: {told} ({time.perf_counter() - began:.1f} s)", flush=True
            )


def write_page(experiment: Experiment) -> None:
    """The page from the raw numbers that are there."""
    results = Results.load(_raw(experiment))
    found = {case.name: results.of(case) for case in experiment.cases}
    runs = [noted for by_seed in found.values() for noted in by_seed.values()]
    if not runs:
        return
    seeds = max(len(by_seed) for by_seed in found.values())
    minutes = sum(noted.get("seconds", 0.0) for noted in runs) / 60
    command = f"python -m benchmarks.experiments {experiment.name} --seeds {seeds}"
    raw = f"results/{experiment.name}.json"
    head = f"""# {experiment.title}

`{command}`: {len(runs)} runs of `fl-node simulate`'s code, {minutes:.0f} minutes in all, on
{results.machine}. Raw numbers: [{raw}]({raw}).
Intervals are 95 % (Student's t over seeds); differences are paired by seed, p-values adjusted after Holm in each table.
Settings were chosen with seeds from 100 on, and are reported for seeds 0 to {seeds - 1}.
"""
    (PAGES / f"{experiment.name}.md").write_text(f"{head}\n{experiment.page(found)}\n", "utf-8")


def _raw(experiment: Experiment) -> Path:
    return PAGES / "results" / f"{experiment.name}.json"


def _machine() -> str:
    return f"a {len(os.sched_getaffinity(0))}-core {platform.machine()} machine, shared with other work"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(EXPERIMENTS)}; default all")
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on")
    parser.add_argument("--case", default="", help="only cases whose name this pattern is found in")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("FL_NODE_DATA_DIR", "../shared/data")))
    parser.add_argument("--pages", action="store_true", help="run nothing, write the pages anew")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
