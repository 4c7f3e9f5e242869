"""Put a peer together: key, ledger, content store, gateway, genesis, data and trainer, each checked as it is opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fl_node import keys
from fl_node.access import deployed
from fl_node.budget import Account
from fl_node.coherence import IN_THE_CLEAR
from fl_node.config import WILDCARDS, NodeConfig
from fl_node.content.endpoints import as_announced
from fl_node.content.factory import open_store
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.meter import FILE_NAME as TRAFFIC_NAME
from fl_node.content.meter import Meter
from fl_node.content.names import cid_of_genesis
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import CHUNK_BYTES, cid_of
from fl_node.decoding import Recent
from fl_node.errors import (
    ContentError,
    ContentMismatch,
    ContentUnavailable,
    MalformedWeights,
    NotAMember,
    SpecError,
    StoreFull,
    StoreUnreachable,
    UsageError,
    WrongLedger,
)
from fl_node.journal import Journal
from fl_node.key_keeping import Secrecy
from fl_node.ledger.checkpoint import MAX_NOTE_BYTES
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.note_folder import NoteFolder
from fl_node.ledger.rpc import RpcLedger
from fl_node.ledger.sender import Patience
from fl_node.log_routes import log_routes
from fl_node.merging import weights
from fl_node.merging.arithmetic import self_test
from fl_node.merging.personal import published, shared_schema
from fl_node.merging.weights import Schema, Tensors
from fl_node.own_layers import OwnLayers
from fl_node.peer import Peer
from fl_node.prefix import PeerFacts, Prefix
from fl_node.progress import Emit, Event, Stopwatch
from fl_node.residual import Residuals
from fl_node.serving import Announced, gateway_of
from fl_node.spec import Federation, check_code, genesis_path
from fl_node.training_step import trainings_drafted, trainings_of
from fl_node.witness import Witness

if TYPE_CHECKING:
    from fl_node.learning.training import Trainer

GENESIS_LABEL = "genesis"
SPEC_LABEL = "spec"
INDEX_NAME = "index.sqlite"
_MAX_GENESIS_BYTES = 1 << 40
_RECENT_BYTES = 256 << 20
_ASK_S = 2.0
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.2, 10.0


@contextmanager
def assembled(
    config: NodeConfig, emit: Emit, stop: threading.Event, password: str | None = None
) -> Iterator[tuple[Peer, Gateway]]:
    """A peer ready to play rounds, and its gateway; both closed on leaving.

    Raises:
        FlNodeError: whatever keeps this peer from taking part, before anything is announced.
    """
    with ExitStack() as stack:
        federation, deployment = deployed(config)
        if not config.endpoint and config.host in WILDCARDS:
            raise UsageError(
                f"host = {config.host} listens everywhere, but is no address that others can ask; say with --endpoint "
                "at which URL they reach this peer"
            )
        state = _state_folder(config.state_path)
        self_test()
        signer = _unlocked(config, password)
        signer.check_chain(deployment.chain_id)
        watch = Stopwatch()
        with watch.phase("connect"):
            patience = Patience(deadline_s=config.retry_s)
            ledger = RpcLedger(deployment, federation.digest, signer, state, patience=patience)
            stack.callback(ledger.close)
            for settled in ledger.recover():
                emit(Event("recovered", f"left open by an earlier run: {settled.label} is {settled.outcome}", {}))
            index = LedgerIndex(state / INDEX_NAME, ledger, federation.spec.rounds.depth)
            stack.callback(index.close)
            index.sync()
            prefix = Prefix(index.entries())
        ledger_name = f"{deployment.chain_id}/{ledger.identity.address}"
        number = _member_number(prefix, ledger.account)
        store = open_store(config.content, state / "content", config.ipfs_api)
        stack.callback(store.close)
        meter = Meter(state / TRAFFIC_NAME)
        stack.callback(meter.close)
        content = federation.spec.content
        fetcher = stack.enter_context(
            Fetcher(content.allow_networks, timeout_s=content.fetch_timeout_s, claim=number, meter=meter)
        )
        known = Announced(lambda: prefix)
        meter.identify(known.whose)

        def initial() -> Tensors:
            """Asked for by the first round only, so it does not stay in memory."""
            return load_genesis(federation, prefix, store, fetcher, own=number)

        with watch.phase("genesis"):
            keep_spec(federation, store)
            schema = weights.schema_of(initial())
            shared = shared_schema(federation.spec, schema)
        with watch.phase("data"):
            trainer = trainer_of(
                config, federation, number, schema, account_of(federation, state, ledger_name, prefix, number)
            )
        if trainer.privacy is not None:
            emit(Event("privacy", *trainer.privacy.summary()))
        # Others' deltas build on what was decoded lately.
        lossy = federation.spec.encoding.kind in ("int8-delta", "top-k-delta")
        secrecy = _secrecy(federation, state, signer, emit)
        notes = NoteFolder(state / "checkpoints")
        # A connection of its own: whoever asks for tiles must not have a round wait for the index.
        log = LogStore(state / INDEX_NAME)
        stack.callback(log.close)
        routes = log_routes(log, notes)
        gateway = stack.enter_context(gateway_of(config, federation.spec, store, emit, routes=routes, meter=meter))
        peer = Peer(
            spec=federation.spec,
            number=number,
            ledger=ledger,
            index=index,
            prefix=prefix,
            store=store,
            fetcher=fetcher,
            trainer=trainer,
            schema=shared,
            genesis=lambda: published(federation.spec, initial()),
            journal=Journal(state, ledger_name),
            watch=watch,
            emit=emit,
            stop=stop,
            meter=meter,
            own_layers=OwnLayers(federation.spec, initial, state, ledger_name),
            secrecy=secrecy,
            residuals=Residuals(state, ledger_name) if lossy else None,
            verified=Recent(_RECENT_BYTES) if lossy else None,
        )
        known = Announced(lambda: peer.prefix)
        meter.identify(known.whose)
        if config.checkpoint_every:
            stack.enter_context(_witness(config, log, signer, notes, fetcher, known, emit))
        emit(Event("ready", f"peer {number} at {gateway.endpoint}", {"peer": number, "endpoint": gateway.endpoint}))
        yield peer, gateway


def _secrecy(federation: Federation, state: Path, signer: keys.Signer, emit: Emit) -> Secrecy | None:
    if not federation.spec.privacy.encrypt:
        emit(Event("in-the-clear", f"WARNING: {IN_THE_CLEAR}", {}))
        return None
    return Secrecy.of(state, signer, lambda text: emit(Event("vault", text, {})))


def keep_spec(federation: Federation, store: ContentStore) -> None:
    """Serve the spec by its digest, for ever: who has no more than the contract's address gets the rules as well."""
    spec = federation.spec_bytes
    if len(spec) <= CHUNK_BYTES:  # a larger one has no CID that follows from its digest
        store.add(spec, label=SPEC_LABEL, durable=False)


