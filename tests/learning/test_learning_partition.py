"""Splits and partitions: every row once, nobody without rows, the same under a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fl_node.errors import DataError, UsageError
from fl_node.learning.dataset import Dataset
from fl_node.learning.partition import Partition, parse_partition, partition
from fl_node.learning.splits import split
from fl_node.tables import TaskSpec

TEXTS = st.sampled_from(
    [
        "iid",
        "unequal",
        "label-skew:1",
        "label-skew",
        "label-skew:3",
        "shards:1",
        "shards:3",
        "dirichlet:0.1",
        "dirichlet:100",
        "dirichlet:0.001:equal",
        "dirichlet:0.5:equal",
        "dirichlet:1000000:equal",
    ]
)
LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=300).map(lambda rows: np.array(rows, dtype=np.int64))


@given(LABELS, st.integers(1, 12), TEXTS, st.integers(0, 2**31))
def test_every_row_goes_to_exactly_one_peer(labels: np.ndarray, peers: int, text: str, seed: int) -> None:
    try:
        parts = partition(labels, peers, text, seed)
    except (DataError, UsageError):
        assume(False)
    assert len(parts) == peers and all(len(part) for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all((np.diff(part) > 0).all() for part in parts)
    again = partition(labels, peers, parse_partition(text), seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


@given(st.integers(1, 500), st.integers(1, 20))
def test_iid_parts_differ_by_one_row_at_most(rows: int, peers: int) -> None:
    assume(rows >= peers)
    sizes = [len(part) for part in partition(np.zeros(rows, np.int64), peers, "iid", 3)]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_unequal_is_in_proportion() -> None:
    assert [len(part) for part in partition(np.zeros(100, np.int64), 4, "unequal", 0)] == [10, 20, 30, 40]


@pytest.mark.parametrize(("peers", "wanted"), [(5, 2), (10, 1), (4, 3), (10, 3), (2, 10)])
def test_label_skew_gives_k_classes_per_peer(peers: int, wanted: int) -> None:
    labels = np.arange(1000) % 10
    for part in partition(labels, peers, f"label-skew:{wanted}", 1):
        assert len(np.unique(labels[part])) == wanted


def test_a_small_alpha_skews_more() -> None:
    labels = np.arange(2000) % 10

    def largest_share(alpha: float) -> float:
        parts = partition(labels, 4, f"dirichlet:{alpha}", 0)
        return float(np.mean([np.bincount(labels[part], minlength=10).max() / len(part) for part in parts]))

    assert largest_share(0.05) > largest_share(1) > largest_share(1000)
    assert largest_share(1000) < 0.13


@given(LABELS, st.integers(1, 12), st.sampled_from(["0.001", "0.1", "1", "1000000"]), st.integers(0, 2**31))
def test_equal_dirichlet_parts_differ_by_one_row_at_most(labels: np.ndarray, peers: int, alpha: str, seed: int) -> None:
    assume(len(labels) >= peers)
    sizes = [len(part) for part in partition(labels, peers, f"dirichlet:{alpha}:equal", seed)]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_equal_dirichlet_parts_are_mixed_as_alpha_says() -> None:
    """A class's share in a part is Beta(alpha, 9 alpha): mean 0.1 and variance 0.09 / (10 alpha + 1). The parts are so
    many that what earlier ones took hardly shows, and so small that none runs out."""
    labels = np.repeat(np.arange(10), 4000)
    for alpha in (0.5, 5.0):
        shares = np.array([
            np.bincount(labels[part], minlength=10) / len(part)
            for seed in range(20) for part in partition(labels, 40, f"dirichlet:{alpha}:equal", seed)
        ])  # fmt: skip
        np.testing.assert_allclose(shares.mean(axis=0), 0.1, rtol=1e-9)
        np.testing.assert_allclose(shares.var(), 0.09 / (10 * alpha + 1), rtol=0.25)


def test_equal_dirichlet_parts_are_almost_of_one_class_where_alpha_is_tiny() -> None:
    labels = np.repeat(np.arange(10), 100)
    parts = partition(labels, 100, "dirichlet:0.001:equal", 0)
    assert np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]) > 0.8


@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 2**31))
def test_shards_are_equal_and_each_peer_has_as_many(wanted: int, peers: int, seed: int) -> None:
    """With as many rows of each class as in a shard, a peer has all or nothing of a class: K of them."""
    each = 7
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(peers * wanted), each))
    parts = partition(labels, peers, f"shards:{wanted}", seed)
    assert all(len(part) == wanted * each and len(np.unique(labels[part])) == wanted for part in parts)


def test_shards_of_mixed_classes() -> None:
    """Ten classes of 100 rows in 40 shards of 25: nobody has more than K classes, and who has them is by chance."""
    labels = np.arange(1000) % 10
    one, other = (partition(labels, 20, "shards:2", seed) for seed in (0, 1))
    assert all(len(part) == 50 and len(np.unique(labels[part])) <= 2 for part in one)
    assert [set(labels[part]) for part in one] != [set(labels[part]) for part in other]
    with pytest.raises(DataError, match=r"leaves peer .* without rows"):
        partition(labels, 600, "shards:2", 0)


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.5:equal", "shards:2"])
def test_seeds_matter(text: str) -> None:
    labels = np.arange(100) % 10
    assert not np.array_equal(partition(labels, 2, text, 0)[0], partition(labels, 2, text, 1)[0])


@pytest.mark.parametrize(("text", "meant"), [("dirichlett:0.5", "dirichlet"), ("shard:2", "shards"), ("IID", "iid")])
def test_did_you_mean(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"; did you mean {meant}\\?"):
        parse_partition(text)


@pytest.mark.parametrize("text", ["iid", "unequal", "label-skew:2", "shards:3", "dirichlet:0.5", "dirichlet:0.5:equal"])
def test_grammar_round_trip(text: str) -> None:
    assert str(parse_partition(text)) == text


def test_default_of_label_skew() -> None:
    assert parse_partition("label-skew") == Partition("label-skew")


@pytest.mark.parametrize(
    "text",
    ["", "IID", "iid:2", "iid:", "unequal:1", "label-skew:", "label-skew:0", "label-skew:x", "label-skew:-1",
     "label-skew:1.5", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1", "dirichlet:nan", "dirichlet:inf",
     "dirichlet:0.5:", "dirichlet:0.5:unequal", "dirichlet::equal", "dirichlet:0.5:equal:", "shards", "shards:",
     "shards:0", "shards:-1", "shards:2:equal", "shards:2.5", "x"],
)  # fmt: skip
def test_what_the_grammar_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="expected iid, unequal"):
        parse_partition(text)


def test_peers_without_rows_are_named() -> None:
    with pytest.raises(DataError, match="leaves peer 3, 4 of 4 without rows"):
        partition(np.zeros(2, np.int64), 4, "iid", 0)
    with pytest.raises(UsageError, match="0 peers"):
        partition(np.zeros(2, np.int64), 0, "iid", 0)


@pytest.mark.parametrize(("peers", "wanted", "allowed"), [(3, 2, "from 4 to 10"), (3, 11, "from 4 to 10")])
def test_label_skew_that_cannot_be(peers: int, wanted: int, allowed: str) -> None:
    with pytest.raises(UsageError, match=allowed):
        partition(np.arange(100) % 10, peers, f"label-skew:{wanted}", 0)


# ---- splits -------------------------------------------------------------------------------------------------------


def _numbered(labels: np.ndarray) -> Dataset:
    return Dataset(np.arange(len(labels), dtype=np.float32)[:, None], labels.astype(np.int64))


@given(LABELS, st.floats(0, 0.45), st.floats(0.01, 0.45), st.integers(0, 1000))
def test_a_split_uses_every_row_once(labels: np.ndarray, validation: float, test: float, seed: int) -> None:
    task = TaskSpec(input_shape=(1,), classes=6, validation=validation, test=test, split_seed=seed)
    try:
        parts = split(_numbered(labels), task)
    except DataError as refused:
        assert "bring more rows" in str(refused) and len(labels) <= 8  # 0.45 of 8 rows twice are all
        return
    numbers = np.concatenate([part.features[:, 0] for part in (parts.train, parts.validation, parts.test)])
    assert np.array_equal(np.sort(numbers), np.arange(len(labels)))
    assert len(parts.test) == max(1, round(len(labels) * test))
    assert len(parts.train) >= 1 and (len(parts.validation) >= 1) == (validation > 0)
    for part in (parts.train, parts.validation, parts.test):
        assert np.array_equal(labels[part.features[:, 0].astype(int)], part.labels)
    again = split(_numbered(labels), task)
    assert np.array_equal(parts.test.features, again.test.features)


def test_a_split_keeps_the_classes_proportions() -> None:
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    parts = split(_numbered(labels), TaskSpec(input_shape=(1,), classes=3))
    for part in (parts.train, parts.validation, parts.test):
        shares = np.bincount(part.labels, minlength=3) / len(part)
        assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.03


def test_split_seeds_matter() -> None:
    rows = _numbered(np.arange(100) % 4)
    one, other = (split(rows, TaskSpec(input_shape=(1,), classes=4, split_seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one.test.features, other.test.features)


def test_too_few_rows_and_no_test_part() -> None:
    with pytest.raises(
        DataError, match=r"got 2 rows, of which .* set 1 to validate and 1 to test aside.*bring more rows"
    ):
        split(_numbered(np.zeros(2)), TaskSpec(input_shape=(1,)))
    with pytest.raises(DataError, match="got 1 row, of which") as refused:
        split(_numbered(np.zeros(1)), TaskSpec(input_shape=(1,)))
    assert "-1" not in str(refused.value)
    with pytest.raises(DataError, match=r"task\.test 0 set 5 to validate and 0 to test"):
        split(_numbered(np.zeros(50)), TaskSpec(input_shape=(1,), test=0.0))


@pytest.mark.parametrize(("peers", "expected"), [(1, 10), (3, 4), (4, 3), (5, 2), (20, 2)])
def test_label_skew_without_a_number_fits_the_number_of_peers(peers: int, expected: int) -> None:
    labels = np.arange(400) % 10
    assert {len(np.unique(labels[part])) for part in partition(labels, peers, "label-skew", 0)} == {expected}
