"""Parts of the built-in models."""

from __future__ import annotations

import math

import torch
from torch import nn

from fl_node.errors import SpecError

#: 8 GiB of weights in one layer: beyond what peers could train, hold or send to each other.
MOST_WEIGHTS = 1 << 31


class AsImages(nn.Module):
    """[batch, H, W] or [batch, C, H, W] to [batch, C, H, W]."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, *self.shape)


def image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of ``task.input_shape``; SpecError if it is no image's."""
    if len(shape) not in (2, 3):
        raise SpecError(f"model.name = {name!r} with task.input_shape = {list(shape)}: expected [H, W] or [C, H, W]")
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    return channels, height, width


def linear(name: str, width: int, out: int) -> nn.Linear:
    affordable(name, width, out)
    return nn.Linear(width, out)


def convolution(name: str, channels: int, out: int, side: int = 3) -> nn.Conv2d:
    """Its output is as large as its input."""
    affordable(name, channels, out, side, side)
    return nn.Conv2d(channels, out, side, padding=side // 2)


def affordable(layer: str, *sides: int) -> None:
    """Refuse a layer before it is made: torch would take the memory, or fail in words of its own."""
    if math.prod(sides) > MOST_WEIGHTS:
        raise SpecError(
            f"the model's layer {layer} would have {' x '.join(map(str, sides))} = {math.prod(sides):,} weights; "
            f"expected at most {MOST_WEIGHTS:,}: choose a smaller task.input_shape, task.classes or model.hidden"
        )
