"""This peer's personal tensors (``merging.personal``): neither published nor merged, so only its state folder has
them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from fl_node.by_sequence import TensorsBySequence
from fl_node.merging.personal import joined, kept
from fl_node.merging.weights import Tensors
from fl_node.spec import Spec

FOLDER_NAME: Final = "personal"


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
        self._spec, self._genesis = spec, genesis
        self._kept = TensorsBySequence(folder / FOLDER_NAME if folder else None, "personal", ledger)

    @property
    def any(self) -> bool:
        """Whether the spec keeps any tensor personal."""
        return bool(self._spec.merging.personal)

    def has(self, sequence: int) -> bool:
        """Whether the personal tensors of an own update are there (or none are needed)."""
        return not self.any or self._kept.get(sequence) is not None

    def join(self, shared: Tensors, sequence: int) -> Tensors:
        """A whole model: shared tensors with the personal ones as they stood after update ``sequence`` (0: at the
        start), or after the latest one before it that is there, or of the genesis."""
        if not self.any:
            return shared
        number = self.newest(sequence)
        own = self._kept.get(number) if number else None
        return joined(self._spec, shared, self._genesis() if own is None else own)

    def newest(self, sequence: int) -> int:
        """The latest own update up to ``sequence`` whose personal tensors are there; 0: those of the genesis."""
        numbers = sorted((number for number in self._kept.sequences() if number <= sequence), reverse=True)
        return next((number for number in numbers if self._kept.get(number) is not None), 0)

    def keep(self, sequence: int, model: Tensors) -> None:
        """Keep the personal tensors of a whole model as those after update ``sequence``, durably.

        Raises:
            StoreFull: the state folder cannot be written.
        """
        if self.any:
            self._kept.keep(sequence, kept(self._spec, model))
