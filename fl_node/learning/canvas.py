"""Digits on a canvas with their masks: a segmentation task from data that come with scikit-learn.

Each of the 1,797 handwritten digits of 8 x 8 is turned a little, enlarged and laid somewhere on a canvas that also
holds a slope of light, dots and noise. The mask says which pixels belong to the digit. Every canvas has a digit of its
own, so that rows held out are of digits nobody has trained on. The same for everybody: the draws are RandomState's,
whose stream numpy never changes (NEP 19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset, checked
from fl_node.learning.digits import read_digits
from fl_node.tables import TaskSpec

SEED = 19981007
SMALLEST = 16
DOTS = 6

Floats = NDArray[np.float64]


def load_canvases(task: TaskSpec) -> Dataset:
    """1,797 canvases of ``task.input_shape``, masks of ``task.classes`` classes, and each digit's class as its group.

    With 2 classes a pixel is 1 where it belongs to a digit; with 11 it is 1 + the digit's class. 0 is the background.

    Raises:
        DataError: not a segmentation task, a shape other than [H, W] or [1, H, W] with sides of at least 16, or another
            number of classes.
    """
    shape = tuple(task.input_shape)
    if task.kind != "segmentation" or task.classes not in (2, 11):
        raise DataError(
            f"digits-canvas: task.kind = {task.kind!r} with task.classes = {task.classes}; expected segmentation with "
            "2 classes (background, digit) or 11 (background, each digit)"
        )
    if len(shape) not in (2, 3) or shape[:-2] not in ((), (1,)) or min(shape[-2:]) < SMALLEST:
        raise DataError(
            f"digits-canvas: task.input_shape = {list(shape)}; expected [H, W] or [1, H, W], no side below {SMALLEST}"
        )
    digits, classes = read_digits()
    images, belongs = drawn(digits, shape[-2:])
    masks = belongs * (1 if task.classes == 2 else 1 + classes[:, None, None].astype(np.int64))
    return checked(images, masks, task, "digits-canvas", classes.astype(np.int64))


def drawn(digits: NDArray[np.float32], sides: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Lay each digit [n, 8, 8] on a canvas of its own.

    Returns:
        The canvases [n, H, W], pixels from 0 to 1; and which of their pixels belong to the digit [n, H, W]: those where
        it is at least half as bright as it can be.
    """
    count, (height, width) = len(digits), sides
    random = np.random.RandomState(SEED)

    def uniform(low: float, high: float) -> Floats:
        found: Floats = random.uniform(low, high, (count, 1, 1))
        return found

    scale, angle, light = uniform(1.25, 1.75), uniform(-0.35, 0.35), uniform(0.5, 0.9)
    y, x = (grid[None].astype(np.float64) for grid in np.mgrid[:height, :width])
    # A digit has 8 pixels on a side: its centre stays so far from the border that next to all of it is on the canvas.
    down = y - (uniform(0.0, 1.0) * (height - 1 - 8 * scale) + 4 * scale)
    right = x - (uniform(0.0, 1.0) * (width - 1 - 8 * scale) + 4 * scale)
    cosine, sine = np.cos(angle), np.sin(angle)
    digit = _between(digits, (cosine * down - sine * right) / scale + 3.5, (sine * down + cosine * right) / scale + 3.5)

    ground = uniform(0.0, 0.3) + uniform(-0.3, 0.3) * (y / height - 0.5) + uniform(-0.3, 0.3) * (x / width - 0.5)
    bright = digit
    for _ in range(DOTS):
        far = np.hypot(y - uniform(0.0, 1.0) * height, x - uniform(0.0, 1.0) * width)
        bright = np.maximum(bright, np.clip(uniform(1.1, 1.9) - far, 0.0, 1.0))
    image = ground + light * bright + random.normal(0.0, 0.12, (count, height, width))
    return np.clip(image, 0.0, 1.0).astype(np.float32), digit >= 0.5


def _between(digits: NDArray[np.float32], row: Floats, column: Floats) -> Floats:
    """The digits' brightness at places between their pixels, [n, H, W], linear in both directions; 0 outside."""
    framed = np.pad(digits.astype(np.float64), ((0, 0), (1, 2), (1, 2)))
    row, column = (np.clip(place + 1.0, 0.0, 9.0) for place in (row, column))
    above, before = row.astype(np.int64), column.astype(np.int64)
    lower, later = row - above, column - before
    which = np.arange(len(digits))[:, None, None]
    upper = framed[which, above, before] * (1 - later) + framed[which, above, before + 1] * later
    under = framed[which, above + 1, before] * (1 - later) + framed[which, above + 1, before + 1] * later
    found: Floats = upper * (1 - lower) + under * lower
    return found
