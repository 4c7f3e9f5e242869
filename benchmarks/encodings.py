"""What encodings cost in accuracy and save in bytes, and how fast they are.

    .venv/bin/python -m benchmarks.encodings [--seeds 5] [--data ../shared/data] [--rounds 10]

Accuracy: the CNN experiment of docs/experiments (Fashion-MNIST, ten peers, Dirichlet(0.5), all peers merge all), run
by `fl-node simulate`'s code with the spec's defaults and nothing but `encoding` changed, in the clear. Each seed fixes
data split, genesis and order of batches for all encodings. Bytes are those of payloads as published, as a share of what
the same updates take as plain files. Runs that are in the results already are not repeated.

Speed: of eight float32 matrices of 1024 x 1024, in one thread, as multiples of the time of SHA-256 over the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.experiments.catalogue import EXPERIMENTS
from benchmarks.experiments.experiment import percent
from benchmarks.experiments.statistics import compare, estimate
from benchmarks.record import RESULTS, write_results
from fl_node.merging import encodings, weights
from fl_node.simulation import Run, Settings, simulate
from fl_node.tables import EncodingSpec

#: Keys of ``encoding`` that differ from the defaults.
CASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "f32": {},
    "top-k-delta": {"kind": "top-k-delta"},
    "int8-delta": {"kind": "int8-delta"},
    "top-k-delta without error feedback": {"kind": "top-k-delta", "error_feedback": False},
    "int8-delta without error feedback": {"kind": "int8-delta", "error_feedback": False},
    "f16": {"kind": "f16"},
}
NOTES: Final = RESULTS / "encodings-runs.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    command = " ".join([".venv/bin/python -m benchmarks.encodings", *sys.argv[1:]])
    found = speed()
    runs = all_runs(options.seeds, options.rounds, options.data)
    write_results("encodings", command, table(runs, options.seeds, options.rounds) | found)


def all_runs(seeds: int, rounds: int, data: Path) -> dict[str, dict[str, float]]:
    """Noted numbers by case, rounds, encoding's keys, and seed; written after each run."""
    noted: dict[str, dict[str, float]] = json.loads(NOTES.read_text()) if NOTES.exists() else {}
    # Those that goals are about first.
    wanted = [(name, seed) for some in (list(CASES)[:3], list(CASES)[3:]) for seed in range(seeds) for name in some]
    for name, seed in wanted:
        key = key_of(name, rounds, seed)
        if key in noted:
            continue
        result = simulate(replace(settings(name, rounds), data_dir=data, seeds=1, seed=seed, threads=1))
        if result.interrupted:
            raise KeyboardInterrupt
        noted[key] = note(result.runs[0])
        print(key, noted[key], file=sys.stderr, flush=True)
        scratch = NOTES.with_suffix(".new")
        scratch.write_text(json.dumps(noted, indent=1, sort_keys=True) + "\n")
        scratch.replace(NOTES)
    return noted


def settings(name: str, rounds: int) -> Settings:
    """The CNN experiment with another encoding."""
    (case,) = (case for case in EXPERIMENTS["cnn"].cases if "Dirichlet" in case.name)
    changed = {f"encoding.{key}": value for key, value in CASES[name].items()}
    overrides = {**case.settings.overrides, "privacy.encrypt": False, **changed}
    return replace(case.settings, rounds=rounds, overrides=overrides)


def key_of(name: str, rounds: int, seed: int) -> str:
    """Names a run by what decides about its result."""
    keys = EncodingSpec(**CASES[name])
    told = keys.model_dump(exclude=None if keys.kind.endswith("delta") else set(type(keys).model_fields) - {"kind"})
    return f"{rounds} rounds, seed {seed}, " + ", ".join(f"{key} {value}" for key, value in sorted(told.items()))


