"""One file of the store on disk, and how it comes into being.

A file of one block is stored as its bytes. A larger one is stored as its bytes, then its inner nodes, then a trailer
that says how long both parts are: the payload is contiguous (one sequential write, one ``fsync``; a leaf is a region
that the kernel can send), and the object describes itself, so there is no index that could disagree with it.

    payload | (u32 length | node)* | magic, u64 payload bytes, u64 node bytes

An object appears by an atomic rename. Until then it is a temporary file under a lock that dies with its writer, so
what a crash left behind can be told from what somebody else is writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fl_node.content.cid import Cid
from fl_node.content.unixfs import Dag, assemble
from fl_node.errors import ContentError, ContentMismatch, StoreFull

TEMPORARY: Final = ".adding-"
_TRAILER: Final = struct.Struct("<8sQQ")
_LENGTH: Final = struct.Struct("<I")
_MAGIC: Final = b"FLNODE01"
_WRITE_BYTES: Final = 8 << 20
_CANNOT_WRITE: Final = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.ENOTDIR,
}


@contextlib.contextmanager
def store_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below ``folder`` into :class:`StoreFull`."""
    try:
        yield
    except OSError as cause:
        what = cause.strerror or str(cause)
        if cause.errno in _CANNOT_WRITE:
            raise StoreFull(
                f"cannot write the content store {folder}: {what}; expected a writable disk with room: "
                "free some space (fl-node gc), or check the mount and its permissions. Nothing was lost"
            ) from cause
        raise ContentError(f"cannot use the content store {folder}: {what}; check the disk") from cause


def write_object(folder: Path, dag: Dag, pieces: list[memoryview], durable: bool) -> None:
    """Write a file under the name of its CID, all of it or nothing.

    Raises:
        OSError: as the system gave it; no temporary file is left.
    """
    fd, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for piece in pieces:
            for start in range(0, piece.nbytes, _WRITE_BYTES):
                _write_all(fd, piece[start : start + _WRITE_BYTES])
        if dag.nodes:
            _write_all(fd, memoryview(object_tail(dag)))
        if durable:
            os.fsync(fd)
        Path(name).replace(folder / str(dag.root))
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    finally:
        os.close(fd)
    if durable:
        sync_folder(folder)


def object_tail(dag: Dag) -> bytes:
    """What follows the payload of a file of several blocks: its inner nodes and the trailer."""
    nodes = b"".join(_LENGTH.pack(len(block)) + block for block in dag.nodes.values())
    return nodes + _TRAILER.pack(_MAGIC, dag.size_bytes, len(nodes))


def tail_nodes(tail: bytes) -> dict[Cid, bytes]:
    """The inner nodes of an :func:`object_tail`. Raises struct.error for what is none."""
    return _nodes(tail[: -_TRAILER.size])


def read_dag(path: Path, cid: Cid) -> Dag:
    """The shape of a stored file, its nodes checked against their CIDs. The leaves are not read.

    Raises:
        FileNotFoundError: not here.
        ContentMismatch: torn or altered on disk.
    """
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        if cid.codec == "raw":
            return Dag(cid, length, (cid.digest,), {})
        try:
            file.seek(max(0, length - _TRAILER.size))
            magic, payload_bytes, tail_bytes = _TRAILER.unpack(file.read(_TRAILER.size))
            if magic != _MAGIC or payload_bytes + tail_bytes + _TRAILER.size != length:
                raise ValueError("its trailer is wrong")
            file.seek(payload_bytes)
            nodes = _nodes(file.read(tail_bytes))
            dag = assemble(cid, nodes.__getitem__, payload_bytes)
            if dag.size_bytes != payload_bytes:
                raise ValueError(f"it holds {payload_bytes} bytes, expected {dag.size_bytes}")
        except (struct.error, KeyError, ValueError) as cause:
            raise ContentMismatch(f"the stored file {path} is torn or altered: {cause}; fetch it again") from cause
    return dag


def remove_abandoned(folder: Path) -> None:
    """Delete the temporary files of writers that died; a living writer holds the lock on its own."""
    for entry in list(os.scandir(folder)):
        if not entry.name.startswith(TEMPORARY):
            continue
        try:
            fd = os.open(entry.path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Renamed between open and lock: then the name is gone, and only the name is removed.
            Path(entry.path).unlink()
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]


def _nodes(tail: bytes) -> dict[Cid, bytes]:
    nodes: dict[Cid, bytes] = {}
    at = 0
    while at < len(tail):
        (length,) = _LENGTH.unpack_from(tail, at)
        block = tail[at + _LENGTH.size : at + _LENGTH.size + length]
        nodes[Cid("dag-pb", hashlib.sha256(block).digest())] = block
        at += _LENGTH.size + length
    return nodes
