"""Sketches: linear, the same on every machine, and near the distances that they stand for."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest

from fl_node.audit.sketch import BUCKETS, LENGTH, projected, sketch_of
from fl_node.learning.models import genesis
from fl_node.spec import Spec

#: Standard deviation of a squared length of spread-out weights, relative.
SPREAD = (2 / BUCKETS) ** 0.5


def drawn(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def squared(vector: np.ndarray) -> float:
    return float(vector @ vector)


def one_by_one(tensors: dict[str, np.ndarray]) -> list[float]:
    """A sketch by its definition, element by element."""
    rows, found, number = 64, [0.0] * LENGTH, 0
    bits = hashlib.shake_256(b"fl-node audit sketch signs 1").digest((65_536 + rows * BUCKETS) // 8)
    for name in sorted(tensors):
        values = tensors[name].ravel().tolist()
        for start in range(0, len(values), rows * BUCKETS):
            place = int.from_bytes(
                hashlib.sha256(b"fl-node audit sketch place 1" + number.to_bytes(8, "big")).digest()[:2]
            )
            for at, value in enumerate(values[start : start + rows * BUCKETS]):
                bit = bits[(place + at) // 8] >> (7 - (place + at) % 8) & 1
                found[at % BUCKETS] += -value if bit else value
            number += 1
    return found


def test_a_sketch_is_what_its_definition_says() -> None:
    # Small whole numbers: their sums are exact, whatever the order.
    tensors = {
        "b": (np.arange(140_003) % 7 - 3).astype(np.float32),
        "a": (np.arange(500).reshape(20, 25) % 5).astype(np.float64),
    }
    vector = projected(tensors)
    assert vector.shape == (LENGTH,) and vector.dtype == np.float64 and not vector[BUCKETS:].any()
    assert vector.tolist() == one_by_one(tensors)


@pytest.mark.parametrize("size", [1, 10, 1020, 1021, 1022, 5_000, 65_344, 65_345, 200_000])
def test_sketches_of_differences_are_differences_of_sketches(size: int) -> None:
    a, b = drawn(size, 1), drawn(size, 2)
    between = projected({"w": a}) - projected({"w": b})
    np.testing.assert_allclose(between, projected({"w": (a - b)}), atol=1e-3 * max(1, size / BUCKETS) ** 0.5)
    assert squared(projected({"w": a})) == pytest.approx(squared(a.astype(float)), rel=5 * SPREAD)


@pytest.mark.parametrize(
    "change",
    [
        lambda: drawn(300_000),
        lambda: np.outer(drawn(500), drawn(600, 1)),  # one row like another: low rank, as gradients are
        lambda: np.full((512, 512), 0.01, np.float32),  # everywhere the same
        lambda: np.outer(np.ones(4096), drawn(64)),  # rows of a power of two, all equal
        lambda: np.where(np.arange(1 << 18) % 1024 < 8, 1.0, 0.0),  # a few columns of a layer of 1,024
    ],
    ids=["noise", "low rank", "constant", "equal rows", "few columns"],
)
def test_lengths_are_near_whatever_the_structure(change: object) -> None:
    assert callable(change)
    array = np.asarray(change(), np.float32)
    exact = squared(array.astype(float).ravel())
    assert squared(projected({"w": array})) == pytest.approx(exact, rel=0.25)


def test_a_small_difference_between_large_models_is_seen() -> None:
    model, noise = drawn(2_000_000, 1), drawn(2_000_000, 2)
    near = (model + np.float32(1e-4) * noise).astype(np.float32)
    exact = squared(near.astype(float) - model.astype(float))
    between = projected({"w": near}) - projected({"w": model})
    assert squared(between) == pytest.approx(exact, rel=5 * SPREAD)


def test_integers_have_no_part_and_names_decide_the_order() -> None:
    a, b = drawn(2_000, 1), drawn(3_000, 2)
    both = projected({"a": a, "b": b})
    assert np.array_equal(both, projected({"b": b, "a": a, "steps": np.array([7], np.int64)}))
    assert not np.array_equal(both, projected({"a": b, "b": a}))
    assert not projected({}).any() and not projected({"none": np.empty((0, 4), np.float32)}).any()


def test_weights_that_overflow_give_no_error() -> None:
    assert not np.isfinite(projected({"w": np.full(100_000, 3e38, np.float32)})).all()


def test_memory_beside_the_weights_is_small() -> None:
    model = {"w": drawn(5_000_000)}
    projected(model)
    tracemalloc.start()
    try:
        projected(model)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_votes_are_made_where_they_are_asked_for() -> None:
    spec = Spec.model_validate({})
    model = genesis(spec)
    assert sketch_of(spec, model).votes is not None and sketch_of(spec, model, votes=False).votes is None
    assert np.array_equal(sketch_of(spec, model).vector, projected(model))
