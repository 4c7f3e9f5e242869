"""Static files: which there are, what each is, and its digest, read once for as long as a file stays the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. ``stamp``: time of its last change and size, by which a changed one is known."""

    kind: str
    body: bytes
    digest: str
    stamp: tuple[int, int]


class Assets:
    """The files of a folder, by the names that were in it at first: no other path is ever looked at.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in KINDS
        }
        self._known: dict[str, Asset] = {}

    def find(self, name: str) -> Asset | None:
        """A file; ``None`` where there is none of this name."""
        path = self._paths.get(name)
        if path is None:
            return None
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            known = self._known.get(name)
            if known is None or known.stamp != stamp:
                body = path.read_bytes()
                known = Asset(KINDS[path.suffix], body, hashlib.sha256(body).hexdigest(), stamp)
                self._known[name] = known
        except OSError:
            return None
        return known

    def version(self, name: str) -> str:
        """The start of a file's digest, for its address; empty where there is no such file."""
        found = self.find(name)
        return "" if found is None else found.digest[:12]
