"""Federations to audit: small models with everything signed, and large ones whose bytes are made when asked for."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fl_node import keys
from fl_node.audit.means import Holders, Means
from fl_node.audit.memory import MemoryBlocks, MemoryTransactions, StoreBlobs
from fl_node.audit.open_means import folded
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.content.protocol import ContentStore, Held
from fl_node.content.spool import spooled
from fl_node.content.unixfs import build
from fl_node.errors import ContentMismatch, ContentUnavailable
from fl_node.ledger import calls
from fl_node.ledger.abi import checksum_address
from fl_node.ledger.breaches import breaches
from fl_node.ledger.chain_look import Block
from fl_node.ledger.deploy import Opening, committed_artifact, constructor_data
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain
from fl_node.ledger.protocol import LedgerIdentity, LedgerReader, RawLog
from fl_node.ledger.signed_tx import created_address, read_signed
from fl_node.merging import weights
from fl_node.merging.aggregation import order_key, shares_of
from fl_node.merging.merge import merge
from fl_node.merging.selection import select
from fl_node.merging.weights import Array
from fl_node.prefix import Prefix
from fl_node.records import (
    PPM,
    Entry,
    Flag,
    Member,
    Role,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)
from fl_node.spec import Federation, parse_federation

CHAIN_ID = 31337


def means_over(index: LedgerIndex, identity: LedgerIdentity, federation: Federation, blobs: Any, **more: Any) -> Means:
    """What an audit of these looks at; without a chain unless ``more`` has one."""
    entries = index.entries()
    given: dict[str, Any] = {
        "identity": identity,
        "federation": federation,
        "log": index,
        "prefix": folded(entries),
        "entries": entries,
        "breaches": breaches(entries),
        "transactions": MemoryTransactions({}),
        "blocks": None,
        "blobs": blobs,
        "checkpoints": (),
        "depth": 0,
    }
    return Means(**{**given, **more})


# ---- small and signed --------------------------------------------------------------------------------------------


def signer(number: int) -> keys.Signer:
    return keys.from_private_key("0x" + hashlib.sha256(b"benchmark key %d" % number).hexdigest())


class Signed:
    """A memory ledger's log whose entries were asked for by signed transactions; a ledger reader."""

    def __init__(self, reader: LedgerReader, owner: keys.Signer, signers: Mapping[int, keys.Signer]) -> None:
        self._reader, self._owner, self._signers = reader, owner, signers
        self._nonces: dict[str, int] = {}
        self._hashes: dict[bytes, bytes] = {}
        self.raws: dict[bytes, bytes] = {}
        self.blocks: dict[int, Block] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def news(self, *given: Any) -> Any:
        news = self._reader.news(*given)
        return None if news is None else replace(news, logs=list(self._told(news.logs)))

    def _told(self, logs: Any) -> Iterator[RawLog]:
        from fl_node.ledger import codec

        for log in logs:
            index, time_s, body = codec.decode(log.topics, log.data)
            if log.tx_hash not in self._hashes:
                raw = self._signed(Entry(index, time_s, 0, b"", b"", log.topics, log.data, body))
                self._hashes[log.tx_hash] = read_signed(raw).hash
                self.raws[self._hashes[log.tx_hash]] = raw
                self.blocks[log.block_number] = Block(log.block_hash, frozenset([self._hashes[log.tx_hash]]), time_s)
            yield replace(log, tx_hash=self._hashes[log.tx_hash])

    def _signed(self, entry: Entry) -> bytes:
        body = entry.body
        if isinstance(body, UpdatePublished):
            return self._transaction(self._signers[body.peer], calls.publish(body.update, body.parents))
        if isinstance(body, UpdatesAttested):
            return self._transaction(self._signers[body.peer], calls.attest(body.evidence, body.items))
        if isinstance(body, UpdateObjected):
            asked = calls.object_to(body.target, body.reason, body.evidence)
            return self._transaction(self._signers[body.peer], asked)
        return deployment(self._owner, opening_of(self._reader.identity, self._owner, self._signers))

    def _transaction(self, who: keys.Signer, data: bytes) -> bytes:
        nonce = self._nonces[who.address] = self._nonces.get(who.address, -1) + 1
        return transaction(who, nonce, self._reader.identity.address, data)


def transaction(who: keys.Signer, nonce: int, to: str | None, data: bytes) -> bytes:
    fields = {"nonce": nonce, "value": 0, "data": data, "gas": 10**6, "chainId": CHAIN_ID, "type": 2}
    fields |= {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 10**9}
    return who.sign(fields if to is None else {**fields, "to": to})[0]


def opening_of(identity: LedgerIdentity, owner: keys.Signer, signers: Mapping[int, keys.Signer]) -> Opening:
    members = [Member(one.address, f"site-{n}", Role.ALL) for n, one in signers.items()]
    known = identity.spec_digest, identity.genesis_content, identity.genesis_weights, identity.genesis_flags
    return Opening(*known, identity.min_interval_s, owner.address, members)


