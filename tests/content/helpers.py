"""What several content tests use: installing and starting judges written by others."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import tempfile
from pathlib import Path

JS = Path(__file__).parent.parent / "js"
START_S = 60.0


def install(folder: Path) -> Path:
    """``npm ci`` in ``folder`` unless what is there came from this very lock file."""
    modules = folder / "node_modules"
    wanted = (folder / "package-lock.json").read_bytes()
    with (Path(tempfile.gettempdir()) / f"fl-node-npm-{folder.name}.lock").open("w") as lock:
        # Several test processes may come here at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = modules / ".installed-from"
        if not stamp.exists() or stamp.read_bytes() != wanted:
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=900,
            )
            stamp.write_bytes(wanted)
    return folder


def node(script: Path, *arguments: str) -> list[str]:
    return ["node", "--require", str(JS / "polyfill.cjs"), str(script), *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
