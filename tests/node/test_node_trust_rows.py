"""The maths of learned trust: rows that stay within bounds, and that follow the validation loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import small_spec

from fl_node.merging.trust import bounded_row, check_row, floor_ppm, moved, reference_row, slope
from fl_node.records import PPM, Parent
from fl_node.spec import Spec


def spec_of(**trust: Any) -> Spec:
    return small_spec(merging={"aggregation": "trust"}, trust=trust)


def parents_of(row: dict[int, int]) -> tuple[Parent, ...]:
    return tuple(Parent(peer, 1, bytes(4), share) for peer, share in sorted(row.items()))


PEERS = st.sets(st.integers(1, 100), min_size=1, max_size=64)
RECORDED = st.dictionaries(st.integers(1, 100), st.integers(0, 64 * PPM))


@given(PEERS, RECORDED, st.integers(0, 500_000), st.integers(1, PPM), st.randoms(use_true_random=False))
def test_every_bounded_row_passes_the_check(
    peers: set[int], recorded: dict[int, int], floor: int, change: int, random: Any
) -> None:
    spec = spec_of(floor_ppm=floor, max_change_ppm=change)
    reference = reference_row(spec, recorded, peers)
    assert check_row(spec, recorded, parents_of(reference)) == ()  # to stay is always allowed
    raw = {peer: math.exp(random.uniform(-30, 30)) for peer in peers}
    total = sum(raw.values())
    row = bounded_row(spec, {peer: weight / total for peer, weight in raw.items()}, reference)
    assert check_row(spec, recorded, parents_of(row)) == ()
    assert sum(row.values()) == PPM and min(row.values()) >= floor_ppm(spec, len(peers))
    assert all(abs(row[peer] - reference[peer]) <= change for peer in peers)


@given(PEERS)
def test_the_first_row_is_equal(peers: set[int]) -> None:
    row = reference_row(spec_of(), {}, peers)
    assert max(row.values()) - min(row.values()) <= 1


def test_a_newcomer_enters_at_an_equal_part_and_who_is_away_keeps_its_standing() -> None:
    spec = spec_of(floor_ppm=0)
    recorded = {1: 3 * 600_000, 2: 3 * 300_000, 3: 3 * 100_000}
    assert reference_row(spec, recorded, [1, 2, 3]) == {1: 600_000, 2: 300_000, 3: 100_000}
    assert reference_row(spec, recorded, [1, 2, 3, 4]) == {1: 450_000, 2: 225_000, 3: 75_000, 4: 250_000}
    assert reference_row(spec, recorded, [1, 3]) == {1: 857_143, 3: 142_857}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({1: 900_000, 2: 100_000}, "change at most"),
        ({1: 5_000, 2: 995_000}, "floor"),
        ({1: 500_000, 2: 400_000}, "sum to"),
    ],
)
def test_a_row_out_of_bounds_is_named(row: dict[int, int], fault: str) -> None:
    assert any(fault in text for text in check_row(spec_of(max_change_ppm=300_000), {}, parents_of(row)))


def test_trust_leaves_the_model_that_raises_the_loss() -> None:
    spec = spec_of(learning_rate=2.0, prior_pull=0.0)
    row = {1: 400_000, 2: 300_000, 3: 300_000}
    slopes = {1: -0.2, 2: 0.0, 3: 0.4}
    weights = moved(spec, row, slopes, 1.0, {1: 10, 2: 10, 3: 10})
    assert weights[1] / weights[2] > 4 / 3 and weights[3] < weights[2]
    # Relative to the loss, and bounded.
    assert moved(spec, row, {k: v / 100 for k, v in slopes.items()}, 0.01, {1: 10, 2: 10, 3: 10}) == pytest.approx(
        weights
    )
    steep = moved(spec, row, {1: -1e9, 2: 0.0, 3: 1e9}, 1.0, {1: 10, 2: 10, 3: 10})
    assert steep[1] / steep[3] == pytest.approx(4 / 3 * math.exp(2 * spec.trust.max_step))


def test_without_slopes_trust_goes_to_the_sample_prior() -> None:
    spec = small_spec(merging={"aggregation": "trust", "sample_cap": 300}, trust={"prior_pull": 0.3})
    samples = {1: 100, 2: 300, 3: 10**9}
    row: dict[int, int] = reference_row(spec, {}, samples)
    recorded = {}
    for _ in range(40):
        recorded = {peer: share * 3 for peer, share in row.items()}
        reference = reference_row(spec, recorded, samples)
        row = bounded_row(spec, moved(spec, reference, dict.fromkeys(samples, 0.0), 1.0, samples), reference)
    assert [round(row[peer] / PPM, 2) for peer in (1, 2, 3)] == [0.14, 0.43, 0.43]


def test_the_step_follows_the_gradient_of_the_loss_through_softmax() -> None:
    """Against finite differences of L(softmax(z)) for a quadratic loss."""
    generator = np.random.Generator(np.random.PCG64(5))
    models = [{"w": generator.normal(size=(4, 3))} for _ in range(3)]
    target = generator.normal(size=(4, 3))

    def loss(z: np.ndarray[Any, Any]) -> float:
        shares = np.exp(z) / np.exp(z).sum()
        merged = sum(share * model["w"] for share, model in zip(shares, models, strict=True))
        return float(((merged - target) ** 2).sum() / 2)

    row = {1: 500_000, 2: 300_000, 3: 200_000}
    shares = np.array([0.5, 0.3, 0.2])
    z = np.log(shares)
    base = sum(share * model["w"] for share, model in zip(shares, models, strict=True))
    gradient = {"w": base - target, "personal": np.ones(7)}
    slopes = {k + 1: slope(gradient, model, {"w": base}) for k, model in enumerate(models)}
    numeric = [(loss(z + h) - loss(z - h)) / 2e-5 for h in np.eye(3) * 1e-5]
    assert [shares[k] * slopes[k + 1] for k in range(3)] == pytest.approx(numeric, rel=1e-5)
    spec = spec_of(learning_rate=1e-3, prior_pull=0.0)
    after = moved(spec, row, slopes, loss(z), {1: 1, 2: 1, 3: 1})
    steps = np.log([after[k] for k in (1, 2, 3)]) - z
    expected = np.array([-1e-3 * 3 * value / loss(z) for value in numeric])
    assert list(steps - steps[0]) == pytest.approx(list(expected - expected[0]), abs=1e-8)
