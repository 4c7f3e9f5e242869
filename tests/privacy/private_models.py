"""Models and loops of a user's own, some of which cannot be trained row by row."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Scaled(nn.Module):
    """A parameter of its own beside a layer, as users write."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(wide))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def good(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Dropout, a layer of one's own, a frozen one, and layer norm."""
    model = nn.Sequential(
        nn.Linear(input_shape[0], 8),
        nn.LayerNorm(8),
        nn.Tanh(),
        nn.Dropout(0.1),
        Scaled(8),
        nn.Linear(8, 8),
        nn.Linear(8, classes),
    )
    for parameter in model[5].parameters():
        parameter.requires_grad_(False)
    return model


def batch_norm(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, classes)
    )


class _Centred(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


def mixing(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """No layer that any list names, and yet each row's answer depends on the others."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), _Centred(), nn.Linear(8, classes))


class _Outside(nn.Module):
    def __init__(self, wide: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(wide, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.layer.weight, self.layer.bias)


def outside(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Uses a layer's weight past the layer."""
    return _Outside(input_shape[0], classes)


def loop(module: nn.Module, features: torch.Tensor, labels: torch.Tensor, spec: Any, seed: int) -> None:
    """Goes far, and changes what is frozen."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 100.0
