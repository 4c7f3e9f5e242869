"""The gateways that are asked: connections kept to them, and what is known of each from earlier questions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from fl_node.content.endpoints import ANYWHERE, Endpoint, Network, Resolver
from fl_node.content.http_client import Connection, NotHere, NotNow
from fl_node.content.meter import Kind, Meter
from fl_node.errors import ContentUnavailable

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


class Providers:
    """Safe to share between threads.

    Args:
        networks: private ranges in which providers may be.
        resolver: as ``socket.getaddrinfo``.
        trusted: endpoints that may be at any address.
        claim: number of the peer that asks; 0 tells nothing.
        meter: counts what comes in.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        resolver: Resolver,
        trusted: Collection[Endpoint],
        claim: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._networks, self._resolver, self._trusted = tuple(networks), resolver, frozenset(trusted)
        self._claim, self._meter = claim, meter
        self._lock = threading.Lock()
        self._pool: dict[Endpoint, list[Connection]] = {}
        self._records: dict[Endpoint, _Record] = {}

    # ---- asking --------------------------------------------------------------------------------------------------

    def converse(self, endpoint: Endpoint, deadline: float, kind: Kind, ask: Callable[[Connection], T]) -> T:
        """Ask over a connection that is kept, or a new one, and keep it if it can carry another question."""
        with self._patience(endpoint):
            return self._conversed(endpoint, deadline, kind, ask)

    def connect(self, endpoint: Endpoint, deadline: float) -> Connection:
        """A connection that was kept, or a new one. Raises as :class:`Connection`."""
        with self._lock:
            pooled = self._pool.get(endpoint, [])
            while pooled:
                connection = pooled.pop()
                if time.monotonic() - connection.used_at < _IDLE_S:
                    return connection
                connection.close()
        networks = ANYWHERE if endpoint in self._trusted else self._networks
        return Connection(endpoint, networks, self._resolver, deadline, self._claim)

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next question."""
        if not connection.open:
            connection.close()
            return
        with self._lock:
            self._pool.setdefault(connection.endpoint, []).append(connection)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            pools, self._pool = self._pool, {}
        for connections in pools.values():
            for connection in connections:
                connection.close()

    def _conversed(self, endpoint: Endpoint, deadline: float, kind: Kind, ask: Callable[[Connection], T]) -> T:
        while True:
            connection = self.connect(endpoint, deadline)
            reused = not connection.fresh
            try:
                with self._counted(connection, kind):
                    answer = ask(connection)
            except (NotHere, NotNow):
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

    @contextmanager
    def _counted(self, connection: Connection, kind: Kind) -> Iterator[None]:
        """What comes in is counted; as wasted where it comes to nothing."""
        before = connection.body_bytes
        good = False
        try:
            yield
            good = True
        finally:
            if self._meter is not None:
                came = connection.body_bytes - before
                self._meter.received(str(connection.endpoint), kind, came if good else 0, 0 if good else came)

    # ---- what is known of them -----------------------------------------------------------------------------------

    def silent(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint has cost so much time for nothing that it should be left alone for a while."""
        with self._lock:
            record = self._records.get(endpoint, _Record())
            pause_s = _PAUSE_S * (record.silences - _PATIENCE + 1)
            return record.silences >= _PATIENCE and time.monotonic() - record.failed_at < pause_s

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
        """It gave so much in so long."""
        speed = num_bytes / max(seconds, 1e-6)
        with self._lock:
            record = self._records.setdefault(endpoint, _Record())
            record.bytes_per_s = 0.5 * (record.bytes_per_s or speed) + 0.5 * speed

    def note_failure(self, endpoint: Endpoint) -> None:
        """It could not be used for a file."""
        with self._lock:
            self._records.setdefault(endpoint, _Record()).failed_at = time.monotonic()

    @contextmanager
    def _patience(self, endpoint: Endpoint) -> Iterator[None]:
        """Counts questions in a row that cost time and were not answered. Refusals cost none."""
        began = time.monotonic()
        try:
            yield
        except ContentUnavailable as cause:
            if isinstance(cause, NotHere | NotNow):
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
