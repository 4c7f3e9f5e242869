"""What the processes of a demo do: open the federation, be a peer, train a baseline, judge the final models.

Each takes ``send`` first: a way to talk to the parent.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fl_node import keys
from fl_node.chains import FUNDERS, ChainKind, set_balance
from fl_node.config import NodeConfig
from fl_node.content.factory import open_store
from fl_node.content.names import cid_of_update
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import Buffer
from fl_node.decoding import Decoder, most_content_bytes
from fl_node.demo.result import Judged, OnChain, Packed
from fl_node.deployment import open_federation, write_genesis
from fl_node.key_keeping import Secrecy
from fl_node.learning.data import load
from fl_node.learning.dataset import joined
from fl_node.learning.models import genesis
from fl_node.learning.splits import Splits, split
from fl_node.learning.training import Trainer
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.rpc import RpcLedger, RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.merging import weights
from fl_node.merging.personal import published, shared_schema
from fl_node.node import run
from fl_node.own_layers import OwnLayers
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.progress import Ended
from fl_node.records import Member
from fl_node.spec import Federation, genesis_path, read_federation

PASSWORD = "demo"  # noqa: S105 (a throw-away key on a throw-away chain)
_FUND_WEI = 10 * 10**18

Send = Callable[[Any], None]


def open_on_chain(
    send: Send, kind: ChainKind, rpc_url: str, spec_file: Path, out: Path, states: Sequence[Path]
) -> OnChain:
    """Make the peers' keys, write the genesis, deploy, admit and fund."""
    federation = read_federation(spec_file)
    members = []
    for state in states:
        key = state / "key.json"
        signer = keys.load(key, PASSWORD) if key.exists() else keys.create(key, PASSWORD, light=True)
        members.append(Member(signer.address, state.name))
    genesis_weights = write_genesis(federation.spec, genesis_path(out))
    deployer = keys.from_private_key(FUNDERS[0][1])
    opened = open_federation(federation, Rpc(rpc_url), deployer, genesis_weights, members=members, out=out)
    for member in members:
        set_balance(rpc_url, kind, member.account, _FUND_WEI)
    made = opened.federation.deployment
    assert made is not None
    return OnChain(made.contract, made.chain_id, opened.gas_used)


def be_peer(send: Send, config: NodeConfig) -> Ended:
    """The same run as ``fl-node run`` with these settings."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return run(config, send, stop, PASSWORD)


def retire_peer(send: Send, federation_file: Path, number: int) -> None:
    """Retire a peer whose process is gone, with the owner's key."""
    federation = read_federation(federation_file)
    assert federation.deployment is not None
    ledger = RpcLedger(federation.deployment, federation.digest, keys.from_private_key(FUNDERS[0][1]))
    try:
        ledger.retire(ledger.peer(number).account, "its process ended", ledger.head().size)
    finally:
        ledger.close()


def judge(send: Send, federation_file: Path, states: Sequence[Path], test_file: Path) -> Judged:
    """Read the finished ledger and score every peer's closing model, from the bytes in its own store."""
    federation = read_federation(federation_file)
    assert federation.deployment is not None
    reader = RpcReader(federation.deployment, federation.digest)
    index = LedgerIndex(federation_file.with_suffix(".sqlite"), reader)
    index.sync()
    prefix = Prefix(index.entries())
    test = load(f"npz:{test_file}", federation.spec.task)
    judgement = Trainer(federation.spec, Splits(test, test, test), 0, "cpu")
    initial = genesis(federation.spec)
    schema = shared_schema(federation.spec, weights.schema_of(initial))
    shared_start = published(federation.spec, initial)
    most = most_content_bytes(federation.spec, schema)
    accuracies: list[float | None] = []
    for number, state in enumerate(states, start=1):
        last = prefix.latest(number)
        if last is None or not last.final:
            accuracies.append(None)
            continue
        store = open_store("embedded", state / "content")
        opener = Secrecy.of(state, keys.load(state / "key.json", PASSWORD)) if federation.spec.privacy.encrypt else None
        decoder = Decoder(federation.spec, schema, lambda: shared_start, partial(_content, store, most), opener)
        shared = decoder.tensors(last, prefix)
        # Each peer's closing model is whole only with the tensors that it keeps to itself.
        ledger = f"{prefix.opened.chain_id}/{prefix.opened.ledger}"
        layers = OwnLayers(federation.spec, lambda: initial, state, ledger)
        accuracies.append(judgement.evaluate(layers.join(shared, last.ref.sequence)).quality)
        store.close()
    updates = sum(prefix.sequence(facts.number) for facts in prefix.peers())
    return Judged(tuple(accuracies), updates, index.size, index.root())


