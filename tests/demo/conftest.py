from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "node"))


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_NODE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture
def start() -> Iterator[Any]:
    from demos import Demo

    demos: list[Demo] = []

    # Short, for the fork server's socket lies in it.
    scratch = Path(tempfile.mkdtemp(prefix="fl-demo-"))

    def starter(*argv: object) -> Demo:
        demos.append(Demo(scratch, *argv))
        return demos[-1]

    yield starter
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.kill()
        demo.process.communicate()
        for pid in demo.relatives():
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)
