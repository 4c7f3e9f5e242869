"""What this peer's encoded updates could not carry yet (``encoding.error_feedback``). Nobody else gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fl_node.by_sequence import TensorsBySequence
from fl_node.merging.weights import Tensors

FOLDER_NAME: Final = "residual"


class Residuals:
    """Residuals by the sequence of the own update that left them.

    Args:
        folder: the peer's state folder; ``None`` keeps them in memory.
        ledger: names the ledger that they are for; files for another one do not count.
    """

    def __init__(self, folder: Path | None, ledger: str) -> None:
        self._kept = TensorsBySequence(folder / FOLDER_NAME if folder else None, "residual", ledger)

    def before(self, sequence: int) -> Tensors | None:
        """What the own update before ``sequence`` left; ``None`` where that is nothing, or its file is absent, damaged
        or for another ledger: what was not carried is lost then, and nothing else is."""
        return self._kept.get(sequence - 1) or None

    def keep(self, sequence: int, residual: Tensors | None) -> None:
        """Keep what own update ``sequence`` left, durably; ``None``: nothing.

        Raises:
            StoreFull: the state folder cannot be written.
        """
        self._kept.keep(sequence, residual)