def _content(store: ContentStore, most: int, entry: UpdateEntry) -> Buffer:
    return store.get(cid_of_update(entry.update), most)


def show_explorer(send: Send, federation_file: Path, port: int) -> None:
    """The ledger explorer over the demo, until SIGTERM; tells its address.

    Forked like the peers, since what it needs to follow a chain is loaded already; flask is loaded here only.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    os.nice(10)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # the terminal is the demo's
        os.dup2(nowhere, stream)
    gc.disable()
    from ledger_ui.federation import Source
    from ledger_ui.options import Options
    from ledger_ui.serve import Explorer

    explorer = Explorer(Options(sources=(Source(federation_file),), poll_s=0.2), "127.0.0.1", port)
    gc.freeze()
    gc.enable()
    send(f"{explorer.url}{explorer.shown[0].slug}")
    explorer.run(stop.wait, leave_s=0.2)  # nobody looks any more, and the demo is not to wait


def export_pack(send: Send, federation_file: Path, states: Sequence[Path], out: Path) -> Packed:
    """Write everything into an evidence pack: from the chain, which is still up, and the peers' content folders.

    Weights are in the clear, too: of rows that everybody has, and nobody keeps the keys of a demonstration.
    """
    # Not with the module: no other process of a demo needs any of it.
    from fl_node.audit.open_means import Where, means_of
    from fl_node.evidence.layout import ALL
    from fl_node.evidence.write import export
    from fl_node.ledger.note_folder import NoteFolder

    with means_of(Where(federation_file, content=[str(state) for state in states])) as means:
        # Their gateways are gone, their folders are not.
        latest = [NoteFolder(state / "checkpoints").latest_own() for state in states]
        means = replace(means, checkpoints=tuple(note for note in latest if note is not None))
        encrypted = means.federation is not None and means.federation.spec.privacy.encrypt
        if encrypted:
            keys_of_one = Secrecy.of(states[0], keys.load(states[0] / "key.json", PASSWORD))
            means = replace(means, opener=keys_of_one)
        made = export(means, ALL, out, blobs=True, plain=encrypted)
    return Packed(str(out), made.digest.hex(), made.size, made.missing)


def train_baseline(
    send: Send, spec_file: Path, shards: Sequence[Path], test_file: Path, pooled: bool
) -> tuple[float, ...]:
    """Accuracy, of masks Dice, on the common test set of the same model and budget of rounds without a federation: one
    for each shard trained alone, or one for all shards pooled."""
    federation = read_federation(spec_file)
    task = federation.spec.task
    test = load(f"npz:{test_file}", task)
    parts = [split(load(f"npz:{shard}", task), task).train for shard in shards]
    if pooled:
        parts = [joined(parts)]
    return tuple(_alone(federation, Splits(part, part, test), number) for number, part in enumerate(parts, start=1))


def _alone(federation: Federation, splits: Splits, number: int) -> float:
    trainer = Trainer(federation.spec, splits, number, "cpu")
    model = genesis(federation.spec)
    for sequence in range(1, federation.spec.rounds.planned + 1):
        model, _ = trainer.train(model, sequence)
    return trainer.evaluate(model).quality
