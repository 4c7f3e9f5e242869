"""How like two images are, and whether a reconstruction points to the row it came from. Pure numpy and scipy.

Images are float arrays [n, H, W], from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Images: TypeAlias = NDArray[Any]

#: PSNR of equal images, where the formula has no number.
MOST_DB: Final = 100.0
_WINDOW: Final = 7


@dataclass(frozen=True, slots=True)
class Likeness:
    """Means over pairs. ``mse``: squared difference a pixel; ``psnr``: decibels, higher is more alike; ``ssim``: 1 for
    equal images, about 0 for unrelated ones; ``named``: see :func:`named`; ``pairs``: how many."""

    mse: float
    psnr: float
    ssim: float
    named: float
    pairs: int


def squared_errors(left_MHW: Images, right_NHW: Images) -> NDArray[np.float64]:
    """Mean squared difference of every image to every other, float64 [m, n]."""
    left, right = (images.reshape(len(images), -1).astype(np.float64) for images in (left_MHW, right_NHW))
    products = left @ right.T
    found = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * products
    return np.maximum(found, 0.0) / left.shape[1]


def psnr(mse: float) -> float:
    """10 log10(1 / mse), at most 100 dB."""
    return min(MOST_DB, float(-10 * np.log10(max(mse, 10 ** (-MOST_DB / 10)))))


def ssim(left_HW: Images, right_HW: Images) -> float:
    """Mean structural similarity over all windows of 7 x 7 pixels that lie inside, uniform weights, sample variance,
    K1 0.01, K2 0.03, range 1: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861."""
    windows = [
        np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (_WINDOW, _WINDOW))
        for image in (left_HW, right_HW)
    ]
    x, y = (view.reshape(*view.shape[:2], -1) for view in windows)
    mean_x, mean_y = x.mean(axis=-1), y.mean(axis=-1)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    var_x, var_y = x.var(axis=-1) * unbiased, y.var(axis=-1) * unbiased
    both = ((x * y).mean(axis=-1) - mean_x * mean_y) * unbiased
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def matched(made_MHW: Images, truth_NHW: Images) -> list[tuple[int, int]]:
    """Which reconstruction is held against which true image: the pairing of min(m, n) of them, one to one, with the
    least total squared error. So the attacker is given the benefit of the best order."""
    rows, columns = linear_sum_assignment(squared_errors(made_MHW, truth_NHW))
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)]


def compare(made_MHW: Images, truth_NHW: Images, others_HW: Images) -> Likeness:
    """Reconstructions against what they should show, best matched, among ``others`` that were never trained on."""
    pairs = matched(made_MHW, truth_NHW)
    errors = squared_errors(made_MHW, truth_NHW)
    singles = [float(errors[i, j]) for i, j in pairs]
    return Likeness(
        float(np.mean(singles)),
        float(np.mean([psnr(one) for one in singles])),
        float(np.mean([ssim(made_MHW[i], truth_NHW[j]) for i, j in pairs])),
        named(made_MHW[[i for i, _ in pairs]], truth_NHW, others_HW),
        len(pairs),
    )


def named(made_MHW: Images, truth_NHW: Images, others_HW: Images) -> float:
    """Part of the reconstructions whose nearest image, among the true ones and strangers, is a true one.

    A picture that says nothing scores about n / (n + number of strangers).
    """
    nearest_truth = squared_errors(made_MHW, truth_NHW).min(axis=1)
    return float((nearest_truth < squared_errors(made_MHW, others_HW).min(axis=1)).mean())
