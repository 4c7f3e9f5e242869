"""What every peer of a simulation trains and scores on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.learning.shifts import parse_shift
from fl_node.simulation.deal import Source, alike, deal, poisoned
from fl_node.tables import TaskSpec

TASK = TaskSpec(data="digits")


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.load(TASK, None)


def rows_of(features: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in features}


def test_own_test_rows_are_set_aside_from_own_rows(source: Source) -> None:
    dealt = deal(source, TASK, 4, "iid", 0, test_rows="own")
    common = rows_of(dealt.common.features)
    for splits in dealt.splits:
        parts = [rows_of(part.features) for part in (splits.train, splits.validation, splits.test)]
        assert all(parts) and not (parts[0] & parts[2]) and not (parts[1] & parts[2])
        assert not common & set.union(*parts)


def test_common_test_rows_leave_all_training_rows_to_train_on(source: Source) -> None:
    task = TASK.model_copy(update={"validation": 0.0})
    dealt = deal(source, task, 6, "dirichlet:0.5", 3, test_rows="common")
    assert sum(len(splits.train) for splits in dealt.splits) == len(source.train)
    common = rows_of(dealt.common.features)
    for splits in dealt.splits:
        assert len(splits.test) and not len(splits.validation)
        assert rows_of(splits.test.features) <= common
        # A peer is tested on what it has: no class that it has no row of.
        assert set(splits.test.labels) <= set(splits.train.labels)
    # Validation rows, where the task asks for some, come out of the training rows.
    with_validation = deal(source, TASK, 6, "iid", 3, test_rows="common")
    assert sum(len(s.train) + len(s.validation) for s in with_validation.splits) == len(source.train)


@settings(max_examples=30)
@given(seed=st.integers(0, 100), peers=st.integers(1, 30))
def test_test_rows_are_dealt_as_the_training_rows_are(seed: int, peers: int) -> None:
    random = np.random.default_rng(seed)
    strata = random.integers(0, 4, 200)
    held = [random.integers(0, 4, random.integers(1, 50)) for _ in range(peers)]
    parts = alike(held, strata, seed)
    assert all(len(part) for part in parts)
    for own, part in zip(held, parts, strict=True):
        assert set(strata[part]) <= set(own)
    whole = np.concatenate(parts)
    counts = {number: sum(np.count_nonzero(own == number) for own in held) for number in range(4)}
    for own, part in zip(held, parts, strict=True):
        for number, count in counts.items():
            if count and len(np.unique(whole)) == len(whole):
                fair = np.count_nonzero(strata == number) * np.count_nonzero(own == number) / count
                assert abs(np.count_nonzero(strata[part] == number) - fair) <= 1


def test_a_shift_is_in_a_peers_rows_and_not_in_the_common_ones(source: Source) -> None:
    plain = deal(source, TASK, 4, "iid", 0, test_rows="own")
    shifted = deal(source, TASK, 4, "iid", 0, test_rows="own", shift=parse_shift("wrong-labels@2"))
    for number in (0, 1):
        same = np.array_equal(plain.splits[number].train.labels, shifted.splits[number].train.labels)
        assert same == (number == 0)
        assert np.array_equal(plain.splits[number].test.labels, shifted.splits[number].test.labels) == (number == 0)
    np.testing.assert_array_equal(plain.common.labels, shifted.common.labels)


def test_flipped_labels(source: Source) -> None:
    plain = deal(source, TASK, 3, "iid", 0, test_rows="own")
    found = poisoned(plain, {2}, 10)
    np.testing.assert_array_equal(found.splits[1].train.labels, 9 - plain.splits[1].train.labels)
    np.testing.assert_array_equal(found.splits[1].validation.labels, 9 - plain.splits[1].validation.labels)
    assert found.splits[0] is plain.splits[0] and found.splits[2] is plain.splits[2]
