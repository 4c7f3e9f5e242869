"""Comma-separated tables of numbers, with a header line, plain or gzipped."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_node.causes import in_words
from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset, checked
from fl_node.tables import TaskSpec


@dataclass(frozen=True, slots=True)
class Table:
    """Named columns of finite float64 numbers, [rows, columns]. ``path`` is for messages."""

    path: Path
    columns: tuple[str, ...]
    cells: NDArray[np.float64]

    def column(self, name: str) -> NDArray[np.float64]:
        """One column by name; DataError with a guess if there is none."""
        if name not in self.columns:
            close = difflib.get_close_matches(name, self.columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{self.path}: there is no column {name!r}{hint} Its {len(self.columns)} columns are: "
                f"{', '.join(self.columns)}"
            )
        return self.cells[:, self.columns.index(name)]


def read_table(path: Path) -> Table:
    """Read a CSV file, gzipped if it begins so.

    Raises:
        DataError: not there, not UTF-8, no header, a column named twice, no rows, a row of another length, a cell
            that is not a finite number; with line and column.
    """
    text = _text(path)
    header, _, body = text.partition("\n")
    columns = tuple(name.strip() for name in next(csv.reader([header.lstrip("\ufeff").rstrip("\r")]), []))
    if not any(columns):
        raise DataError(f"{path}: the first line is empty; expected the names of the columns")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the columns {', '.join(map(repr, twice))} come more than once; expected each once")
    if not body.strip():
        raise DataError(f"{path}: no rows below the header; expected at least one sample")
    try:
        cells = np.loadtxt(io.StringIO(body), delimiter=",", quotechar='"', comments=None, ndmin=2, dtype=np.float64)
    except ValueError as cause:
        raise DataError(_first_fault(path, columns, body) or f"{path}: {cause}") from cause
    if cells.shape[1] != len(columns) or not np.isfinite(cells).all():
        raise DataError(
            _first_fault(path, columns, body) or f"{path}: expected finite numbers in {len(columns)} columns"
        )
    return Table(path, columns, cells)


def load_csv(path: Path, task: TaskSpec) -> Dataset:
    """Every column but ``task.label`` is a feature, in the file's order, unscaled.

    Raises:
        DataError: as :func:`read_table`; no label column; another number of features than the task's shape holds.
    """
    if not task.label:
        raise DataError(f"{path}: task.label is empty; expected the name of the label column in the federation's spec")
    table = read_table(path)
    labels = table.column(task.label)
    names = [name for name in table.columns if name != task.label]
    expected = math.prod(task.input_shape)
    if len(names) != expected:
        raise DataError(
            f"{path}: {len(names)} feature columns ({', '.join(names)}), but task.input_shape {list(task.input_shape)} "
            f"holds {expected}; add or drop columns"
        )
    features = np.delete(table.cells, table.columns.index(task.label), axis=1)
    return checked(features, labels, task, str(path))


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        return raw.decode("utf-8")
    except (OSError, EOFError, zlib.error) as cause:
        raise DataError(f"{path}: cannot be read: {in_words(cause)}; expected a CSV file, plain or gzipped") from cause
    except UnicodeDecodeError as cause:
        raise DataError(f"{path}: is not UTF-8 text: {cause}; expected a CSV file, plain or gzipped") from cause


def _first_fault(path: Path, columns: tuple[str, ...], body: str) -> str:
    """Say which cell is at fault, by the slow reader, once the fast one has refused."""
    reader = csv.reader(io.StringIO(body))
    for row in reader:
        line = reader.line_num + 1
        if row and len(row) != len(columns):
            return f"{path}, line {line}: {len(row)} cells, expected {len(columns)}"
        for name, cell in zip(columns, row, strict=False):
            try:
                finite = math.isfinite(float(cell))
            except ValueError:
                finite = False
            if not finite:
                return (
                    f"{path}, line {line}, column {name!r}: got {cell!r}, expected a finite number; encode or drop it"
                )
    return ""
