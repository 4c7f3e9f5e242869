"""Speed of the exact merge against plain loops over the same arrays, in one process and in alternation.

    .venv/bin/python benchmarks/merge.py [--models 5] [--megabytes 100] [--repeats 9] [--out benchmarks/results]

The floor is what a plain float32 average costs that writes nothing twice: `tmp = x * share; acc += tmp`, in place. Each
repeat runs every contender once, in turn, so that a busy machine slows them alike; ratios are medians over repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fl_node.merging.merge import merge
from fl_node.merging.weights import decode, digest, encode, schema_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    result = measure(options.models, options.megabytes, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "merge.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    (options.out / "merge.md").write_text(table(result), "utf-8")
    print(table(result))


def measure(count: int, megabytes: int, repeats: int) -> dict[str, object]:
    """Seconds of each contender (median) and the median of its ratio to the floor in the same repeat."""
    size = megabytes * 10**6 // 4
    draw = np.random.default_rng(0)
    models = [{"weight": draw.standard_normal(size, dtype=np.float32)} for _ in range(count)]
    shares = [1_000_000 // count] * count
    shares[0] += 1_000_000 - sum(shares)
    keys = [bytes([k]) for k in range(count)]
    acc, scratch = np.empty(size, np.float32), np.empty(size, np.float32)

    def floor() -> None:
        acc.fill(0)
        for model, share in zip(models, shares, strict=True):
            np.multiply(model["weight"], np.float32(share / 1e6), out=scratch)
            np.add(acc, scratch, out=acc)

    file = b"".join(encode(models[0]))
    schema = schema_of(models[0])
    contenders: dict[str, Callable[[], object]] = {
        "plain in-place float32 multiply-add (floor)": floor,
        "merge, 1 thread": lambda: merge(models, shares, keys, threads=1),
        "merge, 2 threads": lambda: merge(models, shares, keys, threads=2),
        "np.mean of the stack": lambda: np.mean([model["weight"] for model in models], axis=0, dtype=np.float64),
        "decode and check one model": lambda: decode(file, schema),
        "digest of one model": lambda: digest(models[0]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # touch every page once
    for _ in range(repeats):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    base = seconds["plain in-place float32 multiply-add (floor)"]
    return {
        "command": " ".join([".venv/bin/python benchmarks/merge.py", *sys.argv[1:]]),
        "models": count,
        "megabytes": megabytes,
        "repeats": repeats,
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "numpy": np.__version__},
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "speed_against_floor": {
            name: statistics.median(b / t for b, t in zip(base, times, strict=True)) for name, times in seconds.items()
        },
    }


def table(result: dict[str, object]) -> str:
    seconds, ratio = result["seconds"], result["speed_against_floor"]
    assert isinstance(seconds, dict) and isinstance(ratio, dict)
    lines = [
        "# Exact merge",
        "",
        f"`{result['command']}`: {result['models']} models of {result['megabytes']} MB, medians of "
        f"{result['repeats']} repeats in alternation, on {result['machine']}.",
        "",
        "| | seconds | speed against the floor |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {seconds[name]:.4f} | {ratio[name]:.2f}x |" for name in seconds]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
