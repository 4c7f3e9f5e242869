"""What the built-in models predict, without torch: classes of fixed made-up inputs, to tell models apart by.

A hidden layer's neurons can be put into another order without changing anything that the model says. Weights differ
then in every place; predictions do not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_node.audit.known import Floats
from fl_node.merging.weights import Array, Tensors
from fl_node.spec import Spec

#: Inputs that a model is asked about, and the fewest from which anything follows: of fewer, even the same answer to all
#: may be chance.
INPUTS: Final = 1024
FEWEST: Final = 700
#: Most multiplications for one model, some tenths of a second; a larger model is asked about fewer inputs.
_MOST_PRODUCTS: Final = 1 << 30
#: Most values of all inputs together: 16 MiB.
_MOST_VALUES: Final = 1 << 22
#: Most values of one layer at a time.
_AT_ONCE: Final = 1 << 20
_STREAM: Final = b"fl-node audit inputs 1"
_EPSILON: Final = 1e-5

Step: TypeAlias = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Network:
    """A model as steps from [n, values] to logits [n, classes]. ``products``: multiplications for one input;
    ``widest``: the most values that a step holds for one input."""

    steps: Sequence[Step]
    products: int
    widest: int


def votes_of(spec: Spec, tensors: Tensors) -> NDArray[np.int32] | None:
    """The class that a model predicts of each made-up input, int32 [n]; of equal logits the lower class.

    The same inputs for all models of a spec. ``None``: the model is not logistic, mlp or cnn, some of its tensors are
    personal or not of the spec's shapes, or asking it would take too long.
    """
    network = network_of(spec, tensors)
    size = math.prod(spec.task.input_shape)
    if network is None:
        return None
    count = min(INPUTS, _MOST_PRODUCTS // max(1, network.products), _MOST_VALUES // size)
    if count < FEWEST:
        return None
    inputs, at_once = made_up(size, count), max(1, _AT_ONCE // network.widest)
    found = np.empty(count, np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, count, at_once):
            logits = logits_of(network, inputs[start : start + at_once])
            found[start : start + at_once] = np.nan_to_num(logits, nan=-np.inf).argmax(axis=1)
    return found


def logits_of(network: Network, inputs: Array) -> Floats:
    """What a model answers, float64 [n, classes], to inputs [n, values] of any float type."""
    values: Floats = inputs.astype(np.float64)
    for step in network.steps:
        values = step(values)
    return values


def network_of(spec: Spec, tensors: Tensors) -> Network | None:
    """The model of a spec with these weights; ``None`` where this page has no such model, or tensors do not fit."""
    if spec.task.kind != "classification":
        return None
    try:
        if spec.model.name == "logistic":
            return _perceptron(spec, tensors, ())
        if spec.model.name == "mlp":
            return _perceptron(spec, tensors, spec.model.hidden)
        if spec.model.name == "cnn":
            return _convolutional(spec, tensors)
    except LookupError:
        pass
    return None


@lru_cache(maxsize=2)
def made_up(size: int, count: int) -> NDArray[np.float32]:
    """Inputs that are nobody's data, float32 [count, size]: values of mean 0 and variance 1 from a hash's bytes, of
    which every second input has the cubes, so that a few values stand out as they do in real rows.

    Of inputs from 0 to 1 trained models often give all the same class. On these, models of different training differ.
    """
    raw = np.frombuffer(hashlib.shake_256(_STREAM + size.to_bytes(8, "big")).digest(size * count), np.uint8)
    values = (raw.reshape(count, size).astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    values[0::2] *= np.float32(math.sqrt(3))
    values[1::2] **= 3
    values[1::2] *= np.float32(math.sqrt(7))
    values.flags.writeable = False
    return values


def _perceptron(spec: Spec, tensors: Tensors, hidden: Sequence[int]) -> Network:
    """Linear layers with ReLU between them."""
    width = widest = math.prod(spec.task.input_shape)
    steps: list[Step] = []
    products = 0
    for number, wide in enumerate(hidden, 1):
        steps += [_linear(tensors, f"hidden{number}", width, wide), _relu]
        products += width * wide
        width, widest = wide, max(widest, wide)
    steps.append(_linear(tensors, "linear", width, spec.task.classes))
    return Network(steps, products + width * spec.task.classes, max(widest, spec.task.classes))


def _convolutional(spec: Spec, tensors: Tensors) -> Network:
    """Blocks of 3 x 3 convolution, group norm, ReLU and 2 x 2 max pooling, then one linear layer."""
    shape = tuple(spec.task.input_shape)
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    steps: list[Step] = [partial(_as_images, shape=(channels, height, width))]
    products, widest = 0, channels * height * width
    for number, wide in enumerate(spec.model.hidden, 1):
        kernel = _tensor(tensors, f"conv{number}.weight", (wide, channels, 3, 3)).reshape(wide, -1)
        bias = _tensor(tensors, f"conv{number}.bias", (wide,))
        scale, shift = (_tensor(tensors, f"norm{number}.{part}", (wide,)) for part in ("weight", "bias"))
        steps += [
            partial(_convolved, kernel=kernel, bias=bias),
            partial(_normed, groups=math.gcd(8, wide), scale=scale, shift=shift),
            _relu,
            _pooled,
        ]
        products += wide * height * width * (9 * channels + 16)  # 16 for what is no product: it takes time as well
        widest = max(widest, height * width * (9 * channels + 4 * wide))
        channels, height, width = wide, height // 2, width // 2
    steps += [_flat, _linear(tensors, "linear", channels * height * width, spec.task.classes)]
    return Network(steps, products + channels * height * width * spec.task.classes, widest)


def _tensor(tensors: Tensors, name: str, shape: tuple[int, ...]) -> Floats:
    """Raises LookupError: no such tensor, or of another shape."""
    array = tensors[name]
    if array.shape != shape:
        raise LookupError(f"{name} has the shape {list(array.shape)}, expected {list(shape)}")
    return array.astype(np.float64)


def _linear(tensors: Tensors, name: str, width: int, out: int) -> Step:
    weight, bias = _tensor(tensors, f"{name}.weight", (out, width)), _tensor(tensors, f"{name}.bias", (out,))
    return partial(_affine, weight=weight, bias=bias)


def _affine(values: Floats, weight: Floats, bias: Floats) -> Floats:
    found: Floats = values @ weight.T
    found += bias
    return found


def _relu(values: Floats) -> Floats:
    return np.maximum(values, 0.0, out=values)


def _flat(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _as_images(values: Floats, shape: tuple[int, int, int]) -> Floats:
    return values.reshape(-1, *shape)


def _convolved(values: Floats, kernel: Floats, bias: Floats) -> Floats:
    """3 x 3, with a border of zeros: as large as before. Values are [n, channels, height, width]."""
    count, channels, height, width = values.shape
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    patches = np.stack(shifted, axis=2).reshape(count, channels * 9, height * width)
    found: Floats = kernel @ patches
    found += bias[:, None]
    return found.reshape(count, -1, height, width)


def _normed(values: Floats, groups: int, scale: Floats, shift: Floats) -> Floats:
    """Group norm."""
    count, channels, height, width = values.shape
    grouped = values.reshape(count, groups, -1)
    grouped -= grouped.mean(axis=2, keepdims=True)
    grouped /= np.sqrt(np.square(grouped).mean(axis=2, keepdims=True) + _EPSILON)
    found: Floats = grouped.reshape(count, channels, height, width)
    found *= scale[:, None, None]
    found += shift[:, None, None]
    return found


def _pooled(values: Floats) -> Floats:
    """The largest of each 2 x 2; an odd last row or column is left out."""
    height, width = values.shape[2] // 2 * 2, values.shape[3] // 2 * 2
    rows = np.maximum(values[:, :, 0:height:2, :width], values[:, :, 1:height:2, :width])
    found: Floats = np.maximum(rows[..., 0::2], rows[..., 1::2])
    return found
