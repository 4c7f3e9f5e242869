"""Whose rows were trained on: the federations that are attacked, and what is noted of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from benchmarks.privacy.membership import Values, calibrated, cross_entropy, loss_threshold, tell
from benchmarks.privacy.worlds import Played, Rows, Setting, all_of, answers, deal, play, trainer
from fl_node.learning.dataset import Dataset
from fl_node.learning.models import Weights
from fl_node.spec import Spec

#: The attacker's models: of so many of its own peers' updates.
REFERENCES: Final = 4
#: Of so many peers' updates the accuracy is averaged.
SCORED: Final = 3
EPSILONS: Final = (8.0, 3.0, 1.0)
SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "few rows, logistic": Setting("fashion-mnist", "logistic", 200),
        "few rows, cnn": Setting(
            "fashion-mnist", "cnn", 200, rounds=5, optimizer="adam", learning_rate=5e-3, batch_size=32
        ),
        "more rows, logistic": Setting("mnist", "logistic", 2000),
    }
)
UNUSUAL: Final = "unusual rows, logistic"
#: How private training is done; chosen with seed 100 for accuracy at epsilon 3.
PRIVATELY: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "few rows, logistic": {"learning_rate": 1.0, "batch_size": 64},
        "few rows, cnn": {"optimizer": "sgd", "learning_rate": 0.5, "batch_size": 64},
        "more rows, logistic": {"learning_rate": 1.0, "batch_size": 250, "epochs": 3},
    }
)


@dataclass(frozen=True, slots=True)
class MembershipCase:
    """One way to train and publish in one setting. ``training``, ``encoding``: keys of the spec, as pairs.
    ``epsilon``: of DP-SGD over all rounds; 0: without."""

    group: str
    name: str
    setting: Setting
    training: tuple[tuple[str, Any], ...] = ()
    epsilon: float = 0.0
    encoding: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Names it in the results."""
        return f"membership, {self.group}: {self.name}"

    def run(self, seed: int, data_dir: Path) -> dict[str, float]:
        """Accuracy and the attacks' success, for the updates of the last round (``update ...``) and for what they were
        merged into (``merged ...``). In parts of 1."""
        rows = deal(self.setting, seed, data_dir)
        trained, attacked = self.sides(rows, seed)
        spec = self.setting.spec(seed, dict(self.training), privately(self.epsilon), dict(self.encoding))
        played = play(spec, trained.members)
        shadow = shadows(self.setting, self.training, self.epsilon, seed, data_dir)
        noted = _of_updates(spec, played, shadow, attacked) | _of_merged(spec, played, shadow, attacked)
        private = trainer(spec, trained.members[0], 1).privacy
        return noted if private is None else noted | {"noise": private.noise_multiplier}

    def sides(self, rows: Rows, seed: int) -> tuple[Rows, Rows]:
        """The rows that peers train on, and those whose membership is asked for: all of them."""
        return rows, rows

    def quick(self) -> MembershipCase:
        """The same, so small that it means nothing and only shows that it runs."""
        return replace(self, setting=replace(self.setting, rows=40, peers=3, rounds=2))


@dataclass(frozen=True, slots=True)
class UnusualCase(MembershipCase):
    """As its base, but every tenth row, of members and strangers alike, has a wrong label, and only those are attacked:
    rows that a model has to learn by heart, if at all, are the most exposed ones (Aerni, Zhang, Tramèr 2024,
    https://arxiv.org/abs/2404.17399)."""

    every: int = 10

    def sides(self, rows: Rows, seed: int) -> tuple[Rows, Rows]:
        """The rows with their wrong labels, and only those."""
        draw = np.random.Generator(np.random.PCG64([seed, self.every]))
        members, strangers = (
            [_mislabelled(shard, self.every, draw) for shard in shards] for shards in (rows.members, rows.strangers)
        )
        trained = replace(rows, members=members, strangers=strangers)
        chosen = [[shard.rows(np.arange(0, len(shard), self.every)) for shard in one] for one in (members, strangers)]
        return trained, replace(rows, members=chosen[0], strangers=chosen[1])


