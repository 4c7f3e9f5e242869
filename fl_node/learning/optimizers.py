"""Stochastic gradient descent and Adam as plain arithmetic on tensors.

The results are those of ``torch.optim.SGD`` and ``torch.optim.Adam`` (tested to the bit). Those classes are not
constructed, because the first construction of any imports torch's compiler, 1.4 seconds per process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fl_node.tables import TrainingSpec

State: TypeAlias = dict[str, NDArray[Any]]


class Optimizer(Protocol):
    """Changes parameters in place by their gradients. ``rate`` is the learning rate of the next step, and may be
    changed between steps. ``export`` and ``restore`` carry its state between processes."""

    rate: float

    def step(self, gradients: Sequence[torch.Tensor]) -> None: ...

    def export(self) -> State: ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None: ...


def optimizer(training: TrainingSpec, parameters: Sequence[torch.Tensor]) -> Optimizer:
    """The spec's optimiser over these parameters, its state empty."""
    return Adam(training, parameters) if training.optimizer == "adam" else Sgd(training, parameters)


class Sgd:
    """g = gradient + weight_decay * p;  v = momentum * v + g  (v = g at first);  p = p - learning_rate * v."""

    def __init__(self, training: TrainingSpec, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self.rate, self._momentum, self._decay = training.learning_rate, training.momentum, training.weight_decay
        self._velocities: list[torch.Tensor] | None = None

    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            if self._decay:
                pairs = zip(gradients, self._parameters, strict=True)
                gradients = [gradient.add(parameter, alpha=self._decay) for gradient, parameter in pairs]
            if self._momentum:
                gradients = self._accumulated(gradients)
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-self.rate)

    def _accumulated(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if self._velocities is None:
            self._velocities = [gradient.clone() for gradient in gradients]
        else:
            for velocity, gradient in zip(self._velocities, gradients, strict=True):
                velocity.mul_(self._momentum).add_(gradient)
        return self._velocities

    def export(self) -> State:
        return _arrays("velocity", self._velocities or [])

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        if "velocity.0" in state:
            self._velocities = _tensors("velocity", state, self._parameters)


class Adam:
    """Kingma, Ba 2015, https://arxiv.org/abs/1412.6980, with beta 0.9 and 0.999, epsilon 1e-8; weight decay is an L2
    penalty, as in ``torch.optim.Adam``. ``momentum`` is not used."""

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, training: TrainingSpec, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self.rate, self._decay = training.learning_rate, training.weight_decay
        self._steps = 0
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        self._steps += 1
        scale = (1 - self.BETA2**self._steps) ** 0.5
        rate = self.rate / (1 - self.BETA1**self._steps)
        with torch.no_grad():
            for parameter, gradient, mean, square in zip(
                self._parameters, gradients, self._means, self._squares, strict=True
            ):
                slope = gradient.add(parameter, alpha=self._decay) if self._decay else gradient
                mean.lerp_(slope, 1 - self.BETA1)
                square.mul_(self.BETA2).addcmul_(slope, slope, value=1 - self.BETA2)
                parameter.addcdiv_(mean, (square.sqrt() / scale).add_(self.EPSILON), value=-rate)

    def export(self) -> State:
        steps = np.array(self._steps, dtype=np.int64)
        return {"steps": steps} | _arrays("mean", self._means) | _arrays("square", self._squares)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._steps = int(state["steps"])
        self._means = _tensors("mean", state, self._parameters)
        self._squares = _tensors("square", state, self._parameters)


def _arrays(name: str, tensors: Sequence[torch.Tensor]) -> State:
    return {f"{name}.{number}": tensor.cpu().numpy().copy() for number, tensor in enumerate(tensors)}


def _tensors(name: str, state: Mapping[str, NDArray[Any]], like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The saved tensors, each of the parameter's shape, or ValueError."""
    found = []
    for number, parameter in enumerate(like):
        array = state[f"{name}.{number}"]
        if array.shape != tuple(parameter.shape):
            raise ValueError(f"{name}.{number} has the shape {list(array.shape)}, expected {list(parameter.shape)}")
        found.append(torch.from_numpy(array.copy()).to(parameter))
    return found
