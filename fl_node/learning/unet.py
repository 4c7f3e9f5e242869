"""A small U-Net: an image to a class for each of its pixels."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from fl_node.errors import SpecError
from fl_node.learning.layers import AsImages, convolution, image_shape


class UNet(nn.Module):
    """Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597, with group norm, which keeps no running
    statistics and can be merged, with borders padded so that every pixel gets a class, and with nearest-neighbour
    enlargement in place of transposed convolutions.

    One level for each number in ``hidden``, its channels. Down: two blocks of 3 x 3 convolution, group norm and ReLU,
    then 2 x 2 max pooling on the way to the next level. Up: enlarge, put the same level's way down beside it, two
    blocks. Last a 1 x 1 convolution to the classes. Sides may be odd.

    Args:
        shape: of one sample, [H, W] or [C, H, W].
        classes: of a pixel.
        hidden: channels of each level from the top.

    Raises:
        SpecError: no image, a layer that is too large, or too many levels for the image.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = image_shape("unet", shape)
        if not hidden or min(height, width) < 2 ** (len(hidden) - 1):
            raise SpecError(
                f"model.hidden = {list(hidden)}: {len(hidden)} levels would halve an image of {height} x {width} "
                f"{max(0, len(hidden) - 1)} times; expected one level or more, and fewer for task.input_shape "
                f"{list(shape)}"
            )
        self.images = AsImages((channels, height, width))
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        for level, wide in enumerate(hidden, 1):
            self.down[f"level{level}"] = _blocks(f"down.level{level}", channels, wide)
            channels = wide
        for level in range(len(hidden) - 1, 0, -1):
            wide = hidden[level - 1]
            self.up[f"level{level}"] = _blocks(f"up.level{level}", channels + wide, wide)
            channels = wide
        self.pixels = convolution("pixels", channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, \\*shape] to logits [batch, classes, H, W]."""
        x = self.images(x)
        beside: list[torch.Tensor] = []
        for blocks in self.down.values():
            x = blocks(F.max_pool2d(x, 2) if beside else x)
            beside.append(x)
        beside.pop()
        for blocks in self.up.values():
            level = beside.pop()
            x = blocks(torch.cat([F.interpolate(x, level.shape[-2:], mode="nearest"), level], 1))
        found: torch.Tensor = self.pixels(x)
        return found


def _blocks(name: str, channels: int, wide: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in (1, 2):
        layers[f"conv{number}"] = convolution(f"{name}.conv{number}", channels, wide)
        layers[f"norm{number}"] = nn.GroupNorm(wide // 4 if wide % 4 == 0 else 1, wide)
        layers[f"relu{number}"] = nn.ReLU()
        channels = wide
    return nn.Sequential(layers)
