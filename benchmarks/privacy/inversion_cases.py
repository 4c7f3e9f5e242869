"""What the rows looked like: the updates that are inverted, and what is noted of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.privacy.inversion import by_division, by_search, difference
from benchmarks.privacy.likeness import Likeness, compare, squared_errors
from benchmarks.privacy.worlds import Publisher, Setting, all_of, mean, trainer, whole
from fl_node.learning.dataset import Dataset
from fl_node.learning.models import Weights, build, genesis
from fl_node.spec import Spec

Images = NDArray[Any]

CLASSES: Final = 10
SIDE: Final = 28
#: Rows of the same kind that nobody trained on: among them a picture has to point out the right one ...
STRANGERS: Final = 1000
#: ... and other ones, which the attacker has.
PUBLIC: Final = 5000
_DATA: Final = "fashion-mnist"


@dataclass(frozen=True, slots=True)
class InversionCase:
    """One update to be inverted: ``peers`` peers of ``rows`` rows each train in batches of ``batch`` from the genesis;
    with more than one peer their merge is what is seen. ``trials``: with so many draws of rows in a seed."""

    name: str
    model: Literal["logistic", "cnn"]
    rows: int
    batch: int
    epochs: int = 1
    peers: int = 1
    epsilon: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    encoding: str = "f32"
    trials: int = 4
    steps: int = 400

    @property
    def key(self) -> str:
        """Names it in the results."""
        return f"inversion, {self.model}: {self.name}"

    def run(self, seed: int, data_dir: Path) -> dict[str, float]:
        """Means over the trials of how like the pictures are to the rows."""
        found = []
        for trial in range(self.trials):
            held, public = drawn(self.peers, self.rows, seed, trial, data_dir)
            truth, strangers = all_of(held).features[:, 0], public.features[:STRANGERS, 0]
            found.append(compare(self.pictures(seed, trial, data_dir), truth, strangers))
        return averaged(found)

    def pictures(self, seed: int, trial: int, data_dir: Path) -> Images:
        """Reconstructions [m, 28, 28]."""
        held, _ = drawn(self.peers, self.rows, seed, trial, data_dir)
        spec = self.spec(seed + 1000 * trial)
        base = genesis(spec)
        updates = [self._published(spec, base, rows, peer) for peer, rows in enumerate(held, 1)]
        seen = updates[0] if self.peers == 1 else mean(updates, [len(rows) for rows in held])
        change, labels = difference(base, seen), all_of(held).labels
        if self.model == "logistic":
            most = min(len(labels), CLASSES)
            return by_division(change["linear.weight"], change["linear.bias"], most).reshape(-1, SIDE, SIDE)
        shape = (1, SIDE, SIDE)
        made = by_search(
            build(spec), base, change, labels, shape, steps=self.steps, rate=0.3, smoothness=0.2, seed=seed + trial
        )
        return made[:, 0]

    def spec(self, seed: int) -> Spec:
        """One planned round: under privacy the whole budget goes into this one update, the least noise it can buy."""
        setting = Setting(_DATA, self.model, self.rows, self.peers, rounds=1)
        rate = 5e-3 if self.optimizer == "adam" else 0.1
        training = {
            "batch_size": self.batch,
            "epochs": self.epochs,
            "optimizer": self.optimizer,
            "learning_rate": rate,
        }
        privacy = {"mechanism": "example", "epsilon": self.epsilon} if self.epsilon else {}
        return setting.spec(seed, training, privacy, {"kind": self.encoding})

    def _published(self, spec: Spec, base: Weights, rows: Dataset, peer: int) -> Weights:
        trained = trainer(spec, rows, peer).train(base, 1)[0]
        publisher = Publisher(spec.encoding, base)
        publisher.decoded(base)  # so that what follows may be sent as a change
        return publisher.decoded(trained)

    def quick(self) -> InversionCase:
        """The same, so small that it means nothing and only shows that it runs."""
        return replace(self, trials=1, steps=10)


@dataclass(frozen=True, slots=True)
class BaselineCase:
    """What somebody makes who never saw the update: ``grey``: the one constant picture that is nearest to the rows;
    ``mean``: the mean public image, of the row's class; ``nearest``: of 5,000 public images the one nearest to the row,
    which only somebody who knows the row can pick."""

    name: str
    kind: Literal["grey", "mean", "nearest"]
    rows: int = 8
    trials: int = 4

    @property
    def key(self) -> str:
        """Names it in the results."""
        return f"inversion, {self.name}"

    def run(self, seed: int, data_dir: Path) -> dict[str, float]:
        """As of an :class:`InversionCase`."""
        return averaged([self._trial(seed, trial, data_dir) for trial in range(self.trials)])

    def _trial(self, seed: int, trial: int, data_dir: Path) -> Likeness:
        held, public = drawn(1, self.rows, seed, trial, data_dir)
        truth, strangers, known = held[0].features[:, 0], public.features[:STRANGERS, 0], public.features[STRANGERS:, 0]
        if self.kind == "grey":
            made = np.broadcast_to(truth.mean(), truth.shape)
        elif self.kind == "mean":
            labels = public.labels[STRANGERS:]
            made = np.stack([known[labels == label].mean(axis=0) for label in held[0].labels])
        else:
            made = known[squared_errors(truth, known).argmin(axis=1)]
        return compare(made, truth, strangers)

    def quick(self) -> BaselineCase:
        """The same, once."""
        return replace(self, trials=1)


def cases() -> list[InversionCase | BaselineCase]:
    """By division, by search, and what both are held against."""
    found: list[InversionCase | BaselineCase] = [
        BaselineCase("nothing: the best grey", "grey"),
        BaselineCase("nothing: the mean image of the class", "mean"),
        BaselineCase("nothing: the nearest of 5,000 public images", "nearest"),
    ]
    one = InversionCase("one step, 1 row", "logistic", 1, 1)
    found += [
        one,
        replace(one, name="one step, 8 rows", rows=8, batch=8),
        replace(one, name="one step, 64 rows", rows=64, batch=64),
        replace(one, name="1 epoch of 200 rows, batches of 64", rows=200, batch=64),
        replace(one, name="5 epochs of 200 rows, batches of 64", rows=200, batch=64, epochs=5),
        replace(one, name="one step, 1 row, int8-delta", encoding="int8-delta"),
        replace(one, name="one step, 1 row, top-k-delta", encoding="top-k-delta"),
        replace(one, name="merged only, 10 peers, one step, 1 row each", peers=10),
        replace(one, name="merged only, 10 peers, one step, 8 rows each", rows=8, batch=8, peers=10),
    ]
    found += [replace(one, name=f"one step, 1 row, DP-SGD, epsilon {e:g}", epsilon=e) for e in (8.0, 3.0, 1.0)]
    found.append(replace(one, name="one step, 64 rows, DP-SGD, epsilon 8", rows=64, batch=64, epsilon=8.0))
    search = replace(one, model="cnn")
    found += [
        search,
        replace(search, name="one step, 8 rows", rows=8, batch=8, trials=2),
        replace(search, name="5 epochs of 8 rows, batches of 1", rows=8, epochs=5, trials=2),
        replace(search, name="one step of Adam, 1 row", optimizer="adam", trials=2),
        replace(search, name="one step, 1 row, int8-delta", encoding="int8-delta", trials=2),
        replace(search, name="one step, 1 row, top-k-delta", encoding="top-k-delta", trials=2),
        replace(search, name="merged only, 10 peers, one step, 1 row each", peers=10, trials=2),
    ]
    found += [
        replace(search, name=f"one step, 1 row, DP-SGD, epsilon {e:g}", epsilon=e, trials=2) for e in (8.0, 3.0, 1.0)
    ]
    found.append(replace(search, name="one step, 8 rows, DP-SGD, epsilon 8", rows=8, batch=8, epsilon=8.0, trials=2))
    return found


def averaged(found: Sequence[Likeness]) -> dict[str, float]:
    """Means over trials, by name."""
    tables = [asdict(one) for one in found]
    return {name: float(np.mean([table[name] for table in tables])) for name in tables[0]}


@lru_cache(maxsize=8)
def drawn(peers: int, rows: int, seed: int, trial: int, data_dir: Path) -> tuple[Sequence[Dataset], Dataset]:
    """The peers' rows, and strangers followed by public rows: disjoint, the first peer's first ones always the same."""
    train = whole(_DATA, "train", data_dir)
    order = np.random.Generator(np.random.PCG64([seed, trial])).permutation(len(train))
    others = train.rows(order[: STRANGERS + PUBLIC])
    order = order[STRANGERS + PUBLIC :]
    return [train.rows(order[rows * peer : rows * (peer + 1)]) for peer in range(peers)], others
