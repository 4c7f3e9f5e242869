"""What a demo runs: its settings and the spec they make."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from fl_node.errors import SpecError, StoreFull, UsageError
from fl_node.learning.named import is_named
from fl_node.presets import Tables, preset
from fl_node.recipes import RECIPES, Recipe
from fl_node.spec_text import merged, preset_head, preset_notes, spec_text

#: After so many seconds the next peer of a ring takes its turn.
_SILENT_S = 10.0
MODELS = ("logistic", "mlp", "cnn", "unet")


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Everything the command line can say about a demo. ``None``: the data set's recipe, or the preset, decides."""

    preset: str | None = None
    peers: int = 4
    rounds: int = 5
    interval_s: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    dataset: str = "digits"
    data_dir: Path | None = None
    model: str | None = None
    partition: str = "iid"
    mode: Literal["async", "sync"] | None = None
    chain: Literal["anvil", "ganache", "hardhat"] = "anvil"
    state: Path | None = None
    seed: int = 0
    baselines: bool = True
    export: Path | None = None
    ui: bool = True

    def __post_init__(self) -> None:
        if self.dataset not in RECIPES:
            raise UsageError(f"--dataset {self.dataset}: expected one of {', '.join(RECIPES)}")
        for flag, value, least, most in (
            ("peers", self.peers, 1, 64),
            ("rounds", self.rounds, 1, 10_000),
            ("interval", self.interval_s, 0, 3600),
            ("epochs", self.epochs, 1, 2**31),
            ("batch-size", self.batch_size, 1, 2**31),
            ("seed", self.seed, 0, 2**31),
        ):
            if value is not None and not least <= value <= most:
                raise UsageError(f"--{flag} {value}: expected a whole number from {least} to {most}")
        if self.learning_rate is not None and not 0.0 < self.learning_rate <= 1000.0:
            raise UsageError(f"--learning-rate {self.learning_rate}: expected a number above 0, at most 1000")
        _check_model(self.model_name)
        if self.model in MODELS and (self.model == "unet") != (self.recipe.kind == "segmentation"):
            raise UsageError(
                f"--model {self.model} with --dataset {self.dataset}, a {self.recipe.kind} task: expected unet or "
                "module:factory for segmentation, and another for classification"
            )
        if self.preset is not None:
            preset(self.preset).overrides(self.peers)
        if self.state is not None:
            _check_folder(self.state)
        if self.export is not None:
            _check_pack(self.export)

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.dataset]

    @property
    def model_name(self) -> str:
        return self.model or self.recipe.model

    def spec_text(self) -> str:
        """The federation's spec, as a person would write it.

        Raises:
            UsageError: no such preset, or too few peers for it.
        """
        chosen = preset(self.preset) if self.preset else None
        overrides = chosen.overrides(self.peers) if chosen else {}
        tables = merged(self._tables(), overrides, self._asked())
        notes = {("content", "allow_networks"): "everything runs on this machine: content may be fetched from it"}
        if chosen:
            notes |= preset_notes(chosen, overrides)
        if self.mode is not None and overrides:
            notes["rounds", "mode"] = f"--mode {self.mode}, not as preset {self.preset} has it"
        if "silent_s" in overrides.get("merging", {}):
            notes["merging", "silent_s"] += ", shorter: nobody is far away"
        head = ["The spec of a demonstration on this machine."]
        if chosen:
            head += ["", *preset_head(chosen, self.peers)]
        return spec_text(f"demo-{self.preset or self.dataset}-{self.model_name}", tables, head=head, notes=notes)

    def _tables(self) -> Tables:
        asked: dict[str, float | None] = {
            "learning_rate": None if self.learning_rate is None else float(self.learning_rate),
            "batch_size": self.batch_size,
            "epochs": self.epochs,
        }
        return merged(
            self.recipe.tables(self.dataset, self.model_name),
            {
                "task": {"split_seed": self.seed},
                "model": {"seed": self.seed},
                "training": {
                    **{key: value for key, value in asked.items() if value is not None},
                    "seed": self.seed,
                },
                "merging": {"selection": "all-latest", "aggregation": "fedavg"},
                "rounds": {"planned": self.rounds, "mode": "async", "linger_s": 60.0, "deadline_s": 120.0},
                "content": {"allow_networks": ("127.0.0.0/8",)},
            },
        )

    def _asked(self) -> Tables:
        """What beats the preset: what the command line asks for, and what being on one machine allows."""
        asked: Tables = {"rounds": {"mode": self.mode}} if self.mode else {}
        if self.interval_s:
            asked = merged(asked, {"rounds": {"min_interval_s": self.interval_s}})
        if self.preset and "silent_s" in preset(self.preset).overrides(self.peers).get("merging", {}):
            asked["merging"] = {"silent_s": _SILENT_S}
        return asked


def _check_model(name: str) -> None:
    """What can be told without torch: a name that is none, a module that is not there."""
    if is_named(name):
        module = name.partition(":")[0].partition(".")[0]
        here = PathFinder.find_spec(module, [*sys.path, str(Path.cwd())])
        if module not in sys.builtin_module_names and here is None:
            raise SpecError(
                f"--model {name}: there is no module {module}; install the package in this environment or run from its "
                "folder"
            )
    elif name not in MODELS:
        raise SpecError(f"--model {name}: expected one of {', '.join(MODELS)}, or module:factory")


def _check_pack(file: Path) -> None:
    """That the pack will be a new file in a folder that is there: found out before the work and not after it."""
    if file.exists():
        raise UsageError(f"--export {file}: it exists; expected a new file: name another, or remove it")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--export {file}: {file.parent} is no folder that can be written; name another file")


def _check_folder(state: Path) -> None:
    """That a folder can be made there, or is there and can be written."""
    place, reason = state, ""
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            reason = f"{place} is no folder"
        elif not os.access(place, os.W_OK | os.X_OK):
            reason = f"{place} cannot be written"
    except OSError as cause:
        reason = cause.strerror or str(cause)
    if reason:
        raise StoreFull(f"--state {state}: {reason}; name another folder with --state")
