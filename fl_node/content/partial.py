"""Files that are not all here yet: what was fetched and checked of each, so that a fetch goes on where one stopped.

A partial file is the object that it is to become (see ``objects``) with holes for the leaves that are missing, and
behind it a byte for each leaf and a trailer:

    payload | (u32 length | node)* | magic, u64 payload bytes, u64 node bytes | one byte a leaf | magic, u64, u64

When all leaves are here it is cut behind the object and renamed into place. The bytes of the map are hints: whoever
goes on hashes each leaf that they name, so a power cut costs blocks, never correctness. Whoever writes holds a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fl_node.content.cid import Cid
from fl_node.content.objects import object_tail, store_errors, tail_nodes
from fl_node.content.unixfs import Buffer, Dag, assemble
from fl_node.errors import ContentMalformed, ContentTooLarge, StoreFull

FOLDER_NAME: Final = "partial"
_MAGIC: Final = b"FLPART01"
_TRAILER: Final = struct.Struct("<8sQQ")
_HERE: Final = b"\x01"
#: Kept at most: the newest so many, so many bytes on disk, and none older.
MOST_FILES: Final = 16
MOST_BYTES: Final = 8 << 30
OLDEST_S: Final = 7 * 86_400.0


class Partial:
    """One file on its way, open and locked. Safe to share between threads. Made by :class:`Partials`.

    ``missing``: digest of each leaf that is not here yet, and all places where it goes, in file order.
    """

    def __init__(self, fd: int, path: Path, dag: Dag, tail_bytes: int, missing: dict[bytes, list[int]]) -> None:
        self._fd, self._path, self._tail_bytes = fd, path, tail_bytes
        self.dag = dag
        self.missing = missing

    def write(self, digest: bytes, leaf: Buffer) -> None:
        """Put a leaf, whose hash was checked, into its places.

        Raises:
            StoreFull: no room.
        """
        end = self.dag.size_bytes + self._tail_bytes
        with store_errors(self._path.parent.parent):
            for index in self.missing[digest]:
                offset, length = self.dag.leaf_span(index)
                if len(leaf) != length:
                    raise ValueError(f"got a leaf of {len(leaf)} bytes, expected {length}")
                _write_at(self._fd, leaf, offset)
                _write_at(self._fd, _HERE, end + index)

    def complete(self, target: Path) -> memoryview:
        """All leaves are here: make it an object. Its bytes, mapped.

        Raises:
            OSError: as the system gave it.
        """
        os.ftruncate(self._fd, self.dag.size_bytes + self._tail_bytes)
        self._path.replace(target)
        return memoryview(mmap.mmap(self._fd, self.dag.size_bytes, access=mmap.ACCESS_READ))

    def discard(self) -> None:
        """Delete it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it. What it holds stays for the next fetch."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Partials:
    """The partial files of a store, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER_NAME

    def resume(self, cid: Cid, max_bytes: int) -> Partial | None:
        """What an earlier fetch left of this file; None if nothing that can be gone on with, or somebody is at it.

        Raises:
            ContentTooLarge: it is larger than ``max_bytes``.
        """
        path = self._folder / str(cid)
        fd = _locked(path)
        if fd is None:
            return None
        try:
            found = _opened(fd, path, cid, max_bytes)
        except (ValueError, KeyError, struct.error, ContentMalformed) as cause:
            if isinstance(cause, ContentTooLarge):
                os.close(fd)
                raise
            path.unlink(missing_ok=True)
            found = None
        except BaseException:
            os.close(fd)
            raise
        if found is None:
            os.close(fd)
        return found

    def begin(self, dag: Dag) -> Partial | None:
        """An empty one for this file of several blocks; None if somebody else is at it.

        Raises:
            OSError: as the system gave it.
        """
        self._folder.mkdir(exist_ok=True)
        self.purge(room_for=1)
        path = self._folder / str(dag.root)
        fd = _locked(path, create=True)
        if fd is None:
            return None
        try:
            tail = object_tail(dag)
            os.ftruncate(fd, 0)
            _write_at(fd, tail, dag.size_bytes)
            ends = dag.size_bytes + len(tail)
            # The map's trailer comes last: without it, this is no partial file.
            _write_at(fd, _TRAILER.pack(_MAGIC, dag.size_bytes, len(tail)), ends + len(dag.leaves))
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(fd)
            raise
        return Partial(fd, path, dag, len(tail), _places(dag, range(len(dag.leaves))))

    def purge(self, room_for: int = 0) -> int:
        """Delete those beyond number, age and bytes, but none that somebody is at; the bytes that were freed."""
        freed, kept_bytes, kept = 0, 0, room_for
        for path, found in self._newest_first():
            size = found.st_blocks * 512
            if time.time() - found.st_mtime <= OLDEST_S and kept < MOST_FILES and kept_bytes + size <= MOST_BYTES:
                kept, kept_bytes = kept + 1, kept_bytes + size
                continue
            fd = _locked(path)
            if fd is None:
                continue
            path.unlink(missing_ok=True)
            os.close(fd)
            freed += size
        return freed

    def _newest_first(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append((path, path.stat()))
        return sorted(found, key=lambda item: (-item[1].st_mtime_ns, item[0].name))


@contextlib.contextmanager
def going_on(partial: Partial) -> Iterator[Partial]:
    """Let go of it at the end, whatever happens; delete it where the disk is full."""
    try:
        yield partial
    except StoreFull:
        partial.discard()
        raise
    finally:
        partial.close()


def _locked(path: Path, *, create: bool = False) -> int | None:
    """The file, open and locked; None if it is not there, or somebody else has it."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == path.stat().st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        # It was deleted or became an object between the two calls.
        os.close(fd)


def _opened(fd: int, path: Path, cid: Cid, max_bytes: int) -> Partial:
    length = os.fstat(fd).st_size
    magic, size, tail_bytes = _TRAILER.unpack(os.pread(fd, _TRAILER.size, max(0, length - _TRAILER.size)))
    if magic != _MAGIC or size + tail_bytes + _TRAILER.size > length:
        raise ValueError("its trailer is wrong")
    nodes = tail_nodes(os.pread(fd, tail_bytes, size))
    dag = assemble(cid, nodes.__getitem__, max_bytes)
    if dag.size_bytes != size or length != size + tail_bytes + len(dag.leaves) + _TRAILER.size:
        raise ValueError("it is of another length")
    hints = os.pread(fd, len(dag.leaves), size + tail_bytes)
    missing = [index for index, hint in enumerate(hints) if not (hint and _intact(fd, dag, index))]
    return Partial(fd, path, dag, tail_bytes, _places(dag, missing))


def _intact(fd: int, dag: Dag, index: int) -> bool:
    offset, length = dag.leaf_span(index)
    return hashlib.sha256(os.pread(fd, length, offset)).digest() == dag.leaves[index]


def _places(dag: Dag, indexes: Sequence[int]) -> dict[bytes, list[int]]:
    places: dict[bytes, list[int]] = {}
    for index in indexes:
        places.setdefault(dag.leaves[index], []).append(index)
    return places


def _write_at(fd: int, data: Buffer, offset: int) -> None:
    view = memoryview(data)
    while view.nbytes:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
