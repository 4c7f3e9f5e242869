from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "node"))

from offspring import Run

from fl_node.chains import DevChain


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_NODE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder, runs = tmp_path_factory.mktemp("demo") / "kept", tmp_path_factory.mktemp("runs")
    command = ["demo", "--peers", "3", "--rounds", "2", "--mode", "sync", "--state", str(folder), "--no-baselines"]
    out = subprocess.run(
        [sys.executable, "-m", "fl_node", *command, "--json", "-"], check=True, capture_output=True, env={**os.environ}
    )
    result = json.loads(out.stdout)
    port = int(result["rpc"].rsplit(":", 1)[1])
    with DevChain.start("anvil", port=port, state=folder / "anvil.json") as chain:
        yield Finished(folder, result, chain, runs)
