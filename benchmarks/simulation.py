"""`fl-node simulate`, whole processes from start to exit.

    .venv/bin/python -m benchmarks.simulation [--repeats 5] [--data-dir DIR] [--only plain,batch,large,flat]

Four questions:

- plain: six peers, Fashion-MNIST, logistic, all 60,000 rows, five rounds of one epoch: how long against
  `benchmarks/plain_loop.py`, the same training as one plain script, in alternation?
- batch: a hundred peers, twenty rounds of gossip, MNIST: whole simulations, trained side by side against one after the
  other. `benchmarks/batched.py` has the training alone.
- large: a thousand peers, gossip with k = 5, MNIST, ten rounds: time and memory.
- flat: what one round of one peer costs under gossip, with as many rows a peer for 10 to 1,000 peers.

Other programs on the machine slow a process on the clock; the processor's seconds stand beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_results
from fl_node.learning.images import read_idx
from fl_node.simulation import Settings
from fl_node.simulation import simulate as in_process

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("plain", "batch", "large", "flat")
GOSSIP = ("--preset", "gossip", "--set", "merging.k=5")
ROWS_A_PEER = 75


@dataclass(frozen=True, slots=True)
class Timed:
    """A process: wall and processor seconds from start to exit, peak resident memory, and its JSON."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    told: dict[str, Any]


def timed(*command: object) -> Timed:
    """Run a process alone and take its times and memory from the kernel."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
        out.seek(0)
        return Timed(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, json.load(out))


def simulate(*flags: object) -> Timed:
    return timed(sys.executable, "-m", "fl_node", "simulate", "--json", *flags)


def against_plain(data: Path, repeats: int) -> dict[str, object]:
    flags = ("--preset", "fedavg", "--peers", 6, "--rounds", 5, "--epochs", 1, "--dataset", "fashion-mnist")
    flags += ("--data-dir", data, "--test-rows", "common", "--set", "task.validation=0.0")
    floors, ours = [], []
    for _ in range(repeats):
        floors.append(
            timed(sys.executable, "benchmarks/plain_loop.py", "--data-dir", data / "fashion-mnist", "--rows", 10_000)
        )
        ours.append(simulate(*flags))
    walls = [one.wall_s / floor.wall_s for one, floor in zip(ours, floors, strict=True)]
    cpus = [one.cpu_s / floor.cpu_s for one, floor in zip(ours, floors, strict=True)]
    return {
        "plain_loop_s": median(floor.wall_s for floor in floors),
        "simulate_6_peers_s": median(one.wall_s for one in ours),
        "simulate_over_plain_loop": median(walls),
        "simulate_over_plain_loop_each": [round(value, 2) for value in walls],
        "simulate_over_plain_loop_processor": median(cpus),
        "simulate_over_plain_loop_target": 1.0,
        "simulate_6_peers_round_s": median((one.told["seconds"]["per_round"][0] for one in ours), 3),
        "simulate_6_peers_round_target_s": 0.2,
        "accuracy_plain_loop": round(floors[0].told["accuracy"], 4),
        "accuracy_simulate": round(ours[0].told["accuracy"]["mean"], 4),
    }


def batched(data: Path, repeats: int) -> dict[str, object]:
    flags = (*GOSSIP, "--peers", 100, "--rounds", 20, "--dataset", "mnist", "--data-dir", data)
    pairs = [(simulate(*flags, "--batch", "never"), simulate(*flags, "--batch", "always")) for _ in range(repeats)]
    return {
        "loop_100_peers_s": median(loop.wall_s for loop, _ in pairs),
        "batched_100_peers_s": median(batch.wall_s for _, batch in pairs),
        "loop_over_batched_whole_process": median(loop.wall_s / batch.wall_s for loop, batch in pairs),
        "loop_over_batched_whole_process_processor": median(loop.cpu_s / batch.cpu_s for loop, batch in pairs),
        "accuracy_loop_and_batched": [round(one.told["accuracy"]["mean"], 4) for one in pairs[0]],
    }


def large(data: Path) -> dict[str, object]:
    found = simulate(*GOSSIP, "--peers", 1000, "--rounds", 10, "--dataset", "mnist", "--data-dir", data)
    return {
        "gossip_1000_peers_s": round(found.wall_s, 1),
        "gossip_1000_peers_processor_s": round(found.cpu_s, 1),
        "gossip_1000_peers_target_s": 180,
        "gossip_1000_peers_peak_mb": round(found.peak_bytes / 1e6),
        "gossip_1000_peers_accuracy": round(found.told["accuracy"]["mean"], 4),
    }


def flat(data: Path, counts: Sequence[int] = (10, 30, 100, 300, 1000)) -> dict[str, object]:
    """Peers of equally many rows: a part of MNIST, in a file."""
    pixels = read_idx(data / "mnist" / "train-images-idx3-ubyte.gz")
    labels = read_idx(data / "mnist" / "train-labels-idx1-ubyte.gz")
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for peers in counts:
            wanted = np.arange(peers * ROWS_A_PEER) % len(labels)
            file = Path(folder) / f"{peers}.npz"
            np.savez(file, x=pixels[wanted], y=labels[wanted], scale=np.float32(1 / 255))
            spec = Path(folder) / f"{peers}.toml"
            spec.write_text(
                f'[task]\ndata = "npz:{file}"\ninput_shape = [28, 28]\n[training]\nlearning_rate = 0.1\n'
                '[merging]\nselection = "random-k"\nk = 5\naggregation = "uniform"\n[rounds]\nplanned = 5\n'
            )
            costs.append(tick_cost(Settings(spec=spec, peers=(peers,), rounds=max(6, 400 // peers), threads=1)))
    return {
        "gossip_processor_ms_a_peer_round": {str(n): round(cost, 2) for n, cost in zip(counts, costs, strict=True)},
        "gossip_most_over_least": round(max(costs) / min(costs), 2),
    }


def tick_cost(settings: Settings) -> float:
    """Processor milliseconds of one peer in a round in which it merges and trains, median over the rounds."""
    marks: list[float] = []
    in_process(settings, lambda peers, seed, rows: marks.append(time.process_time()))
    # The first round merges nothing; the last two are the closing one, which is also judged, and the end.
    ticks = [(after - before) * 1000 for before, after in itertools.pairwise(marks[:-2])]
    return statistics.median(ticks) / settings.peers[0]


def median(values: Any, digits: int = 2) -> float:
    return round(statistics.median(values), digits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("FL_NODE_DATA_DIR", "../shared/data")))
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    options = parser.parse_args()
    data, wanted = options.data_dir.resolve(), options.only.split(",")
    found: dict[str, object] = {}
    if "plain" in wanted:
        found |= against_plain(data, options.repeats)
    if "batch" in wanted:
        found |= batched(data, max(1, options.repeats // 2))
    if "large" in wanted:
        found |= large(data)
    if "flat" in wanted:
        found |= flat(data)
    write_results("simulation", f"python -m benchmarks.simulation --repeats {options.repeats}", found)


if __name__ == "__main__":
    main()
