"""Candidates and models for tests of the rules, in the forms that the package and ``plain_rules`` take."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from logs import spec

from fl_node.merging.aggregation import Merge, aggregate
from fl_node.merging.standing import Standing
from fl_node.prefix import UpdateEntry
from fl_node.records import Flag, Update, UpdateRef
from fl_node.spec import Spec

DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
POLICY = {
    "aggregation": "uniform", "byzantine": 1, "keep": 0, "iterations": 8, "clip": "none", "clip_norm": 1.0,
    "sample_cap": 0, "staleness_discount": False, "floor_ppm": 10_000,
}  # fmt: skip
RULES = [
    "centred-clipping", "fedavg", "geometric-median", "krum", "median", "multi-krum", "score", "trimmed-mean", "trust",
    "uniform",
]  # fmt: skip
Model = dict[str, np.ndarray]


def key(entry: UpdateEntry) -> bytes:
    return entry.content + entry.ref.peer.to_bytes(4, "big") + entry.ref.sequence.to_bytes(4, "big")


def entry(peer: int, samples: int = 100, content: bytes | None = None) -> UpdateEntry:
    content = hashlib.sha256(f"content of {peer}".encode()).digest() if content is None else content
    update = Update(
        content=content, flags=Flag(0), weights=bytes(32), base=bytes(32), report=bytes(32), seen=1,
        seen_root=bytes(32), sequence=1, round=1, score_ppm=0, base_score_ppm=0, train_samples=samples,
        test_samples=1, rule=0,
    )  # fmt: skip
    return UpdateEntry(UpdateRef(peer, 1), peer, peer, update, ())


def entries(count: int) -> list[UpdateEntry]:
    return [entry(peer) for peer in range(1, count + 1)]


def policy_spec(policy: dict[str, Any]) -> Spec:
    merging = {name: value for name, value in policy.items() if name != "floor_ppm"}
    return spec(merging=merging, trust={"floor_ppm": policy["floor_ppm"]})


def run(
    policy: dict[str, Any], models: list[Model], centre: Model | None = None, *, threads: int = 1,
    candidates: list[UpdateEntry] | None = None, standing: dict[UpdateRef, Standing] | None = None,
    row: dict[int, int] | None = None,
) -> Merge:  # fmt: skip
    """Aggregate under ``POLICY`` with the given changes; the centre, which is the genesis too, by default zeros."""
    zeros = {name: np.zeros_like(array) for name, array in models[0].items()}
    return aggregate(
        policy_spec({**POLICY, **policy}), candidates or entries(len(models)), models, lambda: centre or zeros,
        standing=standing, row=row, threads=threads,
    )  # fmt: skip


def plain(model: Model) -> dict[str, tuple[str, list[int], list[Any]]]:
    return {name: (CODES[array.dtype], list(array.shape), array.reshape(-1).tolist()) for name, array in model.items()}


def arrays(model: dict[str, tuple[str, list[int], list[Any]]]) -> Model:
    return {name: np.array(values, DTYPES[dtype]).reshape(shape) for name, (dtype, shape, values) in model.items()}


def random_model(draw: np.random.Generator, scale: float = 1.0) -> Model:
    """Every kind of tensor; about 300 floats."""
    return {
        "conv.weight": (draw.standard_normal((4, 5, 3)) * scale).astype(np.float32),
        "conv.bias": draw.standard_normal(7) * scale,
        "empty": np.zeros((0, 3), np.float32),
        "long": (draw.standard_normal(230) * scale).astype(np.float32),
        "mask": draw.integers(0, 2, 5).astype(np.bool_),
        "scalar": np.array(draw.standard_normal() * scale, np.float32),
        "steps": np.array(draw.integers(-50, 100), np.int64),
    }


def flat_models(count: int, size: int, seed: int = 0) -> list[Model]:
    draw = np.random.default_rng(seed)
    return [{"w": draw.standard_normal(size).astype(np.float32)} for _ in range(count)]


def known(candidates: list[UpdateEntry]) -> dict[str, Any]:
    """Standing and trust that differ from one candidate to the next."""
    standing = {e.ref: Standing(e.ref.peer % 3, e.ref.peer * 10_000) for e in candidates}
    return {"standing": standing, "row": {e.ref.peer: e.ref.peer * 50_000 for e in candidates}}
