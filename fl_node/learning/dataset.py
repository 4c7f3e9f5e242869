"""Labelled rows: the form that every data set is brought into before anything else looks at it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.tables import TaskSpec


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """``features`` float32 [n, \\*input_shape], ``labels`` int64 [n]; both C-contiguous."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: NDArray[np.int64]) -> Dataset:
        """The rows of these indices, in this order, as a copy."""
        return Dataset(self.features[indices], self.labels[indices])

    def save(self, path: Path) -> None:
        """Write a file that the source ``npz:PATH`` reads: arrays ``x`` and ``y``, not compressed."""
        _write(path, x=self.features, y=self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Rows as their source holds them, to be dealt out and written: float32 ``values * scale`` are the features.

    Pixels stay bytes this way, a quarter of the memory and of the writing.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64]
    scale: np.float32 | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: NDArray[np.int64]) -> Packed:
        """The rows of these indices, in this order, as a copy."""
        return Packed(self.values[indices], self.labels[indices], self.scale)

    def features(self) -> NDArray[Any]:
        """The rows ready to be checked."""
        return self.values if self.scale is None else np.multiply(self.values, self.scale, dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write a file that the source ``npz:PATH`` reads."""
        scale = {} if self.scale is None else {"scale": np.asarray(self.scale)}
        _write(path, x=self.values, y=self.labels, **scale)


def _write(path: Path, **arrays: NDArray[Any]) -> None:
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as cause:
        raise DataError(f"cannot write the data set to {path}: {cause.strerror}; check the folder") from cause


def checked(features: NDArray[Any], labels: NDArray[Any], task: TaskSpec, where: str) -> Dataset:
    """Bring raw arrays into the form that the task names.

    Axes of length 1 may be missing or added, and a sample may be flat where the task has more axes or the other way
    round: ``[n, 28, 28]`` serves ``(784,)``, ``(28, 28)`` and ``(1, 28, 28)``. Any other shape is refused.

    Raises:
        DataError: no rows, another shape, labels that are not whole numbers from 0 to classes - 1, or a feature that is
            not finite.
    """
    shape = tuple(task.input_shape)
    if features.ndim < 1 or labels.ndim != 1:
        raise DataError(
            f"{where}: got features of shape {list(features.shape)} and labels of shape {list(labels.shape)}; "
            f"expected [n, {', '.join(map(str, shape))}] and [n]"
        )
    if len(features) != len(labels):
        raise DataError(f"{where}: {len(features)} samples but {len(labels)} labels; expected as many of each")
    if not len(labels):
        raise DataError(f"{where}: no rows; expected at least one sample")
    if not _alike(features.shape[1:], shape):
        raise DataError(
            f"{where}: one sample has the shape {list(features.shape[1:])}, but the federation's task.input_shape is "
            f"{list(shape)}; prepare the data to that shape"
        )
    if features.dtype.kind not in "fiub":
        raise DataError(f"{where}: features are of type {features.dtype}; expected numbers")
    with np.errstate(over="ignore"):  # a number beyond float32 is named below
        x = np.ascontiguousarray(features, dtype=np.float32).reshape(len(labels), *shape)
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
        raise DataError(f"{where}: sample {row} (from 0) holds a value that is not a finite float32; mend or drop it")
    return Dataset(x, checked_labels(labels, task, where))


def checked_labels(labels: NDArray[Any], task: TaskSpec, where: str) -> NDArray[np.int64]:
    """Labels as int64, each from 0 to ``task.classes - 1``. Raises DataError that names the first bad one."""
    if labels.dtype.kind not in "fiub":
        raise DataError(f"{where}: labels are of type {labels.dtype}; expected whole numbers from 0")
    wrong = ~((labels >= 0) & (labels < task.classes))
    if labels.dtype.kind == "f":
        wrong |= labels != np.floor(labels)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{where}: the label of sample {row} (from 0) is {labels[row]}; expected a whole number from 0 to "
            f"{task.classes - 1}, for task.classes is {task.classes}"
        )
    return np.ascontiguousarray(labels, dtype=np.int64)


def _alike(got: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    squeezed = [tuple(side for side in shape if side != 1) for shape in (got, wanted)]
    flat = len(squeezed[0]) <= 1 or len(squeezed[1]) <= 1
    return squeezed[0] == squeezed[1] or (flat and math.prod(got) == math.prod(wanted))
