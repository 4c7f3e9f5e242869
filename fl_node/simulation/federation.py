"""Put the peers of one run together, over the in-memory ledger and store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from fl_node.content.memory import MemoryStore
from fl_node.content.unixfs import build
from fl_node.errors import ContentError, MalformedWeights, Unreadable
from fl_node.learning.models import genesis
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.ledger.protocol import Ledger
from fl_node.merging import weights
from fl_node.merging.personal import published, shared_schema
from fl_node.merging.weights import Schema, Tensors
from fl_node.own_layers import OwnLayers
from fl_node.prefix import Prefix
from fl_node.progress import Event, Stopwatch
from fl_node.records import Flag, Member
from fl_node.residual import Residuals
from fl_node.retention import collect
from fl_node.simulation.deal import Dealt
from fl_node.simulation.faults import Cast
from fl_node.simulation.malice import Malice
from fl_node.simulation.memory import (
    Clock,
    MemoryJournal,
    Nobody,
    PeerStore,
    SharedIndex,
    SimulatedPeer,
    Table,
    VirtualClock,
)
from fl_node.simulation.trainers import SimulatedTrainer
from fl_node.spec import Federation
from fl_node.supply import tensors_of

#: Rounds for which bytes are kept at least, beside everybody's latest: what may still be merged.
KEPT_ROUNDS = 3
#: As far as they fit in here, bytes are kept for as long as the spec says.
KEPT_BYTES = 128 << 20
#: Models at least that a table of the process holds, however large they are.
LEAST_TABLE = 64
#: Members that a constructor takes; the others are admitted one by one.
GENESIS_MEMBERS = 256


@dataclass(slots=True)
class World:
    """One federation in this process. ``peers`` are those who play, by number; ``ledgers`` gives anybody's."""

    federation: Federation
    cast: Cast
    dealt: Dealt
    clock: Clock
    owner: Ledger
    ledgers: Callable[[int], Ledger]
    index: SharedIndex
    store: MemoryStore
    genesis: Tensors
    schema: Schema
    prefix: Prefix
    bases: Table
    verified: Table
    peers: dict[int, SimulatedPeer] = field(default_factory=dict)
    trainers: dict[int, SimulatedTrainer] = field(default_factory=dict)
    events: list[tuple[int, Event]] = field(default_factory=list)

    def follow(self) -> None:
        """Look at the chain once, for everybody."""
        if self.index.sync().added:
            self.prefix = self.prefix.extend(self.index.entries(self.prefix.size))
            for peer in self.peers.values():
                peer.prefix = self.prefix

    def tidy(self) -> None:
        """Drop the bytes that nobody merges any more."""
        spec = self.federation.spec
        a_round = len(self.dealt.splits) * weights.encoded_size(self.schema)
        # Deltas are read with what they refer to.
        least = KEPT_ROUNDS + (spec.encoding.full_every if spec.encoding.kind.endswith("delta") else 0)
        kept = min(max(least, KEPT_BYTES // a_round), spec.content.retention_rounds)
        content = spec.content.model_copy(update={"retention_rounds": kept})
        collect(spec.model_copy(update={"content": content}), self.prefix, self.store)

    def admit(self, number: int) -> None:
        """A late joiner: on the ledger, and into play."""
        self.owner.admit(self.ledgers(number).account, site_of(number))
        self.follow()
        self.join(number)

    def retire(self, number: int) -> None:
        """A leaver: off the ledger, and out of play."""
        self.owner.retire(self.ledgers(number).account, "left the federation", self.prefix.size)
        self.peers.pop(number)

    def join(self, number: int) -> None:
        """Have an admitted peer play."""
        spec = self.federation.spec
        malice = self._malice(number) if number in self.cast.malicious else None
        trainer = SimulatedTrainer(spec, self.dealt.splits[number - 1], number, malice)
        self.trainers[number] = trainer
        self.peers[number] = SimulatedPeer(
            spec=spec,
            number=number,
            ledger=self.ledgers(number),
            index=self.index,
            prefix=self.prefix,
            store=PeerStore(self.store),
            fetcher=Nobody(),
            trainer=trainer,
            schema=self.schema,
            genesis=lambda: published(spec, self.genesis),
            journal=MemoryJournal(),
            watch=Stopwatch(),
            emit=lambda event: self._hear(number, event),
            stop=threading.Event(),
            own_layers=OwnLayers(spec, lambda: self.genesis),
            residuals=Residuals(None, "") if spec.encoding.kind.endswith("delta") else None,
            known_bases=self.bases,
            verified=self.verified,
            clock=self.clock,
        )

    def fetched_bytes(self, number: int) -> int:
        """What a peer took from others so far."""
        store = self.peers[number].store
        return store.fetched_bytes if isinstance(store, PeerStore) else 0

    def _malice(self, number: int) -> Malice:
        spec = self.federation.spec
        seed = int.from_bytes(hashlib.sha256(f"fl-node malice {self.cast.seed} {number}".encode()).digest()[:8], "big")
        return Malice(self.cast.attack, seed, spec.merging.max_magnitude, lambda drawn: self._of_another(number, drawn))

    def _of_another(self, number: int, drawn: int) -> Mapping[str, weights.Array] | None:
        """The latest weights of one of the others that published."""
        latest = [self.prefix.trained(facts.number) for facts in self.prefix.peers() if facts.number != number]
        there = [entry for entry in latest if entry is not None]
        if not there:
            return None
        try:
            return tensors_of(self.peers[number], there[drawn % len(there)])
        except (ContentError, MalformedWeights, Unreadable):
            return None

    def _hear(self, number: int, event: Event) -> None:
        if event.kind not in ("training", "waiting"):
            self.events.append((number, event))


def site_of(number: int) -> str:
    """The pseudonym of a simulated peer's organisation."""
    return f"site-{number}"


def in_memory(federation: Federation, dealt: Dealt, cast: Cast) -> World:
    """A federation over :class:`MemoryChain`, its founding members in play."""
    spec = federation.spec
    clock = VirtualClock()
    start = genesis(spec)
    buffers = weights.encode(start)
    content = build(buffers).root
    founders = [n for n in range(1, len(dealt.splits) + 1) if n not in cast.joins]
    # The same run has the same address, so that equal runs give equal bytes.
    address = "0x" + hashlib.sha256(b"fl-node simulation" + federation.digest).hexdigest()[:40]
    chain = MemoryChain(
        [Member(memory_account(n), site_of(n)) for n in founders[:GENESIS_MEMBERS]],
        spec_digest=federation.digest,
        genesis_content=content.digest,
        genesis_weights=weights.digest(start),
        genesis_flags=Flag.DAG_PB if content.codec == "dag-pb" else Flag(0),
        min_interval_s=spec.rounds.min_interval_s,
        clock=clock,
        address=address,
    )
    owner = chain.ledger()
    for number in founders[GENESIS_MEMBERS:]:
        owner.admit(memory_account(number), site_of(number))
    accounts = lru_cache(maxsize=None)(memory_account)
    return put_together(
        federation, dealt, cast, clock, owner, lambda number: chain.ledger(accounts(number)), founders, start
    )


def put_together(
    federation: Federation,
    dealt: Dealt,
    cast: Cast,
    clock: Clock,
    owner: Ledger,
    ledgers: Callable[[int], Ledger],
    founders: Sequence[int],
    start: Tensors | None = None,
) -> World:
    """Peers over these ledgers, the founding members in play.

    Args:
        ledgers: the ledger as a peer of this number writes it.
        start: the genesis weights, where they are at hand.
    """
    spec = federation.spec
    whole = genesis(spec) if start is None else start
    index = SharedIndex(owner, spec.rounds.depth)
    index.sync()
    schema = shared_schema(spec, weights.schema_of(whole))
    most = max(LEAST_TABLE, KEPT_BYTES // weights.encoded_size(schema))
    world = World(
        federation=federation,
        cast=cast,
        dealt=dealt,
        clock=clock,
        owner=owner,
        ledgers=ledgers,
        index=index,
        store=MemoryStore(),
        genesis=whole,
        schema=schema,
        prefix=Prefix(index.entries()),
        bases=Table(most),
        verified=Table(most),
    )
    for number in founders:
        world.join(number)
    return world
