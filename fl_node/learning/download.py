"""Public data sets by URL, checked against a digest that is part of the program, kept in a cache."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from fl_node.errors import DataError

LIMIT_BYTES = 256 << 20
TIMEOUT_S = 30.0
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Remote:
    """One file: where it may be had, in order of preference, and its SHA-256, hex."""

    urls: tuple[str, ...]
    sha256: str


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fl-node``, by default ``~/.cache/fl-node``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fl-node"


def downloaded(remote: Remote, path: Path) -> Path:
    """The file at ``path``, fetched if it is not there or not what it should be.

    It gets its name only once it is complete and checked, so a crash never leaves half a file under it.

    Raises:
        DataError: no mirror gave the right bytes, or the cache cannot be written.
    """
    try:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == remote.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise DataError(f"cannot use the cache {path.parent}: {cause.strerror}; set XDG_CACHE_HOME") from cause
    faults = []
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        for url in remote.urls:
            fault = _fetch(url, unfinished, remote.sha256)
            if not fault:
                unfinished.replace(path)
                return path
            faults.append(f"{url}: {fault}")
    finally:
        unfinished.unlink(missing_ok=True)
    raise DataError(
        f"cannot download {path.name}: {'; '.join(faults)}. Connect to the internet, or put the file into a folder and "
        "name it with --data-dir or FL_NODE_DATA_DIR"
    )


def _fetch(url: str, path: Path, expected: str) -> str:
    """Stream to a file; what went wrong in words, empty if nothing did."""
    if not url.startswith(("https://", "http://")):
        return "expected an http or https address"
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, path.open("wb") as file:  # noqa: S310
            while piece := answer.read(_PIECE):
                size += len(piece)
                if size > LIMIT_BYTES:
                    return f"more than {LIMIT_BYTES} bytes"
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, http.client.HTTPException) as cause:
        return f"{cause}"
    if digest.hexdigest() != expected:
        return f"got {size} bytes of SHA-256 {digest.hexdigest()}, expected {expected}"
    return ""
