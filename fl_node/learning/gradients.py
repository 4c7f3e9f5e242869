"""What a step of training follows: the gradient of a batch's loss, and what may be done to it before the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

#: (features, labels) of one batch -> mean loss, a scalar tensor, and the gradient of every parameter.
Gradients: TypeAlias = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, "list[torch.Tensor]"]]


def autograd(module: nn.Module, parameters: Sequence[torch.Tensor], class_weights: torch.Tensor | None) -> Gradients:
    """Mean cross-entropy of a module and its gradients, as torch derives them.

    Of logits [batch, classes, H, W] and masks [batch, H, W] it is the mean over all pixels.
    """
    over = list(parameters)

    def gradients(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss = F.cross_entropy(module(inputs), targets, weight=class_weights)
        slopes = torch.autograd.grad(loss, over, allow_unused=True, materialize_grads=True)
        return loss.detach(), list(slopes)

    return gradients


def proximal(gradients: Gradients, parameters: Sequence[torch.Tensor], strength: float) -> Gradients:
    """Pull the parameters towards where they are now: strength / 2 * ||w - w_now||^2 is added to what is minimised,
    strength * (w - w_now) to its gradient. The loss given stays that of the rows alone.

    FedProx: Li et al. 2020, https://arxiv.org/abs/1812.06127, equation 2.
    """
    over = [parameter.detach() for parameter in parameters]
    start = [parameter.clone() for parameter in over]
    away = [torch.empty_like(parameter) for parameter in over]

    def pulled(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss, slopes = gradients(inputs, targets)
        with torch.no_grad():
            for parameter, origin, distance in zip(over, start, away, strict=True):
                torch.sub(parameter, origin, out=distance)
            return loss, [slope.add(far, alpha=strength) for slope, far in zip(slopes, away, strict=True)]

    return pulled


def clipped(gradients: Gradients, largest: float) -> Gradients:
    """Scale all gradients of a step by one factor, min(1, largest / (norm + 1e-6)), norm being the L2 norm of them all
    as one vector: what ``torch.nn.utils.clip_grad_norm_`` does, to the bit.

    Pascanu, Mikolov, Bengio 2013, https://arxiv.org/abs/1211.5063.
    """

    def bounded(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss, slopes = gradients(inputs, targets)
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(slope) for slope in slopes]))
            factor = torch.clamp(largest / (norm + 1e-6), max=1.0)
            return loss, [slope.mul(factor) for slope in slopes]

    return bounded


def mean_gradient(
    module: nn.Module,
    parameters: Sequence[torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    class_weights: torch.Tensor | None,
) -> tuple[list[NDArray[np.float64]], float]:
    """The gradient of the mean cross-entropy over all batches together, and that mean; added up in float64.

    The mean is over rows (of masks: pixels), each counting as its class does; both results are 0 where none counts.
    The module is used in the mode it is in.
    """
    over = list(parameters)
    sums = [np.zeros(tuple(parameter.shape)) for parameter in over]
    loss, weight = 0.0, 0.0
    for inputs, targets in batches:
        batch = F.cross_entropy(module(inputs), targets, weight=class_weights, reduction="sum")
        slopes = torch.autograd.grad(batch, over, allow_unused=True, materialize_grads=True)
        for total, slope in zip(sums, slopes, strict=True):
            total += slope.cpu().numpy()
        loss += float(batch.detach())
        weight += targets.numel() if class_weights is None else float(class_weights[targets].sum(dtype=torch.float64))
    if not weight:
        return sums, 0.0
    return [total / weight for total in sums], loss / weight
