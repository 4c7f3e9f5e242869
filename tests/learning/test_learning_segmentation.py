"""Masks: Dice against scikit-learn, digits on a canvas, the U-Net, and training against a plain torch loop."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from fl_node.errors import DataError, SpecError
from fl_node.learning import training as training_module
from fl_node.learning.data import load, load_packed
from fl_node.learning.dataset import Dataset, joined, strata_of
from fl_node.learning.metrics import dice_of_each, measure, measure_masks
from fl_node.learning.models import build, genesis, schema
from fl_node.learning.partition import partition
from fl_node.learning.splits import Splits, split
from fl_node.learning.training import Trainer, training_seed
from fl_node.spec import Spec
from fl_node.tables import TaskSpec


def task_of(classes: int = 2, shape: tuple[int, ...] = (24, 24), **keys: Any) -> TaskSpec:
    return TaskSpec(
        data="digits-canvas", input_shape=shape, classes=classes, kind="segmentation", metric="dice", **keys
    )


def spec_of(
    make_spec: Any,
    shape: tuple[int, ...] = (24, 24),
    classes: int = 2,
    hidden: tuple[int, ...] = (4, 8),
    **training: Any,
) -> Spec:
    found: Spec = make_spec(
        task=task_of(classes, shape).model_dump(), model={"name": "unet", "hidden": hidden}, training=training
    )
    return found


# ---- Dice -----------------------------------------------------------------------------------------------------------


@st.composite
def masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, classes, 4, 5] and masks [n, 4, 5], some of them empty, with few classes in each sample."""
    classes, count = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    few = random.integers(0, classes, (count, 2))
    truth = np.take_along_axis(few, random.integers(0, 2, (count, 20)), axis=1).reshape(count, 4, 5)
    truth[random.random(count) < 0.3] = 0
    scores = random.normal(0, 1, (count, classes, 4, 5))
    scores[:, 0] += draw(st.sampled_from([0.0, 2.0, 50.0]))
    return scores.astype(np.float32), truth


