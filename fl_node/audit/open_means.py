"""Means from a chain: a federation file, or nothing but an endpoint and an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.audit.gateways import GatewayBlobs, announced, sources
from fl_node.audit.means import Means
from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.deployment import genesis_path
from fl_node.errors import ContentError, InconsistentLog, LedgerError, MalformedEvidence, SpecError, UsageError
from fl_node.ledger import tree
from fl_node.ledger.abi import address_bytes
from fl_node.ledger.breaches import breaches
from fl_node.ledger.chain_look import RpcBlocks, RpcTransactions
from fl_node.ledger.checkpoint import SignedCheckpoint, parse
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, quantity
from fl_node.prefix import Prefix
from fl_node.records import Entry
from fl_node.spec import Deployment, Federation, parse_federation, read_federation

MOST_SPEC_BYTES: Final = 1 << 20
_MOST_NOTE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Where:
    """What the auditor named.

    Attributes:
        federation: the deployed federation file; with ``contract``, it is not looked at.
        rpc: endpoint; empty takes the file's hint.
        contract: address, instead of a file.
        content: gateways and folders.
        checkpoints: files of signed checkpoints.
        depth: blocks on top of an entry; ``None``: the spec's.
        work: folder for the audit's own index, and for bytes on their way; ``None``: memory.
    """

    federation: Path
    rpc: str = ""
    contract: str | None = None
    content: Sequence[str] = ()
    checkpoints: Sequence[Path] = ()
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
    federation, deployment = _named(where)
    stores, given = sources(where.content)
    notes = [note for path in where.checkpoints for note in _notes(path)]
    rpc = Rpc(deployment.rpc)
    reader = RpcReader(deployment, None, rpc)
    depth = where.depth if where.depth is not None else federation.spec.rounds.depth if federation else 0
    with _index(where, reader, depth) as index:
        index.sync()
        entries = index.entries()
        recheck(index, entries)
        wrong = breaches(entries)
        prefix = folded(entries)
        beside = None if where.contract else _beside(where.federation)
        if beside is not None:
            stores.append(beside)
        blobs = GatewayBlobs(
            stores=stores,
            given=given,
            announced=announced(prefix),
            allow_networks=federation.spec.content.allow_networks if federation else (),
            timeout_s=federation.spec.content.fetch_timeout_s if federation else 60.0,
            scratch=where.work,
        )
        try:
            if federation is None:
                federation = spec_of(prefix, blobs)
            yield Means(
                identity=reader.identity,
                federation=federation,
                log=index,
                prefix=prefix,
                entries=entries,
                breaches=wrong,
                transactions=RpcTransactions(rpc),
                blocks=RpcBlocks(rpc, reader.identity.address),
                blobs=blobs,
                checkpoints=tuple(notes),
                depth=depth,
                rpc=rpc.place,
            )
        finally:
            blobs.close()
            reader.close()


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
    if not prefix.size:
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
        raw = bytes(blobs.hold(cid, MOST_SPEC_BYTES).data)
        return parse_federation(raw, f"the spec {cid}")
    except (ContentError, SpecError):
        return None


def _named(where: Where) -> tuple[Federation | None, Deployment]:
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
    rpc = Rpc(where.rpc)
    chain_id = quantity(rpc.call("eth_chainId"))
    return None, Deployment(chain_id=chain_id, contract=where.contract, first_block=0, rpc=where.rpc)


def _check_address(contract: str) -> None:
    try:
        address_bytes(contract)
    except ValueError as cause:
        raise UsageError(f"the contract's address: {cause}") from cause


def _index(where: Where, reader: RpcReader, depth: int) -> LedgerIndex:
    """An index of the audit's own, so that another depth, or another program's, does no harm."""
    if where.work is None:
        return LedgerIndex(":memory:", reader, depth)
    try:
        return LedgerIndex(where.work / f"log-{depth}.sqlite", reader, depth)
    except InconsistentLog:
        raise
    except LedgerError:
        return LedgerIndex(":memory:", reader, depth)


def _beside(file: Path) -> MemoryStore | None:
    """The genesis beside the federation file, if it is there."""
    with suppress(OSError):
        store = MemoryStore()
        store.add(genesis_path(file).read_bytes(), label="genesis")
        return store
    return None


def _notes(path: Path) -> list[SignedCheckpoint]:
    try:
        raw = path.read_bytes()
    except OSError as cause:
        raise UsageError(f"cannot read the checkpoint {path}: {cause.strerror}; name a file that is there") from cause
    if len(raw) > _MOST_NOTE_BYTES:
        raise MalformedEvidence(f"{path} has {len(raw)} bytes, expected a checkpoint of at most {_MOST_NOTE_BYTES}")
    return [parse(raw)]
