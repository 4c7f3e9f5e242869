"""Small federations to be attacked: whose rows are whose, and what everybody publishes. The training is the product's
own :class:`Trainer`, the merging its own exact merge, so what is attacked is what peers publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_node.learning.data import load
from fl_node.learning.dataset import Dataset, joined
from fl_node.learning.models import Weights, build, genesis, set_weights
from fl_node.learning.noise import GeneratorNoise, Noise
from fl_node.learning.splits import Splits
from fl_node.learning.training import Trainer, logits, training_seed
from fl_node.merging.encodings import encode
from fl_node.merging.merge import merge
from fl_node.merging.shares import largest_remainder
from fl_node.spec import Spec
from fl_node.tables import EncodingSpec, ModelSpec, PrivacySpec, RoundsSpec, TaskSpec, TrainingSpec

#: Keys of one table of a spec.
Keys: TypeAlias = Mapping[str, Any]

TEST_ROWS: Final = 4000
DELTA: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Setting:
    """A federation: ``rows`` of each of ``peers``, ``rounds`` of training and merging all."""

    data: Literal["mnist", "fashion-mnist"]
    model: Literal["logistic", "mlp", "cnn"]
    rows: int
    peers: int = 10
    rounds: int = 10
    hidden: tuple[int, ...] = (8, 16)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    batch_size: int = 64

    def spec(
        self, seed: int, training: Keys | None = None, privacy: Keys | None = None, encoding: Keys | None = None
    ) -> Spec:
        """The spec of one seed. The others: keys that differ from the setting's and the defaults."""
        chosen = {
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "seed": seed,
        }
        return Spec(
            task=TaskSpec(data=self.data, input_shape=(1, 28, 28), classes=10, validation=0.0, split_seed=seed),
            model=ModelSpec(name=self.model, hidden=self.hidden, seed=seed),
            training=TrainingSpec(**{**chosen, **(training or {})}),
            rounds=RoundsSpec(planned=self.rounds),
            privacy=PrivacySpec(**{"delta": DELTA, **(privacy or {})}),
            encoding=EncodingSpec(**(encoding or {})),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Of one seed: ``members`` of each peer; as many rows for each of the attacker's own peers, ``shadows``; and as
    many ``strangers`` that nobody trains on. All from the same shuffle of the data set's training part, so of the same
    distribution and disjoint. ``test``: from its test part."""

    members: Sequence[Dataset]
    shadows: Sequence[Dataset]
    strangers: Sequence[Dataset]
    test: Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """After the last round: the base that its updates were trained from, the updates, and their merge."""

    base: Weights
    updates: Sequence[Weights]
    merged: Weights


def deal(setting: Setting, seed: int, data_dir: Path) -> Rows:
    """Raises ValueError where the data set has too few rows."""
    train, test = (whole(setting.data, part, data_dir) for part in ("train", "test"))
    needed = 3 * setting.peers * setting.rows
    if needed > len(train):
        raise ValueError(f"{setting.peers} peers of {setting.rows} rows need {needed} rows, {setting.data} has fewer")
    draw = np.random.Generator(np.random.PCG64(seed))
    order = draw.permutation(len(train))[:needed].reshape(3, setting.peers, setting.rows)
    kinds = [[train.rows(part) for part in kind] for kind in order]
    chosen = np.sort(draw.permutation(len(test))[:TEST_ROWS])
    return Rows(kinds[0], kinds[1], kinds[2], test.rows(chosen))


@cache
def whole(data: str, part: Literal["train", "test"], data_dir: Path) -> Dataset:
    """A data set, read once a process."""
    return load(data, TaskSpec(data=data, input_shape=(1, 28, 28), classes=10), data_dir, part)


def play(spec: Spec, shards: Sequence[Dataset], first_peer: int = 1) -> Played:
    """Every round: each peer trains from the merge of everybody's last updates, weighted by rows. Updates are what
    readers decode.

    Args:
        first_peer: number of the first shard's peer. Batches and noise follow from the spec's seed and a peer's number,
            so an attacker who plays by the same spec needs numbers of its own: it would know everybody's noise else.
    """
    trainers = [trainer(spec, rows, peer) for peer, rows in enumerate(shards, first_peer)]
    publishers = [Publisher(spec.encoding, genesis(spec)) for _ in shards]
    merged = base = genesis(spec)
    updates: list[Weights] = []
    for sequence in range(1, spec.rounds.planned + 1):
        base = merged
        trained = [one.train(base, sequence)[0] for one in trainers]
        updates = [one.decoded(weights) for one, weights in zip(publishers, trained, strict=True)]
        merged = mean(updates, [len(rows) for rows in shards])
    return Played(base, updates, merged)


class Publisher:
    """What readers decode of one peer's updates. Changes refer to its own update before, the first is a full one."""

    def __init__(self, encoding: EncodingSpec, genesis: Weights) -> None:
        self._encoding, self._genesis = encoding, genesis
        self._last: Weights | None = None
        self._residual: Mapping[str, NDArray[Any]] | None = None
        self._since_full = 0

    def decoded(self, weights: Weights) -> Weights:
        delta = self._last is not None and self._since_full + 1 < self._encoding.full_every
        self._since_full = self._since_full + 1 if delta else 0
        found = encode(
            self._encoding,
            weights,
            "",
            reference=self._last if delta and self._last is not None else self._genesis,
            delta=delta,
            residual=self._residual,
        )
        self._last, self._residual = dict(found.decoded), found.residual
        return self._last


def trainer(spec: Spec, rows: Dataset, peer: int) -> Trainer:
    """One peer that trains on all of these rows."""
    none = rows.rows(np.arange(0))

    def noise(sequence: int) -> Noise:
        # The product draws secret noise. Here the rows are nobody's, and a table that anyone can compute is worth more.
        return GeneratorNoise(training_seed(spec.training.seed, peer, sequence))

    return Trainer(spec, Splits(rows, none, none), peer, "cpu", noises=noise)


def mean(updates: Sequence[Weights], samples: Sequence[int]) -> Weights:
    """What all peers merge from these updates, to the bit, if their content digests order them so."""
    keys = [number.to_bytes(4, "big") for number in range(len(updates))]
    return merge(updates, largest_remainder(samples, keys), keys)


def answers(spec: Spec, weights: Weights, rows: Dataset) -> NDArray[Any]:
    """Logits [n, classes] of a model on rows."""
    module = build(spec)
    set_weights(module, weights)
    return logits(module, rows.features)


def all_of(shards: Sequence[Dataset]) -> Dataset:
    """The rows of all peers, one after the other."""
    return joined(shards)