def note(run: Run) -> dict[str, float]:
    """Accuracy of the final merged model in per cent (mean over peers), and bytes of updates by their place: those of
    round 1 are full ones; those that close are their base, plain."""
    by_round: dict[str, int] = {}
    for row in run.rows:
        key = "closing" if row.final else f"round {row.round}"
        by_round[key] = by_round.get(key, 0) + row.published_bytes
    return {
        "accuracy": percent([one.accuracy for one in run.common if one]),
        "stopped": float(len(run.failures)),
        "seconds": round(run.seconds),
        **by_round,
    }


def table(noted: Mapping[str, Mapping[str, float]], seeds: int, rounds: int) -> dict[str, object]:
    """Rows of the results."""
    told: dict[str, object] = {}
    every = EncodingSpec().full_every
    for name in CASES:
        mine = [noted[key_of(name, rounds, seed)] for seed in range(seeds)]
        plain = [noted[key_of("f32", rounds, seed)] for seed in range(seeds)]
        accuracy = estimate([one["accuracy"] for one in mine])
        told[f"{name}: accuracy, %"] = f"{accuracy.mean:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"
        if name != "f32":
            apart = compare([one["accuracy"] for one in mine], [one["accuracy"] for one in plain]).difference
            told[f"{name}: less f32, points"] = f"{apart.mean:+.2f} [{apart.low:+.2f}, {apart.high:+.2f}]"
        trained = [f"round {number}" for number in range(1, rounds + 1)]
        between = [key for number, key in enumerate(trained) if number % every]
        told[f"{name}: bytes of an update, full ones included, % of f32"] = share(mine, plain, trained)
        told[f"{name}: bytes of an update, full ones left out, % of f32"] = share(mine, plain, between)
        told[f"{name}: bytes of all, closing ones too, % of f32"] = share(mine, plain, [*trained, "closing"])
        if stopped := sum(one["stopped"] for one in mine):
            told[f"{name}: peers that stopped"] = int(stopped)
    told["seeds, rounds"] = f"{seeds}, {rounds}"
    return told


def share(mine: list[Mapping[str, float]], plain: list[Mapping[str, float]], keys: list[str]) -> str:
    """Bytes of the same updates, in per cent."""
    return f"{100 * sum(one[key] for one in mine for key in keys) / sum(one[key] for one in plain for key in keys):.1f}"


def speed() -> dict[str, object]:
    """Times of encoding and decoding, as multiples of SHA-256's."""
    draw = np.random.default_rng(0)
    before = {f"layer{k}.weight": draw.normal(scale=0.05, size=(1024, 1024)).astype(np.float32) for k in range(8)}
    after = {
        name: (array + 0.002 * draw.standard_t(5, array.shape)).astype(np.float32) for name, array in before.items()
    }
    schema = weights.schema_of(after)
    raw = b"".join(weights.encode(after, "speed"))
    told: dict[str, object] = {"speed: float32 bytes": len(raw)}
    for kind in ("f32", "f16", "int8-delta", "top-k-delta"):
        spec = EncodingSpec(kind=kind)
        made = encodings.encode(spec, after, "speed", reference=before, delta=True)
        payload = b"".join(made.buffers)
        there, back = ratios(
            lambda: hashlib.sha256(raw).digest(),
            lambda spec=spec: encodings.encode(spec, after, "speed", reference=before, delta=True),
            lambda payload=payload, made=made: encodings.decode(payload, made.encoding, schema, lambda: before),
        )
        told[f"speed: {kind}, encode, times SHA-256"] = round(there, 1)
        told[f"speed: {kind}, decode, times SHA-256"] = round(back, 1)
        told[f"speed: {kind}, bytes, % of f32"] = round(100 * len(payload) / made.plain_bytes, 1)
    return told


def ratios(yardstick: Callable[[], object], *others: Callable[[], object], repeats: int = 5) -> list[float]:
    """Medians over repeats in alternation, so that a busy machine slows all alike."""
    found: list[list[float]] = [[] for _ in others]
    for _ in range(repeats):
        unit = _seconds(yardstick)
        for ratio, other in zip(found, others, strict=True):
            ratio.append(_seconds(other) / unit)
    return [sorted(some)[len(some) // 2] for some in found]


def _seconds(work: Callable[[], object]) -> float:
    # Of this process alone: others share the machine.
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
