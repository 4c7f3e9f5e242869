"""Data for every peer of a run: rows dealt out, split, shifted, poisoned; and the common test set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError
from fl_node.learning.data import load_packed
from fl_node.learning.dataset import Dataset, Packed, checked
from fl_node.learning.partition import partition
from fl_node.learning.shifts import Shift, shifted_splits
from fl_node.learning.splits import Splits, split
from fl_node.tables import TaskSpec

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as its files hold it: the rows to deal out, and the common test rows."""

    train: Packed
    test: Packed

    @classmethod
    def load(cls, task: TaskSpec, data_dir: Path | None) -> Source:
        """Read both parts. Raises DataError that names the file."""
        parts = [load_packed(task.data, task, data_dir, part) for part in ("train", "test")]
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class Dealt:
    """What N peers train and score on. The test rows of each are of its own distribution; ``common`` is a test set of
    everybody's distribution, which nobody trains on."""

    splits: tuple[Splits, ...]
    common: Dataset


def deal(
    source: Source,
    task: TaskSpec,
    peers: int,
    how: str,
    seed: int,
    *,
    test_rows: Literal["own", "common"],
    shift: Shift | None = None,
) -> Dealt:
    """Deal the rows out to peers 1 to N.

    Args:
        how: a partition; see :mod:`fl_node.learning.partition`.
        test_rows: with ``common`` each peer tests on common test rows, of each class as large a part as it has of that
            class's training rows, and none of its own are set aside for it.
        shift: what is done to the rows of some peers afterwards, to their test rows too; never to the common ones.

    Raises:
        DataError: a peer would have no row to train, validate or test on.
        UsageError: the partition does not fit the number of peers or classes.
    """
    train_strata, test_strata = source.train.strata, source.test.strata
    parts = partition(train_strata, peers, how, seed)
    rows = [unpacked(source.train.rows(part), task) for part in parts]
    common = unpacked(source.test, task)
    if test_rows == "own":
        splits = [split(own, task) for own in rows]
    else:
        shares = alike([train_strata[part] for part in parts], test_strata, seed)
        splits = [_without_test(own, task, common.rows(share)) for own, share in zip(rows, shares, strict=True)]
    if shift is not None:
        splits = [shifted_splits(one, shift, number, task, seed) for number, one in enumerate(splits, 1)]
    return Dealt(tuple(splits), common)


def unpacked(rows: Packed, task: TaskSpec) -> Dataset:
    """Rows in the task's form, pixels as float32."""
    return checked(rows.features(), rows.labels, task, task.data, rows.groups)


def alike(held: list[Indices], strata: Indices, seed: int) -> list[Indices]:
    """Deal test rows so that a peer with a tenth of a class's training rows gets a tenth of its test rows; every peer
    gets at least one row of a class that it holds, if need be one that another has too.

    Args:
        held: the strata of each peer's own rows.
        strata: of the test rows, int64 [n].
    """
    generator = np.random.Generator(np.random.PCG64([seed, 0x7E57]))
    parts: list[list[Indices]] = [[] for _ in held]
    for number in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == number))
        counts = np.array([np.count_nonzero(own == number) for own in held], dtype=np.float64)
        if not counts.sum():
            continue
        edges = np.rint(np.cumsum(counts) / counts.sum() * len(rows)).astype(np.int64)
        for part, some in zip(parts, np.split(rows, edges[:-1]), strict=True):
            part.append(some)
    found = []
    for own, part in zip(held, parts, strict=True):
        mine: Indices = np.sort(np.concatenate(part)) if part else np.empty(0, np.int64)
        if not len(mine):
            classes, counts_of = np.unique(own, return_counts=True)
            usual = classes[np.argmax(counts_of)]
            candidates = np.flatnonzero(strata == usual)
            if not len(candidates):
                raise DataError(f"the test rows hold none of class {usual}, the commonest of a peer's; use other data")
            mine = candidates[generator.integers(len(candidates), size=1)]
        found.append(mine)
    return found


def poisoned(dealt: Dealt, who: Collection[int], classes: int) -> Dealt:
    """The label-flip attack: every label c of these peers' rows reads classes - 1 - c."""
    splits = (
        Splits(*(_flipped(part, classes) for part in (one.train, one.validation, one.test))) if number in who else one
        for number, one in enumerate(dealt.splits, 1)
    )
    return replace(dealt, splits=tuple(splits))


def _flipped(data: Dataset, classes: int) -> Dataset:
    return replace(data, labels=classes - 1 - data.labels)


def _without_test(own: Dataset, task: TaskSpec, test: Dataset) -> Splits:
    """All own rows to train on, but those that the task sets aside to validate."""
    if not task.validation:
        return Splits(own, own.rows(np.empty(0, np.int64)), test)
    two = split(own, task.model_copy(update={"test": task.validation, "validation": 0.0}))
    return Splits(two.train, two.test, test)
