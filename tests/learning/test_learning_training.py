"""Training: the same numbers as torch's own optimisers, the same bits under a seed, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fl_node.errors import DataError, MalformedWeights, SpecError, TrainingFailed, UsageError
from fl_node.learning.data import load
from fl_node.learning.dataset import Dataset
from fl_node.learning.gradients import autograd
from fl_node.learning.linear import LinearGradients
from fl_node.learning.models import Weights, build, genesis
from fl_node.learning.optimizers import optimizer
from fl_node.learning.splits import Splits, split
from fl_node.learning.training import Trainer, training_seed
from fl_node.spec import Spec
from fl_node.tables import TrainingSpec

Rows = Callable[..., Dataset]


def spec_of(
    make_spec: Any, model: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **training: Any
) -> Spec:
    tables = {"task": {"input_shape": (6,), "classes": 3} | (task or {}), "model": model or {}, "training": training}
    found: Spec = make_spec(**tables)
    return found


def trainer_of(spec: Spec, rows: Dataset, peer: int = 1, **more: Any) -> Trainer:
    return Trainer(spec, split(rows, spec.task), peer, "cpu", **more)


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# ---- optimisers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "sgd", "weight_decay": 0.01},
        {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.1},
        {"optimizer": "adam", "learning_rate": 0.01},
        {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
    ],
)
def test_optimisers_equal_torch_s_to_the_bit(settings: dict[str, Any]) -> None:
    training = TrainingSpec(**settings)
    torch.manual_seed(0)
    ours = [torch.randn(4, 3), torch.randn(3)]
    theirs = [parameter.clone().requires_grad_() for parameter in ours]
    common = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    oracle: torch.optim.Optimizer
    if training.optimizer == "sgd":
        oracle = torch.optim.SGD(theirs, momentum=training.momentum, foreach=False, **common)
    else:
        oracle = torch.optim.Adam(theirs, foreach=False, **common)
    rule = optimizer(training, ours)
    for _ in range(20):
        gradients = [torch.randn_like(parameter) for parameter in ours]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        rule.step(gradients)
        oracle.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other.detach())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_closed_form_gradients_equal_autograd_s(make_spec: Any, weighted: bool, shape: tuple[int, ...]) -> None:
    module = build(spec_of(make_spec, task={"input_shape": shape}))
    parameters = list(module.parameters())
    weights = torch.tensor([0.5, 2.0, 3.0]) if weighted else None
    closed, derived = LinearGradients(*parameters, weights), autograd(module, parameters, weights)  # type: ignore[call-arg]
    torch.manual_seed(0)
    for rows in (1, 7, 64):
        inputs, targets = torch.randn(rows, *shape) * 3, torch.randint(0, 3, (rows,))
        (loss, slopes), (expected_loss, expected) = closed(inputs, targets), derived(inputs, targets)
        assert torch.allclose(loss, expected_loss, atol=1e-6)
        for one, other in zip(slopes, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("model", [{"name": "logistic"}, {"name": "mlp", "hidden": (5,)}])
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.01}])
@pytest.mark.parametrize("weighted", [False, True])
def test_training_equals_a_plain_torch_loop(
    make_spec: Any, blobs: Rows, model: dict[str, Any], settings: dict[str, Any], weighted: bool
) -> None:
    spec = spec_of(make_spec, model, epochs=3, batch_size=16, class_weights=weighted, **settings)
    rows = blobs(131)
    trainer = trainer_of(spec, rows, peer=4)
    start = genesis(spec)
    found, report = trainer.train(start, 2)

    train = split(rows, spec.task).train
    x, y = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    counts = torch.bincount(y, minlength=3)
    weights = len(y) / (3 * counts) if weighted else None
    module = build(spec)
    rate = spec.training.learning_rate
    oracle: torch.optim.Optimizer
    if spec.training.optimizer == "adam":
        oracle = torch.optim.Adam(module.parameters(), lr=rate)
    else:
        oracle = torch.optim.SGD(module.parameters(), lr=rate, momentum=spec.training.momentum)
    generator = np.random.Generator(np.random.PCG64(training_seed(0, 4, 2)))
    steps = 0
    for _ in range(3):
        order = torch.from_numpy(generator.permutation(len(y)))
        for chosen in order.split(16):
            oracle.zero_grad()
            F.cross_entropy(module(x[chosen]), y[chosen], weight=weights).backward()
            oracle.step()
            steps += 1
    for name, tensor in module.state_dict().items():
        assert np.allclose(found[name], tensor.numpy(), atol=2e-5), name
    assert (report.steps, report.samples) == (steps, len(train))
    assert report.loss > 0 and report.seconds > 0


# ---- determinism and state ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [{"name": "logistic"}, {"name": "mlp", "hidden": (5,)}])
def test_the_same_seed_gives_the_same_bits_and_others_differ(
    make_spec: Any, blobs: Rows, model: dict[str, Any]
) -> None:
    spec = spec_of(make_spec, model, epochs=2, batch_size=16)
    start = genesis(spec)
    kept = {name: array.copy() for name, array in start.items()}
    first = trainer_of(spec, blobs()).train(start, 1)[0]
    assert equal(start, kept), "the starting weights stay as they are"
    used = trainer_of(spec, blobs())
    used.train(first, 7)
    assert equal(used.train(start, 1)[0], first), "nothing is carried over"
    assert not equal(trainer_of(spec, blobs(), peer=2).train(start, 1)[0], first)
    assert not equal(trainer_of(spec, blobs()).train(start, 2)[0], first)
    assert not equal(
        trainer_of(spec_of(make_spec, model, epochs=2, batch_size=16, seed=1), blobs()).train(start, 1)[0], first
    )


def test_torch_s_own_generator_is_left_alone(make_spec: Any, blobs: Rows) -> None:
    spec = spec_of(make_spec)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    trainer_of(spec, blobs()).train(genesis(spec), 1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.01}])
def test_a_kept_optimiser_state_outlives_the_process(
    make_spec: Any, blobs: Rows, tmp_path: Path, settings: dict[str, Any]
) -> None:
    spec = spec_of(make_spec, reset_optimizer=False, batch_size=16, **settings)
    one = trainer_of(spec, blobs(), states=tmp_path / "optimizer")
    weights = genesis(spec)
    for sequence in (1, 2):
        weights, _ = one.train(weights, sequence)
    expected, _ = one.train(weights, 3)
    restarted = trainer_of(spec, blobs(), states=tmp_path / "optimizer")
    assert equal(restarted.train(weights, 3)[0], expected), "training 3 anew starts from the state after 2"
    assert sorted(path.name for path in (tmp_path / "optimizer").iterdir()) == ["0000000002.npz", "0000000003.npz"]

    in_memory = trainer_of(spec, blobs())
    again = genesis(spec)
    for sequence in (1, 2, 3):
        again, _ = in_memory.train(again, sequence)
    assert equal(again, expected)
    fresh = spec_of(make_spec, batch_size=16, **settings)
    assert not equal(trainer_of(fresh, blobs()).train(weights, 3)[0], expected), "a reset state gives other weights"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04damaged"])
def test_a_damaged_optimiser_state(make_spec: Any, blobs: Rows, tmp_path: Path, content: bytes) -> None:
    spec = spec_of(make_spec, reset_optimizer=False, momentum=0.9)
    (tmp_path / "0000000001.npz").write_bytes(content)
    with pytest.raises(TrainingFailed, match=r"0000000001\.npz.*remove the file"):
        trainer_of(spec, blobs(), states=tmp_path).train(genesis(spec), 2)


def test_an_optimiser_state_of_another_model(make_spec: Any, blobs: Rows, tmp_path: Path) -> None:
    np.savez(tmp_path / "0000000001.npz", **{"velocity.0": np.zeros((9, 9)), "velocity.1": np.zeros(3)})
    spec = spec_of(make_spec, reset_optimizer=False, momentum=0.9)
    with pytest.raises(TrainingFailed, match=r"velocity.0 has the shape \[9, 9\], expected \[3, 6\]"):
        trainer_of(spec, blobs(), states=tmp_path).train(genesis(spec), 2)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [{"name": "logistic"}, {"name": "mlp", "hidden": (5,)}])
def test_divergence_is_told(make_spec: Any, blobs: Rows, model: dict[str, Any]) -> None:
    rows = blobs()
    wild = Dataset(rows.features * np.float32(1e30), rows.labels)
    spec = spec_of(make_spec, model, learning_rate=1000.0)
    with pytest.raises(TrainingFailed, match=r"diverged.*Lower training.learning_rate \(now 1000\)"):
        trainer_of(spec, wild).train(genesis(spec), 1)


def test_weights_of_another_model_are_refused(make_spec: Any, blobs: Rows) -> None:
    with pytest.raises(MalformedWeights):
        trainer_of(spec_of(make_spec), blobs()).train({"x": np.zeros(1)}, 1)


def test_enormous_weights_score_badly_but_do_not_raise(make_spec: Any, blobs: Rows) -> None:
    spec = spec_of(make_spec)
    huge = {name: np.full_like(array, 3e38) for name, array in genesis(spec).items()}
    found = trainer_of(spec, blobs()).evaluate(huge, full=True)
    assert found.accuracy < 0.5 and np.isfinite(found.loss)


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "mps:x"])
def test_devices_that_are_not_there(make_spec: Any, blobs: Rows, name: str) -> None:
    spec = spec_of(make_spec)
    with pytest.raises(UsageError, match=f"device '{name}'.*expected auto, cpu"):
        Trainer(spec, split(blobs(), spec.task), 1, name)


def test_nothing_to_score_on(make_spec: Any, blobs: Rows) -> None:
    spec, rows = spec_of(make_spec), blobs()
    empty = rows.rows(np.array([], dtype=np.int64))
    trainer = Trainer(spec, Splits(rows, empty, empty), 1, "cpu")
    assert trainer.validate(genesis(spec)) is None
    with pytest.raises(DataError, match="no rows to score on"):
        trainer.evaluate(genesis(spec))


# ---- the user's own loop --------------------------------------------------------------------------------------------

LOOP = """
import torch
def loop(model, features, labels, spec, seed):
    assert features.shape[1:] == (6,) and labels.dtype == torch.int64 and model.training
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(features), labels).backward()
        optimizer.step()
