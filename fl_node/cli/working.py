"""Folders of what a command keeps between its runs, each for one process at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_node.caches import own_folder
from fl_node.errors import UsageError


@contextmanager
def working_folder(named: str | None, file: Path | None, kind: str) -> Iterator[Path]:
    """Folder of what is kept between runs: named, the user's own for this federation file, or one for this run only.

    Never beside the file: whoever sends a federation file round may put made-up results beside it. Nor one in which
    another process is at work: the log there would grow under what is being looked at.

    Raises:
        UsageError: the named one cannot be written, or another process has it.
    """
    folder = Path(named) if named else None
    if folder is None and file is not None and file.is_file():
        folder = own_folder(file, kind)
    lock = None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as cause:
            if named:
                raise UsageError(f"--work {folder}: cannot be written: {cause.strerror}; name another") from cause
    try:
        if lock is not None and folder is not None:
            if _taken(lock):
                yield folder
                return
            if named:
                raise UsageError(f"--work {folder}: another process is at work there; wait for it, or name another")
        with tempfile.TemporaryDirectory(prefix=f"fl-node-{kind}-") as scratch:
            yield Path(scratch)
    finally:
        if lock is not None:
            os.close(lock)


def _taken(lock: int) -> bool:
    """Whether the lock is ours now. It falls with the process, however that ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
