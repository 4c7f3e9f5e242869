"""Whole federations against plain PyTorch, whole processes from start to exit, in alternation.

    .venv/bin/python -m benchmarks.federation [--repeats 5] [--data-dir DIR]

Three questions:

- Six peers, Fashion-MNIST, logistic, five rounds of one epoch, sync: how long does `fl-node demo` take, everything
  included, against `benchmarks/plain_loop.py`, one process with one thread training the same rows as often?
- How long does the default demo take (four peers, five rounds, digits, baselines included)?
- Two peers with a CNN: what do ledger and content add to a round's training time?
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write_results

ROOT = Path(__file__).resolve().parent.parent
PEERS, ROUNDS = 6, 5
# Of 60,000 rows, a tenth is for validation and two tenths for testing.
ROWS = 60_000 * 7 // 10 // PEERS
OVERHEAD = ("read", "select", "fetch", "merge", "publish", "record")


def timed(*command: str) -> tuple[float, float]:
    """Wall and CPU seconds of a process and all its children, from start to exit."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def demo(out: Path, *flags: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a demo and what it wrote."""
    wall, _ = timed(sys.executable, "-m", "fl_node", "demo", "--json", str(out), *flags)
    return wall, json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("FL_NODE_DATA_DIR", "../shared/data")))
    options = parser.parse_args()
    data = options.data_dir.resolve()
    fashion = ["--dataset", "fashion-mnist", "--data-dir", str(data), "--no-baselines", "--mode", "sync"]
    floors, ours, ratios, digits, phases = [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo.json"
        plain = [sys.executable, "benchmarks/plain_loop.py", "--data-dir", str(data / "fashion-mnist")]
        for _ in range(options.repeats):
            floor, _ = timed(*plain, "--peers", str(PEERS), "--rounds", str(ROUNDS), "--rows", str(ROWS))
            wall, told = demo(out, "--peers", str(PEERS), "--rounds", str(ROUNDS), *fashion)
            floors.append(floor)
            ours.append(wall)
            ratios.append(wall / floor)
            phases.append(told["seconds"])
            digits.append(demo(out)[0])
        _, cnn = demo(out, "--peers", "2", "--rounds", "2", "--model", "cnn", *fashion)
    seconds = cnn["seconds"]
    overhead = sum(seconds[phase] for phase in OVERHEAD)
    middle = phases[sorted(range(len(ours)), key=ours.__getitem__)[len(ours) // 2]]
    write_results(
        "federation",
        f"python -m benchmarks.federation --repeats {options.repeats}",
        {
            "plain_loop_s": round(statistics.median(floors), 2),
            "demo_fashion_6_peers_s": round(statistics.median(ours), 2),
            "demo_over_plain_loop": round(statistics.median(ratios), 2),
            "demo_over_plain_loop_each": [round(ratio, 2) for ratio in ratios],
            "demo_over_plain_loop_target": 1.0,
            "demo_fashion_phases_s": {name: round(value, 2) for name, value in middle.items()},
            "demo_digits_s": round(statistics.median(digits), 2),
            "demo_digits_target_s": 12.0,
            "cnn_train_s": round(seconds["train"], 2),
            "cnn_ledger_and_content_s": round(overhead, 3),
            "cnn_overhead_over_training": round(overhead / seconds["train"], 4),
            "cnn_overhead_target": 0.05,
        },
    )


if __name__ == "__main__":
    main()
