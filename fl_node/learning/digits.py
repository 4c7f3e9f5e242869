"""The 1,797 handwritten digits that scikit-learn ships: real data without a download.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), https://doi.org/10.24432/C50P49.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset, checked
from fl_node.tables import TaskSpec


def load_digits(task: TaskSpec) -> Dataset:
    """1,797 images of 8 x 8, a pixel from 0 to 1, ten classes."""
    return checked(*read_digits(), task, "digits")


def read_digits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The images [1797, 8, 8] and their classes [1797].

    The file is read out of the package's folder, for importing scikit-learn takes most of a second.

    Raises:
        DataError: scikit-learn is not installed, or its file cannot be read.
    """
    path = _file()
    try:
        with gzip.open(path, "rb") as file:
            table = np.array(file.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.float32)
    except (OSError, EOFError, ValueError) as cause:
        raise DataError(f"digits: cannot read {path}: {cause}; reinstall scikit-learn") from cause
    table = table.reshape(-1, 65)
    return table[:, :64].reshape(-1, 8, 8) / np.float32(16.0), table[:, 64]


def _file() -> Path:
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataError("digits: the data set comes with scikit-learn; run `pip install 'fl-node[train]'`")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
