"""Files as IPFS blocks: the profile ``unixfs-v1-2025`` (IPIP-499).

CIDv1, sha2-256, fixed chunks of 1 MiB, raw leaves, balanced tree, at most 1,024 children. Up to one chunk the file *is*
its only block. Above, the file's size alone fixes the whole shape of the tree, so a reader needs only the digests
from a node, and every other byte of it is checked by writing the node again.
Sources: specs.ipfs.tech/unixfs, ipld.io/specs/codecs/dag-pb/spec.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fl_node.content.cid import BINARY_BYTES, Cid
from fl_node.errors import ContentMalformed, ContentTooLarge, UsageError

CHUNK_BYTES: Final = 1 << 20
WIDTH: Final = 1024
# A full node has 1,024 links of at most 54 bytes and as many sizes of at most 8: 64 KiB holds it.
MAX_NODE_BYTES: Final = 1 << 16
_PARALLEL_CHUNKS: Final = 4

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Child:
    """A link of a node: the file bytes below it and the bytes of all blocks below it (``Tsize``)."""

    cid: Cid
    size_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Dag:
    """A file's blocks: leaves by digest in file order, inner nodes by CID (children before parents, root last)."""

    root: Cid
    size_bytes: int
    leaves: tuple[bytes, ...] = field(repr=False)
    nodes: dict[Cid, bytes] = field(repr=False)

    def leaf_span(self, index: int) -> tuple[int, int]:
        """Offset and length in bytes of leaf ``index`` in the file."""
        offset = index * CHUNK_BYTES
        return offset, min(CHUNK_BYTES, self.size_bytes - offset)

    def walk(self) -> Iterator[tuple[Cid, int]]:
        """Every distinct block once, depth first from the root: its CID and its leaf index, or -1 for a node."""
        seen: set[Cid] = set()
        stack = [(self.root, 0)]
        while stack:
            cid, first = stack.pop()
            if cid in seen:
                continue
            seen.add(cid)
            if cid.codec == "raw":
                yield cid, first
                continue
            yield cid, -1
            below = []
            for child in read_node(self.nodes[cid]):
                below.append((child.cid, first))
                first += -(-child.size_bytes // CHUNK_BYTES)
            stack.extend(reversed(below))


def views(buffers: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """Flat byte views of the buffers, without copying; empty ones are dropped."""
    several = [buffers] if isinstance(buffers, bytes | bytearray | memoryview) else buffers
    found = (memoryview(buffer) for buffer in several)
    return [view.cast("B") for view in found if view.nbytes]


def cid_of(data: Buffer | Sequence[Buffer]) -> Cid:
    """The CID of a file given as one buffer or as several that follow each other."""
    return build(data).root


def build(data: Buffer | Sequence[Buffer], threads: int = 0) -> Dag:
    """Hash a file into its blocks without copying it.

    Args:
        data: the file, in one or more C-contiguous buffers.
        threads: threads that hash; 0 takes two where there are two cores (hashing releases the interpreter lock).
    """
    pieces = views(data)
    size = sum(piece.nbytes for piece in pieces)
    leaves = _hash_chunks(list(_chunks(pieces)) or [[memoryview(b"")]], threads or min(2, os.cpu_count() or 1))
    spans = [min(CHUNK_BYTES, size - CHUNK_BYTES * index) for index in range(len(leaves))]
    level = [Child(Cid("raw", leaf), span, span) for leaf, span in zip(leaves, spans, strict=True)]
    nodes: dict[Cid, bytes] = {}
    while len(level) > 1:
        parents = []
        for start in range(0, len(level), WIDTH):
            children = level[start : start + WIDTH]
            block = write_node(children)
            cid = Cid("dag-pb", hashlib.sha256(block).digest())
            nodes[cid] = block
            total = len(block) + sum(child.total_bytes for child in children)
            parents.append(Child(cid, sum(child.size_bytes for child in children), total))
        level = parents
    return Dag(level[0].cid, size, tuple(leaves), nodes)


def assemble(root: Cid, load: Callable[[Cid], bytes], max_bytes: int) -> Dag:
    """Read a larger file's inner nodes, top down, before any of its leaves.

    Args:
        root: of codec dag-pb.
        load: gives a dag-pb block whose hash was checked; called once for each distinct node.
        max_bytes: largest file accepted; bounds the number of nodes that are loaded.

    Raises:
        ContentMalformed: larger than ``max_bytes``, or not a file of the profile.
    """
    size = _file_size(load(root))
    if size > max_bytes:
        raise ContentTooLarge(f"{root} holds {size} bytes, expected at most {max_bytes}")
    if size <= CHUNK_BYTES:
        raise ContentMalformed(f"{root} is a file of {size} bytes, expected more than {CHUNK_BYTES}: it needs no nodes")
    capacity = CHUNK_BYTES
    while capacity * WIDTH < size:
        capacity *= WIDTH
    leaves: list[bytes] = []
    levels: list[dict[Cid, bytes]] = []
    level = [Child(root, size, 0)]
    while capacity >= CHUNK_BYTES:
        blocks: dict[Cid, bytes] = {}
        below: list[Child] = []
        for parent in level:
            block = blocks.get(parent.cid)
            if block is None:
                block = blocks[parent.cid] = load(parent.cid)
            children = _checked_children(parent, block, capacity)
            if capacity == CHUNK_BYTES:
                leaves.extend(child.cid.digest for child in children)
            else:
                below.extend(children)
        levels.append(blocks)
        level, capacity = below, capacity // WIDTH
    nodes = {cid: block for blocks in reversed(levels) for cid, block in blocks.items()}
    return Dag(root, size, tuple(leaves), nodes)


def write_node(children: Sequence[Child]) -> bytes:
    """A dag-pb node of a UnixFS file: links first, then the file's size and the children's."""
    out = bytearray()
    for child in children:
        link = b"\x0a\x24" + bytes(child.cid) + b"\x12\x00\x18" + varint(child.total_bytes)
        out += b"\x12" + varint(len(link)) + link
    size = sum(child.size_bytes for child in children)
    data = b"\x08\x02\x18" + varint(size) + b"".join(b"\x20" + varint(child.size_bytes) for child in children)
    return bytes(out + b"\x0a" + varint(len(data)) + data)


def read_node(block: bytes) -> list[Child]:
    """The children of a node that :func:`write_node` wrote.

    Raises:
        ContentMalformed: any other bytes, however valid as dag-pb.
    """
    if len(block) > MAX_NODE_BYTES:
        raise ContentMalformed(f"got a node of {len(block)} bytes, expected at most {MAX_NODE_BYTES}")
    try:
        links, sizes = _parse(block)
        children = [Child(Cid.decode(cid), size, total) for (cid, total), size in zip(links, sizes, strict=True)]
    except (IndexError, ValueError, UsageError) as cause:
        raise ContentMalformed(f"got a block that is not a file node of unixfs-v1-2025: {cause}") from cause
    if not 1 <= len(children) <= WIDTH or write_node(children) != block:
        raise ContentMalformed("got a file node that is not in the one form that unixfs-v1-2025 gives it")
    return children


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(block: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends. Raises ValueError beyond 63 bits, IndexError at the end of the block."""
    number = 0
    for count in range(9):
        byte = block[at + count]
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number, at + count + 1
    raise ValueError("a number of more than 63 bits")


def _parse(block: bytes) -> tuple[list[tuple[bytes, int]], list[int]]:
    """Links (binary CID, total) and sizes. Only reads: the caller compares with what it would have written."""
    links: list[tuple[bytes, int]] = []
    at = 0
    while block[at] == 0x12 and len(links) <= WIDTH:
        _, at = read_varint(block, at + 1)
        cid = block[at + 2 : at + 2 + BINARY_BYTES]
        total, at = read_varint(block, at + 2 + BINARY_BYTES + 3)
        links.append((cid, total))
    _, at = read_varint(block, at + 1)
    _, at = read_varint(block, at + 3)
    sizes: list[int] = []
    while at < len(block) and len(sizes) <= WIDTH:
        size, at = read_varint(block, at + 1)
        sizes.append(size)
    return links, sizes


def _file_size(block: bytes) -> int:
    return sum(child.size_bytes for child in read_node(block))


def _checked_children(parent: Child, block: bytes, capacity: int) -> list[Child]:
    """The children of ``parent``, each holding ``capacity`` file bytes but the last, and of the codec that fits."""
    children = read_node(block)
    full, rest = divmod(parent.size_bytes, capacity)
    codec = "raw" if capacity == CHUNK_BYTES else "dag-pb"
    if [child.size_bytes for child in children] != [capacity] * full + [rest] * bool(rest) or any(
        child.cid.codec != codec or (codec == "raw" and child.total_bytes != child.size_bytes) for child in children
    ):
        raise ContentMalformed(f"{parent.cid} is not cut as unixfs-v1-2025 cuts {parent.size_bytes} bytes")
    if parent.total_bytes and parent.total_bytes != len(block) + sum(child.total_bytes for child in children):
        raise ContentMalformed(f"the link to {parent.cid} gives {parent.total_bytes} bytes below it, which is wrong")
    return children


def _chunks(pieces: list[memoryview]) -> Iterator[list[memoryview]]:
    """Cut the views into chunks; a chunk that spans buffers is a list of several views."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for piece in pieces:
        at = 0
        while at < piece.nbytes:
            part = piece[at : at + room]
            chunk.append(part)
            at += part.nbytes
            room -= part.nbytes
            if room == 0:
                yield chunk
                chunk, room = [], CHUNK_BYTES
    if chunk:
        yield chunk


def _hash_chunks(chunks: list[list[memoryview]], threads: int) -> list[bytes]:
    digests = [b""] * len(chunks)

    def hash_span(start: int, stop: int) -> None:
        for index in range(start, stop):
            state = hashlib.sha256()
            for part in chunks[index]:
                state.update(part)
            digests[index] = state.digest()

    if threads < 2 or len(chunks) < _PARALLEL_CHUNKS:
        hash_span(0, len(chunks))
        return digests
    bounds = [len(chunks) * part // threads for part in range(threads + 1)]
    helpers = [threading.Thread(target=hash_span, args=(bounds[i], bounds[i + 1])) for i in range(1, threads)]
    for helper in helpers:
        helper.start()
    hash_span(bounds[0], bounds[1])
    for helper in helpers:
        helper.join()
    return digests
