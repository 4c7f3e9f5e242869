"""Schedules, the proximal term, clipping, and the gradient of the validation loss: each against torch or a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fl_node.errors import DataError
from fl_node.learning import training as training_module
from fl_node.learning.dataset import Dataset
from fl_node.learning.gradients import autograd, clipped, proximal
from fl_node.learning.models import Weights, build, genesis
from fl_node.learning.optimizers import optimizer
from fl_node.learning.schedule import learning_rate
from fl_node.learning.splits import Splits, split
from fl_node.learning.training import Trainer, training_seed
from fl_node.spec import Spec
from fl_node.tables import TrainingSpec

Rows = Callable[..., Dataset]
MODELS = [{"name": "logistic"}, {"name": "mlp", "hidden": (5,)}]


def spec_of(make_spec: Any, model: dict[str, Any] | None = None, planned: int = 5, **training: Any) -> Spec:
    task = {"input_shape": (6,), "classes": 3}
    found: Spec = make_spec(task=task, model=model or {}, training=training, rounds={"planned": planned})
    return found


def trainer_of(spec: Spec, rows: Dataset) -> Trainer:
    return Trainer(spec, split(rows, spec.task), 1, "cpu")


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# ---- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("final", [0.0, 0.02])
def test_cosine_is_torch_s(final: float) -> None:
    training = TrainingSpec(schedule="cosine", learning_rate=0.3, final_learning_rate=final)
    planned, steps = 4, 7
    rule = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(rule, planned * steps, final)
    for sequence in range(1, planned + 1):
        for step in range(steps):
            found = learning_rate(training, planned, sequence, step / steps)
            assert math.isclose(found, oracle.get_last_lr()[0], rel_tol=1e-9)
            rule.step()
            oracle.step()
    for beyond in (planned + 1, planned + 9):
        assert learning_rate(training, planned, beyond, 0.5) == final


def test_steps_down_are_torch_s_until_the_plan_ends() -> None:
    training = TrainingSpec(schedule="step", learning_rate=0.3, decay=0.5, decay_rounds=3)
    planned = 8
    rule = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    oracle = torch.optim.lr_scheduler.StepLR(rule, 3, 0.5)
    for sequence in range(1, planned + 1):
        assert {learning_rate(training, planned, sequence, part) for part in (0.0, 0.5, 0.99)} == set(
            oracle.get_last_lr()
        )
        rule.step()
        oracle.step()
    assert learning_rate(training, planned, 100, 0.0) == learning_rate(training, planned, planned, 0.0)


@given(st.integers(1, 50), st.integers(1, 60), st.floats(0, 0.999), st.floats(1e-4, 10), st.floats(0, 10))
def test_rates_stay_between_their_ends(planned: int, sequence: int, done: float, first: float, final: float) -> None:
    cosine = TrainingSpec(schedule="cosine", learning_rate=first, final_learning_rate=final)
    found = learning_rate(cosine, planned, sequence, done)
    assert min(first, final) * (1 - 1e-12) <= found <= max(first, final) * (1 + 1e-12)
    assert learning_rate(TrainingSpec(learning_rate=first), planned, sequence, done) == first


@pytest.mark.parametrize(
    "settings", [{"momentum": 0.5, "weight_decay": 0.1}, {"optimizer": "adam", "weight_decay": 0.1}]
)
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_optimisers_with_a_schedule_equal_torch_s_to_the_bit(schedule: str, settings: dict[str, Any]) -> None:
    training = TrainingSpec(schedule=schedule, learning_rate=0.01, decay_rounds=1, **settings)
    torch.manual_seed(0)
    ours = [torch.randn(4, 3), torch.randn(3)]
    theirs = [parameter.clone().requires_grad_() for parameter in ours]
    oracle: torch.optim.Optimizer
    if training.optimizer == "sgd":
        oracle = torch.optim.SGD(theirs, lr=1.0, momentum=0.5, weight_decay=0.1, foreach=False)
    else:
        oracle = torch.optim.Adam(theirs, lr=1.0, weight_decay=0.1, foreach=False)
    rule = optimizer(training, ours)
    for step in range(24):
        rate = learning_rate(training, 3, 1 + step // 8, step % 8 / 8)
        gradients = [torch.randn_like(parameter) for parameter in ours]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        oracle.param_groups[0]["lr"] = rule.rate = rate
        rule.step(gradients)
        oracle.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other.detach())


# ---- the proximal term and clipping ---------------------------------------------------------------------------------


def test_the_proximal_gradient_is_that_of_its_formula(make_spec: Any) -> None:
    torch.manual_seed(0)
    module = build(spec_of(make_spec, MODELS[1]))
    parameters = list(module.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    pulled = proximal(autograd(module, parameters, None), parameters, 0.7)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter))
    x, y = torch.randn(9, 6), torch.arange(9) % 3
    loss, slopes = pulled(x, y)
    alone = F.cross_entropy(module(x), y)
    pull = sum(((one - origin) ** 2).sum() for one, origin in zip(parameters, start, strict=True))
    expected = torch.autograd.grad(alone + 0.7 / 2 * pull, parameters)
    assert torch.equal(loss, alone.detach()), "what is told is the loss of the rows"
    for one, other in zip(slopes, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("largest", [1e-3, 0.5, 1e6])
def test_clipping_equals_torch_s_to_the_bit(largest: float) -> None:
    torch.manual_seed(0)
    slopes = [torch.randn(4, 3) * 5, torch.randn(3)]
    theirs = [torch.zeros_like(slope) for slope in slopes]
    for parameter, slope in zip(theirs, slopes, strict=True):
        parameter.grad = slope.clone()
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    _, found = clipped(lambda x, y: (torch.zeros(()), slopes), largest)(torch.zeros(1), torch.zeros(1))
    for one, parameter in zip(found, theirs, strict=True):
        assert parameter.grad is not None and torch.equal(one, parameter.grad)
    norm = math.sqrt(sum(float((slope**2).sum()) for slope in found))
    assert norm <= largest * (1 + 1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.01}])
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "cosine", "final_learning_rate": 0.001},
        {"schedule": "step", "decay_rounds": 1, "decay": 0.1},
        {"proximal": 0.5},
        {"clip_gradient": 0.3},
        {"schedule": "cosine", "proximal": 0.5, "clip_gradient": 0.3},
    ],
)
def test_training_with_options_equals_a_plain_torch_loop(
    make_spec: Any, blobs: Rows, model: dict[str, Any], settings: dict[str, Any], options: dict[str, Any]
) -> None:
    spec = spec_of(make_spec, model, epochs=2, batch_size=16, **settings, **options)
    training, rows, sequence = spec.training, blobs(131), 3
    trainer = trainer_of(spec, rows)
    found, _ = trainer.train(genesis(spec), sequence)

    train = split(rows, spec.task).train
    x, y = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    module = build(spec)
    over = list(module.parameters())
    start = [parameter.detach().clone() for parameter in over]
    oracle: torch.optim.Optimizer
    if training.optimizer == "adam":
        oracle = torch.optim.Adam(over)
    else:
        oracle = torch.optim.SGD(over, momentum=training.momentum)
    generator = np.random.Generator(np.random.PCG64(training_seed(0, 1, sequence)))
    step, steps = 0, 2 * math.ceil(len(y) / 16)
    for _ in range(2):
        for chosen in torch.from_numpy(generator.permutation(len(y))).split(16):
            oracle.param_groups[0]["lr"] = learning_rate(training, 5, sequence, step / steps)
            oracle.zero_grad()
            loss = F.cross_entropy(module(x[chosen]), y[chosen])
            if training.proximal:
                away = sum(((one - origin) ** 2).sum() for one, origin in zip(over, start, strict=True))
                loss = loss + training.proximal / 2 * away
            loss.backward()
            if training.clip_gradient:
                torch.nn.utils.clip_grad_norm_(over, training.clip_gradient)
            oracle.step()
            step += 1
    exact = model["name"] == "mlp" and not training.proximal
    for name, tensor in module.state_dict().items():
        if exact:
            assert np.array_equal(found[name], tensor.numpy()), name
        assert np.allclose(found[name], tensor.numpy(), atol=2e-5), name


def test_a_stronger_pull_stays_nearer_to_the_base(make_spec: Any, blobs: Rows) -> None:
    rows, moved = blobs(), []
    for strength in (0.0, 0.1, 1.0, 5.0):
        spec = spec_of(make_spec, epochs=5, proximal=strength)
        start = genesis(spec)
        found, _ = trainer_of(spec, rows).train(start, 1)
        moved.append(sum(float(((found[name] - start[name]) ** 2).sum()) for name in start))
    assert moved == sorted(moved, reverse=True) and moved[-1] < 0.2 * moved[0]


def test_the_schedule_ends_with_the_plan_and_restarts_where_it_was(make_spec: Any, blobs: Rows) -> None:
    spec = spec_of(make_spec, planned=3, schedule="cosine", momentum=0.9, reset_optimizer=False)
    trainer, start = trainer_of(spec, blobs()), genesis(spec)
    moved = []
    for sequence in (1, 2, 3, 4):
        found, _ = trainer_of(spec, blobs()).train(start, sequence)
        moved.append(sum(float(((found[name] - start[name]) ** 2).sum()) for name in start))
    assert moved == sorted(moved, reverse=True) and moved[3] == 0.0, "the final rate is 0"
    first, _ = trainer.train(start, 1)
    second, _ = trainer.train(first, 2)
    assert equal(trainer.train(first, 2)[0], second), "the same round again is the same"


# ---- the gradient of the validation loss ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_validation_gradient_is_autograd_s_over_all_rows(
    make_spec: Any, blobs: Rows, model: dict[str, Any], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "EVALUATION_ROWS", 20)  # 5 rows at once, the last batch smaller
    spec = spec_of(make_spec, model, class_weights=weighted)
    rows = blobs(124)
    train, rest = rows.rows(np.arange(30)), rows.rows(np.arange(30, 124))
    skewed = rest.rows(np.flatnonzero((rest.labels != 2) | (np.arange(94) % 4 == 0)))
    trainer = Trainer(spec, Splits(train, skewed, rest), 1, "cpu")
    weights = genesis(spec)
    kept = {name: array.copy() for name, array in weights.items()}
    found, loss = trainer.validation_gradient(weights)

    module = build(spec).double()
    x, y = torch.from_numpy(skewed.features).double(), torch.from_numpy(skewed.labels)
    each = len(train) / (3 * torch.bincount(torch.from_numpy(train.labels))).double() if weighted else None
    expected_loss = F.cross_entropy(module(x), y, weight=each)
    expected = torch.autograd.grad(expected_loss, list(module.parameters()))
    assert math.isclose(loss, float(expected_loss.detach()), rel_tol=1e-5)
    assert list(found) == [name for name, _ in module.named_parameters()] and equal(weights, kept)
    for array, tensor in zip(found.values(), expected, strict=True):
        assert array.dtype == np.float64 and np.allclose(array, tensor.numpy(), atol=1e-6)
    if not weighted:
        told = trainer.validate(weights)
        assert told is not None and math.isclose(loss, told.loss, rel_tol=1e-5)


def test_the_validation_gradient_foretells_the_loss_nearby(make_spec: Any, blobs: Rows) -> None:
    spec = spec_of(make_spec)
    trainer = trainer_of(spec, blobs(400))
    weights = trainer.train(genesis(spec), 1)[0]
    slopes, loss = trainer.validation_gradient(weights)
    size = math.sqrt(sum(float((slope**2).sum()) for slope in slopes.values()))
    step = 0.01 / size
    nearby = {name: (weights[name] - step * slopes[name]).astype(np.float32) for name in weights}
    told = trainer.validate(nearby)
    assert told is not None and math.isclose(loss - told.loss, 0.01 * size, rel_tol=0.05)


def test_no_validation_rows_no_gradient(make_spec: Any, blobs: Rows) -> None:
    spec, rows = spec_of(make_spec), blobs()
    trainer = Trainer(spec, Splits(rows, rows.rows(np.array([], dtype=np.int64)), rows), 1, "cpu")
    with pytest.raises(DataError, match=r"no validation rows.*task.validation"):
        trainer.validation_gradient(genesis(spec))


def test_enormous_weights_have_a_gradient_but_no_error(make_spec: Any, blobs: Rows) -> None:
    spec = spec_of(make_spec)
    huge = {name: np.full_like(array, 3e38) for name, array in genesis(spec).items()}
    slopes, _ = trainer_of(spec, blobs()).validation_gradient(huge)
    assert slopes.keys() == huge.keys()
