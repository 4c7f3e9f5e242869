"""Training many peers at once, where that is faster than one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fl_node.simulation.ticks import Part


class Batcher:
    def __init__(self, batch: Literal["auto", "always", "never"]) -> None:
        self._batch = batch

    def train_ahead(self, parts: Sequence[Part]) -> None:
        pass
