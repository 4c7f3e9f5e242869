"""Speed of the robust rules against a plain mean of the same models, in one process and in alternation.

    .venv/bin/python -m benchmarks.robust [--models 10] [--parameters 25000000] [--repeats 5]

The plain mean is `tmp = x * share; acc += tmp` in float32, in place; the exact mean is what `uniform` merges by. Each
repeat runs every contender once, in turn, so that a busy machine slows them alike; ratios are medians over repeats. Two
numpy one-liners show what the usual way costs. Memory: peak beyond models and result, in an untimed pass.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import numpy as np

from benchmarks.record import write_results
from fl_node.merging.clipping import centred_clipping, clipped
from fl_node.merging.distances import squared_distances
from fl_node.merging.geometric import geometric_median
from fl_node.merging.krum import choose
from fl_node.merging.merge import mean
from fl_node.merging.robust import median, trimmed_mean
from fl_node.merging.shares import largest_remainder
from fl_node.merging.stack import Stack

FLOOR: Final = "plain float32 mean"
BYZANTINE: Final = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=25_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.models, options.parameters, options.repeats)
    command = " ".join([".venv/bin/python -m benchmarks.robust", *sys.argv[1:]])
    write_results("robust", command, found)


def measure(count: int, size: int, repeats: int) -> dict[str, object]:
    """Per contender: seconds (median), times the plain mean and times the exact mean (medians of ratios), memory."""
    draw = np.random.default_rng(0)
    models = [{"weight": draw.standard_normal(size, dtype=np.float32)} for _ in range(count)]
    contenders = rules(models) | one_liners(models)
    peaks = {name: peak_megabytes(run) for name, run in contenders.items()}  # touches every page once, too
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    result = 4 * size / 1e6
    told: dict[str, object] = {"models": f"{count} of {size:,} float32", "repeats": f"{repeats}, medians"}
    return told | {
        name: f"{statistics.median(times):.3f} s, {against(times, seconds[FLOOR])}x plain, "
        f"{against(times, seconds['exact mean'])}x exact mean, {max(0.0, peaks[name] - result):.0f} MB"
        for name, times in seconds.items()
    }


def against(times: list[float], base: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(times, base, strict=True)):.2f}"


def peak_megabytes(run: Callable[[], object]) -> float:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def rules(models: list[dict[str, np.ndarray]]) -> dict[str, Callable[[], object]]:
    count = len(models)
    keys = [bytes([k]) for k in range(count)]
    centre, shares = models[0], largest_remainder([1] * count, keys)

    def plain() -> None:
        acc, scratch = np.zeros_like(centre["weight"]), np.empty_like(centre["weight"])
        for model in models:
            np.multiply(model["weight"], np.float32(1 / count), out=scratch)
            np.add(acc, scratch, out=acc)

    def multi_krum(stack: Stack) -> None:
        choice = choose(squared_distances(stack), stack.keys, BYZANTINE, 0)
        kept = sorted(choice.chosen)
        parts = dict(zip(kept, largest_remainder([1] * len(kept), [keys[k] for k in kept]), strict=True))
        mean(stack, [parts.get(k, 0) for k in range(count)])

    made: dict[str, Callable[[], object]] = {FLOOR: plain}
    for stack, where in ((Stack(models, keys), ""), (Stack(models, keys, threads=2), ", 2 threads")):
        made |= {
            f"exact mean{where}": lambda s=stack: mean(s, shares),
            f"median{where}": lambda s=stack: median(s),
            f"trimmed mean, f = {BYZANTINE}{where}": lambda s=stack: trimmed_mean(s, BYZANTINE),
            f"multi-krum, f = {BYZANTINE}{where}": lambda s=stack: multi_krum(s),
            f"geometric median, 8 steps{where}": lambda s=stack: geometric_median(s, 8),
            f"centred clipping, 8 steps{where}": lambda s=stack: centred_clipping(s, centre, 1e3, 8),
            f"median clip, then exact mean{where}": lambda s=stack: mean(clipped(s, centre, None), shares),
        }
    return made


def one_liners(models: list[dict[str, np.ndarray]]) -> dict[str, Callable[[], object]]:
    arrays = [model["weight"] for model in models]
    kept = slice(BYZANTINE, len(arrays) - BYZANTINE)
    return {
        "np.median of the stack": lambda: np.median(np.stack(arrays), axis=0),
        "np.sort of the stack, then mean": lambda: np.sort(np.stack(arrays), axis=0)[kept].mean(axis=0),
    }


if __name__ == "__main__":
    main()
