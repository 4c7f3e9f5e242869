"""A federation in one process: one chain, one copy of its log and one store of bytes, shared by all peers.

Nothing here grows with peers times entries: every peer has the same prefix, and of its own only where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.content.protocol import Collected, Held, Pin, Region
from fl_node.content.unixfs import Buffer, Dag
from fl_node.errors import ContentUnavailable
from fl_node.journal import Draft
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.protocol import LedgerReader
from fl_node.merging.weights import Tensors
from fl_node.peer import Peer


class SharedIndex(LedgerIndex):
    """The log in memory. It follows the chain only when it is told to, so that all peers of a tick see the same log."""

    def __init__(self, reader: LedgerReader, depth: int) -> None:
        super().__init__(":memory:", reader, depth)
        self._roots: dict[int, bytes] = {}

    def root(self, size: int | None = None) -> bytes:
        """As :meth:`LogStore.root`; the root of a size never changes here, for no chain of a simulation reorganises."""
        if size is None:
            return super().root()
        if size not in self._roots:
            self._roots[size] = super().root(size)
        return self._roots[size]


class PeerStore:
    """One peer's view of the shared bytes: everything is at hand, and what the peer takes first counts as fetched."""

    def __init__(self, shared: MemoryStore) -> None:
        self._shared = shared
        self._taken: set[Cid] = set()
        self.fetched_bytes = 0

    def add(
        self, data: Buffer | Sequence[Buffer], *, label: str = "own", round: int | None = None, durable: bool = True
    ) -> Cid:
        cid = self._shared.add(data, label=label, round=round, durable=durable)
        self._taken.add(cid)
        return cid

    def put(
        self,
        dag: Dag,
        data: Buffer | Sequence[Buffer],
        *,
        label: str = "fetched",
        round: int | None = None,
        durable: bool = False,
    ) -> None:
        self._shared.put(dag, data, label=label, round=round, durable=durable)

    def get(self, cid: Cid, max_bytes: int) -> Buffer:
        data = self._shared.get(cid, max_bytes)
        if cid not in self._taken:
            self._taken.add(cid)
            self.fetched_bytes += memoryview(data).nbytes
        return data

    def hold(self, cid: Cid, max_bytes: int) -> Held:
        return Held(self.get(cid, max_bytes))

    def has(self, cid: Cid) -> bool:
        return self._shared.has(cid)

    def size(self, cid: Cid) -> int:
        return self._shared.size(cid)

    def dag(self, cid: Cid) -> Dag:
        return self._shared.dag(cid)

    def block(self, cid: Cid) -> Buffer:
        return self._shared.block(cid)

    def block_size(self, cid: Cid) -> int | None:
        return self._shared.block_size(cid)

    def region(self, cid: Cid) -> Region | None:
        return None

    def pin(self, cid: Cid, label: str, round: int | None = None) -> None:
        """Nothing: the simulation keeps what may still be merged, for all peers at once."""

    def unpin(self, cid: Cid, label: str) -> None:
        """Nothing."""

    def pins(self) -> tuple[Pin, ...]:
        return self._shared.pins()

    def gc(self, oldest_round: int | None = None, *, dry_run: bool = False) -> Collected:
        return Collected((), 0)

    def close(self) -> None:
        pass


class Table(dict[bytes, Tensors]):
    """Tensors by digest, the latest so many: what one peer of the process worked out, the others need not."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: bytes, tensors: Tensors) -> None:
        while len(self) >= self._most:
            del self[next(iter(self))]
        super().__setitem__(key, tensors)


class Nobody:
    """Stands in for the fetcher: what the shared store does not have, nobody has."""

    def fetch_into(
        self, store: object, cid: Cid, max_bytes: int, endpoints: object, /, *, label: str, round: int | None = None
    ) -> memoryview:
        raise ContentUnavailable(f"got no {cid} in the simulation's store, expected it there: its publisher lost it")


class MemoryJournal:
    """The draft under way and the last recorded one, in memory: a simulated peer does not crash."""

    def __init__(self) -> None:
        self._draft: Draft | None = None
        self._recorded: Draft | None = None

    def load(self) -> Draft | None:
        return self._draft

    def last(self) -> Draft | None:
        return self._recorded

    def save(self, draft: Draft) -> Draft:
        self._draft = draft
        return draft

    def finish(self) -> None:
        if self._draft is not None:
            self._recorded, self._draft = self._draft, None

    def discard(self) -> None:
        self._draft = None


class Clock(Protocol):
    """The chain's time in seconds, before which no further entry can be recorded."""

    def __call__(self) -> float: ...

    def advance(self, seconds: float) -> None:
        """Let time pass."""


@dataclass(slots=True)
class VirtualClock:
    """Seconds that pass only when nobody acts, or everybody has."""

    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


@dataclass(slots=True, kw_only=True)
class SimulatedPeer(Peer):
    """A peer whose view of the log the simulation sets, and whose clock it turns."""

    clock: Clock = field(default_factory=VirtualClock)

    def sync(self) -> bool:
        """Nothing new within a tick: all peers of it look at the same log."""
        return False

    def chain_time_s(self) -> int:
        return max(self.prefix.time_s, int(self.clock()))
