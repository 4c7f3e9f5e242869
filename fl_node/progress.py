"""What a node tells while it works: one flat event per thing that happened, and the seconds of each phase."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Emit = Callable[["Event"], None]


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` names what happened (``recorded``, ``left-out``, ``waiting``, ...); ``detail`` is JSON-ready."""

    kind: str
    text: str
    detail: dict[str, Any] = field(default_factory=dict)


class OneAtATime:
    """An :data:`Emit` for several threads over one that takes events of one thread only; silent once it is closed."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._lock, self._closed = emit, threading.Lock(), False

    def __call__(self, event: Event) -> None:
        with self._lock:
            if not self._closed:
                self._emit(event)

    def __enter__(self) -> OneAtATime:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True


@dataclass(slots=True)
class Stopwatch:
    """Wall seconds spent in each phase of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. ``closed``: the closing update is on the ledger; otherwise it was stopped before. ``sent_bytes``
    and ``received_bytes``: all that went over the gateway and came from others' in this run, of every kind."""

    peer: int
    sequence: int
    round: int
    closed: bool
    seconds: dict[str, float]
    published_bytes: int
    fetched_bytes: int
    sent_bytes: int = 0
    received_bytes: int = 0
