"""What a simulation runs: its settings, and the spec that they make for a number of peers and a seed."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

from fl_node.errors import UsageError
from fl_node.learning.partition import parse_partition
from fl_node.learning.shifts import parse_shift
from fl_node.presets import Tables, preset
from fl_node.recipes import RECIPES
from fl_node.simulation.faults import Faults
from fl_node.spec import Federation, Spec, parse_federation, read_federation
from fl_node.spec_text import merged, preset_head, spec_text
from fl_node.suggest import did_you_mean

MOST_PEERS = 100_000
_SEEDS = {"task": "split_seed", "model": "seed", "training": "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be said about a simulation. ``None``: the federation file, the preset or the data set's
    recipe decides, in this order.

    Args:
        spec: a federation file to start from; its three seeds are replaced by the run's.
        preset: a name of :mod:`fl_node.presets`.
        peers: one federation for each number.
        overrides: spec keys as ``table.key``, over everything else.
        seeds: that many runs of each, with the seeds ``seed``, ``seed + 1``, ...
        test_rows: what peers claim scores on: ``own`` sets a part of their own rows aside, as real peers do; ``common``
            deals the data set's common test rows out, so that all training rows are trained on.
        evaluate: common-test accuracy of every round's models, or of the final ones only.
        baselines: also train on all rows in one place, and each peer alone, for as many epochs.
        out: the folder of results; one that holds unfinished results of the same settings is gone on with.
        allow_code: ``module:callable`` names, by commas, that the federation file may have run here. What is named in
            ``model``, ``dataset`` or ``overrides`` need not be named again.
        threads: at most so many at work; 0: as many as there are cores. Another number may change results in the last
            bits.

    Raises:
        UsageError: a value out of range, an unknown preset, data set, partition, shift or attack.
    """

    spec: Path | None = None
    preset: str = ""
    peers: tuple[int, ...] = (6,)
    rounds: int | None = None
    dataset: str | None = None
    data_dir: Path | None = None
    model: str | None = None
    mode: Literal["async", "sync"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    partition: str = "iid"
    shift: str = "none"
    seeds: int = 1
    seed: int = 0
    test_rows: Literal["own", "common"] = "own"
    evaluate: Literal["every", "last"] = "last"
    baselines: bool = False
    faults: Faults = field(default_factory=Faults)
    ledger: Literal["memory", "anvil"] = "memory"
    batch: Literal["auto", "always", "never"] = "auto"
    out: Path | None = None
    allow_code: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        if self.spec is not None and self.preset:
            raise UsageError(f"--spec {self.spec} with --preset {self.preset}; expected one of the two")
        if not self.peers or len(set(self.peers)) != len(self.peers):
            raise UsageError(
                f"--peers {','.join(map(str, self.peers))}: expected different numbers, such as 6 or 6,10,20"
            )
        for flag, value, least, most in (
            *(("peers", count, 1, MOST_PEERS) for count in self.peers),
            ("rounds", self.rounds, 1, 10_000),
            ("epochs", self.epochs, 1, 2**31),
            ("batch-size", self.batch_size, 1, 2**31),
            ("seeds", self.seeds, 1, 10_000),
            ("seed", self.seed, 0, 2**31 - 10_000),
            ("threads", self.threads, 0, 1024),
        ):
            if value is not None and not least <= value <= most:
                raise UsageError(f"--{flag} {value}: expected a whole number from {least} to {most}")
        if self.learning_rate is not None and not 0.0 < self.learning_rate <= 1000.0:
            raise UsageError(f"--learning-rate {self.learning_rate}: expected a number above 0, at most 1000")
        if self.dataset is not None and self.dataset not in RECIPES and ":" not in self.dataset:
            raise UsageError(
                f"--dataset {self.dataset}: unknown data set{did_you_mean(self.dataset, RECIPES) or ';'} expected one "
                f"of {', '.join(RECIPES)}, or npz:PATH, csv:PATH, module:callable with a --spec"
            )
        if self.preset:
            preset(self.preset)
        parse_partition(self.partition)
        parse_shift(self.shift)

    def federation(self, peers: int, seed: int) -> Federation:
        """The spec of one run.

        Raises:
            SpecError: the keys do not go together.
            UsageError: too few peers for the preset.
        """
        text = self.spec_text(peers, seed)
        return parse_federation(text.encode(), "the simulation's spec")

    def spec_text(self, peers: int, seed: int) -> str:
        """The text of one run's spec."""
        seeds: Tables = {table: {key: seed} for table, key in _SEEDS.items()}
        head = ["The spec of a simulation."]
        if self.spec is not None:
            text = read_federation(self.spec).spec_bytes.decode()
            name, base = _tables_of(text)
        else:
            base = self._recipe()
            name = f"simulation-{self.preset or 'default'}"
            if self.preset:
                chosen = preset(self.preset)
                base = merged(base, chosen.overrides(peers))
                head += ["", *preset_head(chosen, peers)]
        # Nothing leaves the process, so that there is nothing to keep from anybody.
        clear: Tables = {"privacy": {"encrypt": False}}
        return spec_text(name, merged(base, self._asked(), seeds, clear, self._overridden()), head=head)

    @property
    def agreed_code(self) -> str:
        """The code that whoever made these settings agrees to run."""
        return ",".join([self.allow_code, self.model or "", self.dataset or "", *map(str, self.overrides.values())])

    def as_json(self) -> dict[str, Any]:
        """What decides about the results, for ``config.json``: where they go and how many seeds there are does not."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in ("out", "seeds", "seed", "allow_code"):
            del told[name]
        told["data_dir"] = None if self.data_dir is None else str(self.data_dir.resolve())
        told["spec"] = None if self.spec is None else read_federation(self.spec).digest.hex()
        return cast(dict[str, Any], json.loads(json.dumps(told, default=_plain)))

    def _recipe(self) -> Tables:
        """What is known to work on the data set."""
        name = self.dataset or "digits"
        if name not in RECIPES:
            raise UsageError(f"--dataset {name} without --spec: expected a spec that says its shape and classes")
        recipe = RECIPES[name]
        return merged(recipe.tables(name, self.model or recipe.model), {"rounds": {"planned": 5}})

    def _asked(self) -> Tables:
        """What the command line says."""
        given: dict[tuple[str, str], Any] = {
            ("model", "name"): self.model,
            ("training", "learning_rate"): None if self.learning_rate is None else float(self.learning_rate),
            ("training", "batch_size"): self.batch_size,
            ("training", "epochs"): self.epochs,
            ("rounds", "planned"): self.rounds,
            ("rounds", "mode"): self.mode,
        }
        if self.spec is not None:
            given["task", "data"] = self.dataset
        tables: Tables = {}
        for (table, key), value in given.items():
            if value is not None:
                tables.setdefault(table, {})[key] = value
        return tables

    def _overridden(self) -> Tables:
        tables: Tables = {}
        for name, value in self.overrides.items():
            table, dot, key = name.partition(".")
            if not dot or not key:
                raise UsageError(f"--set {name}=...: expected a key of the spec such as training.optimizer")
            if table not in Spec.model_fields:
                known = [one for one in Spec.model_fields if one not in ("format", "name")]
                hint = did_you_mean(table, known) or ";"
                raise UsageError(f"--set {name}=...: no table {table!r}{hint} expected one of {', '.join(known)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"--set {name}={value}: expected a finite number")
            tables.setdefault(table, {})[key] = _tuples(value)
        return tables


def parse_override(text: str) -> tuple[str, Any]:
    """``table.key=VALUE`` with the value as TOML writes it; a bare word is a string.

    Raises:
        UsageError: no equals sign, or a value that TOML cannot read.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: expected KEY=VALUE, such as training.optimizer=adam")
    for candidate in (value, json.dumps(value)):
        try:
            return name.strip(), tomllib.loads(f"value = {candidate}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    raise UsageError(f"--set {text}: cannot read the value; expected it as in a TOML file")


def _tables_of(text: str) -> tuple[str, Tables]:
    table = tomllib.loads(text)
    name = str(table.pop("name", "federation"))
    table.pop("format", None)
    return name, {key: {inner: _tuples(value) for inner, value in keys.items()} for key, keys in table.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return str(value) if isinstance(value, Path) else dict(value)
