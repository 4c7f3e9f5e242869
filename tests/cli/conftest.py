from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent / "node"))

from left_by_demo import Finished

from fl_node.chains import DevChain


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_NODE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
