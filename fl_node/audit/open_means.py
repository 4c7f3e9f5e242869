"""Means from a chain: a federation file, or nothing but an endpoint and an address."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.audit.gateways import GatewayBlobs, announced, sources
from fl_node.audit.means import Means
from fl_node.audit.memory import MemoryTransactions
from fl_node.audit.tiled import from_tiles, identity_of
from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.errors import (
    ChainUnavailable,
    ContentError,
    InconsistentLog,
    LedgerError,
    MalformedEvidence,
    SpecError,
    UsageError,
)
from fl_node.ledger import tree
from fl_node.ledger.abi import address_bytes
from fl_node.ledger.breaches import breaches
from fl_node.ledger.chain_look import RpcBlocks, RpcTransactions
from fl_node.ledger.checkpoint import MAX_NOTE_BYTES, Checkpoint, SignedCheckpoint, parse, parse_all
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, quantity
from fl_node.prefix import Prefix
from fl_node.records import Entry, LedgerOpened
from fl_node.spec import MOST_BYTES, Deployment, Federation, genesis_path, parse_federation, read_federation

_MOST_NOTES_BYTES: Final = 1 << 22
_CATCH_UP_S: Final = (0.0, 0.3, 1.0)
_CONFIRMATIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Where:
    """What the auditor named.

    Attributes:
        federation: the deployed federation file; with ``contract``, it is not looked at.
        rpc: endpoint; empty takes the file's hint.
        contract: address, instead of a file.
        content: gateways and folders.
        checkpoints: files of signed checkpoints.
        tiles: gateway whose tiles the log is read from, for endpoints that have pruned their logs.
        depth: blocks on top of an entry; ``None``: the spec's.
        work: folder for the audit's own index, and for bytes on their way; ``None``: memory.
    """

    federation: Path
    rpc: str = ""
    contract: str | None = None
    content: Sequence[str] = ()
    checkpoints: Sequence[Path] = ()
    tiles: str = ""
    depth: int | None = None
    work: Path | None = None


@contextmanager
def means_of(where: Where) -> Iterator[Means]:
    """Follow the ledger to its head and put together all that an audit looks at.

    Raises:
        UsageError, SpecError: what was named cannot be used.
        ChainUnavailable, WrongLedger: no ledger there.
        InconsistentLog: the endpoint's entries do not have the contract's root.
        MalformedEvidence: a checkpoint file that is none.
    """
    notes = [note for path in where.checkpoints for note in notes_in(path)]
    federation, deployment = _named(where, notes)
    ours = [note for note in notes if _is_of(note.checkpoint, deployment.contract)]
    stores, given = sources(where.content)
    rpc = Rpc(deployment.rpc)
    depth = where.depth if where.depth is not None else federation.spec.rounds.depth if federation else 0
    with ExitStack() as stack:
        reader = _reader(deployment, rpc, where, ours)
        if reader is not None:
            stack.callback(reader.close)
        if where.tiles or reader is None:
            index, on_chain = from_tiles(where.tiles, reader, ours, depth)
            entries = index.entries()
        else:
            index, entries = _from_chain(where, reader, depth)
            on_chain = index.size
        stack.callback(index.close)
        prefix = folded(entries)
        beside = None if where.contract else _beside(where.federation)
        blobs = GatewayBlobs(
            stores=[*stores, *([] if beside is None else [beside])],
            given=given,
            announced=announced(prefix),
            scratch=where.work,
        )
        stack.callback(blobs.close)
        if federation is None:
            federation = spec_of(prefix, blobs)
        if federation is not None:
            blobs.follow(federation.spec.content)
        served, head = _served(blobs), index.head
        if reader is not None and not where.tiles:
            _catch_up(index, max((note.checkpoint.size for note in served), default=0))
        # What the auditor named counts as named, whoever serves it, too.
        named = {note.note for note in notes}
        served = [note for note in _judged_by(index, reader, served) if note.note not in named]
        if index.head != head:
            entries = index.entries()
            prefix = folded(entries)
        recheck(index, entries)
        opened = prefix.opened
        identity = identity_of(opened) if reader is None else reader.identity
        yield Means(
            identity=identity,
            federation=federation,
            log=index,
            prefix=prefix,
            entries=entries,
            breaches=breaches(entries),
            transactions=MemoryTransactions({}) if reader is None else RpcTransactions(rpc),
            blocks=None if reader is None else RpcBlocks(rpc, identity.address),
            blobs=blobs,
            checkpoints=(*notes, *served),
            depth=depth,
            rpc="" if reader is None else rpc.place,
            served=frozenset(note.note for note in served),
            on_chain=on_chain,
        )


def _reader(deployment: Deployment, rpc: Rpc, where: Where, notes: Sequence[SignedCheckpoint]) -> RpcReader | None:
    """The chain, or ``None`` where it does not answer and tiles and a checkpoint can stand in for it."""
    try:
        return RpcReader(deployment, None, rpc)
    except ChainUnavailable:
        if where.tiles and notes:
            return None
        raise


def _served(blobs: GatewayBlobs) -> list[SignedCheckpoint]:
    """What peers signed last, as far as their gateways give it. What is no checkpoint is nobody's."""
    found = []
    for raw in blobs.documents("/checkpoint", MAX_NOTE_BYTES).values():
        with suppress(MalformedEvidence):
            found.append(parse(raw))
    return found


