"""What training costs, held against Google's accountant, which is none of ours and works another way."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from fl_node.errors import SpecError
from fl_node.learning.accountant import epsilon, gaussian_epsilon, least_noise, trainings_left

#: Installed there by the Makefile: it wants an older attrs than the rest of the environment.
JUDGE = Path(sys.prefix) / "dp-accounting"

#: Histories of (noise multiplier, sample rate, steps), and delta.
CASES: list[tuple[list[tuple[float, float, int]], float]] = [
    ([(1.0, 0.01, 1000)], 1e-5),
    ([(0.7, 0.02, 500)], 1e-5),
    ([(2.0, 0.1, 300)], 1e-5),
    ([(1.1, 256 / 60000, 14000)], 1e-5),
    ([(5.0, 1.0, 10)], 1e-5),
    ([(20.0, 0.5, 100)], 1e-6),
    ([(0.6, 0.004, 100)], 1e-5),
    ([(4.0, 0.05, 400)], 1e-5),
    ([(0.9, 0.05, 1)], 1e-4),
    ([(1.5, 0.2, 40), (1.5, 0.2, 60)], 1e-5),
    ([(1.0, 0.05, 100), (1.3, 0.1, 50), (0.9, 0.01, 300)], 1e-5),
    ([(3.0, 1.0, 4), (6.0, 1.0, 9)], 1e-5),
    ([(2.0, 0.1, 100), (8.0, 1.0, 5)], 1e-5),
]

_ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import dp_accounting
from dp_accounting import pld
for history, delta in json.load(sys.stdin):
    accountant = pld.PLDAccountant(value_discretization_interval=1e-4)
    for noise, rate, steps in history:
        event = dp_accounting.GaussianDpEvent(noise)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, event) if rate < 1 else event, steps)
    print(accountant.get_epsilon(delta))
"""


@pytest.fixture(scope="module")
def judged() -> list[float]:
    assert (JUDGE / "dp_accounting").is_dir(), (
        f"expected dp-accounting in {JUDGE}: run `make .venv/stamps/dp-accounting`"
    )
    asked = subprocess.run(
        [sys.executable, "-c", _ASK, JUDGE], input=json.dumps(CASES), capture_output=True, text=True, check=True
    )
    return [float(line) for line in asked.stdout.split()]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_it_agrees_with_google_s_to_one_per_cent(case: int, judged: list[float]) -> None:
    history, delta = CASES[case]
    found = epsilon("example", history, delta)
    assert abs(found / judged[case] - 1.0) <= 0.01, (found, judged[case])


def test_an_update_s_noise_counts_half_since_a_change_may_point_the_other_way() -> None:
    assert epsilon("update", [(8.0, 1.0, 3)], 1e-5) == epsilon("example", [(4.0, 1.0, 3)], 1e-5)


def test_a_gaussian_mechanism_has_the_delta_of_balle_and_wang() -> None:
    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2.0))

    for mu in (0.05, 0.5, 1.0, 4.0, 30.0):
        found = gaussian_epsilon(mu, 1e-5)
        assert phi(mu / 2 - found / mu) - math.exp(found) * phi(-mu / 2 - found / mu) == pytest.approx(1e-5, rel=1e-5)
    assert gaussian_epsilon(1e-7, 1e-5) == 0.0
    assert gaussian_epsilon(500.0, 1e-5) == pytest.approx(500.0**2 / 2, rel=0.1)


@pytest.mark.parametrize(
    ("mechanism", "rate", "steps", "most"),
    [("example", 0.05, 200, 1.0), ("example", 0.05, 200, 8.0), ("example", 1.0, 10, 3.0), ("update", 1.0, 10, 8.0)],
)
def test_the_least_noise_is_enough_and_hardly_more(mechanism: str, rate: float, steps: int, most: float) -> None:
    noise = least_noise(mechanism, rate, steps, 1e-5, most)  # type: ignore[arg-type]
    assert epsilon(mechanism, [(noise, rate, steps)], 1e-5) <= most  # type: ignore[arg-type]
    assert epsilon(mechanism, [(noise * 0.99, rate, steps)], 1e-5) > most  # type: ignore[arg-type]


def test_an_epsilon_that_no_noise_reaches_is_explained() -> None:
    with pytest.raises(SpecError, match=r"privacy.epsilon = 1e-06 .* expected a larger epsilon, or fewer rounds"):
        least_noise("example", 0.5, 1000, 1e-5, 1e-6)


def test_trainings_left_are_those_that_still_fit() -> None:
    before, one = [(1.0, 0.05, 100)], (1.0, 0.05, 20)
    left = trainings_left("example", before, one, 1e-5, 6.0, 1000)
    assert 0 < left < 1000
    assert epsilon("example", [*before, *[one] * left], 1e-5) <= 6.0
    assert epsilon("example", [*before, *[one] * (left + 1)], 1e-5) > 6.0
    assert trainings_left("example", before, one, 1e-5, 6.0, 3) == 3
    assert trainings_left("example", before, one, 1e-5, 0.5, 3) == 0


def test_nothing_costs_nothing_and_more_costs_more() -> None:
    assert epsilon("example", [], 1e-5) == 0.0
    spent = [epsilon("example", [(1.0, 0.05, 20)] * count, 1e-5) for count in range(1, 6)]
    assert spent == sorted(spent) and len(set(spent)) == 5
