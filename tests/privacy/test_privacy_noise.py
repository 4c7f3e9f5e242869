"""Where noise comes from: its distribution, and that it cannot be drawn again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_node.learning.noise import GeneratorNoise, Noise, SystemNoise

COUNT = 400_000
SOURCES = [SystemNoise(), GeneratorNoise()]


@pytest.mark.parametrize("noise", SOURCES)
def test_normals_are_standard_normal_and_independent(noise: Noise) -> None:
    drawn = noise.normals(COUNT)
    assert drawn.dtype == np.float64 and drawn.shape == (COUNT,)
    # Each of these is off by more than six standard deviations once in a billion runs.
    six = 6.0 / math.sqrt(COUNT)
    assert abs(drawn.mean()) < six
    assert abs(drawn.var() - 1.0) < six * math.sqrt(2.0)
    assert abs((drawn**3).mean()) < six * math.sqrt(15.0)
    assert abs((drawn**4).mean() - 3.0) < six * math.sqrt(96.0)
    for bound in (0.5, 1.0, 2.0, 3.0):
        expected = math.erfc(bound / math.sqrt(2.0))
        assert abs(np.mean(np.abs(drawn) > bound) - expected) < six * math.sqrt(expected)
    half = COUNT // 2
    for one, other in ((drawn[:-1], drawn[1:]), (drawn[:half], drawn[half:])):
        assert abs(np.mean(one * other)) < 6.0 / math.sqrt(half)


@pytest.mark.parametrize("noise", SOURCES)
def test_every_row_is_chosen_as_often_as_it_should_be(noise: Noise) -> None:
    rate = 0.03
    chosen = noise.chosen(COUNT, rate)
    assert chosen.dtype == np.bool_ and abs(chosen.mean() - rate) < 6.0 * math.sqrt(rate / COUNT)
    sizes = np.array([noise.chosen(1000, rate).sum() for _ in range(400)])
    # Poisson sampling: sizes vary as a binomial's do.
    assert abs(sizes.var() / (1000 * rate * (1 - rate)) - 1.0) < 6.0 * math.sqrt(2.0 / 400)
    assert noise.chosen(50, 1.0).all() and not noise.chosen(0, 0.5).size


@pytest.mark.parametrize("make", [SystemNoise, GeneratorNoise])
def test_no_two_sources_give_the_same(make: type[Noise]) -> None:
    one, other = make(), make()
    assert not np.array_equal(one.normals(10), other.normals(10))
    assert one.seed() != other.seed() and 0 <= one.seed() < 1 << 63


def test_odd_counts_and_none() -> None:
    assert SystemNoise().normals(7).shape == (7,) and SystemNoise().normals(0).shape == (0,)


def test_a_simulation_s_noise_is_drawn_again_from_its_seed() -> None:
    assert np.array_equal(GeneratorNoise(5).normals(9), GeneratorNoise(5).normals(9))
