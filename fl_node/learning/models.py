"""The torch models, and the way between a module and named numpy arrays."""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_node.errors import MalformedWeights, SpecError
from fl_node.learning.layers import AsImages, convolution, image_shape, linear
from fl_node.learning.named import is_named, resolve
from fl_node.learning.unet import UNet
from fl_node.spec import Spec

Weights: TypeAlias = dict[str, NDArray[Any]]
Schema: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]

#: A sample of 1 GiB: beyond what peers could train on.
MOST_VALUES = 1 << 28
KNOWN = ("logistic", "mlp", "cnn", "unet", "module:factory")
_TYPES = frozenset(
    {torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)


def build(spec: Spec) -> nn.Module:
    """A new module with the genesis weights of ``spec.model.seed``, on the CPU, in training mode.

    Its ``forward`` takes float32 [batch, \\*task.input_shape] and gives logits [batch, classes], or [batch, classes, H,
    W] where the task is segmentation. torch's own generator is left as it was.

    Raises:
        SpecError: unknown name, a model that does not fit the kind of task or the input shape or is too large, a
            factory that fails or gives no module, running batch statistics (they mean nothing once merged), or a type
            that cannot be merged.
    """
    name, shape = spec.model.name, list(spec.task.input_shape)
    if not shape or math.prod(shape) > MOST_VALUES:
        raise SpecError(
            f"task.input_shape = {shape}: expected the shape of one sample, one number or more, of at most "
            f"{MOST_VALUES:,} values (got {math.prod(shape) if shape else 'none'})"
        )
    if name in KNOWN and (name == "unet") != (spec.task.kind == "segmentation"):
        raise SpecError(
            f"model.name = {name!r} with task.kind = {spec.task.kind!r}: expected unet or module:factory for "
            "segmentation, and another for classification"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.model.seed)
        if name == "logistic":
            module: nn.Module = nn.Sequential(
                OrderedDict(flatten=nn.Flatten(), linear=linear("linear", math.prod(shape), spec.task.classes))
            )
        elif name == "mlp":
            module = _mlp(spec)
        elif name == "cnn":
            module = _cnn(spec)
        elif name == "unet":
            module = UNet(tuple(shape), spec.task.classes, spec.model.hidden)
        elif is_named(name):
            module = _made(spec)
        else:
            raise SpecError(f"model.name = {name!r}: expected one of {', '.join(KNOWN)}")
    _refuse(module, name)
    return module


def genesis(spec: Spec) -> Weights:
    """The weights that a federation starts from. They are computed once, at deployment, and travel as bytes."""
    return get_weights(build(spec))


def get_weights(module: nn.Module) -> Weights:
    """Parameters and persistent buffers by name, as C-contiguous little-endian copies."""
    found: Weights = {}
    for name, tensor in module.state_dict().items():
        array = tensor.detach().cpu().numpy()
        found[name] = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C", copy=True)
    return found


def set_weights(module: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy named arrays into a module, in place, on whatever device it is.

    Raises:
        MalformedWeights: names, types or shapes differ from the module's. Nothing is changed then.
    """
    state = module.state_dict()
    missing, unknown = sorted(state.keys() - weights.keys()), sorted(weights.keys() - state.keys())
    if missing or unknown:
        raise MalformedWeights(
            f"the weights do not belong to this model: missing {missing}, unknown {unknown}; "
            "use the federation's own model and spec"
        )
    for name, tensor in state.items():
        got, expected = _told(weights[name]), (_dtype_name(tensor), tuple(tensor.shape))
        if got != expected:
            raise MalformedWeights(
                f"the tensor {name} is {got[0]}{list(got[1])}, expected {expected[0]}{list(expected[1])}"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            if tensor.device.type == "cpu":
                np.copyto(tensor.detach().numpy(), weights[name])
            else:
                tensor.copy_(torch.from_numpy(np.array(weights[name], copy=True)))


def schema(model: Spec | nn.Module) -> Schema:
    """Name -> (numpy type name such as ``float32``, shape) of every tensor of a model."""
    module = build(model) if isinstance(model, Spec) else model
    return {name: (_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in module.state_dict().items()}


def load_model(spec: Spec, weights: Path | str | Mapping[str, NDArray[Any]]) -> nn.Module:
    """A module with these weights, in evaluation mode: what ``fl-node model --out FILE`` wrote, ready for use.

    Args:
        spec: the federation's, ``read_federation(path).spec``.
        weights: a safetensors file, or arrays by name.

    Raises:
        MalformedWeights: the file cannot be read or does not belong to the spec's model.
    """
    module = build(spec)
    set_weights(module, weights if isinstance(weights, Mapping) else _read(Path(weights)))
    return module.eval()


def _read(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as cause:
        raise MalformedWeights(f"cannot read weights from {path}: {cause}; expected a safetensors file") from cause


def _mlp(spec: Spec) -> nn.Module:
    """Fully connected layers of ``model.hidden`` widths with ReLU between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = math.prod(spec.task.input_shape)
    for number, hidden in enumerate(spec.model.hidden, 1):
        layers[f"hidden{number}"] = linear(f"hidden{number}", width, hidden)
        layers[f"relu{number}"] = nn.ReLU()
        width = hidden
    layers["linear"] = linear("linear", width, spec.task.classes)
    return nn.Sequential(layers)


def _cnn(spec: Spec) -> nn.Module:
    """Blocks of 3 x 3 convolution, group norm, ReLU and 2 x 2 max pooling, one per number in ``model.hidden``
    (channels), then one linear layer. Group norm keeps no running statistics, so it can be merged (Wu, He 2018,
    https://arxiv.org/abs/1803.08494)."""
    shape = tuple(spec.task.input_shape)
    channels, height, width = image_shape("cnn", shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict(images=AsImages((channels, height, width)))
    for number, wide in enumerate(spec.model.hidden, 1):
        if min(height, width) < 2:
            raise SpecError(
                f"model.hidden = {list(spec.model.hidden)}: block {number} would halve an image of {height} x {width}; "
                f"expected fewer blocks for task.input_shape {list(shape)}"
            )
        layers[f"conv{number}"] = convolution(f"conv{number}", channels, wide)
        layers[f"norm{number}"] = nn.GroupNorm(math.gcd(8, wide), wide)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels, height, width = wide, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["linear"] = linear("linear", channels * height * width, spec.task.classes)
    return nn.Sequential(layers)


def _made(spec: Spec) -> nn.Module:
    """The user's own: called with ``model.options``, and with ``input_shape`` and ``classes`` if it names them."""
    factory = resolve(spec.model.name, "model.name", SpecError)
    arguments: dict[str, Any] = dict(spec.model.options)
    try:
        signature = inspect.signature(factory)
        for key, value in (("input_shape", tuple(spec.task.input_shape)), ("classes", spec.task.classes)):
            if key in signature.parameters:
                arguments.setdefault(key, value)
    except (TypeError, ValueError):
        signature = None  # what is written in C need not tell
    if signature is not None:
        _check_options(spec, signature, arguments)
    try:
        module = factory(**arguments)
    except Exception as cause:  # the user's code may raise anything
        raise SpecError(f"model.name = {spec.model.name!r} failed: {type(cause).__name__}: {cause}") from cause
    if not isinstance(module, nn.Module):
        raise SpecError(f"model.name = {spec.model.name!r} gave a {type(module).__name__}; expected a torch.nn.Module")
    return module


def _check_options(spec: Spec, signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    """Hold ``model.options`` against what the user's factory takes."""
    try:
        signature.bind(**arguments)
    except TypeError as cause:
        given = signature.parameters.items()
        named = {key: one for key, one in given if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
        lacks = [key for key, one in named.items() if one.default is one.empty and key not in arguments]
        # With a place for any name nothing is unexpected, and binding fails for another reason.
        wrong = [] if len(named) < len(given) else [key for key in arguments if key not in named]
        told = [f"unexpected keyword argument {key!r}" for key in wrong] + [f"{key!r} is missing" for key in lacks]
        taken = ", ".join(key for key in named if key not in ("input_shape", "classes"))
        raise SpecError(
            f"model.options = {dict(spec.model.options)}: {', '.join(told) or cause}; model.name = "
            f"{spec.model.name!r} is called with model.options as its arguments, and takes {taken or 'none'}: write "
            "them in the spec, for example [model.options] with a line for each"
        ) from cause


def _refuse(module: nn.Module, name: str) -> None:
    for path, part in module.named_modules():
        if getattr(part, "running_mean", None) is not None:
            raise SpecError(
                f"model.name = {name!r}: {path or 'the module'} ({type(part).__name__}) keeps running statistics, "
                "which cannot be merged; use GroupNorm or LayerNorm, or track_running_stats=False"
            )
    for path, tensor in module.state_dict().items():
        if tensor.dtype not in _TYPES:
            raise SpecError(
                f"model.name = {name!r}: the tensor {path} is {tensor.dtype}; expected float32, float64 or integers"
            )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _told(array: NDArray[Any]) -> tuple[str, tuple[int, ...]]:
    return array.dtype.name, tuple(array.shape)
