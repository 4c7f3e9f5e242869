"""What a finished demo leaves, and commands run on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offspring import Run

from fl_node.chains import DevChain


@dataclass
class Finished:
    """A demo's folder, its chain started again from its state on the port it had."""

    folder: Path
    result: dict[str, Any]
    chain: DevChain
    runs: Path

    @property
    def file(self) -> Path:
        return self.folder / "federation.toml"

    def state(self, site: str) -> Path:
        return self.folder / f"site-{site}"

    def command(self, *argv: object, code: int = 0, **environment: str) -> Run:
        """Run a command in a process of its own, to its end, which must be this exit code."""
        run = Run(self.runs, [str(word) for word in argv], **environment)
        got = run.wait()
        assert got == code, f"exit code {got}: {run.stderr}"
        assert "Traceback" not in run.stderr and "defect" not in run.stderr
        return run

    def json(self, *argv: object, **environment: str) -> Any:
        return json.loads(self.command(*argv, "--json", **environment).stdout)
