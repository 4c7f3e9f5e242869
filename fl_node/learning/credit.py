"""UCI "Default of Credit Card Clients": 30,000 customers, 33 features, will they default next month.

Yeh 2009, https://doi.org/10.24432/C55S3H (CC BY 4.0); Yeh, Lien 2009, Expert Systems with Applications 36(2).

Every peer scales with the constants below, those of the public data set, never with statistics of its own rows: equal
weights must mean the same for everybody, and a peer's statistics are private.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset, checked
from fl_node.learning.tables import Table, read_table
from fl_node.tables import TaskSpec

FILE: Final = "default-of-credit-card-clients.csv"
#: The label under its names in the copies that are about; ``ID`` is dropped, as is any column not named here.
LABELS: Final = ("default.payment.next.month", "default payment next month")
#: One feature per code, all codes that occur in the public file, the undocumented ones included.
CATEGORIES: Final[dict[str, tuple[int, ...]]] = {
    "SEX": (1, 2),
    "EDUCATION": (0, 1, 2, 3, 4, 5, 6),
    "MARRIAGE": (0, 1, 2, 3),
}
#: Column: mean and (population) standard deviation over the public 30,000 rows, to four figures.
SCALES: Final[dict[str, tuple[float, float]]] = {
    "LIMIT_BAL": (167500.0, 129700.0),
    "AGE": (35.49, 9.218),
    "PAY_0": (-0.0167, 1.124),
    "PAY_2": (-0.1338, 1.197),
    "PAY_3": (-0.1662, 1.197),
    "PAY_4": (-0.2207, 1.169),
    "PAY_5": (-0.2662, 1.133),
    "PAY_6": (-0.2911, 1.15),
    "BILL_AMT1": (51220.0, 73630.0),
    "BILL_AMT2": (49180.0, 71170.0),
    "BILL_AMT3": (47010.0, 69350.0),
    "BILL_AMT4": (43260.0, 64330.0),
    "BILL_AMT5": (40310.0, 60800.0),
    "BILL_AMT6": (38870.0, 59550.0),
    "PAY_AMT1": (5664.0, 16560.0),
    "PAY_AMT2": (5921.0, 23040.0),
    "PAY_AMT3": (5226.0, 17610.0),
    "PAY_AMT4": (4826.0, 15670.0),
    "PAY_AMT5": (4799.0, 15280.0),
    "PAY_AMT6": (5216.0, 17780.0),
}


def load_credit(task: TaskSpec, place: Path | None) -> Dataset:
    """33 features: the standardised columns in the order of ``SCALES``, then one-hot ``CATEGORIES``. Label 1: defaults.

    ``place`` is the CSV file, plain or gzipped, or a folder that holds it, itself or under ``credit-default``.

    Raises:
        DataError: no file, a missing column, a cell that is no number, an unknown code.
    """
    table = read_table(_located(place))
    columns = [(table.column(name) - mean) / deviation for name, (mean, deviation) in SCALES.items()]
    for name, codes in CATEGORIES.items():
        columns.extend(_one_hot(table, name, codes))
    label = next((name for name in LABELS if name in table.columns), LABELS[0])
    return checked(np.stack(columns, axis=1), table.column(label), task, str(table.path))


def _one_hot(
    table: Table, name: str, codes: tuple[int, ...]
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    cells = table.column(name)
    unknown = ~np.isin(cells, codes)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise DataError(
            f"{table.path}: row {row} (from 0), column {name!r}: code {cells[row]:g}; expected one of "
            f"{', '.join(map(str, codes))}"
        )
    return [(cells == code).astype(np.float64) for code in codes]


def _located(place: Path | None) -> Path:
    if place is not None and place.is_file():
        return place
    folder = place or Path()
    tried = [parent / (FILE + suffix) for parent in (folder / "credit-default", folder) for suffix in (".gz", "")]
    for path in tried:
        if path.is_file():
            return path
    raise DataError(
        f"credit-default: no {FILE}.gz or {FILE} in {folder / 'credit-default'} or {folder}; get it from "
        "https://doi.org/10.24432/C55S3H as CSV and name its folder with --data-dir or FL_NODE_DATA_DIR"
    )
