"""Intervals, the paired t-test and Holm's adjustment, judged by scipy and by published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.experiments.statistics import compare, estimate, holm, quantile, two_sided_p

numbers = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 3))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 10, 29, 30, 199])
@pytest.mark.parametrize("t", [0.0, 0.1, -1.0, 2.262, 5.0, 40.0])
def test_the_distribution_is_scipys(freedom: int, t: float) -> None:
    assert two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-12)


@pytest.mark.parametrize(
    ("freedom", "level", "published"),
    [(1, 0.95, 12.706), (4, 0.95, 2.776), (9, 0.95, 2.262), (9, 0.99, 3.250), (29, 0.90, 1.699)],
)
def test_quantiles_are_those_of_the_printed_tables(freedom: int, level: float, published: float) -> None:
    assert quantile(freedom, level) == pytest.approx(published, abs=5e-4)


def test_an_interval_is_scipys() -> None:
    values = [92.4, 92.6, 92.5, 92.9, 92.2]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high, found.count) == (pytest.approx(low), pytest.approx(high), 5)


def test_one_value_has_no_interval() -> None:
    found = estimate([3.0])
    assert (found.mean, found.low, found.high) == (3.0, -math.inf, math.inf)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20))
def test_the_paired_test_is_scipys(pairs: list[tuple[float, float]]) -> None:
    left, right = zip(*pairs, strict=True)
    found = compare(left, right)
    differences = np.array(left) - np.array(right)
    # Where differences agree to the last few bits, the quotient is rounding alone, here and there.
    if differences.std() < 1e-6:
        return
    judged = stats.ttest_rel(left, right)
    assert found.p == pytest.approx(judged.pvalue, abs=1e-9)
    interval = judged.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_differences_without_spread() -> None:
    assert compare([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert compare([2.0, 3.0], [1.0, 2.0]).p == 0.0


def test_the_student_sleep_data() -> None:
    """Student 1908, table I, ten patients and two drugs: t = -4.0621, p = 0.002833."""
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = compare(one, two)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.difference.low, found.difference.high) == pytest.approx((-2.4599, -0.7001), abs=1e-4)


def test_holm_by_hand() -> None:
    """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_lies_between_the_value_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    for p, found in zip(values, adjusted, strict=True):
        assert p <= found <= min(1.0, len(values) * p) or found == p
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        compare([1.0], [2.0])
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        two_sided_p(1.0, 0)