def _catch_up(index: LedgerIndex, size: int) -> None:
    """Follow the chain to where the peers' checkpoints are: they may have signed since."""
    for pause_s in _CATCH_UP_S:
        if index.size >= size:
            return
        time.sleep(pause_s)
        index.sync()


def _judged_by(index: LedgerIndex, reader: RpcReader | None, served: list[SignedCheckpoint]) -> list[SignedCheckpoint]:
    """Served checkpoints that this log can speak of. Of those that are ahead of it only such count as the chain does
    not have at all: the others are not deep enough yet, or were signed since. Without a chain the log ends where a
    checkpoint that was given does, and what was signed later is later."""
    if all(note.checkpoint.size <= index.size for note in served):
        return served
    on_chain = 2**63 if reader is None else reader.head(0, fresh=True).size
    return [note for note in served if not index.size < note.checkpoint.size <= on_chain]


def confirm(index: LedgerIndex, reader: RpcReader, depth: int) -> None:
    """Ask the contract again for the root at the block where the index stands: a file that was there before, and is at
    that block already, has only itself to vouch for it.

    Raises:
        InconsistentLog: the contract has another root.
        ChainUnavailable: the endpoint is behind, or moves too fast.
    """
    for _ in range(_CONFIRMATIONS):
        head, known = reader.head(depth, fresh=True), index.head
        if head.block_hash == known.block_hash:
            if (head.size, head.root) != (index.size, index.root()):
                raise InconsistentLog(
                    f"the local index has {index.size} entries with root {index.root().hex()}, expected {head.size} "
                    f"with root {head.root.hex()} as the contract: the file was altered; delete it and start again"
                )
            return
        index.sync()  # the chain moved meanwhile
    raise ChainUnavailable(
        f"the endpoint is at block {head.block_number}, which is before block {known.block_number}, where it was "
        "earlier; wait until it has caught up, or use another one"
    )


def recheck(log: LogStore, entries: Sequence[Entry]) -> None:
    """Hash the whole log again, from raw topics and data, so that nothing rests on what a file on disk says.

    Raises:
        InconsistentLog: the entries do not have the root that was checked against the contract's.
    """
    frontier = tree.Frontier()
    for entry in entries:
        frontier.append(tree.entry_leaf(entry.topics, entry.data))
    if frontier.root != log.root():
        raise InconsistentLog(
            f"the {len(entries)} entries of the local index have root {frontier.root.hex()}, expected "
            f"{log.root().hex()}: the file was altered; delete it and start again"
        )


def folded(entries: Sequence[Entry]) -> Prefix:
    """The log folded, up to the first entry that no contract of ours can have made.

    Raises:
        InconsistentLog: not even entry 0 can be read.
    """
    try:
        prefix = Prefix(entries)
    except InconsistentLog:
        prefix = _up_to_the_bad_one(entries)
    if not entries or not isinstance(entries[0].body, LedgerOpened):
        raise InconsistentLog("the log has no entry 0 that opens a ledger; expected one: is this a model ledger?")
    return prefix


