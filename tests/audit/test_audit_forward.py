"""What the audit's own forward pass says is what torch says, for every built-in model that it knows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from fl_node.audit import forward
from fl_node.audit.forward import FEWEST, INPUTS, logits_of, made_up, network_of, votes_of
from fl_node.learning.models import build, genesis, get_weights, load_model
from fl_node.merging.weights import Tensors
from fl_node.spec import Spec

SHAPES = [
    ("logistic", (64,), (1,), 10),
    ("logistic", (3, 5), (1,), 2),
    ("mlp", (64,), (128,), 10),
    ("mlp", (7,), (5, 9, 3), 4),
    ("cnn", (8, 8), (8, 16), 10),
    ("cnn", (3, 13, 11), (6, 12), 5),
    ("cnn", (2, 9, 4), (7,), 3),
]


def spec_of(name: str, shape: tuple[int, ...], hidden: tuple[int, ...], classes: int, **more: Any) -> Spec:
    task = {"input_shape": shape, "classes": classes, **more.pop("task", {})}
    return Spec.model_validate({"task": task, "model": {"name": name, "hidden": hidden}, **more})


def trained_like(spec: Spec) -> Tensors:
    """Weights in which every tensor matters, scales and shifts of norms too."""
    draw = np.random.default_rng(3)
    start = get_weights(build(spec))
    return {name: (array + 0.3 * draw.standard_normal(array.shape)).astype(np.float32) for name, array in start.items()}


@pytest.mark.parametrize(("name", "shape", "hidden", "classes"), SHAPES)
def test_logits_are_those_of_torch(name: str, shape: tuple[int, ...], hidden: tuple[int, ...], classes: int) -> None:
    spec = spec_of(name, shape, hidden, classes)
    tensors = trained_like(spec)
    network = network_of(spec, tensors)
    assert network is not None
    inputs = np.random.default_rng(4).standard_normal((50, int(np.prod(shape)))).astype(np.float32)
    found = logits_of(network, inputs)
    with torch.inference_mode():
        module = load_model(spec, tensors).double()
        wanted = module(torch.from_numpy(inputs).double().reshape(50, *shape)).numpy()
    assert found.shape == (50, classes)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "shape", "hidden", "classes"), SHAPES)
def test_votes_are_the_classes_that_torch_gives(
    name: str, shape: tuple[int, ...], hidden: tuple[int, ...], classes: int
) -> None:
    spec = spec_of(name, shape, hidden, classes)
    tensors = trained_like(spec)
    votes = votes_of(spec, tensors)
    assert votes is not None and votes.dtype == np.int32 and FEWEST <= len(votes) <= INPUTS
    inputs = torch.from_numpy(made_up(int(np.prod(shape)), len(votes)).copy()).double().reshape(-1, *shape)
    with torch.inference_mode():
        wanted = load_model(spec, tensors).double()(inputs).argmax(1).numpy()
    assert (votes == wanted).all()
    assert len(set(votes.tolist())) > 1, "a model that gives all inputs one class tells nothing"


def test_the_order_of_hidden_neurons_changes_no_vote() -> None:
    spec = spec_of("mlp", (64,), (32, 16), 10)
    model = trained_like(spec)
    order = np.random.default_rng(5).permutation(32)
    other = dict(model)
    for name in ("hidden1.weight", "hidden1.bias"):
        other[name] = model[name][order]
    other["hidden2.weight"] = model["hidden2.weight"][:, order]
    first, second = votes_of(spec, model), votes_of(spec, other)
    assert first is not None and second is not None and (first == second).all()
    assert not np.array_equal(model["hidden1.weight"], other["hidden1.weight"])


def test_inputs_are_the_same_everywhere_and_of_mean_0_and_variance_1() -> None:
    inputs = made_up(64, INPUTS)
    assert inputs.shape == (INPUTS, 64) and inputs.dtype == np.float32
    raw = hashlib.shake_256(b"fl-node audit inputs 1" + (64).to_bytes(8, "big")).digest(3 * 64)
    for row, scaled in ((0, lambda u: u * 3**0.5), (1, lambda u: u**3 * 7**0.5), (2, lambda u: u * 3**0.5)):
        wanted = [scaled((byte - 127.5) / 127.5) for byte in raw[64 * row : 64 * row + 64]]
        np.testing.assert_allclose(inputs[row], wanted, rtol=1e-5, atol=1e-7)
    for kind in (inputs[0::2], inputs[1::2]):
        assert abs(float(kind.mean())) < 0.02 and abs(float(kind.var()) - 1) < 0.03
    assert not inputs.flags.writeable


@pytest.mark.parametrize(
    "spec",
    [
        Spec.model_validate(
            {
                "task": {"input_shape": (8, 8), "classes": 2, "kind": "segmentation", "metric": "dice"},
                "model": {"name": "unet", "hidden": (4, 8)},
            }
        ),
        Spec.model_validate({"model": {"name": "somebody:factory"}}),
    ],
)
def test_nothing_is_said_of_models_that_are_not_known(spec: Spec) -> None:
    assert votes_of(spec, {"weight": np.zeros((4, 4), np.float32)}) is None


def test_nothing_is_said_where_tensors_are_personal_or_of_another_shape() -> None:
    spec = spec_of("mlp", (64,), (32,), 10)
    model = genesis(spec)
    assert votes_of(spec, model) is not None
    without = {name: array for name, array in model.items() if not name.startswith("linear")}
    assert votes_of(spec, without) is None
    assert votes_of(spec, {**model, "linear.bias": np.zeros(9, np.float32)}) is None


def test_large_models_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("cnn", (3, 64, 64), (64, 128), 10)
    model = genesis(spec)

    def never(*_: object) -> None:
        raise AssertionError("asked all the same")

    monkeypatch.setattr(forward, "logits_of", never)
    assert votes_of(spec, model) is None


def test_weights_that_overflow_give_votes_and_no_error() -> None:
    spec = spec_of("mlp", (64,), (32,), 10)
    huge = {name: np.full_like(array, 3e38) for name, array in genesis(spec).items()}
    votes = votes_of(spec, huge)
    assert votes is not None and ((votes >= 0) & (votes < 10)).all()
