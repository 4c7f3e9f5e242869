"""One file being fetched: who is still in the running, and until when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint, parse_endpoint
from fl_node.content.http_client import Connection, NotHere, NotNow
from fl_node.content.meter import Kind
from fl_node.content.providers import Providers
from fl_node.errors import ContentError, ContentMismatch, ContentUnavailable

#: Ends what is said where nobody gave a file.
TRY_AGAIN: Final = "Try again later, or from other providers"


class Task:
    """While others wait, a provider has an equal share of the time that is left; then the next one takes over. One that
    asks to come again later is left alone until then, and thought no less of.

    Args:
        endpoints: who may have the file, the likeliest first.
        deadline: on the monotonic clock, for the whole file.
        kind: of what is fetched, for the count of bytes.
    """

    def __init__(
        self, providers: Providers, cid: Cid, endpoints: Sequence[str | Endpoint], deadline: float, kind: Kind
    ) -> None:
        self._providers = providers
        self._cid = cid
        self._deadline = deadline
        self._kind = kind
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._trouble: dict[str, ContentError] = {}
        self._live = providers.ranked(self._usable(endpoints))
        self._not_before: dict[Endpoint, float] = {}
        self._asked: Endpoint | None = None
        self._turn_ends = 0.0
        self._failed: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether a thread of :meth:`run` has failed, so that the others need not go on."""
        return self._failed is not None

    def obtain(self, cid: Cid, max_bytes: int, sink: memoryview | None = None) -> memoryview:
        """One block from whoever gives it.

        Raises:
            As :meth:`fl_node.content.fetch.Fetcher.fetch`.
        """
        while True:
            endpoint, turn_ends = self._current()
            try:
                return self._ask(endpoint, cid, max_bytes, turn_ends, sink)
            except NotNow as cause:
                self._put_off(endpoint, cause)
            except ContentError as cause:
                self._drop(endpoint, cause)

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Run ``work`` in threads until all have returned; raise what the first to fail raised."""

        def guarded() -> None:
            try:
                work()
            except BaseException as cause:
                self._failed = self._failed or cause
                self._over.set()

        helpers = [threading.Thread(target=guarded, name="content-fetch", daemon=True) for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        guarded()
        for helper in helpers:
            helper.join()
        if self._failed is not None:
            raise self._failed

    def _ask(
        self, endpoint: Endpoint, cid: Cid, max_bytes: int, deadline: float, sink: memoryview | None
    ) -> memoryview:
        def ask(connection: Connection) -> memoryview:
            started = time.monotonic()
            block = connection.block(cid, max_bytes, deadline, sink)
            self._providers.note_speed(endpoint, block.nbytes, time.monotonic() - started)
            return block

        return self._providers.converse(endpoint, deadline, self._kind, ask)

    def _usable(self, endpoints: Sequence[str | Endpoint]) -> list[Endpoint]:
        usable = []
        for given in endpoints:
            try:
                usable.append(given if isinstance(given, Endpoint) else parse_endpoint(given))
            except ContentUnavailable as cause:
                self._trouble[str(given)] = cause
        return usable

    def _current(self) -> tuple[Endpoint, float]:
        """Whom to ask now, and until when; waits where all that are left said "not now"."""
        while True:
            with self._lock:
                now = time.monotonic()
                ready = [one for one in self._live if self._not_before.get(one, 0.0) <= now]
                chosen = ready[0] if ready else None
                if now >= self._deadline:
                    chosen = self._asked  # the others are not to blame for the time that is over
                elif chosen is not None and chosen != self._asked:
                    self._asked = chosen
                    self._turn_ends = now + (self._deadline - now) / len(self._live)
                if chosen is not None and now < self._turn_ends:
                    return chosen, self._turn_ends
                pause_s = min([self._not_before.get(one, now) for one in self._live] + [self._deadline]) - now
            if chosen is not None:
                self._drop(chosen, ContentUnavailable(f"{chosen} was too slow"))
            elif not self._live or pause_s <= 0 or self._over.wait(pause_s):
                raise self._verdict()

    def _put_off(self, endpoint: Endpoint, cause: NotNow) -> None:
        with self._lock:
            self._not_before[endpoint] = time.monotonic() + cause.wait_s
            self._trouble[str(endpoint)] = cause
            self._asked = None

    def _drop(self, endpoint: Endpoint, cause: ContentError) -> None:
        with self._lock:
            if endpoint not in self._live:
                return
            self._live.remove(endpoint)
            self._trouble[str(endpoint)] = cause
            self._asked = None
        if not isinstance(cause, NotHere):
            self._providers.note_failure(endpoint)

    def _verdict(self) -> ContentError:
        said = "; ".join(str(cause) for cause in self._trouble.values()) or "no endpoint was given"
        causes = list(self._trouble.values())
        lies = [cause for cause in causes if isinstance(cause, ContentMismatch)]
        error = (ContentMismatch if lies else ContentUnavailable)(
            f"cannot fetch {self._cid} from {len(causes)} endpoints: {said}. {TRY_AGAIN}"
        )
        error.__cause__ = (lies or causes or [None])[0]
        return error
