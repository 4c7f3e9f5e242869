"""Models, and the way between a module and named arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fl_node.errors import MalformedWeights, SpecError
from fl_node.learning.models import build, genesis, get_weights, load_model, schema, set_weights
from fl_node.spec import Spec

PLUGIN = """
import torch
def net(width, input_shape, classes):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], width), torch.nn.ReLU(), torch.nn.Linear(width, classes))
def plain():
    return torch.nn.Linear(6, 3, dtype=torch.float64)
def buffers():
    module = torch.nn.Linear(6, 3)
    module.register_buffer("steps", torch.tensor(7))
    return module
def batch_norm():
    return torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.BatchNorm1d(3))
def local_batch_norm():
    return torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.BatchNorm1d(3, track_running_stats=False))
def half():
    return torch.nn.Linear(6, 3).half()
def nothing():
    return 3
def fails():
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)


def spec_of(make_spec: Any, shape: tuple[int, ...] = (6,), classes: int = 3, **model: Any) -> Spec:
    found: Spec = make_spec(task={"input_shape": shape, "classes": classes}, model=model)
    return found


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ((6,), {"name": "logistic"}),
        ((8, 8), {"name": "logistic"}),
        ((8, 8), {"name": "mlp", "hidden": (5, 4)}),
        ((28, 28), {"name": "cnn", "hidden": (4, 8)}),
        ((3, 9, 12), {"name": "cnn", "hidden": (6,)}),
    ],
)
def test_built_in_models(make_spec: Any, shape: tuple[int, ...], model: dict[str, Any]) -> None:
    spec = spec_of(make_spec, shape, **model)
    module = build(spec)
    assert module(torch.zeros(5, *shape)).shape == (5, 3)
    weights = genesis(spec)
    assert schema(spec) == schema(module) == {name: (a.dtype.name, a.shape) for name, a in weights.items()}
    assert all(array.flags.c_contiguous and array.dtype.byteorder in "<=" for array in weights.values())
    again, other = genesis(spec), genesis(spec_of(make_spec, shape, seed=1, **model))
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    assert any(not np.array_equal(weights[name], other[name]) for name in weights)


def test_names_of_the_linear_model(make_spec: Any) -> None:
    assert schema(spec_of(make_spec)) == {"linear.weight": ("float32", (3, 6)), "linear.bias": ("float32", (3,))}


def test_torch_s_own_generator_is_left_alone(make_spec: Any) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    genesis(spec_of(make_spec))
    assert torch.equal(torch.rand(1), expected)


def test_weights_round_trip_and_are_copies(make_spec: Any) -> None:
    spec = spec_of(make_spec, name="mlp", hidden=(4,))
    module, weights = build(spec), genesis(spec_of(make_spec, name="mlp", hidden=(4,), seed=9))
    for array in weights.values():
        array.flags.writeable = False
    set_weights(module, weights)
    found = get_weights(module)
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
    with torch.no_grad():
        next(module.parameters()).zero_()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear.bias": None}, r"missing \['linear.bias'\]"),
        ({"other": np.zeros(1)}, r"unknown \['other'\]"),
        ({"linear.bias": np.zeros(3)}, r"linear.bias is float64\[3\], expected float32\[3\]"),
        ({"linear.bias": np.zeros(4, np.float32)}, r"linear.bias is float32\[4\], expected float32\[3\]"),
    ],
)
def test_weights_of_another_model_change_nothing(make_spec: Any, change: dict[str, Any], words: str) -> None:
    module = build(spec_of(make_spec))
    before = get_weights(module)
    weights = {name: np.ones_like(array) for name, array in before.items()} | change
    weights = {name: array for name, array in weights.items() if array is not None}
    with pytest.raises(MalformedWeights, match=words):
        set_weights(module, weights)
    assert all(np.array_equal(get_weights(module)[name], before[name]) for name in before)


def test_load_model(make_spec: Any, tmp_path: Path) -> None:
    spec = spec_of(make_spec)
    weights = genesis(spec_of(make_spec, seed=4))
    save_file(weights, tmp_path / "model.safetensors")
    for source in (weights, tmp_path / "model.safetensors", str(tmp_path / "model.safetensors")):
        module = load_model(spec, source)
        assert not module.training
        expected = weights["linear.weight"].sum(axis=1) + weights["linear.bias"]
        assert np.allclose(module(torch.ones(1, 6)).detach().numpy()[0], expected, atol=1e-6)
    (tmp_path / "bad").write_bytes(b"not safetensors")
    for name in ("bad", "missing"):
        with pytest.raises(MalformedWeights, match=f"{name}.*expected a safetensors file"):
            load_model(spec, tmp_path / name)


@pytest.mark.usefixtures("plugin")
def test_own_models(make_spec: Any) -> None:
    named = spec_of(make_spec, name="own_models:net", options={"width": 5})
    assert schema(named)["0.weight"] == ("float32", (5, 6)) and schema(named)["2.bias"] == ("float32", (3,))
    assert schema(spec_of(make_spec, name="own_models:plain"))["weight"] == ("float64", (3, 6))
    assert genesis(spec_of(make_spec, name="own_models:buffers"))["steps"] == 7
    assert "1.weight" in genesis(spec_of(make_spec, name="own_models:local_batch_norm"))


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "logistics"}, "'logistics': expected one of logistic, mlp"),
        ({"name": "own_models:batch_norm"}, r"1 \(BatchNorm1d\) keeps running statistics.*GroupNorm"),
        ({"name": "own_models:half"}, "weight is torch.float16; expected float32"),
        ({"name": "own_models:nothing"}, "gave a int; expected a torch.nn.Module"),
        ({"name": "own_models:fails"}, "RuntimeError: no such layer"),
        ({"name": "own_models:absent"}, "cannot be imported"),
        ({"name": "absent_module_x:net"}, "cannot be imported"),
        ({"name": "own_models:net"}, r"model.options = \{\}: 'width' is missing.*takes width.*\[model.options\]"),
        ({"name": "own_models:net", "options": {"depth": 5}}, "unexpected keyword argument 'depth'"),
        ({"name": "cnn"}, r"input_shape = \[6\]: expected \[H, W\]"),
    ],
)
def test_models_that_are_refused(make_spec: Any, model: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build(spec_of(make_spec, **model))


def test_a_cnn_that_is_too_deep(make_spec: Any) -> None:
    with pytest.raises(SpecError, match="block 4 would halve an image of 1 x 1"):
        build(spec_of(make_spec, (8, 8), name="cnn", hidden=(2, 2, 2, 2)))


@pytest.mark.parametrize(
    ("shape", "model", "words"),
    [
        ((), {}, r"input_shape = \[\]: expected the shape of one sample"),
        ((2**31, 2**31), {}, r"input_shape = \[2147483648, 2147483648\].*at most 268,435,456.*got 4611686018427387904"),
        ((2**28,), {"classes": 100}, r"layer linear would have 268435456 x 100 = 26,843,545,600 weights"),
        ((4,), {"name": "mlp", "hidden": (2**31, 2**31)}, "layer hidden1 would have 4 x 2147483648"),
        ((8, 8), {"name": "cnn", "hidden": (2**16, 2**16)}, "layer conv2 would have 65536 x 65536 x 3 x 3"),
    ],
)
def test_models_that_are_too_large(make_spec: Any, shape: tuple[int, ...], model: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build(spec_of(make_spec, shape, **model))
