"""Update inversion: rows out of the difference between a published update and its base.

Two attacks, both by a reader of the update who knows the spec, and so the model and the learning rate.

- :func:`by_division` needs no search. A linear layer with bias has, for one row x, dL/dW_c = d_c x and dL/db_c = d_c:
  the quotient is x itself. Over several rows it is their mean weighted by d_c. Phong et al. 2017,
  https://eprint.iacr.org/2017/715.
- :func:`by_search` looks for images whose gradient points where the update went, by the cosine between them, with total
  variation as prior; Adam on the sign of the slope, the rate divided by ten after 3/8, 5/8 and 7/8 of the steps.
  Geiping et al. 2020, https://arxiv.org/abs/2003.14053. The attacker is told the labels.

Both take the whole difference as one gradient step, which it is if the peer made one step of SGD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from fl_node.learning.models import set_weights

#: Of a bias's slope, below which its row is left out: rounding is all that it holds.
_LEAST: Final = 1e-9


def difference(base: Mapping[str, NDArray[Any]], update: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """Base minus update: along the gradient, float64."""
    return {name: base[name].astype(np.float64) - update[name].astype(np.float64) for name in base}


def by_division(weight_CF: NDArray[np.float64], bias_C: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Candidates [m, features], values clamped to 0..1, at most ``most``, those of the largest bias slope first.

    Args:
        weight_CF: the update's difference in a linear layer's weight that is fed by the inputs themselves.
        bias_C: that of its bias.
    """
    order = np.argsort(-np.abs(bias_C), kind="stable")
    kept = [row for row in order if abs(bias_C[row]) > _LEAST][:most]
    if not kept:
        return np.zeros((1, weight_CF.shape[1]))
    return np.clip(weight_CF[kept] / bias_C[kept, None], 0.0, 1.0)


def by_search(
    module: nn.Module,
    base: Mapping[str, NDArray[Any]],
    change: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.int64],
    shape: Sequence[int],
    *,
    steps: int,
    rate: float = 0.1,
    smoothness: float = 1e-3,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Images [labels, *shape] from 0 to 1 whose gradient at ``base`` has the least cosine distance to ``change``.

    Args:
        smoothness: weight of the total variation, the mean absolute difference of neighbouring pixels.
        seed: of the noise that the search begins with.
    """
    set_weights(module, base)
    module.train()
    parameters = dict(module.named_parameters())
    wanted = [torch.from_numpy(change[name]).to(value) for name, value in parameters.items()]
    size = torch.sqrt(sum((one**2).sum() for one in wanted))  # type: ignore[arg-type]
    if not float(size):
        return np.full((len(labels), *shape), 0.5)
    targets = torch.from_numpy(labels)
    noise = torch.Generator().manual_seed(seed)
    images = torch.rand((len(labels), *shape), generator=noise).requires_grad_()
    search = torch.optim.Adam([images], lr=rate)
    falls = torch.optim.lr_scheduler.MultiStepLR(search, [steps * k // 8 for k in (3, 5, 7)], gamma=0.1)
    for _ in range(steps):
        loss = F.cross_entropy(module(images), targets)
        slopes = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        along = sum((slope * one).sum() for slope, one in zip(slopes, wanted, strict=True))
        length = torch.sqrt(sum((slope**2).sum() for slope in slopes) + 1e-30)  # type: ignore[operator]
        cost = 1 - along / (length * size) + smoothness * _total_variation(images)
        (images.grad,) = torch.autograd.grad(cost, [images])
        images.grad.sign_()
        search.step()
        falls.step()
        with torch.no_grad():
            images.clamp_(0.0, 1.0)
    found: NDArray[np.float64] = images.detach().numpy().astype(np.float64)
    return found


def _total_variation(images: torch.Tensor) -> torch.Tensor:
    return (images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()) / 2
