"""CARv1: a file's blocks as one stream. Source: ipld.io/specs/transport/car/carv1."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fl_node.content.cid import BINARY_BYTES, Cid
from fl_node.content.unixfs import CHUNK_BYTES, MAX_NODE_BYTES, Buffer, Dag, assemble, read_varint, varint
from fl_node.errors import ContentMalformed, ContentMismatch, UsageError

# {"roots": [42(h'00' || cid)], "version": 1} in dag-cbor, without and with the one root.
_HEADER_START: Final = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_HEADER_END: Final = b"\x67version\x01"


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
    """A file out of a CAR: its shape and its bytes, every block checked. Blocks in any order; others are refused.

    Raises:
        ContentMismatch: cut short, another header, a block altered, missing, doubled or not of this file.
        ContentMalformed: larger than ``max_bytes``, or not a file of the profile.
    """
    view = memoryview(data).cast("B")
    root, at = _read_header(view)
    blocks: dict[Cid, memoryview] = {}
    while at < view.nbytes:
        try:
            size, start = read_varint(bytes(view[at : at + 9]), 0)
        except (ValueError, IndexError) as cause:
            raise ContentMismatch(f"the CAR is cut short or altered at byte {at}; fetch it again") from cause
        start += at
        block = view[start + BINARY_BYTES : start + size]
        cid = _section_cid(bytes(view[start : start + BINARY_BYTES]), start)
        bound = CHUNK_BYTES if cid.codec == "raw" else MAX_NODE_BYTES
        if start + size > view.nbytes or not 0 <= size - BINARY_BYTES <= bound or cid in blocks:
            raise ContentMismatch(f"the CAR is cut short, or has a doubled or oversized block at byte {at}")
        if hashlib.sha256(block).digest() != cid.digest:
            raise ContentMismatch(f"block {cid} in the CAR was altered; fetch it again")
        blocks[cid] = block
        at = start + size
    return _file(root, blocks, max_bytes)


def _file(root: Cid, blocks: dict[Cid, memoryview], max_bytes: int) -> tuple[Dag, bytes]:
    try:
        if root.codec == "raw":
            dag = Dag(root, blocks[root].nbytes, (root.digest,), {})
        else:
            dag = assemble(root, lambda cid: bytes(blocks[cid]), max_bytes)
        leaves = [blocks[Cid("raw", leaf)] for leaf in dag.leaves]
    except KeyError as cause:
        raise ContentMismatch(f"the CAR lacks block {cause.args[0]} of {root}; fetch it again") from cause
    if dag.size_bytes > max_bytes:
        raise ContentMalformed(f"{root} holds {dag.size_bytes} bytes, expected at most {max_bytes}")
    if len(blocks) != len(set(dag.leaves)) + len(dag.nodes):
        raise ContentMismatch(f"the CAR holds blocks that are not of {root}")
    for index, leaf in enumerate(leaves):
        if leaf.nbytes != dag.leaf_span(index)[1]:
            raise ContentMalformed(
                f"leaf {index} of {root} has {leaf.nbytes} bytes, expected {dag.leaf_span(index)[1]}"
            )
    return dag, b"".join(leaves)


def _read_header(view: memoryview) -> tuple[Cid, int]:
    wanted = len(_HEADER_START) + BINARY_BYTES + len(_HEADER_END)
    body = bytes(view[1 : 1 + wanted])
    start, end = body[: len(_HEADER_START)], body[len(_HEADER_START) + BINARY_BYTES :]
    if bytes(view[:1]) != varint(wanted) or start != _HEADER_START or end != _HEADER_END:
        raise ContentMismatch("got no CARv1 header with one CIDv1 root; expected one")
    return _section_cid(body[len(_HEADER_START) :][:BINARY_BYTES], 1 + len(_HEADER_START)), 1 + wanted


def _section_cid(binary: bytes, at: int) -> Cid:
    try:
        return Cid.decode(binary)
    except UsageError as cause:
        raise ContentMismatch(f"the CAR is cut short or holds another kind of block at byte {at}: {cause}") from cause
