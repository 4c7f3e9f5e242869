"""Attacks and faults: the arithmetic of each, who plays what, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.errors import UsageError
from fl_node.simulation.attacks import ATTACKS, parse_attack
from fl_node.simulation.faults import Faults, cast, how_many
from fl_node.simulation.malice import Malice

BASE = {"bias": np.array([1.0, -2.0], np.float32), "count": np.array([7], np.int64), "weight": np.ones((2, 3))}
TRAINED = {"bias": np.array([1.5, -1.0], np.float32), "count": np.array([9], np.int64), "weight": np.full((2, 3), 3.0)}


def malice(text: str, *, most: float = 1e6, others: Any = None) -> Malice:
    return Malice(parse_attack(text), 5, most, others or (lambda drawn: None))


@pytest.mark.parametrize(("text", "strength"), [("sign-flip", 1), ("sign-flip:2.5", 2.5), ("scaled-sign-flip", 10)])
def test_a_sign_flip_turns_the_step_round(text: str, strength: float) -> None:
    found = malice(text).published(BASE, TRAINED, 1)
    for name in ("bias", "weight"):
        np.testing.assert_allclose(found[name] - BASE[name], -strength * (TRAINED[name] - BASE[name]), rtol=1e-6)
        assert found[name].dtype == BASE[name].dtype
    assert found["count"] is BASE["count"]


def test_no_attack_publishes_what_everybody_calls_malformed() -> None:
    found = malice("scaled-sign-flip", most=5.0).published(BASE, TRAINED, 1)
    assert all(np.abs(found[name]).max() <= 5.0 for name in ("bias", "weight"))
    assert np.abs(malice("gaussian", most=5.0).published(BASE, TRAINED, 1)["weight"]).max() <= 5.0


def test_noise_is_that_of_the_seed_and_differs_by_update() -> None:
    large = {"w": np.zeros((100, 100), np.float32)}
    first, again, next_one = (malice("gaussian:3").published(large, large, n)["w"] for n in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, next_one)
    assert 2.9 < first.std() < 3.1 and abs(first.mean()) < 0.1


def test_a_copycat_publishes_anothers_and_a_replay_its_first() -> None:
    other = {"w": np.ones(3)}
    assert malice("copycat", others=lambda drawn: other).published(BASE, TRAINED, 2) is other
    assert malice("copycat").published(BASE, TRAINED, 1) is BASE
    replay = malice("stale-replay")
    assert replay.published(BASE, TRAINED, 1) is TRAINED
    assert replay.published(TRAINED, BASE, 2) is TRAINED
    assert malice("inflated-claim").published(BASE, TRAINED, 1) is BASE
    assert malice("label-flip").published(BASE, TRAINED, 1) is TRAINED


@pytest.mark.parametrize("text", ["sign-flop", "gaussian:0", "gaussian:nan", "gaussian:x", "copycat:2", "sign-flip:-1"])
def test_an_unknown_attack_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition(":")[0]):
        parse_attack(text)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean sign-flip"):
        Faults(attack="sign-flop")
    assert {parse_attack(name).name for name in ATTACKS} == set(ATTACKS)


@given(
    peers=st.integers(2, 60),
    planned=st.integers(1, 30),
    seed=st.integers(0, 1000),
    malicious=st.floats(0, 0.49),
    churn=st.floats(0, 0.49),
    stragglers=st.floats(0, 0.99),
)
def test_the_cast(peers: int, planned: int, seed: int, malicious: float, churn: float, stragglers: float) -> None:
    faults = Faults(malicious=malicious, churn=churn, stragglers=stragglers)
    found = cast(faults, peers, planned, seed)
    assert found == cast(faults, peers, planned, seed)
    whole = set(range(1, peers + 1))
    assert len(found.malicious) == how_many(malicious, peers) and found.malicious <= whole
    assert len(found.slow) == how_many(stragglers, peers) and found.slow <= whole
    assert len(found.joins) + len(found.leaves) == how_many(churn, peers)
    assert not found.joins.keys() & found.leaves.keys()
    # Who joins late has the last numbers, for they are admitted in this order.
    assert set(found.joins) == set(range(peers - len(found.joins) + 1, peers + 1))
    assert all(1 <= at <= planned for at in (*found.joins.values(), *found.leaves.values()))


def test_how_many_is_a_fraction_below_one_and_a_number_from_one_on() -> None:
    assert [how_many(value, 7) for value in (0, 0.28, 0.3, 1, 2)] == [0, 2, 2, 1, 2]


def test_peers_miss_rounds_as_often_as_asked() -> None:
    found = cast(Faults(dropout=0.3), 10, 5, 1)
    missed = sum(found.misses(peer, number) for peer in range(100) for number in range(100))
    assert 2800 < missed < 3200
    assert not any(cast(Faults(), 10, 5, 1).misses(peer, 1) for peer in range(10))


@pytest.mark.parametrize(
    "given_values",
    [{"dropout": 1.0}, {"dropout": -0.1}, {"malicious": 1.5}, {"churn": -1}, {"straggle": 1}],
    ids=str,
)
def test_faults_out_of_range_are_refused(given_values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(given_values))}"):
        Faults(**given_values)


def test_somebody_honest_must_be_left() -> None:
    with pytest.raises(UsageError, match="--malicious 6 of 6 peers"):
        cast(Faults(malicious=6), 6, 5, 0)
