"""Shifts: who is changed, how, and who is left alone; the same under a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.errors import UsageError
from fl_node.learning.dataset import Dataset
from fl_node.learning.shifts import Shift, check_shift, cluster_of, parse_shift, shifted, shifted_splits
from fl_node.learning.splits import Splits
from fl_node.tables import TaskSpec

TASK = TaskSpec(input_shape=(2, 2), classes=10)


def rows(count: int = 200, classes: int = 10, shape: tuple[int, ...] = (2, 2)) -> Dataset:
    features = np.arange(count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape)
    return Dataset(features, np.arange(count, dtype=np.int64) % classes)


def same(one: Dataset, other: Dataset) -> bool:
    return np.array_equal(one.features, other.features) and np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    "text",
    ["none", "label-noise:0.4@2-3", "label-noise:0.000000001@1", "wrong-labels@1,5-7", "clusters:2", "rotation:4",
     "rotation:180@2", "clusters:3+rotation:2+label-noise:1@4", "label-noise:0@1+label-noise:1@2",
     "rotation:2+label-noise:0.123456789@3"],
)  # fmt: skip
def test_grammar_round_trip(text: str) -> None:
    shift = parse_shift(text)
    assert str(shift) == text and parse_shift(str(shift)) == shift


@given(st.sets(st.integers(1, 40), min_size=1))
def test_peers_are_written_as_ranges(peers: set[int]) -> None:
    text = ",".join(map(str, sorted(peers, reverse=True)))
    (step,) = parse_shift(f"wrong-labels@{text}").steps
    assert step.peers == tuple(sorted(peers))
    assert parse_shift(str(step)).steps == (step,)


def test_nothing_and_the_order_of_steps() -> None:
    assert parse_shift("") == parse_shift(" none ") == Shift()
    assert str(parse_shift("label-noise:0.5@1 + rotation:2 + clusters:2")) == "clusters:2+rotation:2+label-noise:0.5@1"


@pytest.mark.parametrize(
    "text",
    ["label-noise", "label-noise:0.4", "label-noise@2", "label-noise:1.1@2", "label-noise:-0.1@2", "label-noise:nan@2",
     "label-noise:0.5@", "label-noise:0.5@0", "label-noise:0.5@3-2", "label-noise:0.5@1-", "label-noise:0.5@a",
     "label-noise:0.5@1-999999999", "wrong-labels", "wrong-labels:1@2", "wrong-labels@", "clusters", "clusters:0",
     "clusters:1.5", "clusters:2@1", "rotation", "rotation:1", "rotation:5", "rotation:90", "rotation:45@1",
     "rotation:2@1", "clusters:2+", "+", "none+clusters:2", "noise"],
)  # fmt: skip
def test_what_the_grammar_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="is not understood; expected none, or some of"):
        parse_shift(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("rotations:2", "rotation"), ("label-nois:0.4@2", "label-noise"), ("cluster:2", "clusters")]
)
def test_did_you_mean(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"; did you mean {meant}\\?"):
        parse_shift(text)


@pytest.mark.parametrize(
    "text",
    ["clusters:2+clusters:3", "rotation:2+rotation:4", "rotation:2+rotation:90@1", "wrong-labels@1,2+wrong-labels@2",
     "label-noise:0.1@1-3+label-noise:0.2@3"],
)  # fmt: skip
def test_no_peer_is_changed_twice_in_one_way(text: str) -> None:
    with pytest.raises(UsageError, match="comes twice for the same peers"):
        parse_shift(text)


def test_what_cannot_be_done_is_refused_before_anything_starts() -> None:
    for text in ("label-noise:0.1@6", "wrong-labels@1,6-9", "rotation:90@6"):
        with pytest.raises(UsageError, match=r"there is no peer 6.*expected numbers from 1 to 5"):
            check_shift(parse_shift(text), TASK, 5)
    for text in ("clusters:6", "rotation:4"):
        with pytest.raises(UsageError, match="clusters of 3 peers"):
            check_shift(parse_shift(text), TASK, 3)
    for shape in ((28, 27), (783,), (3, 28), (2, 2, 2, 2), (28, 28, 3)):
        task = TASK.model_copy(update={"input_shape": shape})
        for text in ("rotation:2", "rotation:90@1"):
            with pytest.raises(UsageError, match="expected square images"):
                check_shift(parse_shift(text), task, 5)
        check_shift(parse_shift("clusters:2"), task, 5)
    with pytest.raises(UsageError, match="2 classes have 2 permutations"):
        check_shift(parse_shift("clusters:3"), TASK.model_copy(update={"classes": 2}), 5)
    masks = TASK.model_copy(update={"kind": "segmentation"})
    for text in ("clusters:2", "wrong-labels@1", "label-noise:0.1@1"):
        with pytest.raises(UsageError, match="are masks; expected rotation only"):
            check_shift(parse_shift(text), masks, 5)
    for text in ("none", "rotation:4", "rotation:270@5"):
        check_shift(parse_shift(text), masks, 5)


@given(st.integers(1, 300), st.floats(0, 1), st.integers(2, 12), st.integers(0, 2**31))
def test_label_noise_changes_so_many_labels_to_others(count: int, fraction: float, classes: int, seed: int) -> None:
    text = np.format_float_positional(round(fraction, 6), trim="-")
    shift, data = parse_shift(f"label-noise:{text}@2"), rows(count, classes)
    task = TASK.model_copy(update={"classes": classes})
    found = shifted(data, shift, 2, task, seed)
    assert np.count_nonzero(found.labels != data.labels) == round(count * float(text))
    assert found.labels.min() >= 0 and found.labels.max() < classes and found.labels.dtype == np.int64
    assert same(found, shifted(data, shift, 2, task, seed))
    assert found.features is data.features
    for number in (1, 3):
        assert shifted(data, shift, number, task, seed) is data
    assert shifted(data, shift, 2, task, seed, noise=None) is data


def test_noise_takes_every_other_class_alike_and_peers_and_seeds_draw_apart() -> None:
    data = Dataset(np.zeros((9000, 2, 2), np.float32), np.zeros(9000, np.int64))
    shift = parse_shift("label-noise:1@1-2")
    counts = np.bincount(shifted(data, shift, 1, TASK, 0).labels, minlength=10)
    assert counts[0] == 0 and counts[1:].min() > 850 and counts[1:].max() < 1150
    draws = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    found = [shifted(data, shift, number, TASK, seed, noise=which).labels for number, seed, which in draws]
    assert len({labels.tobytes() for labels in found}) == len(draws)


@given(st.integers(2, 30), st.integers(0, 2**31))
def test_wrong_labels_are_one_permutation_without_a_right_one(classes: int, seed: int) -> None:
    task, data = TASK.model_copy(update={"classes": classes}), rows(classes, classes)
    shift = parse_shift("wrong-labels@2-3")
    second, third = (shifted(data, shift, number, task, seed).labels for number in (2, 3))
    assert np.array_equal(second, third) and np.array_equal(np.sort(second), np.arange(classes))
    assert (second != data.labels).all()
    assert shifted(data, shift, 1, task, seed) is data


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_every_cluster_has_its_own_permutation(clusters: int, seed: int) -> None:
    shift, data = parse_shift(f"clusters:{clusters}"), rows(10)
    found = [shifted(data, shift, number, TASK, seed) for number in range(1, 2 * clusters + 1)]
    assert same(found[0], data)
    assert len({one.labels.tobytes() for one in found}) == clusters
    for number, one in enumerate(found, 1):
        assert np.array_equal(np.sort(one.labels), np.arange(10))
        assert same(one, found[cluster_of(shift, number)])


def test_clusters_are_the_same_however_many_there_are() -> None:
    few, many = (shifted(rows(10), parse_shift(f"clusters:{count}"), 2, TASK, 5) for count in (2, 9))
    assert same(few, many)


@pytest.mark.parametrize("shape", [(9,), (3, 3), (1, 3, 3), (2, 3, 3)])
def test_rotation_turns_images_against_the_clock(shape: tuple[int, ...]) -> None:
    task, data = TASK.model_copy(update={"input_shape": shape}), rows(20, shape=shape)
    images = data.features.reshape(20, -1, 3, 3)
    for number, turns in ((1, 0), (2, 1), (3, 2), (4, 3), (5, 0)):
        found = shifted(data, parse_shift("rotation:4"), number, task, 0)
        assert found.features.shape == data.features.shape and found.features.flags.c_contiguous
        got = found.features.reshape(images.shape)
        for row in range(3):
            for column in range(3):
                place = {0: (row, column), 1: (column, 2 - row), 2: (2 - row, 2 - column), 3: (2 - column, row)}[turns]
                assert np.array_equal(got[..., row, column], images[..., place[0], place[1]])
        by_peers = shifted(data, parse_shift(f"rotation:{90 * turns}@{number}") if turns else Shift(), number, task, 0)
        assert same(found, by_peers)
        assert np.array_equal(found.labels, data.labels)


def test_masks_turn_with_their_images() -> None:
    data = Dataset(rows(5, shape=(1, 4, 4)).features, np.arange(5 * 16).reshape(5, 4, 4) % 3)
    task = TASK.model_copy(update={"input_shape": (1, 4, 4), "kind": "segmentation", "classes": 3})
    found = shifted(data, parse_shift("rotation:90@1"), 1, task, 0)
    for image, mask, turned, turned_mask in zip(data.features, data.labels, found.features, found.labels, strict=True):
        assert np.array_equal(np.rot90(image[0]), turned[0]) and np.array_equal(np.rot90(mask), turned_mask)
    assert found.labels.flags.c_contiguous


def test_a_peers_test_rows_are_its_own_truth_without_noise() -> None:
    parts = Splits(rows(100), rows(40), rows(60))
    shift = parse_shift("clusters:2+rotation:2+label-noise:0.5@2")
    found = shifted_splits(parts, shift, 2, TASK, 3)
    truth = parse_shift("clusters:2+rotation:2")
    assert same(found.test, shifted(parts.test, truth, 2, TASK, 3))
    for part, before in ((found.train, parts.train), (found.validation, parts.validation)):
        clean = shifted(before, truth, 2, TASK, 3)
        assert np.array_equal(part.features, clean.features)
        assert np.count_nonzero(part.labels != clean.labels) == len(before) // 2
    untouched = shifted_splits(parts, shift, 1, TASK, 3)
    assert (untouched.train, untouched.validation, untouched.test) == (parts.train, parts.validation, parts.test)


def test_clusters_of_two_kinds_are_told_apart() -> None:
    shift = parse_shift("clusters:2+rotation:3")
    assert [cluster_of(shift, number) for number in range(1, 8)] == [0, 1, 2, 3, 4, 5, 0]
    assert cluster_of(parse_shift("wrong-labels@1"), 5) == 0
