"""Rows, training and scoring without torch: enough for peers that really learn something in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_node.merging.weights import Array, Tensors
from fl_node.records import PPM
from fl_node.spec import Spec


@dataclass(frozen=True)
class Rows:
    """Values [n, size] and classes [n]."""

    values: Array
    classes: Array


@dataclass(frozen=True)
class Splits:
    """One peer's own rows."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True)
class Scored:
    """What :class:`fl_node.learning.metrics.Evaluation` has for a report."""

    score_ppm: int
    samples: int
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    macro_f1: float = 0.5
    precision: float = 0.5
    recall: float = 0.5
    auc: float | None = None
    dice: float | None = None
    loss: float = 1.0


def deal(spec: Spec, peers: int, seed: int, counts: tuple[int, int, int]) -> list[Splits]:
    """Rows of one kind for everybody, clouds around a centre for each class. ``counts``: of train, validation, test."""
    dice = np.random.default_rng(seed)
    size, classes = spec.task.input_shape[0], spec.task.classes
    centres = dice.normal(size=(classes, size))

    def rows(count: int) -> Rows:
        labels = dice.integers(0, classes, count)
        return Rows(centres[labels] + dice.normal(scale=1.1, size=(count, size)), labels)

    return [Splits(*(rows(count) for count in counts)) for _ in range(peers)]


def genesis(spec: Spec, seed: int) -> dict[str, Array]:
    """Initial weights of the spec's logistic model or mlp."""
    dice = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    width = spec.task.input_shape[0]
    hidden = spec.model.hidden if spec.model.name == "mlp" else ()
    for name, wide in [*((f"hidden{k + 1}", w) for k, w in enumerate(hidden)), ("linear", spec.task.classes)]:
        tensors[f"{name}.weight"] = dice.normal(scale=0.3, size=(wide, width)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(wide, np.float32)
        width = wide
    return tensors


def train(tensors: Tensors, rows: Rows, seed: int, *, rate: float = 0.2, passes: int = 2) -> dict[str, Array]:
    """Stochastic gradient descent on the cross-entropy, in shuffled batches of 16."""
    dice = np.random.default_rng(seed)
    layers = _layers(tensors)
    params = {name: array.astype(np.float64) for name, array in tensors.items()}
    for _ in range(passes):
        order = dice.permutation(len(rows.classes))
        for start in range(0, len(order), 16):
            at = order[start : start + 16]
            _step(params, layers, rows.values[at], rows.classes[at], rate)
    return {name: array.astype(np.float32) for name, array in params.items()}


def score(spec: Spec, tensors: Tensors, rows: Rows) -> Scored:
    """Accuracy, as the ledger and a report have it."""
    said = _forward(tensors, _layers(tensors), rows.values)[-1].argmax(axis=1)
    table = np.zeros((spec.task.classes, spec.task.classes), int)
    np.add.at(table, (rows.classes, said), 1)
    right, count = int(np.trace(table)), len(rows.classes)
    return Scored(right * PPM // count, count, right / count, tuple(tuple(map(int, row)) for row in table))


def _layers(tensors: Tensors) -> list[str]:
    return sorted({name.rpartition(".")[0] for name in tensors}, key=lambda name: (name == "linear", name))


def _forward(params: Tensors, layers: list[str], values: Array) -> list[Array]:
    found = [values]
    for name in layers:
        out = found[-1] @ params[f"{name}.weight"].T.astype(np.float64) + params[f"{name}.bias"]
        found.append(out if name == layers[-1] else np.maximum(out, 0.0))
    return found


def _step(params: dict[str, Array], layers: list[str], values: Array, classes: Array, rate: float) -> None:
    outputs = _forward(params, layers, values)
    logits = outputs[-1] - outputs[-1].max(axis=1, keepdims=True)
    slope = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope[np.arange(len(classes)), classes] -= 1.0
    slope /= len(classes)
    for name, inputs in reversed(list(zip(layers, outputs, strict=False))):
        back = slope @ params[f"{name}.weight"]
        params[f"{name}.weight"] -= rate * (slope.T @ inputs)
        params[f"{name}.bias"] -= rate * slope.sum(axis=0)
        slope = back * (inputs > 0)
