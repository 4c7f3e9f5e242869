"""Recipes: settings that are known to work on the data sets that come along, for demonstrations and simulations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fl_node.presets import Tables


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known to work on a data set. ``shape`` is that of one sample; ``hidden`` are the model's, () its own."""

    shape: tuple[int, ...]
    classes: int
    metric: str
    learning_rate: float
    batch_size: int
    epochs: int
    class_weights: bool = False
    model: str = "logistic"
    hidden: tuple[int, ...] = ()
    optimizer: str = "sgd"

    @property
    def kind(self) -> Literal["classification", "segmentation"]:
        return "segmentation" if self.metric == "dice" else "classification"

    def tables(self, dataset: str, model: str) -> Tables:
        """The spec keys of this recipe, for one of the built-in models or one's own."""
        # A convolution needs an image, where the recipe has a row of pixels.
        shape = (8, 8) if dataset == "digits" and model == "cnn" else self.shape
        found: Tables = {
            "task": {
                "data": dataset,
                "kind": self.kind,
                "input_shape": shape,
                "classes": self.classes,
                "metric": self.metric,
            },
            "model": {"name": model},
            "training": {
                "optimizer": self.optimizer,
                "learning_rate": self.learning_rate,
                "batch_size": self.batch_size,
                "epochs": self.epochs,
                "class_weights": self.class_weights,
            },
        }
        if self.hidden and model == self.model:
            found["model"]["hidden"] = self.hidden
        return found


RECIPES: Final[Mapping[str, Recipe]] = {
    "digits": Recipe((64,), 10, "accuracy", 0.3, 16, 3),
    "digits-canvas": Recipe((24, 24), 2, "dice", 0.01, 16, 2, model="unet", hidden=(8, 16), optimizer="adam"),
    "mnist": Recipe((28, 28), 10, "accuracy", 0.1, 64, 1),
    "fashion-mnist": Recipe((28, 28), 10, "accuracy", 0.1, 64, 1),
    "credit-default": Recipe((33,), 2, "auc", 0.05, 64, 1, class_weights=True),
}
