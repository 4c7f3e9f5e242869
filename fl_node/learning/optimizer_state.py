"""Optimiser states between rounds, for federations that do not reset them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import TrainingFailed
from fl_node.learning.optimizers import State

KEPT = 2


class Stateful(Protocol):
    """An optimiser, or one peer's part of a stacked one, as far as its state goes.

    ``restore`` raises ValueError or KeyError for the state of another model.
    """

    def export(self) -> State: ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None: ...


class OptimizerStates:
    """The states after the last two sequences, in memory or as ``.npz`` files (arrays only, never a pickle).

    Training sequence s starts from the state after the latest sequence below s. So training s anew after a crash starts
    where it started before.

    Args:
        folder: where they outlive the process; None keeps them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[int, State] = {}

    def load(self, rule: Stateful, sequence: int) -> bool:
        """Restore the state from before ``sequence``; False if there is none (the first round, or a new machine).

        Raises:
            TrainingFailed: the file is damaged or of another model.
        """
        earlier = [number for number in self._numbers() if number < sequence]
        if not earlier:
            return False
        if self.folder is None:
            rule.restore(self._memory[earlier[-1]])
            return True
        path = self._path(self.folder, earlier[-1])
        try:
            with np.load(path, allow_pickle=False) as arrays:
                rule.restore(dict(arrays))
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as cause:
            raise TrainingFailed(
                f"cannot read the optimiser state {path}: {cause}; remove the file to go on with a fresh state"
            ) from cause
        return True

    def save(self, rule: Stateful, sequence: int) -> None:
        """Keep the state after ``sequence``, durable before this returns if there is a folder."""
        state = rule.export()
        if self.folder is None:
            self._memory[sequence] = state
            for old in self._numbers()[:-KEPT]:
                del self._memory[old]
            return
        path = self._path(self.folder, sequence)
        unfinished = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.savez(file, **state)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            for old in self._numbers()[:-KEPT]:
                self._path(self.folder, old).unlink()
        except OSError as cause:
            raise TrainingFailed(
                f"cannot keep the optimiser state in {path}: {cause.strerror}; free some disk"
            ) from cause

    def _numbers(self) -> list[int]:
        if self.folder is None:
            return sorted(self._memory)
        return sorted(int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdigit())

    def _path(self, folder: Path, sequence: int) -> Path:
        return folder / f"{sequence:010d}.npz"
