"""The seeded split of a peer's own rows into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset
from fl_node.tables import TaskSpec


@dataclass(frozen=True, slots=True)
class Splits:
    """``train`` is learned from, ``validation`` steers choices, ``test`` is what claims are measured on."""

    train: Dataset
    validation: Dataset
    test: Dataset


def split(data: Dataset, task: TaskSpec) -> Splits:
    """Split by a seeded shuffle, class by class in proportion; of masks, stratum by stratum.

    Sizes: test = round(n * task.test), validation = round(n * task.validation), at least 1 where the fraction is above
    0; the rest is for training. Rows are shuffled with numpy's PCG64 seeded by ``task.split_seed``, then put into an
    order in which every class is spread evenly, and cut. A peer's rows are private, so nobody replays this split; it
    has to be the same only for the same peer after a restart.

    Raises:
        DataError: a part that the task asks for would be empty. A fraction of 0 leaves that part empty on purpose,
            except for test: no score can be claimed without one.
    """
    count = len(data)
    sizes = {}
    for name, fraction in (("test", task.test), ("validation", task.validation)):
        sizes[name] = max(1, round(count * fraction)) if fraction > 0 else 0
    sizes["train"] = count - sizes["test"] - sizes["validation"]
    if sizes["train"] < 1 or sizes["test"] < 1:
        held_out = f"{sizes['validation']} to validate and {sizes['test']} to test"
        raise DataError(
            f"got {count} row{'s' if count != 1 else ''}, of which task.validation {task.validation:g} and task.test "
            f"{task.test:g} set {held_out} aside; expected at least one row to train on and one to test on: bring more "
            "rows"
        )
    order = _spread(data.strata, task.split_seed)
    test, validation, train = np.split(order, [sizes["test"], sizes["test"] + sizes["validation"]])
    return Splits(data.rows(np.sort(train)), data.rows(np.sort(validation)), data.rows(np.sort(test)))


def _spread(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A shuffle of all rows in which each stretch holds about the classes' proportions.

    The j-th of the m rows of a class stands at (j + u) / m, with one random u in [0, 1) per class.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    shuffled = generator.permutation(len(labels))
    place = np.empty(len(labels))
    for number in np.unique(labels):
        rows = np.flatnonzero(labels[shuffled] == number)
        place[rows] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return shuffled[np.argsort(place, kind="stable")]
