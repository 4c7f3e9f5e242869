"""This peer's personal tensors (``merging.personal``): neither published nor merged, so only its state folder has them.

A file for each of the last few updates, named by the sequence after which its tensors stood so: a crash or a
reorganised chain that has an update made again starts from the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fl_node.errors import MalformedWeights, StoreFull
from fl_node.merging import weights
from fl_node.merging.personal import joined, kept
from fl_node.merging.weights import Tensors
from fl_node.spec import Spec

FOLDER_NAME: Final = "personal"
#: Updates whose personal tensors are kept: as far back as a reorganised chain may reasonably send a peer.
_KEPT: Final = 8


class OwnLayers:
    """Personal tensors by sequence. Where the spec keeps nothing personal, every method is free of cost.

    Args:
        genesis: the whole initial model; personal tensors start from it.
        folder: the peer's state folder; ``None`` keeps them in memory.
        ledger: names the ledger that they are for; files for another one do not count.
    """

    def __init__(
        self, spec: Spec, genesis: Callable[[], Tensors], folder: Path | None = None, ledger: str = ""
    ) -> None:
        self._spec, self._genesis, self._ledger = spec, genesis, ledger
        self._folder = folder / FOLDER_NAME if folder else None
        self._memory: dict[int, Tensors] = {}

    @property
    def any(self) -> bool:
        """Whether the spec keeps any tensor personal."""
        return bool(self._spec.merging.personal)

    def has(self, sequence: int) -> bool:
        """Whether the personal tensors of an own update are there (or none are needed)."""
        return not self.any or self._read(sequence) is not None

    def join(self, shared: Tensors, sequence: int) -> Tensors:
        """A whole model: shared tensors with the personal ones as they stood after update ``sequence`` (0: at the
        start), or after the latest one before it that is there, or of the genesis."""
        if not self.any:
            return shared
        number = self.newest(sequence)
        own = self._read(number) if number else None
        return joined(self._spec, shared, self._genesis() if own is None else own)

    def newest(self, sequence: int) -> int:
        """The latest own update up to ``sequence`` whose personal tensors are there; 0: those of the genesis."""
        numbers = sorted((number for number in self._sequences() if number <= sequence), reverse=True)
        return next((number for number in numbers if self._read(number) is not None), 0)

    def keep(self, sequence: int, model: Tensors) -> None:
        """Keep the personal tensors of a whole model as those after update ``sequence``, durably.

        Raises:
            StoreFull: the state folder cannot be written.
        """
        if not self.any:
            return
        own = kept(self._spec, model)
        if self._folder is None:
            self._memory[sequence] = own
        else:
            self._write(self._folder, sequence, own)
        for number in self._sequences():
            if not sequence - _KEPT < number <= sequence:
                self._drop(number)

    def _sequences(self) -> list[int]:
        if self._folder is None:
            return list(self._memory)
        names = (path.stem for path in self._folder.glob("*.safetensors"))
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, sequence: int) -> Tensors | None:
        """The personal tensors after an update; ``None`` where the file is absent, damaged or for another ledger."""
        if self._folder is None:
            return self._memory.get(sequence)
        try:
            file = weights.decode(self._path(self._folder, sequence).read_bytes())
        except (OSError, MalformedWeights):
            return None
        return file.tensors if file.metadata == self._name(sequence) else None

    def _write(self, folder: Path, sequence: int, own: Tensors) -> None:
        path = self._path(folder, sequence)
        scratch = path.with_suffix(".new")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            scratch.unlink(missing_ok=True)  # whatever mode a crash may have left it with
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
                for buffer in weights.encode(own, self._name(sequence)):
                    sink.write(buffer)
                sink.flush()
                os.fsync(sink.fileno())
            scratch.replace(path)
        except OSError as cause:
            raise StoreFull(
                f"cannot write {path}: {cause.strerror}; free some space or make the folder writable, then start "
                "again: the round goes on where it was"
            ) from cause

    def _drop(self, sequence: int) -> None:
        if self._folder is None:
            self._memory.pop(sequence, None)
        else:
            self._path(self._folder, sequence).unlink(missing_ok=True)

    def _path(self, folder: Path, sequence: int) -> Path:
        return folder / f"{sequence}.safetensors"

    def _name(self, sequence: int) -> str:
        return f"{self._ledger} personal after {sequence}"
