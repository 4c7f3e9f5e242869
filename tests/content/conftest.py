"""Fixtures of the content tests: judges written by others, and a daemon with the Kubo RPC."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import JS, START_S, free_port, install, node


@pytest.fixture(scope="session")
def judges() -> Path:
    """The folder of the JavaScript judges, installed."""
    return install(JS)


@pytest.fixture(scope="session")
def kubo_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The multiaddr of a running daemon, without network."""
    folder = install(JS / "daemon")
    repository = tmp_path_factory.mktemp("ipfs")
    program = node(folder / "node_modules" / "ipfs" / "src" / "cli.js")
    environment = {**os.environ, "IPFS_PATH": str(repository)}
    subprocess.run(
        [*program, "init", "--profile", "test"], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=START_S
    )
    port = free_port()
    config = json.loads((repository / "config").read_text())
    config["Addresses"].update(Swarm=[], API=f"/ip4/127.0.0.1/tcp/{port}", Gateway="", RPC="")
    (repository / "config").write_text(json.dumps(config))
    with (repository / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen([*program, "daemon", "--offline"], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while b"Daemon is ready" not in (repository / "daemon.log").read_bytes():
            assert daemon.poll() is None and time.monotonic() < deadline, (repository / "daemon.log").read_text()
            time.sleep(0.05)
        yield f"/ip4/127.0.0.1/tcp/{port}"
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
