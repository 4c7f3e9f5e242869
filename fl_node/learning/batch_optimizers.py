"""The optimisers of ``optimizers`` for many peers at once, each with its own rate and number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fl_node.learning.optimizers import Adam, State
from fl_node.tables import TrainingSpec


class StackedOptimizer(Protocol):
    """Changes stacked parameters in place. A step is of the first peers, as many as the gradients and rates are of."""

    def step(self, gradients: Sequence[torch.Tensor], rates_P: NDArray[np.float64]) -> None: ...

    def export(self, place: int) -> State: ...

    def restore(self, place: int, state: Mapping[str, NDArray[Any]]) -> None: ...


def stacked_optimizer(training: TrainingSpec, parameters: Sequence[torch.Tensor]) -> StackedOptimizer:
    """The spec's optimiser over parameters of three axes, the first being peers, its state empty."""
    return StackedAdam(training, parameters) if training.optimizer == "adam" else StackedSgd(training, parameters)


class StackedSgd:
    """As ``optimizers.Sgd``."""

    def __init__(self, training: TrainingSpec, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._momentum, self._decay = training.momentum, training.weight_decay
        self._velocities = [torch.zeros_like(parameter) for parameter in parameters] if self._momentum else []

    def step(self, gradients: Sequence[torch.Tensor], rates_P: NDArray[np.float64]) -> None:
        peers = len(gradients[0])
        rates_P11 = self._parameters[0].new_tensor(rates_P).reshape(-1, 1, 1)
        for number, gradient in enumerate(gradients):
            parameter = self._parameters[number][:peers]
            slope = gradient.add(parameter, alpha=self._decay) if self._decay else gradient
            if self._momentum:
                slope = self._velocities[number][:peers].mul_(self._momentum).add_(slope)
            parameter.addcmul_(slope, rates_P11, value=-1)

    def export(self, place: int) -> State:
        return _arrays("velocity", self._velocities, place)

    def restore(self, place: int, state: Mapping[str, NDArray[Any]]) -> None:
        if "velocity.0" in state:
            _restore("velocity", self._velocities, place, state)


class StackedAdam:
    """As ``optimizers.Adam``."""

    def __init__(self, training: TrainingSpec, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._decay = training.weight_decay
        self._steps = np.zeros(len(parameters[0]), dtype=np.int64)
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: Sequence[torch.Tensor], rates_P: NDArray[np.float64]) -> None:
        peers = len(gradients[0])
        self._steps[:peers] += 1
        like = self._parameters[0]
        scales_P11 = like.new_tensor((1 - Adam.BETA2 ** self._steps[:peers]) ** 0.5).reshape(-1, 1, 1)
        rates_P11 = like.new_tensor(rates_P / (1 - Adam.BETA1 ** self._steps[:peers])).reshape(-1, 1, 1)
        for number, gradient in enumerate(gradients):
            parameter, mean = self._parameters[number][:peers], self._means[number][:peers]
            square = self._squares[number][:peers]
            slope = gradient.add(parameter, alpha=self._decay) if self._decay else gradient
            mean.lerp_(slope, 1 - Adam.BETA1)
            square.mul_(Adam.BETA2).addcmul_(slope, slope, value=1 - Adam.BETA2)
            below = square.sqrt().div_(scales_P11).add_(Adam.EPSILON).div_(rates_P11)
            parameter.addcdiv_(mean, below, value=-1)

    def export(self, place: int) -> State:
        steps = np.array(self._steps[place], dtype=np.int64)
        return {"steps": steps} | _arrays("mean", self._means, place) | _arrays("square", self._squares, place)

    def restore(self, place: int, state: Mapping[str, NDArray[Any]]) -> None:
        self._steps[place] = int(state["steps"])
        _restore("mean", self._means, place, state)
        _restore("square", self._squares, place, state)


def _arrays(name: str, tensors: Sequence[torch.Tensor], place: int) -> State:
    """A peer's state in the form of the single optimisers: biases, stacked as [P, O, 1], have one axis."""
    return {
        f"{name}.{number}": tensor[place].reshape(tensor.shape[1:] if number % 2 == 0 else (-1,)).cpu().numpy().copy()
        for number, tensor in enumerate(tensors)
    }


def _restore(name: str, tensors: Sequence[torch.Tensor], place: int, state: Mapping[str, NDArray[Any]]) -> None:
    for number, tensor in enumerate(tensors):
        array = state[f"{name}.{number}"]
        if array.size != tensor[place].numel() or array.shape[0] != tensor.shape[1]:
            raise ValueError(f"{name}.{number} has the shape {list(array.shape)}, expected {list(tensor.shape[1:])}")
        tensor[place].copy_(torch.from_numpy(np.array(array)).reshape(tensor.shape[1:]))
