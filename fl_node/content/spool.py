"""Large files on their way: on disk without a name, mapped, so that memory holds only what is being read."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fl_node.content.protocol import Held
from fl_node.content.unixfs import Buffer

#: Smaller files stay in memory: mapping them would save nothing.
SPOOLED_BYTES: Final = 8 << 20


def spooled(pieces: Iterable[Buffer], size_bytes: int, folder: Path) -> Held:
    """A file given in pieces, held in memory if it is small, else in a file of ``folder`` that goes when it is let go.

    Raises:
        OSError: a large file, and no room for it.
    """
    if size_bytes <= SPOOLED_BYTES:
        return Held(b"".join(pieces))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.writelines(pieces)
        file.flush()
        mapped = mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ)

    def forget() -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    return Held(memoryview(mapped), forget)
