"""Noted results on disk, so that an experiment that was stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.experiments.experiment import Case, Noted


@dataclass(slots=True)
class Results:
    """One JSON file: for every case the digest of its settings and the noted numbers by seed. Written after every run,
    by rename. ``machine``: where the latest was run."""

    path: Path
    machine: str = ""
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Results:
        """What is there; nothing where there is no file."""
        if not path.exists():
            return cls(path)
        held = json.loads(path.read_text("utf-8"))
        return cls(path, held["machine"], held["cases"])

    def of(self, case: Case) -> dict[int, Noted]:
        """Numbers by seed; none where they were made with other settings."""
        held = self.cases.get(case.name)
        if held is None or held["digest"] != case.digest:
            return {}
        return {int(seed): noted for seed, noted in held["seeds"].items()}

    def add(self, case: Case, seed: int, noted: Noted) -> None:
        """Keep one run's numbers, on disk once this returns."""
        by_seed = self.of(case) | {seed: {name: round(value, 4) for name, value in noted.items()}}
        self.cases[case.name] = {
            "digest": case.digest,
            "seeds": {str(number): by_seed[number] for number in sorted(by_seed)},
        }
        scratch = self.path.with_suffix(".new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(self._text(), "utf-8")
        scratch.replace(self.path)

    def _text(self) -> str:
        """JSON with a line for each run, so that a change of one is a change of one line."""
        lines = []
        for name, held in sorted(self.cases.items()):
            runs = ",\n".join(f"   {json.dumps(seed)}: {json.dumps(noted)}" for seed, noted in held["seeds"].items())
            lines.append(f'  {json.dumps(name)}: {{"digest": {json.dumps(held["digest"])}, "seeds": {{\n{runs}\n  }}}}')
        cases = ",\n".join(lines)
        return f'{{\n "machine": {json.dumps(self.machine)},\n "cases": {{\n{cases}\n }}\n}}\n'
