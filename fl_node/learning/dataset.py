"""Labelled rows: the form that every data set is brought into before anything else looks at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.tables import TaskSpec


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """``features`` float32 [n, \\*input_shape]; ``labels`` int64, [n] of classes, or [n, H, W] of masks where the task
    is segmentation; both C-contiguous. ``groups`` int64 [n]: what kind of sample each is, where the source says so.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strata(self) -> NDArray[np.int64]:
        """One class per sample, int64 [n], by which rows are split and dealt out; see :func:`strata_of`."""
        return strata_of(self.labels, self.groups)

    def rows(self, indices: NDArray[np.int64]) -> Dataset:
        """The rows of these indices, in this order, as a copy."""
        groups = None if self.groups is None else self.groups[indices]
        return Dataset(self.features[indices], self.labels[indices], groups)

    def save(self, path: Path) -> None:
        """Write a file that the source ``npz:PATH`` reads: arrays ``x``, ``y`` and ``groups``, not compressed."""
        _write(path, self.features, self.labels, self.groups)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Rows as their source holds them, to be dealt out and written: float32 ``values * scale`` are the features.

    Pixels stay bytes this way, a quarter of the memory and of the writing. ``labels`` and ``groups``: as in
    :class:`Dataset`.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64]
    scale: np.float32 | None = None
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strata(self) -> NDArray[np.int64]:
        """As :attr:`Dataset.strata`."""
        return strata_of(self.labels, self.groups)

    def rows(self, indices: NDArray[np.int64]) -> Packed:
        """The rows of these indices, in this order, as a copy."""
        groups = None if self.groups is None else self.groups[indices]
        return Packed(self.values[indices], self.labels[indices], self.scale, groups)

    def features(self) -> NDArray[Any]:
        """The rows ready to be checked."""
        return self.values if self.scale is None else np.multiply(self.values, self.scale, dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write a file that the source ``npz:PATH`` reads."""
        _write(path, self.values, self.labels, self.groups, self.scale)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """The rows of all parts, in this order. ``groups`` are kept where every part has them."""
    groups = [part.groups for part in parts if part.groups is not None]
    return Dataset(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(groups) if len(groups) == len(parts) else None,
    )


def strata_of(labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """One class per sample, int64 [n]: the groups where there are; else the labels; of masks [n, H, W] the class with
    most pixels other than 0 (the background), the lower of equals, and 0 for an empty mask.
    """
    if groups is not None:
        return groups
    if labels.ndim == 1:
        return labels
    count, classes = len(labels), int(labels.max(initial=0)) + 1
    places = labels.reshape(count, math.prod(labels.shape[1:])) + np.arange(count)[:, None] * classes
    pixels = np.bincount(places.ravel(), minlength=count * classes).reshape(count, classes)
    pixels[:, 0] = 0
    most: NDArray[np.int64] = pixels.argmax(axis=1)
    return most


def _write(
    path: Path,
    x: NDArray[Any],
    y: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    scale: np.float32 | None = None,
) -> None:
    """Masks are written in the smallest type that holds them: there is a label for every pixel."""
    arrays: dict[str, NDArray[Any]] = {
        "x": x,
        "y": y if y.ndim == 1 else y.astype(np.min_scalar_type(y.max(initial=0))),
    }
    if groups is not None:
        arrays["groups"] = groups
    if scale is not None:
        arrays["scale"] = np.asarray(scale)
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as cause:
        raise DataError(f"cannot write the data set to {path}: {cause.strerror}; check the folder") from cause


def checked(
    features: NDArray[Any], labels: NDArray[Any], task: TaskSpec, where: str, groups: NDArray[Any] | None = None
) -> Dataset:
    """Bring raw arrays into the form that the task names.

    Axes of length 1 may be missing or added, and a sample may be flat where the task has more axes or the other way
    round: ``[n, 28, 28]`` serves ``(784,)``, ``(28, 28)`` and ``(1, 28, 28)``. Any other shape is refused. Of a
    segmentation task the labels are masks [n, H, W], or [n, 1, H, W], of the last two axes of the task's shape.

    Raises:
        DataError: no rows, another shape, labels that are not whole numbers from 0 to classes - 1, groups that are not
            whole numbers from 0, or a feature that is not finite.
    """
    shape = tuple(task.input_shape)
    sides = _mask_sides(task, where)
    if sides and labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if features.ndim < 1 or labels.shape[1:] != sides or labels.ndim < 1:
        raise DataError(
            f"{where}: got features of shape {list(features.shape)} and labels of shape {list(labels.shape)}; "
            f"expected [n, {', '.join(map(str, shape))}] and [{', '.join(map(str, ('n', *sides)))}]"
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
    return Dataset(x, checked_labels(labels, task, where), None if groups is None else _groups(groups, len(x), where))


def checked_labels(labels: NDArray[Any], task: TaskSpec, where: str) -> NDArray[np.int64]:
    """Labels as int64, each from 0 to ``task.classes - 1``. Raises DataError that names the first bad one."""
    if labels.dtype.kind not in "fiub":
        raise DataError(f"{where}: labels are of type {labels.dtype}; expected whole numbers from 0")
    wrong = ~((labels >= 0) & (labels < task.classes))
    if labels.dtype.kind == "f":
        wrong |= labels != np.floor(labels)
    if wrong.any():
        first = tuple(int(place) for place in np.argwhere(wrong)[0])
        pixel = f", pixel {list(first[1:])}," if first[1:] else ""
        raise DataError(
            f"{where}: the label of sample {first[0]}{pixel} (from 0) is {labels[first]}; expected a whole number from "
            f"0 to {task.classes - 1}, for task.classes is {task.classes}"
        )
    return np.ascontiguousarray(labels, dtype=np.int64)


def _mask_sides(task: TaskSpec, where: str) -> tuple[int, ...]:
    """The shape of one sample's labels: none for a class, [H, W] for a mask."""
    if task.kind == "classification":
        return ()
    if len(task.input_shape) not in (2, 3):
        raise DataError(
            f"{where}: task.kind = 'segmentation' with task.input_shape = {list(task.input_shape)}; expected [H, W] or "
            "[C, H, W]"
        )
    return tuple(task.input_shape[-2:])


def _groups(groups: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    if groups.shape != (count,) or groups.dtype.kind not in "iu" or (groups < 0).any():
        raise DataError(
            f"{where}: groups are {groups.dtype}{list(groups.shape)}; expected whole numbers from 0, one for each of "
            f"the {count} samples"
        )
    return np.ascontiguousarray(groups, dtype=np.int64)


def _alike(got: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    squeezed = [tuple(side for side in shape if side != 1) for shape in (got, wanted)]
    flat = len(squeezed[0]) <= 1 or len(squeezed[1]) <= 1
    return squeezed[0] == squeezed[1] or (flat and math.prod(got) == math.prod(wanted))
