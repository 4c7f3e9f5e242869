"""CARv1: a file's blocks as one stream. Source: ipld.io/specs/transport/car/carv1."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from fl_node.content.cid import BINARY_BYTES, Cid
from fl_node.content.unixfs import CHUNK_BYTES, MAX_NODE_BYTES, Buffer, Dag, assemble, read_varint, varint
from fl_node.errors import ContentMalformed, ContentMismatch, ContentTooLarge, UsageError

# {"roots": [42(h'00' || cid)], "version": 1} in dag-cbor, without and with the one root.
_HEADER_START: Final = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_HEADER_END: Final = b"\x67version\x01"
_HEADER_BYTES: Final = 1 + len(_HEADER_START) + BINARY_BYTES + len(_HEADER_END)
#: A length of at most nine bytes, and a CID.
_SECTION_HEAD_BYTES: Final = 9 + BINARY_BYTES

Part: TypeAlias = Callable[[int, int], Buffer]


def header(root: Cid) -> bytes:
    """The header of a CAR with one root."""
    body = _HEADER_START + bytes(root) + _HEADER_END
    return varint(len(body)) + body


def section_head(cid: Cid, length_bytes: int) -> bytes:
    """What stands before a block of ``length_bytes``."""
    return varint(BINARY_BYTES + length_bytes) + bytes(cid)


def length(dag: Dag, blocks: Iterable[tuple[Cid, int]]) -> int:
    """Bytes of the CAR that holds these blocks of a file."""
    total = len(header(dag.root))
    for cid, leaf in blocks:
        size = len(dag.nodes[cid]) if leaf < 0 else dag.leaf_span(leaf)[1]
        total += len(section_head(cid, size)) + size
    return total


def write(dag: Dag, block: Callable[[Cid, int], Iterable[Buffer]]) -> Iterator[Buffer]:
    """A file as a CAR, depth first, each block once.

    Args:
        block: gives the bytes of a leaf, in one or more buffers, by CID and leaf index.
    """
    yield header(dag.root)
    for cid, leaf in dag.walk():
        if leaf < 0:
            yield section_head(cid, len(dag.nodes[cid])) + dag.nodes[cid]
        else:
            yield section_head(cid, dag.leaf_span(leaf)[1])
            yield from block(cid, leaf)


def read(data: Buffer, max_bytes: int) -> tuple[Dag, bytes]:
    """A file out of a CAR in memory: its shape and its bytes. See :func:`scan`."""
    view = memoryview(data).cast("B")
    dag, leaves = scan(lambda at, size: view[at : at + size], view.nbytes, max_bytes)
    return dag, b"".join(view[at : at + size] for at, size in leaves)


def scan(part: Part, length_bytes: int, max_bytes: int) -> tuple[Dag, list[tuple[int, int]]]:
    """Read a CAR where it lies: the file's shape, and where in the CAR each leaf is: offset and length, in file order.

    Every block is checked. Blocks may come in any order; those of another file are refused. One block at a time is in
    memory.

    Args:
        part: ``(offset, length)`` -> these bytes of the CAR, fewer at its end.

    Raises:
        ContentMismatch: cut short, another header, a block altered, missing, doubled or not of this file.
        ContentMalformed: larger than ``max_bytes``, or not a file of the profile.
    """
    root, at = _read_header(bytes(part(0, _HEADER_BYTES)))
    most_blocks = _most_blocks(max_bytes)
    spans: dict[Cid, tuple[int, int]] = {}
    while at < length_bytes:
        head = bytes(part(at, _SECTION_HEAD_BYTES))
        try:
            size, skip = read_varint(head, 0)
        except (ValueError, IndexError) as cause:
            raise ContentMismatch(f"the CAR is cut short or altered at byte {at}; fetch it again") from cause
        cid = _section_cid(head[skip : skip + BINARY_BYTES], at + skip)
        start, size = at + skip + BINARY_BYTES, size - BINARY_BYTES
        bound = CHUNK_BYTES if cid.codec == "raw" else MAX_NODE_BYTES
        if start + size > length_bytes or not 0 <= size <= bound or cid in spans:
            raise ContentMismatch(f"the CAR is cut short, or has a doubled or oversized block at byte {at}")
        if len(spans) == most_blocks:
            raise ContentMismatch(f"the CAR has more blocks than a file of {max_bytes} bytes")
        _checked(cid, part(start, size))
        spans[cid] = start, size
        at = start + size
    return _file(root, spans, part, max_bytes)


def _checked(cid: Cid, block: Buffer) -> Buffer:
    if hashlib.sha256(block).digest() != cid.digest:
        raise ContentMismatch(f"block {cid} in the CAR was altered; fetch it again")
    return block


def _most_blocks(max_bytes: int) -> int:
    """Blocks of the largest file that is accepted: its leaves, and nodes above them."""
    leaves = max(1, -(-max_bytes // CHUNK_BYTES))
    # Each level has a thousandth of the one below it; one more node for each level's last, and for the root.
    return leaves + leaves // 512 + 8


def _file(
    root: Cid, spans: dict[Cid, tuple[int, int]], part: Part, max_bytes: int
) -> tuple[Dag, list[tuple[int, int]]]:
    try:
        if root.codec == "raw":
            dag = Dag(root, spans[root][1], (root.digest,), {})
        else:
            dag = assemble(root, lambda cid: bytes(_checked(cid, part(*spans[cid]))), max_bytes)
        leaves = [spans[Cid("raw", leaf)] for leaf in dag.leaves]
    except KeyError as cause:
        raise ContentMismatch(f"the CAR lacks block {cause.args[0]} of {root}; fetch it again") from cause
    if dag.size_bytes > max_bytes:
        raise ContentTooLarge(f"{root} holds {dag.size_bytes} bytes, expected at most {max_bytes}")
    if len(spans) != len(set(dag.leaves)) + len(dag.nodes):
        raise ContentMismatch(f"the CAR holds blocks that are not of {root}")
    for index, (_, size) in enumerate(leaves):
        if size != dag.leaf_span(index)[1]:
            raise ContentMalformed(f"leaf {index} of {root} has {size} bytes, expected {dag.leaf_span(index)[1]}")
    return dag, leaves


def _read_header(raw: bytes) -> tuple[Cid, int]:
    wanted = _HEADER_BYTES - 1
    body = raw[1:]
    start, end = body[: len(_HEADER_START)], body[len(_HEADER_START) + BINARY_BYTES :]
    if raw[:1] != varint(wanted) or start != _HEADER_START or end != _HEADER_END:
        raise ContentMismatch("got no CARv1 header with one CIDv1 root; expected one")
    return _section_cid(body[len(_HEADER_START) :][:BINARY_BYTES], 1 + len(_HEADER_START)), 1 + wanted


def _section_cid(binary: bytes, at: int) -> Cid:
    try:
        return Cid.decode(binary)
    except UsageError as cause:
        raise ContentMismatch(f"the CAR is cut short or holds another kind of block at byte {at}: {cause}") from cause
