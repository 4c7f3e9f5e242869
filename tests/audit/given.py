"""What an auditor is given, before it is looked at: everything that a stranger may have altered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from playing import Play
from signed_ledger import CHAIN_ID, FIRST_BLOCK, SignedLedger

from fl_node.audit.means import Means
from fl_node.audit.memory import MemoryBlocks, MemoryTransactions, StoreBlobs
from fl_node.audit.open_means import folded, recheck
from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import build
from fl_node.key_keeping import GivenKeys
from fl_node.ledger import codec, tree
from fl_node.ledger.breaches import breaches
from fl_node.ledger.chain_look import Block
from fl_node.ledger.checkpoint import SignedCheckpoint
from fl_node.ledger.deploy import committed_artifact
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.kept_log import KeptLog
from fl_node.ledger.protocol import LedgerIdentity, RawLog
from fl_node.records import Body, LedgerHead, LedgerOpened
from fl_node.sealing.age import Identity
from fl_node.spec import Federation


@dataclass
class Given:
    """A log, the chain around it, bytes by CID, the spec, checkpoints.

    ``blobs`` may hold other bytes than their CID names; ``stores``, by peer, take their place. ``root`` is what the
    endpoint says that the contract has; ``None``: what the logs give.
    """

    federation: Federation
    address: str
    opening: Any
    logs: list[RawLog]
    raws: dict[bytes, bytes]
    blocks: dict[int, Block]
    code: bytes
    blobs: dict[Cid, bytes]
    checkpoints: list[SignedCheckpoint] = field(default_factory=list)
    served: list[SignedCheckpoint] = field(default_factory=list)
    depth: int = 0
    root: bytes | None = None
    stores: dict[int, ContentStore] | None = None
    #: Keys that the auditor has.
    identities: Sequence[Identity] = ()

    def copy(self) -> Given:
        found = copy.copy(self)
        for name in ("logs", "raws", "blocks", "blobs", "checkpoints", "served"):
            setattr(found, name, copy.copy(getattr(self, name)))
        return found

    # ---- what a liar does to it ------------------------------------------------------------------------------------

    def body(self, index: int) -> Body:
        return codec.decode(self.logs[index].topics, self.logs[index].data)[2]

    def time_s(self, index: int) -> int:
        return codec.decode(self.logs[index].topics, self.logs[index].data)[1]

    def rewrite(self, index: int, body: Body, time_s: int | None = None) -> None:
        """An entry that says something else, in its place in the same transaction."""
        topics, data = codec.encode(index, self.time_s(index) if time_s is None else time_s, body)
        self.logs[index] = replace(self.logs[index], topics=topics, data=data)

    def renumber(self) -> None:
        """Give the logs the indices that they stand at."""
        for index, log in enumerate(self.logs):
            topics = (log.topics[0], index.to_bytes(32, "big"), *log.topics[2:])
            self.logs[index] = replace(log, topics=topics)

    def index_of(self, ref: str) -> int:
        """The entry of an update."""
        for index in range(len(self.logs)):
            if str(getattr(self.body(index), "ref", "")) == ref:
                return index
        raise LookupError(ref)

    def last(self, kind: str) -> int:
        return max(index for index in range(len(self.logs)) if type(self.body(index)).__name__ == kind)

    # ---- looking at it ---------------------------------------------------------------------------------------------

    def means(self) -> Means:
        """As :func:`fl_node.audit.open_means.means_of` puts them together."""
        leaves = [tree.entry_leaf(log.topics, log.data) for log in self.logs]
        identity = LedgerIdentity(CHAIN_ID, self.address, FIRST_BLOCK, *self.opening)
        last = self.logs[-1]
        root = tree.root(leaves) if self.root is None else self.root
        head = LedgerHead(len(self.logs), root, last.block_number, last.block_hash)
        index = LedgerIndex(":memory:", KeptLog(identity, head, self.logs))
        index.sync()
        entries = index.entries()
        recheck(index, entries)
        return Means(
            identity=identity,
            federation=self.federation,
            log=index,
            prefix=folded(entries),
            entries=entries,
            breaches=breaches(entries),
            transactions=MemoryTransactions(self.raws),
            blocks=MemoryBlocks(self.blocks, self.code),
            blobs=StoreBlobs(self.stores or {1: store_of(self.blobs)}, asking=True),
            checkpoints=(*self.checkpoints, *self.served),
            served=frozenset(one.note for one in self.served),
            depth=self.depth,
            opener=GivenKeys(self.identities) if self.identities else None,
        )


def store_of(blobs: dict[Cid, bytes]) -> MemoryStore:
    """A store that gives these bytes under these names, whatever they are."""
    store = MemoryStore()
    for cid, data in blobs.items():
        store.put(replace(build(data), root=cid, leaves=(cid.digest,)), data)
    return store


def given(play: Play, ledger: SignedLedger | None = None) -> Given:
    """What an honest endpoint and honest gateways give of a federation."""
    log = ledger or play.ledger
    facts = play.ledger.state
    opened = log.entries[0].body
    assert isinstance(opened, LedgerOpened)
    blocks: dict[int, Block] = {}
    for entry in log.entries:
        blocks[entry.block_number] = Block(entry.block_hash, frozenset([entry.tx_hash]), entry.time_s)
    blobs = {cid: bytes(store.get(cid, 1 << 20)) for store in play.stores.values() for cid in held(store)}
    opening = (
        *(opened.spec_digest, opened.genesis_content, opened.genesis_weights, opened.genesis_flags),
        facts.min_interval_s,
    )
    code = committed_artifact().deployed
    keys = tuple(play.identities.values())[:1]
    found = Given(play.federation, log.address, opening, list(log.logs), dict(log.raws), blocks, code, blobs, depth=0)
    return replace(found, identities=keys)


def held(store: MemoryStore) -> Sequence[Cid]:
    return [pin.cid for pin in store.pins()]
