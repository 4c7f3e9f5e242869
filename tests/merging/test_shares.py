"""Integer shares: exact, whole, fair within one, and the same for everybody."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.merging.shares import capped, discounted, largest_remainder

weights = st.lists(st.integers(0, 2**32) | st.fractions(0, 10), min_size=1, max_size=64)


def keys(count):
    return [bytes([k]) * 32 for k in range(count)]


@given(weights)
def test_sum_is_whole_and_each_is_within_one_of_its_quota(values):
    shares = largest_remainder(values, keys(len(values)))
    assert sum(shares) == 1_000_000
    whole = sum(values, Fraction(0))
    for share, value in zip(shares, values, strict=True):
        if whole:
            assert abs(share - Fraction(value) * 1_000_000 / whole) < 1


@given(weights, st.randoms())
def test_order_of_arguments_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    tags = keys(len(values))
    shuffled = largest_remainder([values[k] for k in order], [tags[k] for k in order])
    assert shuffled == [largest_remainder(values, tags)[k] for k in order]


@given(weights, st.integers(1, 1000))
def test_scale_does_not_matter(values, factor):
    tags = keys(len(values))
    assert largest_remainder([value * factor for value in values], tags) == largest_remainder(values, tags)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([5], [1_000_000]),
        ([1, 1, 1], [333_334, 333_333, 333_333]),
        ([1, 1, 1, 1, 1, 1], [166_667] * 4 + [166_666] * 2),
        ([0, 0], [500_000, 500_000]),
        ([0, 3], [0, 1_000_000]),
        ([1, 2], [333_333, 666_667]),
        ([1, 2**40], [0, 1_000_000]),
        ([Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)], [500_000, 250_000, 250_000]),
    ],
)
def test_examples(values, want):
    assert largest_remainder(values, keys(len(values))) == want


@pytest.mark.parametrize(("values", "tags"), [([], []), ([1], []), ([1, 1], [b"a", b"a"]), ([-1, 2], [b"a", b"b"])])
def test_wrong_arguments(values, tags):
    with pytest.raises(ValueError, match="got"):
        largest_remainder(values, tags)


def test_caps_and_discounts():
    assert [capped(50, 0), capped(50, 40), capped(30, 40)] == [50, 40, 30]
    assert [discounted(6, s) for s in range(3)] == [6, 3, 2]
