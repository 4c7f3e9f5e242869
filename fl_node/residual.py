"""What this peer's encoded updates could not carry yet (``encoding.error_feedback``).

A file for each of the last few updates, named by the sequence after which it was left over: a crash or a reorganised
chain that has an update made again starts from the same rest. Nobody else gets it, and only its owner may read the
files: like an update, it tells about the rows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fl_node.errors import MalformedWeights, StoreFull
from fl_node.merging import weights
from fl_node.merging.weights import Tensors

FOLDER_NAME: Final = "residual"
#: Updates whose rest is kept: as far back as a reorganised chain may reasonably send a peer.
_KEPT: Final = 8


class Residuals:
    """Residuals by the sequence of the own update that left them.

    Args:
        folder: the peer's state folder; ``None`` keeps them in memory.
        ledger: names the ledger that they are for; files for another one do not count.
    """

    def __init__(self, folder: Path | None, ledger: str) -> None:
        self._folder = folder / FOLDER_NAME if folder else None
        self._ledger = ledger
        self._memory: dict[int, Tensors] = {}

    def before(self, sequence: int) -> Tensors | None:
        """What the own update before ``sequence`` left; ``None`` where that is nothing, or its file is absent, damaged
        or for another ledger: what was not carried is lost then, and nothing else is."""
        if self._folder is None:
            return self._memory.get(sequence - 1)
        try:
            file = weights.decode(self._path(self._folder, sequence - 1).read_bytes())
        except (OSError, MalformedWeights):
            return None
        return file.tensors or None if file.metadata == self._name(sequence - 1) else None

    def keep(self, sequence: int, residual: Tensors | None) -> None:
        """Keep what own update ``sequence`` left, durably; ``None``: nothing. Those of other updates go, but for the
        last few before it.

        Raises:
            StoreFull: the state folder cannot be written.
        """
        if residual is None:
            self._drop(sequence)
        elif self._folder is None:
            self._memory[sequence] = residual
        else:
            self._write(self._folder, sequence, residual)
        for number in self._sequences():
            if not sequence - _KEPT < number <= sequence:
                self._drop(number)

    def _sequences(self) -> list[int]:
        if self._folder is None:
            return list(self._memory)
        names = (path.stem for path in self._folder.glob("*.safetensors"))
        return [int(name) for name in names if name.isdecimal()]

    def _write(self, folder: Path, sequence: int, residual: Tensors) -> None:
        path = self._path(folder, sequence)
        scratch = path.with_suffix(".new")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            scratch.unlink(missing_ok=True)  # whatever mode a crash may have left it with
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
                for buffer in weights.encode(residual, self._name(sequence)):
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
        return f"{self._ledger} residual after {sequence}"
