"""What a demo runs: its settings and the spec they make."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fl_node.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known to work on a data set. ``shape`` is that of one sample."""

    shape: tuple[int, ...]
    classes: int
    metric: str
    learning_rate: float
    batch_size: int
    epochs: int
    class_weights: bool = False


RECIPES = {
    "digits": Recipe((64,), 10, "accuracy", 0.3, 16, 3),
    "mnist": Recipe((28, 28), 10, "accuracy", 0.1, 64, 1),
    "fashion-mnist": Recipe((28, 28), 10, "accuracy", 0.1, 64, 1),
    "credit-default": Recipe((33,), 2, "auc", 0.05, 64, 1, class_weights=True),
}


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Everything the command line can say about a demo. ``None``: the data set's recipe decides."""

    peers: int = 4
    rounds: int = 5
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    dataset: str = "digits"
    data_dir: Path | None = None
    model: str = "logistic"
    partition: str = "iid"
    mode: Literal["async", "sync"] = "async"
    chain: Literal["anvil", "ganache", "hardhat"] = "anvil"
    state: Path | None = None
    seed: int = 0
    baselines: bool = True

    def __post_init__(self) -> None:
        if self.dataset not in RECIPES:
            raise UsageError(f"--dataset {self.dataset}: expected one of {', '.join(RECIPES)}")
        for name, value, most in (("peers", self.peers, 64), ("rounds", self.rounds, 10_000)):
            if not 1 <= value <= most:
                raise UsageError(f"--{name} {value}: expected 1 to {most}")

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.dataset]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: as the recipe has it, but an image for a model that needs one."""
        return (8, 8) if self.dataset == "digits" and self.model == "cnn" else self.recipe.shape

    def spec_text(self) -> str:
        """The federation's spec, as a person would write it."""
        recipe = self.recipe
        quoted = json.dumps
        return f"""# The spec of a demonstration on this machine.
format = 1
name = {quoted(f"demo-{self.dataset}-{self.model}")}

[task]
data = {quoted(self.dataset)}
input_shape = {list(self.shape)}
classes = {recipe.classes}
metric = {quoted(recipe.metric)}
split_seed = {self.seed}

[model]
name = {quoted(self.model)}
seed = {self.seed}

[training]
learning_rate = {float(recipe.learning_rate if self.learning_rate is None else self.learning_rate)}
batch_size = {self.batch_size or recipe.batch_size}
epochs = {self.epochs or recipe.epochs}
class_weights = {str(recipe.class_weights).lower()}
seed = {self.seed}

[rounds]
planned = {self.rounds}
mode = {quoted(self.mode)}
linger_s = 60.0
deadline_s = 120.0

[content]
# Everything runs on this machine, so content may be fetched from it.
allow_networks = ["127.0.0.0/8"]
"""
