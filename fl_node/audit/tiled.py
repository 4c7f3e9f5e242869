"""The log from a gateway's tiles: under the contract's root, or under a checkpoint where no chain answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fl_node.content.endpoints import Endpoint, parse_endpoint
from fl_node.content.fetch import Fetcher
from fl_node.content.http_client import NotHere
from fl_node.errors import ContentUnavailable, InconsistentLog, MalformedEvidence, UsageError
from fl_node.ledger import codec
from fl_node.ledger.checkpoint import MAX_NOTE_BYTES, SignedCheckpoint, parse
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.kept_log import KeptLog
from fl_node.ledger.protocol import LedgerIdentity
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.tiles import MAX_TILE_BYTES, TileLog
from fl_node.records import LedgerHead, LedgerOpened


def from_tiles(
    gateway: str, reader: RpcReader | None, notes: Sequence[SignedCheckpoint], depth: int
) -> tuple[LedgerIndex, int]:
    """The log from a gateway's tiles, under the contract's root or, without a chain, under the largest checkpoint; and
    how many entries the contract has (0 without a chain), for the gateway may be behind.

    Raises:
        InconsistentLog: a tile that does not lead to that root.
        ContentUnavailable: the gateway does not give them.
    """
    try:
        endpoint = parse_endpoint(gateway)
    except ContentUnavailable as cause:
        raise UsageError(f"--tiles: {cause}") from cause
    on_chain = 0
    with Fetcher(trusted=[endpoint]) as fetcher:

        def read(head: LedgerHead) -> KeptLog:
            get = partial(_tile, fetcher, endpoint)
            logs = list(TileLog(get, head.size, head.root).logs())
            first = codec.decode(logs[0].topics, logs[0].data)[2] if logs else None
            if not isinstance(first, LedgerOpened):
                raise InconsistentLog(f"the tiles of {endpoint} do not begin with an entry that opens a ledger")
            return KeptLog(identity_of(first) if reader is None else reader.identity, head, logs)

        try:
            if reader is None:
                said = max((note.checkpoint for note in notes), key=lambda checkpoint: checkpoint.size)
                kept = read(LedgerHead(said.size, said.root, said.block_number, said.block_hash))
            else:
                head = reader.head(depth)
                on_chain = head.size
                try:
                    kept = read(head)
                except NotHere:
                    kept = read(_where_a_gateway_is(fetcher, endpoint, reader, head))
        except MalformedEvidence as cause:
            raise InconsistentLog(f"the tiles of {endpoint}: {cause}") from cause
    index = LedgerIndex(":memory:", kept)
    try:
        index.sync()
    except BaseException:
        index.close()
        raise
    return index, on_chain


def _tile(fetcher: Fetcher, endpoint: Endpoint, path: str) -> bytes:
    return fetcher.document(f"/{path}", MAX_TILE_BYTES, endpoint)


def _where_a_gateway_is(fetcher: Fetcher, endpoint: Endpoint, reader: RpcReader, head: LedgerHead) -> LedgerHead:
    """The contract's size and root at the block of the gateway's own checkpoint: a peer that trains does not look at
    the chain meanwhile.

    Raises:
        ContentUnavailable: it has none, or is not behind.
    """
    behind = f"{endpoint} has no tiles of the contract's {head.size} entries"
    try:
        said = parse(fetcher.document("/checkpoint", MAX_NOTE_BYTES, endpoint)).checkpoint
    except MalformedEvidence as cause:
        raise ContentUnavailable(f"{behind}, and its checkpoint is none: {cause}; use another gateway") from cause
    if said.size >= head.size or said.block_number > head.block_number:
        raise ContentUnavailable(f"{behind}, though it signed {said.size}; use another gateway")
    return reader.head_at(said.block_number)


def identity_of(opened: LedgerOpened) -> LedgerIdentity:
    return LedgerIdentity(
        *(opened.chain_id, opened.ledger, 0, opened.spec_digest, opened.genesis_content, opened.genesis_weights),
        *(opened.genesis_flags, opened.min_interval_s),
    )