def _up_to_the_bad_one(entries: Sequence[Entry]) -> Prefix:
    prefix = Prefix()
    for entry in entries:
        try:
            prefix = prefix.extend([entry])
        except InconsistentLog:
            break
    return Prefix(entries[: prefix.size])


def spec_of(prefix: Prefix, blobs: GatewayBlobs) -> Federation | None:
    """The spec by its digest, from whoever serves it: its CID follows from what entry 0 holds."""
    cid = Cid("raw", prefix.opened.spec_digest)
    try:
        raw = bytes(blobs.hold(cid, MOST_BYTES).data)
        return parse_federation(raw, f"the spec {cid}")
    except (ContentError, SpecError):
        return None


def _named(where: Where, notes: Sequence[SignedCheckpoint]) -> tuple[Federation | None, Deployment]:
    if where.contract is None:
        federation = read_federation(where.federation)
        deployment = federation.deployment
        if deployment is None:
            raise SpecError(
                f"{where.federation} is a spec without a [deployment]; expected the deployed federation file, or "
                "--rpc and --contract"
            )
        if where.rpc:
            deployment = deployment.model_copy(update={"rpc": where.rpc})
        _check_address(deployment.contract)
        return federation, deployment
    if not where.rpc:
        raise UsageError(f"--contract {where.contract}: expected --rpc URL with it, an endpoint of its chain")
    _check_address(where.contract)
    try:
        chain_id = quantity(Rpc(where.rpc).call("eth_chainId"))
    except ChainUnavailable:
        signed = next((note for note in notes if _is_of(note.checkpoint, where.contract)), None)
        if signed is None or not where.tiles:
            raise
        chain_id = signed.checkpoint.chain_id
    return None, Deployment(chain_id=chain_id, contract=where.contract, first_block=0, rpc=where.rpc)


def _is_of(checkpoint: Checkpoint, contract: str) -> bool:
    return checkpoint.contract.lower() == contract.lower()


def _check_address(contract: str) -> None:
    try:
        address_bytes(contract)
    except ValueError as cause:
        raise UsageError(f"the contract's address: {cause}") from cause


def _from_chain(where: Where, reader: RpcReader, depth: int) -> tuple[LedgerIndex, list[Entry]]:
    """The log at the chain's head, in an index of the audit's own, so that another depth, or another program's, does no
    harm; in memory where it cannot be kept on a disk or read from it again.

    Raises:
        InconsistentLog, ChainUnavailable: as :meth:`LedgerIndex.sync`.
    """
    if where.work is not None:
        try:
            return _followed(where.work / f"log-{depth}.sqlite", reader, depth)
        except (InconsistentLog, ChainUnavailable):
            raise
        except (LedgerError, sqlite3.Error):
            pass
    return _followed(":memory:", reader, depth)


def _followed(path: Path | str, reader: RpcReader, depth: int) -> tuple[LedgerIndex, list[Entry]]:
    index = LedgerIndex(path, reader, depth)
    try:
        index.sync()
        confirm(index, reader, depth)
        return index, index.entries()
    except BaseException:
        index.close()
        raise


def _beside(file: Path) -> MemoryStore | None:
    """The genesis beside the federation file, if it is there."""
    with suppress(OSError):
        store = MemoryStore()
        store.add(genesis_path(file).read_bytes(), label="genesis")
        return store
    return None


def notes_in(path: Path) -> list[SignedCheckpoint]:
    """Signed checkpoints in a file.

    Raises:
        UsageError: no such file.
        MalformedEvidence: something else in it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_NOTES_BYTES + 1)
    except OSError as cause:
        raise UsageError(f"cannot read the checkpoint {path}: {cause.strerror}; name a file that is there") from cause
    if len(raw) > _MOST_NOTES_BYTES:
        raise MalformedEvidence(f"{path} has more than {_MOST_NOTES_BYTES:,} bytes; expected checkpoints")
    try:
        return parse_all(raw)
    except MalformedEvidence as cause:
        raise MalformedEvidence(f"{path}: {cause}") from cause