def cases() -> list[MembershipCase]:
    """All of them, those that share the attacker's models beside each other."""
    found = []
    for group, setting in SETTINGS.items():
        counts = (1, 5, 20) if group == "few rows, logistic" else (1, 5)
        for epochs in counts:
            word = "epoch" if epochs == 1 else "epochs"
            found.append(MembershipCase(group, f"plain, {epochs} local {word}", setting, (("epochs", epochs),)))
        if group == "few rows, logistic":
            found += [
                MembershipCase(group, f"{kind}, 5 local epochs", setting, (("epochs", 5),), encoding=(("kind", kind),))
                for kind in ("int8-delta", "top-k-delta")
            ]
        private = tuple(PRIVATELY[group].items())
        found.append(MembershipCase(group, "plain, trained as below", setting, private))
        found += [MembershipCase(group, f"DP-SGD, epsilon {one:g}", setting, private, one) for one in EPSILONS]
    setting, private = SETTINGS["few rows, logistic"], tuple(PRIVATELY["few rows, logistic"].items())
    plain = [(f"plain, {one} local epochs", (("epochs", one),), 0.0) for one in (5, 20)]
    noisy = [(f"DP-SGD, epsilon {one:g}", private, one) for one in EPSILONS]
    for name, training, epsilon in [*plain, *noisy]:
        found.append(UnusualCase(UNUSUAL, name, setting, training, epsilon))
    return found


def _mislabelled(rows: Dataset, every: int, draw: np.random.Generator) -> Dataset:
    labels = rows.labels.copy()
    labels[::every] = (labels[::every] + draw.integers(1, 10, len(labels[::every]))) % 10
    return Dataset(rows.features, labels)


@lru_cache(maxsize=2)
def shadows(
    setting: Setting, training: tuple[tuple[str, Any], ...], epsilon: float, seed: int, data_dir: Path
) -> Played:
    """The attacker's federation: the same spec, played with rows of its own, its noise included. References without
    noise were tried, and are weaker: what is hard under noise is something else."""
    spec = setting.spec(seed, dict(training), privately(epsilon))
    return play(spec, deal(setting, seed, data_dir).shadows, first_peer=setting.peers + 1)


def privately(epsilon: float) -> dict[str, Any]:
    """Keys of the spec's privacy table; none where epsilon is 0."""
    return {"mechanism": "example", "epsilon": epsilon} if epsilon else {}


def _of_updates(spec: Spec, played: Played, shadow: Played, rows: Rows) -> dict[str, float]:
    """Each peer's update is attacked with its own rows and as many strangers; scores of all peers count together."""
    sides: dict[str, tuple[list[Values], list[Values]]] = {name: ([], []) for name in ("loss", "calibrated", "base")}
    for update, own, others in zip(played.updates, rows.members, rows.strangers, strict=True):
        for side, some in enumerate((own, others)):
            losses = _losses(spec, update, some)
            references = [_losses(spec, model, some) for model in shadow.updates[:REFERENCES]]
            sides["loss"][side].append(loss_threshold(losses))
            sides["calibrated"][side].append(calibrated(losses, references))
            sides["base"][side].append(calibrated(losses, [_losses(spec, played.base, some)]))
    correct = [_accuracy(spec, update, rows.test) for update in played.updates[:SCORED]]
    return {"update accuracy": float(np.mean(correct))} | _told("update", sides)


def _of_merged(spec: Spec, played: Played, shadow: Played, rows: Rows) -> dict[str, float]:
    """``control``: the loss threshold on the attacker's own merged model, which never saw any of these rows."""
    sides: dict[str, tuple[list[Values], list[Values]]] = {}
    for side, some in enumerate((all_of(rows.members), all_of(rows.strangers))):
        losses, reference = _losses(spec, played.merged, some), _losses(spec, shadow.merged, some)
        scores = {
            "loss": loss_threshold(losses),
            "calibrated": calibrated(losses, [reference]),
            "base": calibrated(losses, [_losses(spec, played.base, some)]),
            "control": loss_threshold(reference),
        }
        for name, values in scores.items():
            sides.setdefault(name, ([], []))[side].append(values)
    return {"merged accuracy": _accuracy(spec, played.merged, rows.test)} | _told("merged", sides)


def _told(what: str, sides: Mapping[str, tuple[Sequence[Values], Sequence[Values]]]) -> dict[str, float]:
    noted = {}
    for name, (members, strangers) in sides.items():
        told = tell(np.concatenate(members), np.concatenate(strangers))
        noted[f"{what} {name} auc"] = told.auc
        noted[f"{what} {name} tpr 1%"] = told.at_1_percent
        noted[f"{what} {name} tpr 0.1%"] = told.at_0_1_percent
    return noted


def _losses(spec: Spec, weights: Weights, rows: Dataset) -> Values:
    return cross_entropy(answers(spec, weights, rows), rows.labels)


def _accuracy(spec: Spec, weights: Weights, rows: Dataset) -> float:
    return float((answers(spec, weights, rows).argmax(axis=1) == rows.labels).mean())
