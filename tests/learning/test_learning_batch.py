"""Batched training: what every peer's own trainer makes, up to rounding, for every training option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.errors import DataError, MalformedWeights, TrainingDiverged, TrainingFailed, UsageError
from fl_node.learning import batch_scores
from fl_node.learning.batch import BatchTrainer, batchable
from fl_node.learning.batch_rows import StackedRows, one_pass
from fl_node.learning.dataset import Dataset
from fl_node.learning.models import Weights, genesis
from fl_node.learning.splits import Splits
from fl_node.learning.training import Trainer
from fl_node.spec import Spec, validated

Blobs = Callable[..., Dataset]
#: Seven rows beyond three full batches, less than one batch, exactly one, a single row more than two, ...
COUNTS = (55, 9, 16, 33, 1, 48)
NUMBERS = (4, 1, 9, 2, 30, 7)


def spec_of(training: dict[str, Any], model: dict[str, Any] | None = None, **tables: dict[str, Any]) -> Spec:
    task = {"input_shape": [2, 3], "classes": 3}
    training = {"batch_size": 16, "learning_rate": 0.05, **training}
    return validated(Spec, {"task": task, "training": training, "model": model or {}, **tables}, "test")


def rows_of(blobs: Blobs, counts: tuple[int, ...] = COUNTS) -> list[Splits]:
    found = []
    for seed, count in enumerate(counts):
        data = blobs(rows=count + 24, seed=seed)
        data = Dataset(data.features.reshape(-1, 2, 3), data.labels)
        test, validation, train = (np.arange(8), np.arange(8, 24), np.arange(24, count + 24))
        found.append(Splits(data.rows(train), data.rows(validation), data.rows(test)))
    return found


def starts_of(spec: Spec) -> dict[int, Weights]:
    """Another model for each peer."""
    return {
        number: {
            name: array + np.random.default_rng(number).normal(0.0, 0.1, array.shape).astype(np.float32)
            for name, array in genesis(spec).items()
        }
        for number in NUMBERS
    }


def alike(one: Weights, other: Weights) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype and array.flags.c_contiguous
        np.testing.assert_allclose(array, other[name], rtol=1e-4, atol=2e-6)


OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adam-decay": {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
    "class-weights": {"class_weights": True},
    "cosine": {"schedule": "cosine", "final_learning_rate": 0.001},
    "step": {"schedule": "step", "decay_rounds": 2},
    "proximal": {"proximal": 2.0},
    "clipped": {"clip_gradient": 0.3},
    "all": {
        "optimizer": "adam", "learning_rate": 0.02, "weight_decay": 0.05, "class_weights": True, "schedule": "cosine",
        "proximal": 0.5, "clip_gradient": 0.5,
    },
    "all-sgd": {
        "momentum": 0.5, "weight_decay": 0.05, "class_weights": True, "schedule": "step", "decay_rounds": 1,
        "proximal": 0.5, "clip_gradient": 0.5,
    },
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "logistic": {"name": "logistic"},
    "mlp": {"name": "mlp", "hidden": [7, 5]},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_batch_is_what_its_trainers_make(blobs: Blobs, model: str, option: str) -> None:
    spec = spec_of({"epochs": 3, **OPTIONS[option]}, MODELS[model])
    splits, starts = rows_of(blobs), starts_of(spec)
    jobs = {number: (starts[number], 1 + number % 3) for number in NUMBERS}
    before = {number: {name: array.copy() for name, array in start.items()} for number, start in starts.items()}
    found = BatchTrainer(spec, splits, NUMBERS, "cpu").train(jobs)
    assert list(found) == list(jobs)
    for number, part in zip(NUMBERS, splits, strict=True):
        outcome = found[number]
        assert not isinstance(outcome, TrainingFailed)
        weights, report = Trainer(spec, part, number, "cpu").train(*jobs[number])
        alike(outcome[0], weights)
        assert outcome[1].loss == pytest.approx(report.loss, rel=1e-4)
        assert (outcome[1].steps, outcome[1].samples) == (report.steps, report.samples)
        assert all((before[number][name] == array).all() for name, array in starts[number].items())
        assert any((starts[number][name] != array).any() for name, array in outcome[0].items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("folder", [False, True])
def test_kept_optimizer_states_are_each_peers_own(blobs: Blobs, tmp_path: Path, optimizer: str, folder: bool) -> None:
    """Peers skip rounds, and a later batch trainer goes on from the files of an earlier one."""
    spec = spec_of({"optimizer": optimizer, "momentum": 0.9, "reset_optimizer": False, "epochs": 2})
    splits, states = rows_of(blobs), tmp_path / "states" if folder else None
    batch = BatchTrainer(spec, splits, NUMBERS, "cpu", states=states)
    singles = {number: Trainer(spec, part, number, "cpu") for number, part in zip(NUMBERS, splits, strict=True)}
    batched, single = starts_of(spec), starts_of(spec)
    for sequence in (1, 2, 3):
        who = [number for number in NUMBERS if (number + sequence) % 3]
        if folder:
            batch = BatchTrainer(spec, splits, NUMBERS, "cpu", states=states)
        for number, outcome in batch.train({number: (batched[number], sequence) for number in who}).items():
            assert not isinstance(outcome, TrainingFailed)
            batched[number] = outcome[0]
            single[number], _ = singles[number].train(single[number], sequence)
    for number in NUMBERS:
        alike(batched[number], single[number])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 45), st.integers(1, 3), st.integers(1, 4),
    st.sampled_from(["logistic", "mlp"]), st.sampled_from(["sgd", "adam", "clipped", "momentum"]),
)  # fmt: skip
def test_any_row_counts_batch_size_and_number_of_threads(
    counts: list[int], size: int, epochs: int, threads: int, model: str, option: str
) -> None:
    spec = spec_of({"batch_size": size, "epochs": epochs, **OPTIONS[option]}, MODELS[model])
    random = np.random.default_rng(0)
    splits = []
    for count in counts:
        features = random.normal(0.0, 1.0, (count, 2, 3)).astype(np.float32)
        data = Dataset(features, random.integers(0, 3, count))
        splits.append(Splits(data, data, data))
    numbers, start = range(1, len(counts) + 1), genesis(spec)
    found = BatchTrainer(spec, splits, numbers, "cpu", threads).train(dict.fromkeys(numbers, (start, 2)))
    for number, part in zip(numbers, splits, strict=True):
        outcome = found[number]
        assert not isinstance(outcome, TrainingFailed)
        weights, report = Trainer(spec, part, number, "cpu").train(start, 2)
        alike(outcome[0], weights)
        assert outcome[1].loss == pytest.approx(report.loss, rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_who_diverges_diverges_alone(blobs: Blobs, model: str) -> None:
    spec = spec_of({"learning_rate": 1000.0, "epochs": 12, "weight_decay": 900.0}, MODELS[model])
    splits = rows_of(blobs)
    calm = spec_of({"epochs": 3}, MODELS[model])
    wild = {name: np.full_like(array, 1e38) for name, array in genesis(calm).items()}
    jobs = {number: (wild if number == 9 else genesis(calm), 1) for number in NUMBERS}
    found = BatchTrainer(calm, splits, NUMBERS, "cpu").train(jobs)
    assert isinstance(found[9], TrainingDiverged) and "not finite" in str(found[9])
    with pytest.raises(TrainingDiverged):
        Trainer(calm, splits[2], 9, "cpu").train(wild, 1)
    for number, part in zip(NUMBERS, splits, strict=True):
        if number != 9:
            outcome = found[number]
            assert not isinstance(outcome, TrainingFailed)
            alike(outcome[0], Trainer(calm, part, number, "cpu").train(*jobs[number])[0])
    everyone = BatchTrainer(spec, splits, NUMBERS, "cpu").train({number: (genesis(spec), 1) for number in NUMBERS})
    assert {type(outcome) for outcome in everyone.values()} == {TrainingDiverged}


def test_other_models_and_own_loops_are_trained_one_after_the_other(blobs: Blobs) -> None:
    for model, training in (
        ({"name": "cnn", "hidden": [4]}, {}),
        ({}, {"loop": "tests.learning.test_learning_batch:own"}),
    ):
        spec = spec_of(training, model)
        assert not batchable(spec)
        splits = rows_of(blobs)
        batch = BatchTrainer(spec, splits, NUMBERS, "cpu", threads=2)
        found = batch.train({number: (genesis(spec), 1) for number in NUMBERS})
        for number, part in zip(NUMBERS, splits, strict=True):
            outcome = found[number]
            if training and number == 30:
                assert isinstance(outcome, TrainingFailed) and "raised ValueError" in str(outcome)
                continue
            assert not isinstance(outcome, TrainingFailed)
            weights, report = Trainer(spec, part, number, "cpu").train(genesis(spec), 1)
            alike(outcome[0], weights)
            assert outcome[1].steps == report.steps
    assert batchable(spec_of({}, {"name": "mlp"}))


def own(module: torch.nn.Module, features: torch.Tensor, labels: torch.Tensor, spec: Spec, seed: int) -> None:
    if len(labels) == 1:
        raise ValueError("one row is too few")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(float(features.mean()))


@pytest.mark.parametrize("model", ["logistic", "mlp", "cnn"])
def test_scores_are_each_trainers(blobs: Blobs, model: str) -> None:
    spec = spec_of({}, {"name": model, "hidden": [4]})
    splits, models = rows_of(blobs), starts_of(spec)
    models[9] = {name: np.full_like(array, np.nan) for name, array in models[9].items()}
    batch = BatchTrainer(spec, splits, NUMBERS, "cpu", threads=2)
    common = splits[0].train
    on_test, on_validation = batch.evaluate(models, full=True), batch.validate(models)
    on_common = batch.evaluate_on(models, common)
    for number, part in zip(NUMBERS, splits, strict=True):
        trainer = Trainer(spec, part, number, "cpu")
        expected = (
            trainer.evaluate(models[number], full=True),
            trainer.validate(models[number]),
            trainer.evaluate_on(models[number], common),
        )
        for got, wanted in zip((on_test[number], on_validation[number], on_common[number]), expected, strict=True):
            assert got is not None and wanted is not None
            assert got.confusion == wanted.confusion and got.score_ppm == wanted.score_ppm and got.auc == wanted.auc
            assert got.loss == pytest.approx(wanted.loss, rel=1e-5)
    nothing = [Splits(part.train, part.train.rows(np.arange(0)), part.test) for part in splits]
    assert set(BatchTrainer(spec, nothing, NUMBERS, "cpu").validate(models).values()) == {None}


def test_rows_that_lie_together_are_not_copied(blobs: Blobs) -> None:
    whole = blobs(rows=60)
    parts = [Dataset(whole.features[a:b], whole.labels[a:b]) for a, b in ((10, 30), (30, 31), (31, 60))]
    rows = StackedRows(parts)
    assert np.shares_memory(rows.features, whole.features) and np.shares_memory(rows.labels, whole.labels)
    assert np.array_equal(rows.features, whole.features[10:]) and np.array_equal(rows.labels, whole.labels[10:])
    for apart in ([parts[0], parts[2]], [parts[2], parts[0]], [parts[0].rows(np.arange(20)), parts[1]]):
        copied = StackedRows(apart)
        assert not np.shares_memory(copied.features, whole.features)
        for place, part in enumerate(apart):
            assert np.array_equal(copied.part(place).features, part.features)
            assert np.array_equal(copied.part(place).labels, part.labels)


def test_a_pass_takes_every_row_of_every_peer_once(blobs: Blobs) -> None:
    rows = StackedRows([blobs(rows=count, seed=count) for count in COUNTS])
    places = sorted(range(len(COUNTS)), key=lambda place: -COUNTS[place])
    orders = [np.random.default_rng(place).permutation(COUNTS[place]) for place in places]
    seen = []
    for step in one_pass(rows, places, orders, 16, None, torch.device("cpu")):
        real = step.shares_P1B[:, 0] > 0
        assert (real.sum(1) == step.sizes_P).all()
        np.testing.assert_allclose(step.shares_P1B.sum((1, 2)), 1.0, rtol=1e-6)
        numbers = step.rows_PB.reshape(real.shape)
        assert np.array_equal(rows.labels[numbers], step.targets_P1B[:, 0])
        seen.append(numbers[real].numpy())
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(sum(COUNTS)))


def test_what_a_batch_refuses(blobs: Blobs) -> None:
    spec, splits = spec_of({}), rows_of(blobs)
    for numbers in ((), (1, 2), (1, 1, 2, 3, 4, 5)):
        with pytest.raises(UsageError, match="as many different numbers"):
            BatchTrainer(spec, splits, numbers, "cpu")
    with pytest.raises(UsageError, match="0 threads"):
        BatchTrainer(spec, splits, NUMBERS, "cpu", threads=0)
    batch = BatchTrainer(spec, splits, NUMBERS, "cpu")
    with pytest.raises(UsageError, match="no rows of peer 5, 6;"):
        batch.train({5: (genesis(spec), 1), 6: (genesis(spec), 1), 1: (genesis(spec), 1)})
    with pytest.raises(MalformedWeights, match=r"linear\.bias"):
        batch.train({1: ({"linear.weight": np.zeros((3, 6), np.float32)}, 1)})
    with pytest.raises(MalformedWeights, match="float64"):
        batch.train({1: ({name: array.astype(np.float64) for name, array in genesis(spec).items()}, 1)})
    assert batch.train({}) == {}


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_scores_do_not_depend_on_how_models_and_rows_are_grouped(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    spec = spec_of({}, {"name": model, "hidden": [5]})
    splits, models = rows_of(blobs), starts_of(spec)
    batch = BatchTrainer(spec, splits, NUMBERS, "cpu", threads=2)
    wanted = batch.evaluate_on(models, splits[0].train, full=True)
    monkeypatch.setattr(batch_scores, "MODELS", 4)
    monkeypatch.setattr(batch_scores, "VALUES", 70)
    found = batch.evaluate_on(models, splits[0].train, full=True)
    assert list(found) == list(models)
    for number, score in found.items():
        assert score.confusion == wanted[number].confusion and score.loss == pytest.approx(wanted[number].loss)
    with pytest.raises(DataError, match="no rows to score on"):
        batch.evaluate_on(models, splits[0].train.rows(np.arange(0)))
    with pytest.raises(MalformedWeights):
        batch.evaluate({1: {}})


def test_torchs_generator_is_left_as_it_was(blobs: Blobs) -> None:
    spec = spec_of({}, {"name": "cnn", "hidden": [4]})
    before = torch.random.get_rng_state()
    BatchTrainer(spec, rows_of(blobs), NUMBERS, "cpu", threads=3).train(dict.fromkeys(NUMBERS, (genesis(spec), 1)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_torchs_threads_are_left_as_they_were(blobs: Blobs) -> None:
    spec = spec_of({})
    torch.set_num_threads(2)
    try:
        BatchTrainer(spec, rows_of(blobs), NUMBERS, "cpu", threads=3).train(
            {1: (genesis(spec), 1), 2: (genesis(spec), 1)}
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