def deployment(owner: keys.Signer, opening: Opening) -> bytes:
    return transaction(owner, 0, None, committed_artifact().bytecode + constructor_data(opening))


def small_world(folder: Path, peers: int, rounds: int) -> Means:
    """Digits, logistic regression, synchronous FedAvg, a sample attested; played in this process.

    Blobs lie in a block store below ``folder``, the log in an index there.
    """
    from fl_node.simulation.batches import Batcher
    from fl_node.simulation.deal import Source, deal
    from fl_node.simulation.faults import Faults, cast
    from fl_node.simulation.federation import put_together
    from fl_node.simulation.memory import VirtualClock
    from fl_node.simulation.settings import Settings
    from fl_node.simulation.ticks import Ticks

    asked = {"content.retention_rounds": 2 * rounds, "attestation.mode": "sample"}
    settings = Settings(preset="fedavg", peers=(peers,), rounds=rounds, epochs=1, overrides=asked)
    federation = settings.federation(peers, 0)
    dealt = deal(Source.load(federation.spec.task, None), federation.spec.task, peers, "iid", 0, test_rows="own")
    from fl_node.learning.models import genesis

    start = genesis(federation.spec)
    owner, signers = signer(0), {n: signer(n) for n in range(1, peers + 1)}
    content = build(weights.encode(start)).root
    opened = {
        "spec_digest": federation.digest,
        "genesis_content": content.digest,
        "genesis_weights": weights.digest(start),
    }
    clock = VirtualClock()
    identity = LedgerIdentity(CHAIN_ID, "", 1, **opened, genesis_flags=Flag(0), min_interval_s=0)
    made = created_address(read_signed(deployment(owner, opening_of(identity, owner, signers))))
    chain = MemoryChain(
        [Member(one.address, f"site-{n}") for n, one in signers.items()],
        owner=owner.address,
        address=checksum_address(made),
        clock=clock,
        **opened,
    )
    faults = Faults()
    world = put_together(
        federation,
        dealt,
        cast(faults, peers, rounds, 0),
        clock,
        chain.ledger(),
        lambda number: chain.ledger(signers[number].address),
        list(signers),
        start,
    )
    for _ in Ticks(world, Batcher(federation.spec, dealt.splits, "auto", 1)).run():
        pass
    world.store.add(weights.encode(start))
    blobs = Blockstore(folder / "content")
    for pin in world.store.pins():
        blobs.add(world.store.get(pin.cid, 1 << 30), durable=False)
    reader = Signed(chain.ledger(), owner, signers)
    index = LedgerIndex(folder / "log.sqlite", reader)
    index.sync()
    return means_over(
        index,
        chain.identity,
        federation,
        StoreBlobs({1: blobs}),
        transactions=MemoryTransactions(reader.raws),
        blocks=MemoryBlocks(reader.blocks, committed_artifact().deployed),
    )


# ---- large and made up -------------------------------------------------------------------------------------------

SPEC = """name = "large"
[task]
input_shape = [784]
classes = 10
[model]
name = "mlp"
hidden = [{hidden}]
[merging]
selection = "random-k"
k = {k}
aggregation = "fedavg"
[rounds]
planned = 10000
mode = "sync"
[privacy]
encrypt = false
"""


def factor_of(ref: UpdateRef) -> np.float32:
    return np.float32(1 + (ref.peer + 64 * ref.sequence) * 2.0**-16)


