"""A command of ``fl-node`` as a process of its own, beside this one: low priority, and gone when this one is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from fl_node.config import ENV_PREFIX, NodeConfig

#: In the child, before anything else. The kernel ends it with the thread that started it (on Linux only).
_BEGIN: Final = """
import os, signal, sys
home, parent = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
sys.path.insert(0, home)
os.nice(10)
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    sys.exit(1)
from fl_node.__main__ import main
sys.exit(main())
"""
_SETTINGS: Final = frozenset(ENV_PREFIX + key.upper() for key in NodeConfig.model_fields)


def begin(
    arguments: Sequence[str],
    *,
    folder: Path,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] = subprocess.DEVNULL,
    settings: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command. The thread that calls this must live as long as the command is to.

    Args:
        folder: where it runs.
        settings: of a peer, by key, through the environment: command lines are for everybody to see. Those of this
            process are not handed on.
    """
    home = str(Path(__file__).parent.parent)
    kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    return subprocess.Popen(
        [sys.executable, "-c", _BEGIN, home, str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env={**kept, **{ENV_PREFIX + key.upper(): value for key, value in (settings or {}).items()}},
        start_new_session=True,  # Ctrl-C in the terminal is for this process, which ends the other one
    )


def end(process: subprocess.Popen[bytes], grace_s: float = 0.5) -> None:
    """Ask it to leave, then make it. Nothing is done where it has left."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
