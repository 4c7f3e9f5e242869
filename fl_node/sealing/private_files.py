"""Files that nobody but their owner reads: written whole or not at all, durably, and erased for good."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fl_node.errors import KeyringError
from fl_node.sealing.header import Buffer

TEMPORARY: Final = ".new-"
_ABANDONED_S: Final = 3600.0
_OTHERS: Final = 0o077


def private_folder(folder: Path) -> Path:
    """Make a folder, of mode 0700, unless it is there.

    Raises:
        KeyringError: it cannot be made, or others may enter it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as cause:
        raise KeyringError(f"cannot make the folder {folder}: {cause.strerror}; check the state folder") from cause
    check_private(folder)
    return folder


def check_private(
    path: Path, then: str = ", and make a new key if somebody may have read it (`fl-node keys rotate`)"
) -> None:
    """Refuse what others than its owner may read or write.

    Args:
        then: what to do besides, for the error.

    Raises:
        KeyringError: they may, or it is not there.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as cause:
        raise KeyringError(f"cannot read {path}: {cause.strerror}") from cause
    if mode & _OTHERS:
        expected = "700" if path.is_dir() else "600"
        raise KeyringError(
            f"{path} has mode {mode:03o}, so that others may read or write it; expected {expected}: "
            f"chmod {expected} {path}{then}"
        )


def write_private(path: Path, buffers: Sequence[Buffer]) -> None:
    """Write a file of mode 0600, replacing one that is there; it survives a power cut once this returns.

    Raises:
        KeyringError: it cannot be written; what was there still is.
    """
    scratch = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for buffer in buffers:
                view = memoryview(buffer).cast("B")
                while view:
                    view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        scratch.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        raise KeyringError(
            f"cannot write {path}: {cause.strerror}; free some space, or make the folder writable. Nothing was lost"
        ) from cause
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def erase(path: Path) -> None:
    """Overwrite a file and delete it, durably. A disk or file system that keeps what was overwritten (a copy-on-write
    one, a backup) may still have it.

    Raises:
        KeyringError: it cannot be written or deleted.
    """
    try:
        with path.open("r+b") as file:
            left = os.fstat(file.fileno()).st_size
            file.write(bytes(left))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as cause:
        raise KeyringError(f"cannot erase {path}: {cause.strerror}; check its permissions, or erase it") from cause


def remove_abandoned(folder: Path) -> None:
    """Delete what writers left behind that died more than an hour ago."""
    with suppress(OSError):
        for path in folder.glob(f"{TEMPORARY}*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