def fails(model, features, labels, spec, seed):
    raise ValueError("out of memory")
def breaks(model, features, labels, spec, seed):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
"""


def test_own_loop(make_spec: Any, blobs: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loop.py").write_text(LOOP)
    monkeypatch.syspath_prepend(tmp_path)
    spec = spec_of(make_spec, loop="own_loop:loop")
    trainer = trainer_of(spec, blobs())
    found, report = trainer.train(genesis(spec), 1)
    assert trainer.evaluate(found).accuracy > 0.8 and report.steps == 0 and 0 < report.loss < 0.6
    with pytest.raises(TrainingFailed, match="own_loop:fails raised ValueError: out of memory"):
        trainer_of(spec_of(make_spec, loop="own_loop:fails"), blobs()).train(genesis(spec), 1)
    with pytest.raises(TrainingFailed, match=r"not finite: linear\.weight"):
        trainer_of(spec_of(make_spec, loop="own_loop:breaks"), blobs()).train(genesis(spec), 1)
    with pytest.raises(SpecError, match=r"training.loop = 'own_loop:absent' cannot be imported"):
        trainer_of(spec_of(make_spec, loop="own_loop:absent"), blobs())


# ---- start-up and real data -----------------------------------------------------------------------------------------


def test_training_and_scoring_import_neither_torch_s_compiler_nor_scikit_learn() -> None:
    code = """
