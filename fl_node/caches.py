"""Where commands keep what they need not: the user's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def own_folder(file: Path, kind: str) -> Path | None:
    """In the user's cache, by the file's place; ``None`` for a user without a home."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # as the base directory specification has it
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:
            return None
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:16]
    return caches / "fl-node" / kind / f"{file.stem}-{name}"