@dataclass(frozen=True, slots=True)
class Large:
    """A federation of models of so many bytes, of which each is made again from its name."""

    federation: Federation
    pattern: Mapping[str, Array]

    @classmethod
    def of(cls, megabytes: int, k: int = 2) -> Large:
        """Each update has ``k + 1`` parents, its publisher's own among them."""
        hidden = (megabytes * 10**6 // 4 - 10) // (784 + 1 + 10)
        federation = parse_federation(SPEC.format(hidden=hidden, k=k).encode())
        draw = np.random.default_rng(0)
        shapes = {
            "hidden1.weight": (hidden, 784),
            "hidden1.bias": (hidden,),
            "linear.weight": (10, hidden),
            "linear.bias": (10,),
        }
        return cls(federation, {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()})

    def tensors(self, ref: UpdateRef | None) -> dict[str, Array]:
        """The weights of an update; of the genesis without one."""
        factor = np.float32(1) if ref is None else factor_of(ref)
        return {name: array * factor for name, array in self.pattern.items()}

    def file(self, chain: MemoryChain, ref: UpdateRef) -> list[Any]:
        known = chain.identity
        return weights.encode(self.tensors(ref), weights.origin(known.chain_id, known.address, ref.peer, ref.sequence))

    def played(self, peers: int, updates: int, store: ContentStore) -> MemoryChain:
        """A log of honest updates: chosen by the spec's policy, and bases that are merged from their parents. The store
        is given the genesis and the reports."""
        spec, start = self.federation.spec, self.tensors(None)
        content = store.add(weights.encode(start), durable=False)
        time_s = 1_700_000_000
        chain = MemoryChain(
            [Member(signer(n).address, f"site-{n}") for n in range(1, peers + 1)],
            spec_digest=self.federation.digest,
            genesis_content=content.digest,
            genesis_weights=weights.digest(start),
            genesis_flags=Flag.DAG_PB if content.codec == "dag-pb" else Flag(0),
            clock=lambda: time_s,
            address="0x" + self.federation.digest.hex()[:40],
        )
        ledgers = {n: chain.ledger(signer(n).address) for n in range(1, peers + 1)}
        prefix = Prefix()
        with LedgerIndex(":memory:", chain.ledger()) as index:
            for number in range(updates):
                ref = UpdateRef(number % peers + 1, number // peers + 1)
                if index.sync().added:
                    prefix = prefix.extend(index.entries(prefix.size))
                chosen = select(spec, prefix, ref.peer, ref.sequence, now_s=time_s)
                parents, rule = shares_of(spec, chosen.candidates, standing=chosen.standing)
                share = {parent.ref: parent.share_ppm for parent in parents}
                entries = chosen.candidates
                base = start
                if parents:
                    models = [self.tensors(entry.ref) for entry in entries]
                    base = merge(
                        models, [share[entry.ref] for entry in entries], [order_key(entry) for entry in entries]
                    )
                digest = weights.digest(base)
                told = self._report(ref, prefix.size, digest, chosen.outcomes_after({}))
                file = self.file(chain, ref)
                root = build(file).root
                bound = weights.commitment(
                    *(chain.identity.chain_id, chain.identity.address, ref.peer, ref.sequence),
                    weights.digest(self.tensors(ref)),
                )
                update = Update(
                    *(root.digest, Flag.DAG_PB if root.codec == "dag-pb" else Flag(0), bound, digest),
                    *(store.add(told, durable=False).digest, prefix.size, index.root(), ref.sequence, ref.sequence),
                    *(PPM // 2, PPM // 2, 1000 + ref.peer, 200, rule),
                )
                ledgers[ref.peer].publish(update, parents)
        return chain

    def _report(self, ref: UpdateRef, seen: int, base: bytes, outcomes: Any) -> bytes:
        scores = {"score_ppm": PPM // 2, "base_score_ppm": PPM // 2}
        confusion = [[0] * 10 for _ in range(10)]
        confusion[0][0] = confusion[1][0] = 100
        metrics = {"samples": 200, "confusion": confusion}
        facts = {"update": str(ref), "round": ref.sequence, "final": False, "seen": seen, "base": base.hex()}
        return json.dumps({**facts, **scores, "metrics": metrics, "candidates": outcomes}).encode()


class MadeBlobs:
    """Bytes of large models, made when asked for and kept as those from a gateway are, in a nameless mapped file;
    genesis and reports come from a store. ``made``: how many; ``seconds``: what the making took, of all threads."""

    def __init__(self, large: Large, identity: LedgerIdentity, store: ContentStore, folder: Path) -> None:
        self._large, self._identity, self._store, self._folder = large, identity, store, folder
        self._lock = threading.Lock()
        self.made, self.seconds = 0, 0.0

    def hold(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> Held:
        if self._store.has(cid):
            return self._store.hold(cid, max_bytes)
        if ref is None:
            raise ContentUnavailable(f"no {cid}")
        began = time.perf_counter()
        head, size = self._head(ref)
        held = spooled(self._pieces(head, ref), size, self._folder)
        with self._lock:
            self.made += 1
            self.seconds += time.perf_counter() - began
        if build(held.data).root != cid:
            raise ContentMismatch(f"not {cid}")
        held.forget()
        return held

    def _pieces(self, head: bytes, ref: UpdateRef) -> Iterator[Any]:
        """As :meth:`Large.file`, a piece at a time, so that the making takes no memory."""
        yield head
        factor = factor_of(ref)
        for name in sorted(self._large.pattern):
            flat = self._large.pattern[name].reshape(-1)
            for start in range(0, flat.size, 1 << 18):
                yield (flat[start : start + (1 << 18)] * factor).data

    def _head(self, ref: UpdateRef) -> tuple[bytes, int]:
        """The header of a file, which is all before its tensors, and the size of the whole."""
        pattern = self._large.pattern
        known = self._identity
        head = bytes(weights.encode(pattern, weights.origin(known.chain_id, known.address, ref.peer, ref.sequence))[0])
        return head, len(head) + sum(array.nbytes for array in pattern.values())

    def asked(self, cid: Cid, ref: UpdateRef | None = None) -> Holders | None:
        return None

    def where(self, cid: Cid) -> str:
        return ""
