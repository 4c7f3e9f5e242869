"""Fetch files by CID from strangers.

Raw blocks, several connections at a time, each straight into its place in one buffer and hashed there: one pass over
the bytes, any gateway will do, and one that gives nothing or something else is replaced in the middle of a file.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from fl_node.content.cid import Cid
from fl_node.content.endpoints import ANYWHERE, Endpoint, Resolver, parse_endpoint, parse_networks
from fl_node.content.http_client import Connection, NotHere
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import CHUNK_BYTES, MAX_NODE_BYTES, Dag, assemble, read_node
from fl_node.errors import (
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentTooLarge,
    ContentUnavailable,
    StoreFull,
    StoreUnreachable,
)

T = TypeVar("T")
_FORGIVE_S: Final = 60.0
_IDLE_S: Final = 20.0
_SLOW: Final = 4.0
_PATIENCE: Final = 3
_PAUSE_S: Final = 30.0
_COSTLY_S: Final = 1.0


@dataclass(slots=True)
class _Record:
    """What is known of a provider from earlier fetches. ``silences``: how often in a row it cost time and gave no
    usable answer."""

    failed_at: float = float("-inf")
    bytes_per_s: float = 0.0
    silences: int = 0


class Fetcher:
    """Fetches from announced endpoints. Safe to share between threads; keeps connections open between fetches.

    Args:
        allow_networks: private ranges (CIDR) from which content may come.
        timeout_s: total seconds for one file, whatever the providers do.
        connections: parallel connections for one file.
        resolver: as ``socket.getaddrinfo``.
        trusted: endpoints that whoever runs this named, and so may be at any address.
    """

    def __init__(
        self,
        allow_networks: Sequence[str] = (),
        *,
        timeout_s: float = 60.0,
        connections: int = 4,
        resolver: Resolver = socket.getaddrinfo,
        trusted: Collection[Endpoint] = (),
    ) -> None:
        self._networks = parse_networks(allow_networks)
        self._trusted = frozenset(trusted)
        self._timeout_s = timeout_s
        self._connections = connections
        self._resolver = resolver
        self._lock = threading.Lock()
        self._pool: dict[Endpoint, list[Connection]] = {}
        self._records: dict[Endpoint, _Record] = {}

    def fetch(self, cid: Cid, max_bytes: int, endpoints: Sequence[str | Endpoint]) -> memoryview:
        """A whole file, every block checked against its CID.

        Args:
            max_bytes: largest file accepted.
            endpoints: who may have it, the likeliest first; those that failed or were slow lately are moved back.

        Raises:
            ContentUnavailable: nobody gave it in time; the message says what each one did.
            ContentMismatch: nobody gave it, and somebody gave other bytes; the message names them.
            ContentMalformed: the CID names more than ``max_bytes``, or no file of the profile. The publisher's doing.
        """
        return self._fetch(cid, max_bytes, endpoints)[1]

    def fetch_into(
        self,
        store: ContentStore,
        cid: Cid,
        max_bytes: int,
        endpoints: Sequence[str | Endpoint],
        *,
        label: str = "fetched",
        round: int | None = None,
    ) -> memoryview:
        """Fetch a file and keep it, so that others can have it from here. Its bytes are hashed once.

        Raises:
            StoreFull, StoreUnreachable: fetched, but could not be kept. Otherwise as :meth:`fetch`.
        """
        dag, data = self._fetch(cid, max_bytes, endpoints)
        try:
            store.put(dag, data, label=label, round=round)
        except StoreFull:
            raise
        except ContentError as cause:
            raise StoreUnreachable(f"fetched {cid}, but the own content store did not take it: {cause}") from cause
        return data

    def block(self, cid: Cid, max_bytes: int, endpoints: Sequence[str | Endpoint]) -> memoryview:
        """One block, root, node or leaf, from whoever gives it. Raises as :meth:`fetch`."""
        return _Task(self, cid, endpoints, time.monotonic() + self._timeout_s).obtain(cid, max_bytes)

    def has(self, cid: Cid, endpoint: Endpoint, *, timeout_s: float = 5.0) -> bool:
        """Whether an endpoint says that it has a block.

        Raises:
            ContentUnavailable: no usable answer in time.
        """
        deadline = time.monotonic() + timeout_s
        return self.converse(endpoint, deadline, lambda connection: connection.has(cid, deadline))

    def size(self, cid: Cid, endpoint: Endpoint, *, timeout_s: float = 5.0) -> int:
        """How large a file is, without its bytes: of several blocks as the checked root adds them up, of one block as
        the endpoint says.

        Raises:
            ContentUnavailable: no usable answer in time, or (``NotHere``) not there.
            ContentMismatch: more bytes than a block may have, or other bytes.
            ContentMalformed: the CID names no file of the profile.
        """
        deadline = time.monotonic() + timeout_s
        if cid.codec == "raw":
            told = self.converse(endpoint, deadline, lambda connection: connection.length(cid, deadline))
            if told > CHUNK_BYTES:
                raise ContentMismatch(f"{endpoint} says that {cid} has {told} bytes, expected at most {CHUNK_BYTES}")
            return told
        root = self.converse(endpoint, deadline, lambda connection: connection.block(cid, MAX_NODE_BYTES, deadline))
        return sum(child.size_bytes for child in read_node(bytes(root)))

    def document(self, path: str, max_bytes: int, endpoint: str | Endpoint, *, timeout_s: float = 5.0) -> bytes:
        """What one gateway has at a path of its own, such as ``/checkpoint``. Nothing but its length is checked.

        Raises:
            ContentUnavailable: no usable answer in time, or (``NotHere``) nothing at that path.
            ContentMismatch: longer than ``max_bytes``.
        """
        deadline = time.monotonic() + timeout_s
        where = endpoint if isinstance(endpoint, Endpoint) else parse_endpoint(endpoint)
        return bytes(self.converse(where, deadline, lambda asked: asked.document(path, max_bytes, deadline)))

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            pools, self._pool = self._pool, {}
        for connections in pools.values():
            for connection in connections:
                connection.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch(self, cid: Cid, max_bytes: int, endpoints: Sequence[str | Endpoint]) -> tuple[Dag, memoryview]:
        task = _Task(self, cid, endpoints, time.monotonic() + self._timeout_s)
        if cid.codec == "raw":
            data = task.obtain(cid, CHUNK_BYTES)
            if data.nbytes > max_bytes:
                raise ContentTooLarge(f"{cid} holds {data.nbytes} bytes, expected at most {max_bytes}")
            return Dag(cid, data.nbytes, (cid.digest,), {}), data
        nodes: dict[Cid, bytes] = {}

        def load(node: Cid) -> bytes:
            if node not in nodes:
                nodes[node] = bytes(task.obtain(node, MAX_NODE_BYTES))
            return nodes[node]

        dag = assemble(cid, load, max_bytes)
        return dag, self._leaves(task, dag)

    def _leaves(self, task: _Task, dag: Dag) -> memoryview:
        """All leaves into one buffer, each distinct one asked for once."""
        places: dict[bytes, list[int]] = {}
        for index, digest in enumerate(dag.leaves):
            places.setdefault(digest, []).append(index)
        for digest, indexes in places.items():
            if len({dag.leaf_span(index)[1] for index in indexes}) > 1:
                raise ContentMalformed(f"{dag.root} names the block {Cid('raw', digest)} with two lengths")
        data = memoryview(bytearray(dag.size_bytes))
        waiting = deque(places.items())

        def work() -> None:
            while waiting and not task.failed:
                try:
                    digest, (first, *others) = waiting.popleft()
                except IndexError:
                    return
                offset, length = dag.leaf_span(first)
                leaf = task.obtain(Cid("raw", digest), length, data[offset : offset + length])
                for index in others:
                    data[index * CHUNK_BYTES : index * CHUNK_BYTES + length] = leaf

        task.run(work, min(self._connections, len(places)))
        return data

    # ---- providers ------------------------------------------------------------------------------------

    def converse(self, endpoint: Endpoint, deadline: float, ask: Callable[[Connection], T]) -> T:
        """Ask over a connection that is kept, or a new one, and keep it if it can carry another question."""
        with self._patience(endpoint):
            return self._conversed(endpoint, deadline, ask)

    def _conversed(self, endpoint: Endpoint, deadline: float, ask: Callable[[Connection], T]) -> T:
        while True:
            connection = self.connect(endpoint, deadline)
            reused = not connection.fresh
            try:
                answer = ask(connection)
            except NotHere:
                self.release(connection)
                raise
            except ContentUnavailable as cause:
                connection.close()
                # The server may have closed an idle connection: that says nothing about the provider.
                if reused and isinstance(cause.__cause__, ConnectionError):
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            self.release(connection)
            return answer

    def connect(self, endpoint: Endpoint, deadline: float) -> Connection:
        with self._lock:
            pooled = self._pool.get(endpoint, [])
            while pooled:
                connection = pooled.pop()
                if time.monotonic() - connection.used_at < _IDLE_S:
                    return connection
                connection.close()
        networks = ANYWHERE if endpoint in self._trusted else self._networks
        return Connection(endpoint, networks, self._resolver, deadline)

    def silent(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint has cost so much time for nothing that it should be left alone for a while."""
        with self._lock:
            record = self._records.get(endpoint, _Record())
            pause_s = _PAUSE_S * (record.silences - _PATIENCE + 1)
            return record.silences >= _PATIENCE and time.monotonic() - record.failed_at < pause_s

    @contextmanager
    def _patience(self, endpoint: Endpoint) -> Iterator[None]:
        """Counts questions in a row that cost time and were not answered. Refusals cost none."""
        began = time.monotonic()
        try:
            yield
        except ContentUnavailable as cause:
            if isinstance(cause, NotHere):
                self._note_silence(endpoint, 0)
            elif isinstance(cause.__cause__, TimeoutError) or time.monotonic() - began >= _COSTLY_S:
                self._note_silence(endpoint, 1)
            raise
        self._note_silence(endpoint, 0)

    def _note_silence(self, endpoint: Endpoint, more: int) -> None:
        with self._lock:
            record = self._records.setdefault(endpoint, _Record())
            record.silences = record.silences + more if more else 0
            if more:
                record.failed_at = time.monotonic()

    def release(self, connection: Connection) -> None:
        with self._lock:
            self._pool.setdefault(connection.endpoint, []).append(connection)

    def ranked(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """In the order given, but slow ones later and ones that failed lately last."""
        now = time.monotonic()
        with self._lock:
            records = {endpoint: self._records.get(endpoint, _Record()) for endpoint in endpoints}
        best = max((record.bytes_per_s for record in records.values()), default=0.0)

        def rank(endpoint: Endpoint) -> tuple[bool, bool]:
            record = records[endpoint]
            return now - record.failed_at < _FORGIVE_S, 0 < record.bytes_per_s * _SLOW < best

        return sorted(records, key=rank)

    def note_speed(self, endpoint: Endpoint, num_bytes: int, seconds: float) -> None:
        speed = num_bytes / max(seconds, 1e-6)
        with self._lock:
            record = self._records.setdefault(endpoint, _Record())
            record.bytes_per_s = 0.5 * (record.bytes_per_s or speed) + 0.5 * speed

    def note_failure(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._records.setdefault(endpoint, _Record()).failed_at = time.monotonic()


class _Task:
    """One file being fetched: who is still in the running, and until when.

    While others wait, a provider has an equal share of the time that is left; then the next one takes over.
    """

    def __init__(self, fetcher: Fetcher, cid: Cid, endpoints: Sequence[str | Endpoint], deadline: float) -> None:
        self._fetcher = fetcher
        self._cid = cid
        self._deadline = deadline
        self._lock = threading.Lock()
        self._trouble: dict[str, ContentError] = {}
        self._live = fetcher.ranked(self._usable(endpoints))
        self._turn_ends = self._next_turn()
        self.failed: BaseException | None = None

    def obtain(self, cid: Cid, max_bytes: int, sink: memoryview | None = None) -> memoryview:
        """One block from whoever gives it. Raises as :meth:`Fetcher.fetch`."""
        while True:
            endpoint, turn_ends = self._current()
            try:
                return self._ask(endpoint, cid, max_bytes, turn_ends, sink)
            except ContentError as cause:
                self._drop(endpoint, cause)

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Run ``work`` in threads until all have returned; raise what the first to fail raised."""

        def guarded() -> None:
            try:
                work()
            except BaseException as cause:
                self.failed = self.failed or cause

        helpers = [threading.Thread(target=guarded, name="content-fetch", daemon=True) for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        guarded()
        for helper in helpers:
            helper.join()
        if self.failed is not None:
            raise self.failed

    def _ask(
        self, endpoint: Endpoint, cid: Cid, max_bytes: int, deadline: float, sink: memoryview | None
    ) -> memoryview:
        def ask(connection: Connection) -> memoryview:
            started = time.monotonic()
            block = connection.block(cid, max_bytes, deadline, sink)
            self._fetcher.note_speed(endpoint, block.nbytes, time.monotonic() - started)
            return block

        return self._fetcher.converse(endpoint, deadline, ask)

    def _usable(self, endpoints: Sequence[str | Endpoint]) -> list[Endpoint]:
        usable = []
        for given in endpoints:
            try:
                usable.append(given if isinstance(given, Endpoint) else parse_endpoint(given))
            except ContentUnavailable as cause:
                self._trouble[str(given)] = cause
        return usable

    def _next_turn(self) -> float:
        now = time.monotonic()
        return now + (self._deadline - now) / max(1, len(self._live))

    def _current(self) -> tuple[Endpoint, float]:
        with self._lock:
            if self._live and time.monotonic() < self._turn_ends:
                return self._live[0], self._turn_ends
            slow = self._live[0] if self._live else None
        if slow is None:
            raise self._verdict()
        self._drop(slow, ContentUnavailable(f"{slow} was too slow"))
        return self._current()

    def _drop(self, endpoint: Endpoint, cause: ContentError) -> None:
        with self._lock:
            if endpoint not in self._live:
                return
            self._live.remove(endpoint)
            self._trouble[str(endpoint)] = cause
            self._turn_ends = self._next_turn()
        if not isinstance(cause, NotHere):
            self._fetcher.note_failure(endpoint)

    def _verdict(self) -> ContentError:
        said = "; ".join(str(cause) for cause in self._trouble.values()) or "no endpoint was given"
        causes = list(self._trouble.values())
        lies = [cause for cause in causes if isinstance(cause, ContentMismatch)]
        error = (ContentMismatch if lies else ContentUnavailable)(
            f"cannot fetch {self._cid} from {len(causes)} endpoints: {said}. Try again later, or from other providers"
        )
        error.__cause__ = (lies or causes or [None])[0]
        return error
