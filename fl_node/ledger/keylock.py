"""One process per key: an operating-system lock that falls with the process that holds it.

Two processes that sign with one key would take each other's nonces. The lock file lies in a folder of the user, named
by chain and account, so that two state folders with the same key are found out too. Linux and macOS.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fl_node.errors import KeyInUse, LedgerError

ENV_FOLDER: Final = "FL_NODE_LOCKS"
_STATE_LOCK: Final = "key.lock"


def lock_folder() -> Path:
    """``FL_NODE_LOCKS``, or a folder in the user's home, or, where that cannot be written, a temporary one."""
    named = os.environ.get(ENV_FOLDER)
    homes = [Path(named)] if named else [Path.home() / ".local/state/fl-node/locks"]
    homes.append(Path(tempfile.gettempdir()) / f"fl-node-{os.getuid()}" / "locks")
    for folder in homes:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise LedgerError(f"cannot write any of {', '.join(map(str, homes))}; set {ENV_FOLDER} to a folder of yours")


class KeyLock:
    """Held from construction to :meth:`close`, or to the end of the process.

    Args:
        chain: what tells this chain from others; in the file's name.
        account: address.
        state: the peer's state folder, locked too (another user's process may share it).

    Raises:
        KeyInUse: another process, or another object of this one, holds it.
    """

    def __init__(self, chain: str, account: str, state: Path | None = None) -> None:
        paths = [lock_folder() / f"{chain}-{account.lower()}.lock"]
        if state is not None:
            state.mkdir(parents=True, exist_ok=True)
            paths.append(state / _STATE_LOCK)
        self._held: list[int] = []
        try:
            for path in paths:
                self._held.append(_take(path, account))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go. Calling it again does nothing."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """While this lasts, no peer runs with a state folder.

    Raises:
        KeyInUse: one does.
    """
    descriptor = _take(state / _STATE_LOCK, f"in {state}")
    try:
        yield
    finally:
        os.close(descriptor)


def _take(path: Path, account: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as cause:
        raise LedgerError(f"cannot open the lock {path}: {cause.strerror}; check its permissions") from cause
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        holder = os.pread(descriptor, 20, 0).decode("ascii", errors="replace").strip()
        os.close(descriptor)
        raise KeyInUse(
            f"another process (pid {holder or 'unknown'}) signs with the key {account} already ({path}); "
            "expected one process per key: stop it first"
        ) from cause
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