import sys
from fl_node.learning.data import load
from fl_node.learning.models import genesis
from fl_node.learning.splits import split
from fl_node.learning.training import Trainer
from fl_node.spec import Spec
spec = Spec()
trainer = Trainer(spec, split(load("digits", spec.task), spec.task), 1, "cpu")
weights, _ = trainer.train(genesis(spec), 1)
trainer.evaluate(weights, full=True)
heavy = {"torch._dynamo", "torch._inductor", "sklearn", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def learned(spec: Spec, folder: Path | None, rounds: int = 1) -> float:
    """Accuracy (or the spec's metric) on the published test part after some rounds on all of the rest."""
    trainer = trainer_of(spec, load(spec.task.data, spec.task, folder, part="train"))
    weights = genesis(spec)
    for sequence in range(1, rounds + 1):
        weights, _ = trainer.train(weights, sequence)
    return trainer.evaluate_on(weights, load(spec.task.data, spec.task, folder, part="test")).score_ppm / 1e6


@pytest.mark.parametrize(
    ("shape", "model", "least"),
    [
        ((64,), {"name": "logistic"}, 0.93),
        ((64,), {"name": "mlp", "hidden": (32,)}, 0.93),
        ((8, 8), {"name": "cnn", "hidden": (8, 16)}, 0.93),
    ],
)
def test_digits_are_learned(make_spec: Any, shape: tuple[int, ...], model: dict[str, Any], least: float) -> None:
    spec = make_spec(
        task={"input_shape": shape}, model=model, training={"learning_rate": 0.2, "batch_size": 16, "epochs": 8}
    )
    assert learned(spec, None) > least


@pytest.mark.parametrize(("name", "least"), [("mnist", 0.9), ("fashion-mnist", 0.8)])
def test_images_are_learned(make_spec: Any, public_data: Callable[[str], Path], name: str, least: float) -> None:
    spec = make_spec(task={"data": name, "input_shape": (28, 28)}, training={"learning_rate": 0.1})
    assert learned(spec, public_data(name)) > least


def test_defaults_are_foretold_better_than_by_guessing(make_spec: Any, public_data: Callable[[str], Path]) -> None:
    task = {"data": "credit-default", "input_shape": (33,), "classes": 2, "metric": "auc"}
    spec = make_spec(task=task, training={"learning_rate": 0.05, "class_weights": True})
    assert learned(spec, public_data("credit-default"), rounds=3) > 0.7
