"""Where samples come from: one function, ``load``, and the sources that ship with the package.

numpy only: neither torch nor scikit-learn is imported here.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset, checked
from fl_node.learning.plugin import is_plugin, resolve
from fl_node.learning.seeding import permutation
from fl_node.spec import TaskSpec

__all__ = ["ENVIRONMENT", "Dataset", "Part", "load", "names"]

Part: TypeAlias = Literal["train", "test", "all"]
ENVIRONMENT = "FL_NODE_DATA"
TEST_FRACTION = 0.2
Arrays: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


def names() -> tuple[str, ...]:
    """The sources that need no path."""
    return tuple(LOADERS)


def load(source: str, task: TaskSpec, data_dir: Path | None = None, part: Part = "all") -> Dataset:
    """Load samples and check them against the task.

    Args:
        source: ``digits``, ``mnist``, ``fashion-mnist``, ``credit-default``, ``csv:PATH``, ``npz:PATH`` (arrays ``x``
            and ``y``), or ``module:callable``, called as ``callable(task, data_dir)`` for a pair (features, labels).
        data_dir: the folder that holds the files, or a folder of that with the source's name; default: the
            environment variable ``FL_NODE_DATA``.
        part: ``train`` and ``test`` are the official parts where there are such (mnist, fashion-mnist); otherwise a
            fixed 80 % and 20 % of the rows, the same on every machine. ``all`` is every row, train before test.

    Raises:
        DataError: a file, column or array is missing, or does not fit the task.
        SpecError: a ``module:callable`` that cannot be imported.
    """
    if data_dir is None and os.environ.get(ENVIRONMENT):
        data_dir = Path(os.environ[ENVIRONMENT])
    if source in LOADERS:
        return LOADERS[source](task, data_dir, part)
    kind, _, rest = source.partition(":")
    if kind == "npz" and rest:
        return _part(checked(*read_npz(Path(rest)), task, rest), part)
    if is_plugin(source):
        return _part(checked(*_called(source, task, data_dir), task, source), part)
    raise DataError(
        f"unknown data source {source!r}; expected {', '.join(LOADERS)}, csv:PATH, npz:PATH or module:callable"
    )


def read_npz(path: Path) -> Arrays:
    """The arrays ``x`` and ``y`` of an npz file; nothing in it is ever unpickled."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray) or not {"x", "y"} <= set(archive.files):
                got = "one array" if isinstance(archive, np.ndarray) else ", ".join(archive.files) or "none"
                raise DataError(f"{path}: got arrays {got}; expected x (features) and y (labels)")
            return archive["x"], archive["y"]
    except FileNotFoundError as cause:
        raise DataError(f"{path}: no such file; expected an npz file with the arrays x and y") from cause
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as cause:
        raise DataError(f"{path}: not a readable npz file: {cause}") from cause


def _part(dataset: Dataset, part: Part) -> Dataset:
    """The fixed parts of a source without official ones; they do not depend on the spec."""
    if part == "all":
        return dataset
    order = permutation(len(dataset), "parts")
    test = round(len(dataset) * TEST_FRACTION)
    return dataset.take(np.sort(order[:test] if part == "test" else order[test:]))


def _digits(task: TaskSpec, data_dir: Path | None, part: Part) -> Dataset:
    """1,797 images of 8 x 8 pixels from 0 to 16, scaled to 0 to 1: the test part of UCI's optical digits.

    The file ships inside scikit-learn; finding it without importing the package saves most of a second.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits: the data ship with scikit-learn, which is not installed; pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), delimiter=",", dtype=np.float32)
    except (OSError, ValueError) as cause:
        raise DataError(f"digits: cannot read {path}: {cause}; reinstall scikit-learn") from cause
    return _part(checked(table[:, :-1] / np.float32(16), table[:, -1], task, "digits"), part)


def _called(source: str, task: TaskSpec, data_dir: Path | None) -> Arrays:
    function = resolve(source, "data")
    try:
        features, labels = function(task, data_dir)
        return np.asarray(features), np.asarray(labels)
    except Exception as cause:  # the user's function may raise anything
        raise DataError(
            f"{source} failed with {type(cause).__name__}: {cause}; expected it to return (features, labels)"
        ) from cause


LOADERS: dict[str, Callable[[TaskSpec, Path | None, Part], Dataset]] = {
    "digits": _digits,
}
