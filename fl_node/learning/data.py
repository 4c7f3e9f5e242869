"""Data sets by name: the spec's ``task.data`` to labelled rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fl_node.causes import in_words
from fl_node.errors import DataError
from fl_node.learning.canvas import load_canvases
from fl_node.learning.credit import load_credit
from fl_node.learning.dataset import Dataset, Packed, checked
from fl_node.learning.digits import load_digits
from fl_node.learning.images import load_images, read_images
from fl_node.learning.named import is_named, resolve
from fl_node.learning.tables import load_csv
from fl_node.tables import TaskSpec

ENVIRONMENT = "FL_NODE_DATA_DIR"
PART_SEED = 20090701
IMAGES = ("mnist", "fashion-mnist")
KNOWN = ("digits", "digits-canvas", *IMAGES, "credit-default", "csv:PATH", "npz:PATH", "module:callable")


def load(
    source: str, task: TaskSpec, data_dir: Path | None = None, part: Literal["train", "test", "all"] = "all"
) -> Dataset:
    """The rows that a source holds, in its own order.

    Args:
        source: ``digits``, ``digits-canvas``, ``mnist``, ``fashion-mnist``, ``credit-default``, ``csv:PATH``,
            ``npz:PATH``, or ``module:callable`` (called without arguments, gives features and labels).
        task: what the rows must look like.
        data_dir: folder of the data sets; else the environment's FL_NODE_DATA_DIR. Relative PATHs start there if it is
            given, else in the current folder.
        part: ``train`` and ``test`` are the publisher's own where there are (60,000 and 10,000 images of mnist and
            fashion-mnist), else four fifths and one fifth by a shuffle that is the same for everybody.

    Raises:
        DataError: names the file and what was got and expected.
    """
    folder = _folder(data_dir)
    if source in IMAGES:
        return load_images(source, part, task, folder)
    data = _whole(source, task, folder)
    return data if part == "all" else _share(data, part, source)


def load_packed(source: str, task: TaskSpec, data_dir: Path | None, part: Literal["train", "test", "all"]) -> Packed:
    """As :func:`load`, for rows that are only passed on: pixels stay bytes."""
    if source in IMAGES:
        return read_images(source, part, task, _folder(data_dir))
    data = load(source, task, data_dir, part)
    return Packed(data.features, data.labels, groups=data.groups)


def _whole(source: str, task: TaskSpec, folder: Path | None) -> Dataset:
    if source == "digits":
        return load_digits(task)
    if source == "digits-canvas":
        return load_canvases(task)
    if source == "credit-default":
        return load_credit(task, folder)
    kind, colon, rest = source.partition(":")
    if colon and kind == "csv":
        return load_csv(_path(rest, folder), task)
    if colon and kind == "npz":
        return _load_npz(_path(rest, folder), task)
    if is_named(source):
        return _call(source, task)
    raise DataError(f"data set {source!r}: expected one of {', '.join(KNOWN)}")


def _share(data: Dataset, part: str, source: str) -> Dataset:
    """A fixed fifth is the test part, by a shuffle of RandomState, whose stream numpy never changes (NEP 19)."""
    count = len(data) // 5
    if not count:
        raise DataError(f"{source}: {len(data)} rows; expected at least 5 to set a fifth aside as test part")
    order = np.random.RandomState(PART_SEED).permutation(len(data)).astype(np.int64)
    return data.rows(np.sort(order[:count] if part == "test" else order[count:]))


def _folder(data_dir: Path | None) -> Path | None:
    if data_dir is not None:
        return data_dir
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else None


def _path(text: str, folder: Path | None) -> Path:
    path = Path(text).expanduser()
    return folder / path if folder is not None and not path.is_absolute() else path


def _load_npz(path: Path, task: TaskSpec) -> Dataset:
    """Arrays ``x`` [n, \\*input_shape] and ``y`` [n], or [n, H, W] of masks; ``scale`` where x is to be multiplied by a
    number, as bytes of pixels are by 1/255; ``groups`` [n] where rows are to be dealt out by another class than their
    own. Pickled objects are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: this is a single array; expected an .npz with the arrays x and y")
            if not {"x", "y"} <= set(arrays.files):
                raise DataError(f"{path}: holds the arrays {sorted(arrays.files)}; expected x and y")
            x, y, groups = arrays["x"], arrays["y"], arrays["groups"] if "groups" in arrays.files else None
            if "scale" in arrays.files:
                x = Packed(x, y, np.float32(arrays["scale"])).features()
    except DataError:
        raise
    except Exception as cause:  # zipfile, zlib, struct and numpy each have their own for a damaged file
        # Of what is no archive of arrays, numpy says how to open it unsafely.
        said = "it is no archive of arrays of numbers" if "pickle" in str(cause) else in_words(cause)
        raise DataError(f"{path}: cannot be read: {said}; expected an .npz with the arrays x and y") from cause
    return checked(x, y, task, str(path), groups)


def _call(source: str, task: TaskSpec) -> Dataset:
    function = resolve(source, "task.data", DataError)
    try:
        made: Any = function()
        features, labels = (np.asarray(part) for part in made)
    except Exception as cause:  # the user's code may raise anything
        raise DataError(
            f"{source} failed: {type(cause).__name__}: {cause}; expected it to give (features, labels)"
        ) from cause
    return checked(features, labels, task, source)
