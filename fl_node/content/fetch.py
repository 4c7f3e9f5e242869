"""Fetch files by CID from strangers.

Raw blocks, several connections at a time, each straight into its place and hashed there: one pass over the bytes, any
gateway will do, and one that gives nothing or something else is replaced in the middle of a file. A store on disk keeps
what came when a fetch stops half-way, and only what is missing is asked for the next time.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint, Resolver, parse_endpoint, parse_networks
from fl_node.content.fetch_task import Task
from fl_node.content.http_client import Connection
from fl_node.content.meter import PATHS, Kind, Meter, kind_of
from fl_node.content.partial import Partial, going_on
from fl_node.content.protocol import ContentStore, Resuming
from fl_node.content.providers import Providers
from fl_node.content.unixfs import CHUNK_BYTES, MAX_NODE_BYTES, Dag, assemble, read_node
from fl_node.errors import (
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentTooLarge,
    StoreFull,
    StoreUnreachable,
)

T = TypeVar("T")
_OTHER: Final = "other"


class Fetcher:
    """Fetches from announced endpoints. Safe to share between threads; keeps connections open between fetches.

    Args:
        allow_networks: private ranges (CIDR) from which content may come.
        timeout_s: total seconds for one file, whatever the providers do.
        connections: parallel connections for one file.
        resolver: as ``socket.getaddrinfo``.
        trusted: endpoints that whoever runs this named, and so may be at any address.
        claim: number of the peer that asks, which gateways are told; 0 tells nothing.
        meter: counts what comes in.
    """

    def __init__(
        self,
        allow_networks: Sequence[str] = (),
        *,
        timeout_s: float = 60.0,
        connections: int = 4,
        resolver: Resolver = socket.getaddrinfo,
        trusted: Collection[Endpoint] = (),
        claim: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._providers = Providers(parse_networks(allow_networks), resolver, trusted, claim, meter)
        self._timeout_s = timeout_s
        self._connections = connections

    def fetch(
        self, cid: Cid, max_bytes: int, endpoints: Sequence[str | Endpoint], *, kind: Kind = _OTHER
    ) -> memoryview:
        """A whole file, every block checked against its CID.

        Args:
            max_bytes: largest file accepted.
            endpoints: who may have it, the likeliest first; those that failed or were slow lately are moved back.
            kind: what it is, for the count of bytes.

        Raises:
            ContentUnavailable: nobody gave it in time; the message says what each one did.
            ContentMismatch: nobody gave it, and somebody gave other bytes; the message names them.
            ContentMalformed: the CID names more than ``max_bytes``, or no file of the profile. The publisher's doing.
        """
        return self._fetch(self._task(cid, endpoints, kind), cid, max_bytes)[1]

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
        """Fetch a file and keep it, so that others can have it from here. Its bytes are hashed once. What came of a
        large one stays in the store if the rest does not, and blocks that other files have are not asked for.

        Args:
            label: for whom the store keeps it. It also says of which kind the bytes count.

        Raises:
            StoreFull, StoreUnreachable: fetched, but could not be kept. Otherwise as :meth:`fetch`.
        """
        task = self._task(cid, endpoints, kind_of(label))
        if cid.codec == "dag-pb" and isinstance(store, Resuming):
            partial = store.resume(cid, max_bytes) or store.begin(self._shape(task, cid, max_bytes))
            if partial is not None:
                with going_on(partial):
                    self._fill(task, store, partial)
                    return store.finish(partial, label=label, round=round)
        dag, data = self._fetch(task, cid, max_bytes)
        try:
            store.put(dag, data, label=label, round=round)
        except StoreFull:
            raise
        except ContentError as cause:
            raise StoreUnreachable(f"fetched {cid}, but the own content store did not take it: {cause}") from cause
        return data

    def block(self, cid: Cid, max_bytes: int, endpoints: Sequence[str | Endpoint]) -> memoryview:
        """One block, root, node or leaf, from whoever gives it. Raises as :meth:`fetch`."""
        return self._task(cid, endpoints, _OTHER).obtain(cid, max_bytes)

    def has(self, cid: Cid, endpoint: Endpoint, *, timeout_s: float = 5.0) -> bool:
        """Whether an endpoint says that it has a block.

        Raises:
            ContentUnavailable: no usable answer in time.
        """
        deadline = time.monotonic() + timeout_s
        return self._ask(endpoint, deadline, _OTHER, lambda connection: connection.has(cid, deadline))

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
            told = self._ask(endpoint, deadline, _OTHER, lambda connection: connection.length(cid, deadline))
            if told > CHUNK_BYTES:
                raise ContentMismatch(f"{endpoint} says that {cid} has {told} bytes, expected at most {CHUNK_BYTES}")
            return told
        root = self._ask(endpoint, deadline, _OTHER, lambda asked: asked.block(cid, MAX_NODE_BYTES, deadline))
        return sum(child.size_bytes for child in read_node(bytes(root)))

    def document(self, path: str, max_bytes: int, endpoint: str | Endpoint, *, timeout_s: float = 5.0) -> bytes:
        """What one gateway has at a path of its own, such as ``/checkpoint``. Nothing but its length is checked.

        Raises:
            ContentUnavailable: no usable answer in time, or (``NotHere``) nothing at that path.
            ContentMismatch: longer than ``max_bytes``.
        """
        deadline = time.monotonic() + timeout_s
        where = endpoint if isinstance(endpoint, Endpoint) else parse_endpoint(endpoint)
        kind = next((kind for start, kind in PATHS if path.startswith(start)), _OTHER)
        return bytes(self._ask(where, deadline, kind, lambda asked: asked.document(path, max_bytes, deadline)))

    def connect(self, endpoint: Endpoint, deadline: float) -> Connection:
        """A connection that was kept, or a new one; :meth:`release` it.

        Raises:
            ContentUnavailable: denied, unreachable, or its certificate is not the announced one.
        """
        return self._providers.connect(endpoint, deadline)

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next question."""
        self._providers.release(connection)

    def silent(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint has cost so much time for nothing that it should be left alone for a while."""
        return self._providers.silent(endpoint)

    def close(self) -> None:
        """Close the idle connections."""
        self._providers.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _task(self, cid: Cid, endpoints: Sequence[str | Endpoint], kind: Kind) -> Task:
        return Task(self._providers, cid, endpoints, time.monotonic() + self._timeout_s, kind)

    def _ask(self, endpoint: Endpoint, deadline: float, kind: Kind, ask: Callable[[Connection], T]) -> T:
        return self._providers.converse(endpoint, deadline, kind, ask)

    def _fetch(self, task: Task, cid: Cid, max_bytes: int) -> tuple[Dag, memoryview]:
        """A file into memory."""
        if cid.codec == "raw":
            data = task.obtain(cid, CHUNK_BYTES)
            if data.nbytes > max_bytes:
                raise ContentTooLarge(f"{cid} holds {data.nbytes} bytes, expected at most {max_bytes}")
            return Dag(cid, data.nbytes, (cid.digest,), {}), data
        dag = self._shape(task, cid, max_bytes)
        places: dict[bytes, list[int]] = {}
        for index, digest in enumerate(dag.leaves):
            places.setdefault(digest, []).append(index)
        data = memoryview(bytearray(dag.size_bytes))

        def take(digest: bytes, _: memoryview) -> None:
            first, *others = places[digest]
            offset, length = dag.leaf_span(first)
            leaf = task.obtain(Cid("raw", digest), length, data[offset : offset + length])
            for index in others:
                data[index * CHUNK_BYTES : index * CHUNK_BYTES + length] = leaf

        self._each(task, places, take)
        return dag, data

    def _fill(self, task: Task, store: Resuming, partial: Partial) -> None:
        """The leaves that a file on its way is short of: from other files in the store, then from others."""
        dag, missing = partial.dag, partial.missing
        here = set()
        for digest, leaf in store.held_leaves(missing):
            partial.write(digest, leaf)
            here.add(digest)

        def take(digest: bytes, room: memoryview) -> None:
            length = dag.leaf_span(missing[digest][0])[1]
            partial.write(digest, task.obtain(Cid("raw", digest), length, room[:length]))

        self._each(task, [digest for digest in missing if digest not in here], take)

    def _each(self, task: Task, digests: Collection[bytes], take: Callable[[bytes, memoryview], None]) -> None:
        """Take each of these leaves, over several connections; ``take`` gets room for one."""
        waiting = deque(digests)

        def work() -> None:
            room = memoryview(bytearray(CHUNK_BYTES))
            while waiting and not task.failed:
                try:
                    digest = waiting.popleft()
                except IndexError:
                    return
                take(digest, room)

        if digests:
            task.run(work, min(self._connections, len(digests)))

    @staticmethod
    def _shape(task: Task, cid: Cid, max_bytes: int) -> Dag:
        """A file's inner nodes, and so the digests of all its leaves."""
        nodes: dict[Cid, bytes] = {}

        def load(node: Cid) -> bytes:
            if node not in nodes:
                nodes[node] = bytes(task.obtain(node, MAX_NODE_BYTES))
            return nodes[node]

        dag = assemble(cid, load, max_bytes)
        # All leaves but the last are of one length.
        last = len(dag.leaves) - 1
        if dag.leaf_span(last)[1] != CHUNK_BYTES and dag.leaves[last] in dag.leaves[:last]:
            raise ContentMalformed(f"{dag.root} names the block {Cid('raw', dag.leaves[last])} with two lengths")
        return dag
