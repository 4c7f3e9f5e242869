"""Tensors that stay with this peer, a file for each of its last few updates in the state folder.

Named by the sequence after which they stood so: a crash or a reorganised chain that has an update made again starts
from the same ones. They tell about the peer's rows as an update does, so only the owner of the files may read them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fl_node.errors import MalformedWeights, StoreFull
from fl_node.merging import weights
from fl_node.merging.weights import Tensors

#: Updates whose tensors are kept: as far back as a reorganised chain may reasonably send a peer.
_KEPT: Final = 8
#: Of those in memory, whose chains are not reorganised: the one that an update is made from, and what comes of it.
_KEPT_IN_MEMORY: Final = 2


class TensorsBySequence:
    """Tensors of one kind by the sequence of an own update.

    Args:
        folder: where the files lie; ``None`` keeps them in memory.
        kind: what they are, in a word, for the files' metadata.
        ledger: names the ledger that they are for; files for another one do not count.
    """

    def __init__(self, folder: Path | None, kind: str, ledger: str) -> None:
        self._folder, self._kind, self._ledger = folder, kind, ledger
        self._memory: dict[int, Tensors] = {}

    def get(self, sequence: int) -> Tensors | None:
        """Those of an update; ``None`` where the file is absent, damaged or for another ledger."""
        if self._folder is None:
            return self._memory.get(sequence)
        try:
            file = weights.decode(self._path(self._folder, sequence).read_bytes())
        except (OSError, MalformedWeights):
            return None
        return file.tensors if file.metadata == self._name(sequence) else None

    def keep(self, sequence: int, tensors: Tensors | None) -> None:
        """Keep those of an update, durably; ``None``: it has none. Those of other updates go, but for the last few
        before it.

        Raises:
            StoreFull: the state folder cannot be written.
        """
        if tensors is None:
            self._drop(sequence)
        elif self._folder is None:
            self._memory[sequence] = tensors
        else:
            self._write(self._folder, sequence, tensors)
        most = _KEPT if self._folder else _KEPT_IN_MEMORY
        for number in self.sequences():
            if not sequence - most < number <= sequence:
                self._drop(number)

    def sequences(self) -> list[int]:
        """The updates that tensors are kept of, in no order; a file may still be damaged."""
        if self._folder is None:
            return list(self._memory)
        names = (path.stem for path in self._folder.glob("*.safetensors"))
        return [int(name) for name in names if name.isdecimal()]

    def _write(self, folder: Path, sequence: int, tensors: Tensors) -> None:
        path = self._path(folder, sequence)
        scratch = path.with_suffix(".new")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            scratch.unlink(missing_ok=True)  # whatever mode a crash may have left it with
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
                for buffer in weights.encode(tensors, self._name(sequence)):
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
        return f"{self._ledger} {self._kind} after {sequence}"
