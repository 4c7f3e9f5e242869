"""A federation in one process: in-memory ledger and stores, no sockets; the peers' own code, data and training."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from replay import Replay

from fl_node.config import NodeConfig
from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint
from fl_node.content.memory import MemoryStore
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import build
from fl_node.errors import ContentUnavailable
from fl_node.journal import Journal
from fl_node.key_keeping import Secrecy
from fl_node.learning.data import load
from fl_node.learning.models import genesis
from fl_node.learning.partition import partition
from fl_node.learning.splits import split
from fl_node.learning.training import Trainer
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.ledger.protocol import Ledger
from fl_node.merging import weights
from fl_node.merging.personal import published
from fl_node.node import take_part
from fl_node.own_layers import OwnLayers
from fl_node.peer import Peer, Stopped
from fl_node.prefix import Prefix
from fl_node.progress import Event, Stopwatch
from fl_node.records import Flag, Member, Role
from fl_node.residual import Residuals
from fl_node.spec import Spec

FIRST_ENDPOINT = "memory://"


class Wire:
    """Stands in for the fetcher: endpoints ``memory://N`` are the stores themselves. ``down``: who does not answer;
    ``altered``: whose bytes are other ones on the way (and so are refused, as the fetcher does)."""

    def __init__(self, stores: dict[str, ContentStore]) -> None:
        self.stores = stores
        self.down: set[str] = set()

    def fetch_into(
        self,
        store: ContentStore,
        cid: Cid,
        most: int,
        endpoints: Sequence[str | Endpoint],
        *,
        label: str,
        round: int | None,
    ) -> memoryview:
        for endpoint in endpoints:
            source = self.stores.get(str(endpoint))
            if source is not None and endpoint not in self.down and source.has(cid):
                data = memoryview(bytes(source.get(cid, most)))
                store.put(build(data), data, label=label, round=round)
                return data
        raise ContentUnavailable(f"nobody of {list(endpoints)} gives {cid}")


class CountingTrainer(Trainer):
    """Counts how often each sequence was trained."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.trained: list[int] = []

        self.spoil: Callable[[Any], Any] | None = None
        #: Whether it claims to be perfect on its test split.
        self.boast = False

    def train(self, start: Any, sequence: int) -> Any:
        self.trained.append(sequence)
        found, told = super().train(start, sequence)
        return (self.spoil(found) if self.spoil else found), told

    def evaluate(self, *given: Any, **more: Any) -> Any:
        found = super().evaluate(*given, **more)
        return replace(found, score_ppm=1_000_000) if self.boast else found