def load_genesis(
    federation: Federation, prefix: Prefix, store: ContentStore, fetcher: Fetcher, own: int = 0
) -> Tensors:
    """The initial weights: from the store, from beside the federation file, or from any peer; checked and kept.

    Raises:
        ContentUnavailable: nobody has them now.
        WrongLedger: they are not the weights that the contract names.
    """
    opened = prefix.opened
    cid = cid_of_genesis(opened)
    data = None
    if store.has(cid):
        with suppress(ContentUnavailable, ContentMismatch):  # damaged on this disk: as good as absent
            data = store.get(cid, _MAX_GENESIS_BYTES)
    beside = genesis_path(federation.path) if federation.path else None
    if data is None and beside is not None and beside.is_file():
        with suppress(OSError):
            content = beside.read_bytes()
            if cid_of(content) == cid:
                store.add(content, label=GENESIS_LABEL)
                data = content
    if data is None:
        endpoints = [
            as_announced(facts.announcement.endpoint, facts.announcement.tls_pin)
            for facts in prefix.peers()
            if facts.announcement is not None and facts.number != own
        ]
        try:
            data = fetcher.fetch_into(store, cid, _MAX_GENESIS_BYTES, endpoints, label=GENESIS_LABEL)
        except (StoreFull, StoreUnreachable):
            raise
        except ContentError as cause:
            raise ContentUnavailable(
                f"no peer gives the genesis weights {cid}: {cause}; put the deployer's copy at {beside}, "
                "or start again when another peer is up"
            ) from cause
    try:
        tensors = weights.decode(data).tensors
    except MalformedWeights as cause:
        raise WrongLedger(f"the genesis weights {cid} cannot be read: {cause}; the deployment is broken") from cause
    if (digest := weights.digest(tensors)) != opened.genesis_weights:
        raise WrongLedger(
            f"the genesis weights have digest {digest.hex()}, expected {opened.genesis_weights.hex()} from the "
            "contract; the deployment is broken"
        )
    return tensors


