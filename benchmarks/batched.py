"""Local training of many peers in one process: side by side against one after the other, in alternation.

    .venv/bin/python -m benchmarks.batched [--rounds 20] [--data-dir DIR] [--threads 2]

Every round starts from the uniform mean of the last one's models. Each round is trained once by every way, in turn, so
that whatever else the machine does slows all of them alike; seconds are sums over the rounds, on the clock and of the
processor. "One after the other" is every peer's own trainer with one thread of torch: two are slower, for its
operations are too small to be shared.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks.record import write_results
from fl_node.errors import TrainingFailed
from fl_node.learning.batch import BatchTrainer
from fl_node.learning.data import load
from fl_node.learning.dataset import Dataset
from fl_node.learning.models import Weights, build, genesis
from fl_node.learning.partition import partition
from fl_node.learning.splits import Splits
from fl_node.learning.training import Trainer
from fl_node.spec import Spec, validated

Way = Callable[[Weights, int], Mapping[int, Weights]]


def spec_for(dataset: str, model: str, batch_size: int, hidden: tuple[int, ...] = (128,)) -> Spec:
    tables: dict[str, Any] = {
        "task": {"data": dataset, "input_shape": (28, 28), "classes": 10},
        "model": {"name": model, "hidden": hidden},
        "training": {"batch_size": batch_size, "learning_rate": 0.1},
    }
    return validated(Spec, tables, "benchmark")


def dealt(data: Dataset, peers: int, rows: int | None = None) -> list[Splits]:
    """Equal parts of all rows, or of the first so many; the peers test on a hundred of their own."""
    labels = data.labels[:rows]
    parts = [data.rows(part) for part in partition(labels, peers, "iid", 0)]
    none = np.arange(0)
    return [Splits(part, part.rows(none), part.rows(np.arange(min(100, len(part))))) for part in parts]


def singly(spec: Spec, splits: Sequence[Splits], threads: int) -> Way:
    trainers = {number: Trainer(spec, part, number, "cpu") for number, part in enumerate(splits, 1)}

    def train(start: Weights, sequence: int) -> dict[int, Weights]:
        torch.set_num_threads(threads)
        return {number: trainer.train(start, sequence)[0] for number, trainer in trainers.items()}

    return train


def batched(spec: Spec, splits: Sequence[Splits], threads: int) -> Way:
    trainer = BatchTrainer(spec, splits, range(1, len(splits) + 1), "cpu", threads)

    def train(start: Weights, sequence: int) -> dict[int, Weights]:
        found = {}
        for number, outcome in trainer.train(dict.fromkeys(trainer.splits, (start, sequence))).items():
            if isinstance(outcome, TrainingFailed):
                raise outcome
            found[number] = outcome[0]
        return found

    return train


def mapped(spec: Spec, splits: Sequence[Splits], threads: int) -> Way:
    """What torch itself offers for many models at once: ``torch.func.vmap`` over stacked weights."""
    modules = [build(spec) for _ in splits]
    size, count = spec.training.batch_size, min(len(part.train) for part in splits)
    features = torch.stack([torch.from_numpy(part.train.features[:count]) for part in splits])
    labels = torch.stack([torch.from_numpy(part.train.labels[:count]) for part in splits])

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(modules[0], parameters, (x,)), y)

    slopes = vmap(grad(loss))

    def train(start: Weights, sequence: int) -> dict[int, Weights]:
        torch.set_num_threads(threads)
        parameters, _ = stack_module_state(modules)
        parameters = {name: torch.from_numpy(np.stack([start[name]] * len(splits))) for name in parameters}
        generator = np.random.default_rng(sequence)
        order = torch.from_numpy(np.stack([generator.permutation(count) for _ in splits]))
        peers = torch.arange(len(splits))[:, None]
        for at in range(0, count, size):
            rows = order[:, at : at + size]
            found = slopes(parameters, features[peers, rows], labels[peers, rows])
            for name, parameter in parameters.items():
                parameter.sub_(found[name], alpha=spec.training.learning_rate)
        return {
            number: {name: stack[number - 1].numpy() for name, stack in parameters.items()}
            for number in range(1, len(splits) + 1)
        }

    return train


Spent = tuple[float, float]


def raced(spec: Spec, ways: Mapping[str, Way], rounds: int) -> tuple[dict[str, Spent], float]:
    """Seconds on the clock and of the processor that each way took for all rounds, after a first one that is not
    counted; and the largest difference between a weight of the first two ways after the last round."""
    means = {name: genesis(spec) for name in ways}
    spent: dict[str, Spent] = dict.fromkeys(ways, (0.0, 0.0))
    for sequence in range(1, rounds + 2):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found = way(means[name], sequence)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if sequence > 1:
                spent[name] = (spent[name][0] + wall, spent[name][1] + cpu)
            means[name] = {key: np.mean([one[key] for one in found.values()], axis=0) for key in means[name]}
    first, second = list(means.values())[:2]
    return spent, max(float(np.abs(first[key] - second[key]).max()) for key in first)


def told(spent: Mapping[str, Spent]) -> str:
    return "; ".join(f"{way} {wall:.2f} s (processor {cpu:.2f} s)" for way, (wall, cpu) in spent.items())


def compared(name: str, spec: Spec, splits: Sequence[Splits], rounds: int, threads: int) -> dict[str, str]:
    ways = {
        "one after the other": singly(spec, splits, 1),
        f"side by side, {threads} threads": batched(spec, splits, threads),
        "side by side, 1 thread": batched(spec, splits, 1),
    }
    spent, apart = raced(spec, ways, rounds)
    (slow, slow_cpu), (fast, _), (_, fast_cpu) = spent.values()
    found = {
        name: f"**{slow / fast:.1f} times as fast**, by processor time on one thread {slow_cpu / fast_cpu:.1f} times; "
        f"{told(spent)}; final means differ by {apart:.0e} at most",
        f"{name}, seconds a round side by side": f"{fast / rounds:.3f}",
    }
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("FL_NODE_DATA_DIR", "../shared/data")))
    options = parser.parse_args()
    rounds, threads = options.rounds, options.threads
    plain = spec_for("fashion-mnist", "logistic", 64)
    fashion = load("fashion-mnist", plain.task, options.data_dir, "train")
    found: dict[str, str] = {}
    for size in (64, 32, 10):
        spec, name = (
            spec_for("fashion-mnist", "logistic", size),
            f"100 peers, {rounds} rounds, logistic, batches of {size}",
        )
        found |= compared(name, spec, dealt(fashion, 100), rounds, threads)
    found |= compared("6 peers, 5 rounds, logistic, batches of 64", plain, dealt(fashion, 6), 5, threads)
    mnist = load("mnist", plain.task, options.data_dir, "train")
    found |= compared("1,000 peers, 10 rounds, logistic, batches of 64", plain, dealt(mnist, 1000), 10, threads)
    wide = spec_for("fashion-mnist", "mlp", 64)
    found |= compared("100 peers, 3 rounds, mlp of 128, batches of 64", wide, dealt(fashion, 100), 3, threads)
    found |= chosen("cnn of 8 and 16 channels", spec_for("fashion-mnist", "cnn", 64, (8, 16)), fashion, threads)
    found |= scored(plain, fashion, load("fashion-mnist", plain.task, options.data_dir, "test"), threads)
    write_results("batched", f"python -m benchmarks.batched --rounds {rounds} --threads {threads}", found)


def chosen(name: str, spec: Spec, data: Dataset, threads: int) -> dict[str, str]:
    """Why these are trained one after the other."""
    splits = dealt(data, 10, 10 * 320)
    ways = {
        "one after the other, 1 thread": singly(spec, splits, 1),
        f"one after the other, {threads} threads in torch": singly(spec, splits, threads),
        f"one after the other, {threads} peers at once": batched(spec, splits, threads),
        "vmap, 1 thread": mapped(spec, splits, 1),
        f"vmap, {threads} threads in torch": mapped(spec, splits, threads),
    }
    spent, _ = raced(spec, ways, 2)
    return {f"10 peers of 320 rows, 2 rounds, {name}": told(spent)}


def scored(spec: Spec, data: Dataset, common: Dataset, threads: int) -> dict[str, str]:
    """A hundred models on the same 10,000 rows."""
    splits = dealt(data, 100)
    models = dict.fromkeys(range(1, 101), genesis(spec))
    single, batch = Trainer(spec, splits[0], 1, "cpu"), BatchTrainer(spec, splits, range(1, 101), "cpu", threads)
    torch.set_num_threads(1)
    began = time.perf_counter()
    one_by_one = [single.evaluate_on(weights, common).score_ppm for weights in models.values()]
    middle = time.perf_counter()
    together = [score.score_ppm for score in batch.evaluate_on(models, common).values()]
    seconds = (middle - began, time.perf_counter() - middle)
    assert one_by_one == together
    return {"100 models scored on 10,000 rows": f"one after the other {seconds[0]:.2f} s, together {seconds[1]:.2f} s"}


if __name__ == "__main__":
    main()