@dataclass
class Twins:
    """A federation of ``len(stores)`` peers; :meth:`peer` starts one (again) from its folder."""

    folder: Path
    spec: Spec
    size: int = 3
    clock: Callable[[], float] = time.time
    members: int | None = None
    roles: dict[int, Role] = field(default_factory=dict)
    events: list[tuple[int, Event]] = field(default_factory=list)
    encrypted: bool = False
    secrets: dict[int, Secrecy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        privacy = self.spec.privacy.model_copy(update={"encrypt": self.encrypted})
        self.spec = self.spec.model_copy(update={"privacy": privacy})
        self.genesis = genesis(self.spec)
        buffers = weights.encode(self.genesis)
        content = build(buffers).root
        joined = self.size if self.members is None else self.members
        self.chain = MemoryChain(
            [Member(memory_account(n), f"site-{n}", self.roles.get(n, Role.ALL)) for n in range(1, joined + 1)],
            spec_digest=b"s" * 32,
            genesis_content=content.digest,
            genesis_weights=weights.digest(self.genesis),
            genesis_flags=Flag.DAG_PB if content.codec == "dag-pb" else Flag(0),
            min_interval_s=self.spec.rounds.min_interval_s,
            clock=self.clock,
        )
        rows = load("digits", self.spec.task, None, part="train")
        shares = partition(rows.labels, self.size, "unequal", 0)
        self.splits = [split(rows.rows(share), self.spec.task) for share in shares]
        self.stores: dict[int, MemoryStore] = {n: MemoryStore() for n in range(1, self.size + 1)}
        self.wire = Wire({f"memory://{n}": store for n, store in self.stores.items()})
        self.trainers = {
            n: CountingTrainer(self.spec, self.splits[n - 1], n, "cpu", None) for n in range(1, self.size + 1)
        }
        self.ledgers: dict[int, Ledger] = {n: self.chain.ledger(memory_account(n)) for n in range(1, self.size + 1)}
        self.kinds: dict[int, list[str]] = {n: [] for n in range(1, self.size + 1)}

    def peer(self, number: int) -> Peer:
        """The peer with a fresh memory of its own: what it knows is in folder, store and ledger."""
        state = self.folder / f"peer-{number}"
        state.mkdir(parents=True, exist_ok=True)
        ledger = self.ledgers[number]
        ledger.recover()
        index = LedgerIndex(state / "index.sqlite", ledger, self.spec.rounds.depth)
        index.sync()
        return Peer(
            spec=self.spec,
            number=number,
            ledger=ledger,
            index=index,
            prefix=Prefix(index.entries()),
            store=self.stores[number],
            fetcher=self.wire,
            trainer=self.trainers[number],
            schema=weights.schema_of(published(self.spec, self.genesis)),
            genesis=lambda: published(self.spec, self.genesis),
            journal=Journal(state, "twins"),
            watch=Stopwatch(),
            emit=lambda event: self.hear(number, event),
            stop=threading.Event(),
            own_layers=OwnLayers(self.spec, lambda: self.genesis, state, "twins"),
            secrecy=self.secrets.setdefault(number, Secrecy.in_memory()) if self.encrypted else None,
            residuals=Residuals(state, "twins"),
        )

    def hear(self, number: int, event: Event) -> None:
        self.events.append((number, event))
        self.kinds[number].append(event.kind)

    def run(self, *numbers: int, rounds: int = 0) -> dict[int, BaseException | None]:
        """Let these peers (default: all) take part, each in a thread of its own; what each ended with."""
        ended: dict[int, BaseException | None] = {}

        def live(number: int) -> None:
            peer = self.peer(number)
            config = NodeConfig(poll_s=0.01, retry_s=5.0, rounds=rounds)
            try:
                take_part(peer, f"memory://{number}", config)
                ended[number] = None
            except (Exception, Stopped) as error:
                ended[number] = error
            finally:
                peer.index.close()

        threads = [threading.Thread(target=live, args=(number,)) for number in numbers or self.stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ended

    def replay(self) -> Replay:
        """A stranger's look at the finished ledger and at everybody's bytes."""
        with LedgerIndex(":memory:", self.chain.ledger()) as index:
            index.sync()
            return Replay(self.spec, index.entries(), self.genesis, self.read)

    def read(self, cid: Cid) -> bytes:
        for store in self.stores.values():
            if store.has(cid):
                return bytes(store.get(cid, 1 << 30))
        raise AssertionError(f"nobody has {cid}")


@contextlib.contextmanager
def mining(chain: MemoryChain) -> Iterator[None]:
    """Empty blocks come meanwhile, so that entries get deeper."""
    done = threading.Event()

    def mine() -> None:
        while not done.wait(0.02):
            chain.mine()

    miner = threading.Thread(target=mine)
    miner.start()
    try:
        yield
    finally:
        done.set()
        miner.join()


def flipped(tensors: Any) -> Any:
    """What a hostile member publishes: the other way, and far."""
    return {name: array * -10 for name, array in tensors.items()}


def small_spec(**tables: Any) -> Spec:
    """Digits, one quick epoch; ``rounds={"planned": 3}`` and so on."""
    base: dict[str, Any] = {
        "training": {"epochs": 1, "learning_rate": 0.5},
        "rounds": {"planned": 3, "linger_s": 0.5},
    }
    merged = {name: {**base.get(name, {}), **tables.get(name, {})} for name in base.keys() | tables.keys()}
    return Spec.model_validate(merged)
