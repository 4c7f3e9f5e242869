"""The trainer of one simulated peer: hands out what was trained ahead for many peers at once, and lets a hostile peer
replace its step. The round's code calls it as it calls any trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from fl_node.errors import FlNodeError
from fl_node.learning.metrics import Evaluation
from fl_node.learning.models import Weights
from fl_node.learning.noise import GeneratorNoise, Noise
from fl_node.learning.splits import Splits
from fl_node.learning.training import Trainer, TrainReport
from fl_node.records import PPM
from fl_node.simulation.malice import Malice
from fl_node.spec import Spec


def _noise(spec: Spec, peer: int, sequence: int) -> Noise:
    digest = hashlib.sha256(f"fl-node simulated noise {spec.training.seed} {peer} {sequence}".encode()).digest()
    return GeneratorNoise(int.from_bytes(digest, "big"))


Start = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Ahead:
    """What training an update gave, from the base that the round starts from; or the error that it ended with."""

    sequence: int
    result: tuple[Weights, TrainReport] | FlNodeError


class SimulatedTrainer(Trainer):
    """As :class:`Trainer`; ``found`` is the last evaluation of an update (not of a base), as it really was.

    Under differential privacy the account is in memory, and noise comes from a seed, so that a run can be repeated: it
    hides nothing, for nothing is to be hidden from whoever has all the rows.
    """

    def __init__(self, spec: Spec, splits: Splits, peer: int, malice: Malice | None = None) -> None:
        super().__init__(spec, splits, peer, "cpu", None, None, partial(_noise, spec, peer))
        self.malice = malice
        self.found: Evaluation | None = None
        self._ahead: Ahead | None = None

    @property
    def trains(self) -> bool:
        """Whether this peer trains at all."""
        return self.malice is None or self.malice.attack.trains

    def keep(self, ahead: Ahead) -> None:
        """Have this ready for the next call of :meth:`train`."""
        self._ahead = ahead

    def train(self, weights: Start, sequence: int) -> tuple[Weights, TrainReport]:
        """As :meth:`Trainer.train`; for a hostile peer, what it publishes instead."""
        if not self.trains:
            trained, told = dict(weights), TrainReport(0.0, 0, 0.0, len(self.splits.train))
        else:
            trained, told = self._honest(weights, sequence)
        if self.malice is not None:
            trained = dict(self.malice.published(weights, trained, sequence))
        return trained, told

    def evaluate(self, weights: Start, full: bool = False) -> Evaluation:
        """As :meth:`Trainer.evaluate`; ``full`` is the evaluation that becomes a claim."""
        found = super().evaluate(weights, full)
        if not full:
            return found
        self.found = found
        inflates = self.malice is not None and self.malice.attack.inflates
        return replace(found, score_ppm=PPM) if inflates else found

    def train_honestly(self, weights: Start, sequence: int) -> tuple[Weights, TrainReport]:
        """As :meth:`Trainer.train`, whatever this peer publishes."""
        return super().train(weights, sequence)

    def _honest(self, weights: Start, sequence: int) -> tuple[Weights, TrainReport]:
        ahead, self._ahead = self._ahead, None
        # Only the first start of a round is the base; where that diverged, the round starts from elsewhere.
        if ahead is None or ahead.sequence != sequence:
            return self.train_honestly(weights, sequence)
        if isinstance(ahead.result, FlNodeError):
            raise ahead.result
        return ahead.result