def _witness(
    config: NodeConfig,
    log: LogStore,
    signer: keys.Signer,
    notes: NoteFolder,
    fetcher: Fetcher,
    known: Announced,
    emit: Emit,
) -> Witness:
    def ask(text: str) -> bytes:
        *others, last = known.at(text)
        for endpoint in others:
            with suppress(ContentError):
                return fetcher.document("/checkpoint", MAX_NOTE_BYTES, endpoint, timeout_s=_ASK_S)
        return fetcher.document("/checkpoint", MAX_NOTE_BYTES, last, timeout_s=_ASK_S)

    period_s = min(max(config.poll_s, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)
    return Witness(log, signer, notes, ask, emit, every=config.checkpoint_every, period_s=period_s)


def _state_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise StoreFull(
            f"cannot make the state folder {folder}: {cause.strerror}; name another with --state"
        ) from cause
    return folder


def _unlocked(config: NodeConfig, password: str | None) -> keys.Signer:
    if password is not None:
        return keys.load(config.key_path, password)
    return keys.unlock(config.key_path, Path(config.password_file) if config.password_file else None)


def _member_number(prefix: Prefix, account: str) -> int:
    facts = prefix.peer_of(account)
    if facts is None:
        raise NotAMember(
            f"{account} is not a member of this federation; give this address to the coordinator, who admits it with "
            f"`fl-node admit {account} --site SITE`"
        )
    check_membership(facts)
    return facts.number


def check_membership(facts: PeerFacts) -> None:
    """Raise NotAMember for a member that may not publish (any more)."""
    account = facts.account
    if facts.retirement is not None:
        raise NotAMember(
            f"{account} (peer {facts.number}) was retired at entry {facts.retirement.index}: "
            f"{facts.retirement.reason}; ask the coordinator to admit a new address for your site"
        )
    if not facts.publishes:
        raise NotAMember(
            f"{account} (peer {facts.number}) may not publish; ask the coordinator for that role. To read and to audit "
            "takes no running node: `fl-node keys rotate`, `fl-node audit --state`"
        )


def account_of(federation: Federation, state: Path, ledger: str, prefix: Prefix, number: int) -> Account | None:
    """The account of the privacy budget, held against what the ledger and the journal have of this peer; ``None``
    without a mechanism.

    Raises:
        BudgetSpent: it is damaged, or does not know of an update that is there.
    """
    spec = federation.spec
    if spec.privacy.mechanism == "none":
        return None
    account = Account(state, ledger)
    account.check(trainings_of(spec, prefix, number))
    account.check(trainings_drafted(spec, Journal(state, ledger)), "the journal")
    return account


def trainer_of(
    config: NodeConfig, federation: Federation, number: int, schema: Schema | None, account: Account | None
) -> Trainer:
    """The rows, the model and the training of a peer, checked against the spec and each other.

    Args:
        schema: of the genesis weights; ``None`` where they are not at hand.

    Raises:
        SpecError, DataError, UsageError: what does not fit, or is not installed.
    """
    # torch is imported here, and by no module that an auditor or a reader needs.
    from fl_node.learning.data import load
    from fl_node.learning.models import genesis as initial_weights
    from fl_node.learning.splits import split
    from fl_node.learning.training import Trainer

    spec = federation.spec
    check_code(spec, config.allow_code)
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    folder = Path(config.data_dir) if config.data_dir else None
    splits = split(load(config.data or spec.task.data, spec.task, folder), spec.task)
    ours = weights.schema_of(initial_weights(spec))
    if schema is not None and ours != schema:
        raise SpecError(
            f"the model {spec.model.name} has other tensors than the genesis weights: {sorted(ours)}, expected "
            f"{sorted(schema)}; use the same model code as the deployer"
        )
    return Trainer(spec, splits, number, config.device, config.state_path / "optimizer", account)
