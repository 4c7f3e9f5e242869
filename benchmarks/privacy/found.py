"""Noted results on disk, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

#: Raised when what cases do changes though their settings do not: older results are then of no use.
VERSION = 1


class Case(Protocol):
    """One setting that is attacked; a frozen dataclass."""

    @property
    def key(self) -> str: ...

    def run(self, seed: int, data_dir: Path) -> dict[str, float]: ...

    def quick(self) -> Case: ...


@dataclass(slots=True)
class Found:
    """One JSON file: for every case the digest of its settings and the noted numbers by seed; written after every run,
    by rename. Without a path nothing is written."""

    path: Path | None
    command: str
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, command: str) -> Found:
        """What is there; nothing where there is no file."""
        return cls(path, command, json.loads(path.read_text("utf-8"))["results"] if path.exists() else {})

    def of(self, case: Case) -> Mapping[int, Mapping[str, float]]:
        """Numbers by seed; none where they were made with other settings."""
        held = self.cases.get(case.key)
        if held is None or held["digest"] != _digest(case):
            return {}
        return {int(seed): noted for seed, noted in held["seeds"].items()}

    def add(self, case: Case, seed: int, noted: Mapping[str, float], seconds: float) -> None:
        """Keep one run's numbers, on disk once this returns."""
        rounded = {name: round(value, 5) for name, value in noted.items()} | {"seconds": round(seconds, 1)}
        by_seed = {**self.of(case), seed: rounded}
        seeds = {str(number): by_seed[number] for number in sorted(by_seed)}
        self.cases[case.key] = {"digest": _digest(case), "seeds": seeds}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            scratch = self.path.with_suffix(".new")
            scratch.write_text(self._text(), "utf-8")
            scratch.replace(self.path)

    @property
    def minutes(self) -> float:
        """Of one core, all runs together."""
        return sum(noted["seconds"] for held in self.cases.values() for noted in held["seeds"].values()) / 60

    def _text(self) -> str:
        """JSON with a line for each run, so that a change of one is a change of one line."""
        lines = []
        for key, held in sorted(self.cases.items()):
            runs = ",\n".join(f"   {json.dumps(seed)}: {json.dumps(noted)}" for seed, noted in held["seeds"].items())
            lines.append(f'  {json.dumps(key)}: {{"digest": {json.dumps(held["digest"])}, "seeds": {{\n{runs}\n  }}}}')
        head = f' "command": {json.dumps(self.command)},\n "machine": {json.dumps(machine())},\n'
        return "{\n" + head + ' "results": {\n' + ",\n".join(lines) + "\n }\n}\n"


def machine() -> dict[str, object]:
    """Where this runs."""
    cores = len(os.sched_getaffinity(0))
    return {"cores": cores, "processor": platform.machine(), "python": platform.python_version()}


def _digest(case: Case) -> str:
    told = {"version": VERSION, "kind": type(case).__name__, "settings": asdict(case)}  # type: ignore[call-overload]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