def dice_by_scikit_learn(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Dice of a class is its F1 over the pixels."""
    classes = sorted((set(truth.ravel().tolist()) | set(predicted.ravel().tolist())) - {0})
    if not classes:
        return 1.0
    return float(oracle.f1_score(truth.ravel(), predicted.ravel(), labels=classes, average="macro", zero_division=0))


@settings(max_examples=100, deadline=None)
@given(masks())
def test_equal_to_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = drawn
    classes, predicted = scores.shape[1], scores.argmax(axis=1)
    found = measure(scores, truth, "dice", full=True)
    expected = [dice_by_scikit_learn(one, other) for one, other in zip(truth, predicted, strict=True)]
    assert np.allclose(dice_of_each(predicted, truth, classes), expected, atol=1e-12)
    assert found.dice is not None and math.isclose(found.dice, float(np.mean(expected)), abs_tol=1e-12)
    assert found.score_ppm == int(found.dice * 1_000_000) and found.quality == found.dice
    flat = truth.ravel(), predicted.ravel()
    assert np.array_equal(found.confusion, oracle.confusion_matrix(*flat, labels=range(classes)))
    assert found.samples == len(truth) and found.correct == int((truth == predicted).sum())
    assert found.accuracy == oracle.accuracy_score(*flat)
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(*flat, average="macro", zero_division=0)
    assert np.allclose((found.precision, found.recall, found.macro_f1), (precision, recall, f1), atol=1e-12)
    loss = F.cross_entropy(torch.from_numpy(scores).double(), torch.from_numpy(truth))
    assert math.isclose(found.loss, float(loss), rel_tol=1e-9) and found.auc is None


@settings(max_examples=30, deadline=None)
@given(masks(), st.integers(1, 6))
def test_part_by_part_is_the_same(drawn: tuple[np.ndarray, np.ndarray], size: int) -> None:
    scores, truth = drawn
    whole = measure_masks([(scores, truth)])
    parts = measure_masks((scores[at : at + size], truth[at : at + size]) for at in range(0, len(truth), size))
    assert parts.confusion == whole.confusion and parts.dice == whole.dice
    assert math.isclose(parts.loss, whole.loss, rel_tol=1e-12)


def test_dice_by_hand() -> None:
    truth = np.array([[[0, 1, 1, 2]], [[0, 0, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 0, 0]]])
    predicted = np.array([[[0, 1, 2, 2]], [[0, 0, 0, 0]], [[0, 3, 0, 0]], [[0, 0, 0, 0]]])
    # 1: 2*1/(2+1) of class 1, 2*1/(1+2) of class 2. 2: nothing there, nothing said. 3: said, not there. 4: missed.
    assert dice_of_each(predicted, truth, 4).tolist() == [pytest.approx(2 / 3), 1.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.filterwarnings("error")
def test_logits_that_overflowed_score_badly_but_give_finite_numbers(bad: float) -> None:
    found = measure(np.full((2, 3, 4, 4), bad, dtype=np.float32), np.ones((2, 4, 4), np.int64), "dice")
    assert found.score_ppm == 0
    json.dumps(asdict(found), allow_nan=False)


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_canvases_are_the_same_for_everybody() -> None:
    found = load("digits-canvas", task_of())
    digits = load("digits", TaskSpec())
    assert found.features.shape == found.labels.shape == (1797, 24, 24)
    assert found.features.dtype == np.float32 and found.labels.dtype == np.int64
    assert found.features.min() >= 0.0 and found.features.max() <= 1.0
    assert np.array_equal(found.strata, digits.labels), "rows are dealt out by their digit"
    belongs = found.labels.sum(axis=(1, 2))
    assert belongs.min() >= 10 and belongs.max() <= 14 * 14, "every canvas has a digit, none fills it"
    assert [int(belongs[:5].sum()), int(belongs.sum())] == [210, 76956]  # pins the draws
    lit, dark = (float(found.features[found.labels == value].mean()) for value in (1, 0))
    assert lit > dark + 0.3


def test_eleven_classes_are_the_same_masks_by_digit() -> None:
    two, eleven = load("digits-canvas", task_of(2)), load("digits-canvas", task_of(11))
    assert np.array_equal(two.features, eleven.features)
    assert np.array_equal(eleven.labels, two.labels * (1 + two.strata[:, None, None]))


def test_parts_of_the_canvases_share_no_digit() -> None:
    train, test = (load("digits-canvas", task_of(), part=part) for part in ("train", "test"))  # type: ignore[arg-type]
    assert (len(train), len(test)) == (1438, 359)
    whole = load("digits-canvas", task_of())
    places = {row.tobytes(): number for number, row in enumerate(whole.features)}
    assert len(places) == 1797, "each canvas is of another digit"
    used = [{places[row.tobytes()] for row in part.features} for part in (train, test)]
    assert not used[0] & used[1] and len(used[0] | used[1]) == 1797


@pytest.mark.parametrize("shape", [(16, 16), (1, 20, 33)])
def test_canvases_of_other_shapes(shape: tuple[int, ...]) -> None:
    found = load("digits-canvas", task_of(shape=shape))
    assert found.features.shape == (1797, *shape) and found.labels.shape == (1797, *shape[-2:])
    assert found.labels.sum(axis=(1, 2)).min() >= 10


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (TaskSpec(data="digits-canvas", input_shape=(24, 24), classes=2), "'classification'.*expected segmentation"),
        (task_of(classes=10), r"task.classes = 10; expected segmentation with 2 classes .* or 11"),
        (task_of(shape=(15, 24)), r"\[15, 24\]; expected \[H, W\] or \[1, H, W\], no side below 16"),
        (task_of(shape=(3, 24, 24)), r"\[3, 24, 24\]"),
        (task_of(shape=(576,)), r"\[576\]"),
    ],
)
def test_canvases_that_are_refused(task: TaskSpec, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load("digits-canvas", task)


def test_masks_in_a_file_come_back(tmp_path: Path) -> None:
    task = task_of(11)
    packed = load_packed("digits-canvas", task, None, "test")
    indices = partition(packed.strata, 3, "label-skew:4", 0)[1]
    packed.rows(indices).save(tmp_path / "shard.npz")
    found = load(f"npz:{tmp_path / 'shard.npz'}", task)
    test = load("digits-canvas", task, part="test")
    assert np.array_equal(found.features, test.features[indices]) and np.array_equal(found.labels, test.labels[indices])
    assert np.array_equal(found.strata, test.strata[indices]) and len(np.unique(found.strata)) == 4
    with np.load(tmp_path / "shard.npz") as arrays:
        assert arrays["y"].dtype == np.uint8, "a byte for each pixel"
    found.save(tmp_path / "again.npz")
    again = load(f"npz:{tmp_path / 'again.npz'}", task)
    assert np.array_equal(again.strata, found.strata) and np.array_equal(again.labels, found.labels)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros(2)}, r"labels of shape \[2\]; expected \[n, 4, 4\] and \[n, 4, 4\]"),
        ({"y": np.zeros((2, 4, 5))}, r"labels of shape \[2, 4, 5\]"),
        ({"y": np.full((2, 4, 4), 2)}, r"label of sample 0, pixel \[0, 0\], \(from 0\) is 2; expected .* 0 to 1"),
        ({"y": np.full((2, 4, 4), 0.5)}, "is 0.5"),
        ({"groups": np.zeros(3, np.int64)}, r"groups are int64\[3\]; expected .* each of the 2 samples"),
        ({"groups": np.array([0, -1])}, "groups are"),
        ({"groups": np.array([0.5, 1])}, "groups are float64"),
    ],
)
def test_masks_that_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    good = {"x": np.zeros((2, 4, 4)), "y": np.zeros((2, 4, 4))}
    np.savez(tmp_path / "rows.npz", **(good | arrays))
    with pytest.raises(DataError, match=words):
        load(f"npz:{tmp_path / 'rows.npz'}", task_of(shape=(4, 4)))


def test_a_mask_may_have_an_axis_of_length_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((2, 1, 4, 4)), y=np.ones((2, 1, 4, 4), np.uint8))
    assert load(f"npz:{tmp_path / 'rows.npz'}", task_of(shape=(4, 4))).labels.shape == (2, 4, 4)


def test_the_stratum_of_a_mask_is_its_most_frequent_class() -> None:
    found = np.array([[[0, 0], [0, 2]], [[1, 3], [3, 0]], [[0, 0], [0, 0]], [[2, 1], [0, 0]]])
    assert strata_of(found).tolist() == [2, 3, 0, 1]
    assert strata_of(found[:0]).tolist() == []
    labels = np.array([4, 1, 1])
    assert strata_of(labels) is labels and strata_of(labels, labels + 1).tolist() == [5, 2, 2]


def test_masks_are_split_and_joined_by_strata() -> None:
    task = task_of(validation=0.2, test=0.2)
    data = load("digits-canvas", task)
    parts = split(data, task)
    for part, share in ((parts.train, 0.6), (parts.validation, 0.2), (parts.test, 0.2)):
        counts = np.bincount(part.strata, minlength=10) / np.bincount(data.strata)
        assert np.allclose(counts, share, atol=0.01)
    whole = joined([parts.train, parts.validation])
    assert len(whole) == len(parts.train) + len(parts.validation)
    assert np.array_equal(whole.strata[: len(parts.train)], parts.train.strata)
    bare = Dataset(data.features, data.labels)
    assert joined([bare, data]).groups is None


# ---- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "hidden"),
    [((16, 16), (4, 8)), ((1, 17, 21), (4, 6, 8)), ((3, 9, 12), (5,)), ((5, 7), (4, 4, 4))],
)
def test_a_class_for_every_pixel(make_spec: Any, shape: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    spec = spec_of(make_spec, shape, 3, hidden)
    module = build(spec)
    found = module(torch.randn(2, *shape))
    assert found.shape == (2, 3, *shape[-2:])
    assert schema(spec) == {name: (a.dtype.name, a.shape) for name, a in genesis(spec).items()}
    slopes = torch.autograd.grad(found.square().mean(), list(module.parameters()))
    assert all(bool(slope.abs().sum() > 0) for slope in slopes[-2:]) and len(slopes) == len(genesis(spec))


def test_names_and_levels_of_the_unet(make_spec: Any) -> None:
    names = schema(spec_of(make_spec, hidden=(4, 8, 8)))
    assert names["down.level1.conv1.weight"] == ("float32", (4, 1, 3, 3))
    assert names["down.level3.conv2.weight"] == ("float32", (8, 8, 3, 3))
    assert names["up.level1.conv1.weight"] == ("float32", (4, 12, 3, 3)), "the level below and its own way down"
    assert names["pixels.weight"] == ("float32", (2, 4, 1, 1))


def test_a_pixel_sees_further_on_the_way_down(make_spec: Any) -> None:
    """What is 12 pixels away reaches a pixel only through the lower levels."""
    for hidden, reached in (((4,), False), ((4, 4, 4), True)):
        module = build(spec_of(make_spec, (32, 32), hidden=hidden)).eval()
        image = torch.zeros(1, 32, 32, requires_grad=True)
        for part in module.modules():
            if isinstance(part, torch.nn.GroupNorm):
                part.forward = lambda x: x  # type: ignore[method-assign] # a mean over the image sees everything
        (slope,) = torch.autograd.grad(module(image + 1)[0, :, 16, 16].sum(), image)
        assert bool(slope[0, 16, 4] != 0) == reached


@pytest.mark.parametrize(
    ("task", "model", "words"),
    [
        (
            {"kind": "classification", "metric": "accuracy"},
            {"name": "unet"},
            "'unet' with task.kind = 'classification'",
        ),
        ({}, {"name": "cnn"}, "'cnn' with task.kind = 'segmentation': expected unet or module:factory"),
        ({}, {"name": "logistic"}, "expected unet or module:factory"),
        ({"input_shape": (64,)}, {"name": "unet"}, r"input_shape = \[64\]: expected \[H, W\]"),
        (
            {"input_shape": (3, 20)},
            {"name": "unet", "hidden": (4, 4, 4)},
            "3 levels would halve an image of 3 x 20",
        ),
        ({}, {"name": "unet", "hidden": (2**16, 2**16)}, "layer down.level1.conv2 would have 65536 x 65536 x 3 x 3"),
    ],
)
def test_models_that_are_refused(make_spec: Any, task: dict[str, Any], model: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build(make_spec(task=task_of().model_dump() | task, model=model))


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_training_equals_a_plain_torch_loop(make_spec: Any, weighted: bool) -> None:
    spec = spec_of(make_spec, (16, 16), batch_size=8, learning_rate=0.3, momentum=0.5, class_weights=weighted)
    rows = load("digits-canvas", spec.task).rows(np.arange(30))
    trainer = Trainer(spec, Splits(rows, rows, rows), 1, "cpu")
    found, report = trainer.train(genesis(spec), 1)

    x, y = torch.from_numpy(rows.features), torch.from_numpy(rows.labels)
    weights = (y.numel() / (2 * torch.bincount(y.ravel()).double())).float() if weighted else None
    module = build(spec)
    oracle_ = torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.5)
    generator = np.random.Generator(np.random.PCG64(training_seed(0, 1, 1)))
    for chosen in torch.from_numpy(generator.permutation(30)).split(8):
        oracle_.zero_grad()
        F.cross_entropy(module(x[chosen]), y[chosen], weight=weights).backward()
        oracle_.step()
    for name, tensor in module.state_dict().items():
        assert np.allclose(found[name], tensor.numpy(), atol=1e-6), name
    assert report.samples == 30 and report.steps == 4


def test_scores_and_gradients_do_not_depend_on_how_many_are_looked_at(
    make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(make_spec, (16, 16), class_weights=True)
    rows = load("digits-canvas", spec.task).rows(np.arange(40))
    trainer, weights = Trainer(spec, Splits(rows, rows, rows), 1, "cpu"), genesis(spec)
    found, (slopes, loss) = trainer.evaluate(weights), trainer.validation_gradient(weights)
    monkeypatch.setattr(training_module, "EVALUATION_PIXELS", 16 * 16 * 12)  # 12 to score, 3 for a gradient
    again, (others, again_loss) = trainer.evaluate(weights), trainer.validation_gradient(weights)
    assert again.confusion == found.confusion and again.dice == found.dice
    assert math.isclose(again.loss, found.loss, rel_tol=1e-6) and math.isclose(again_loss, loss, rel_tol=1e-6)
    assert slopes.keys() == weights.keys()
    for name, slope in slopes.items():
        assert np.allclose(slope, others[name], atol=1e-6)
    module = build(spec).eval()
    y = torch.from_numpy(rows.labels)
    each = (y.numel() / (2 * torch.bincount(y.ravel()).double())).float()
    whole = F.cross_entropy(module(torch.from_numpy(rows.features)), y, weight=each)
    assert math.isclose(loss, float(whole.detach()), rel_tol=1e-5)
    for slope, expected in zip(slopes.values(), torch.autograd.grad(whole, list(module.parameters())), strict=True):
        assert np.allclose(slope, expected.numpy(), atol=1e-5)


def test_canvases_are_learned(make_spec: Any) -> None:
    spec = spec_of(make_spec, hidden=(8, 16), optimizer="adam", learning_rate=0.01, batch_size=16, epochs=2)
    train, test = (load("digits-canvas", spec.task, part=part) for part in ("train", "test"))  # type: ignore[arg-type]
    trainer = Trainer(spec, Splits(train, train, test), 1, "cpu")
    start = trainer.evaluate(genesis(spec))
    found = trainer.evaluate(trainer.train(genesis(spec), 1)[0])
    assert found.score_ppm > 750_000 > 400_000 > start.score_ppm


def test_enormous_weights_score_badly_but_do_not_raise(make_spec: Any) -> None:
    spec = spec_of(make_spec, (16, 16))
    rows = load("digits-canvas", spec.task).rows(np.arange(20))
    huge = {name: np.full_like(array, 3e38) for name, array in genesis(spec).items()}
    found = Trainer(spec, Splits(rows, rows, rows), 1, "cpu").evaluate(huge, full=True)
    assert found.score_ppm < 500_000 and np.isfinite(found.loss)
