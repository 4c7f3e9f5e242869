"""Pages that were given a moment ago: while nothing changes, whoever asks for the same gets the same.

When an entry comes, everybody who looks at a page asks for it at once; it is made once for all of them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

#: Some pages tell how long ago something was, which no tag tells.
_FRESH_S: Final = 10.0
_MOST_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Given:
    """An answer: its body, what it is, and when it was made, by the process's clock."""

    body: bytes
    mimetype: str
    made_at: float = field(default_factory=time.monotonic)


class Recent:
    """Answers by their tags, the latest of them; thread-safe.

    Args:
        fresh_s: seconds for which an answer may be given again.
        most_bytes: how much is kept.
    """

    def __init__(self, fresh_s: float = _FRESH_S, most_bytes: int = _MOST_BYTES) -> None:
        self._fresh_s, self._most_bytes, self._bytes = fresh_s, most_bytes, 0
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._lock = threading.Condition()
        self._making: set[str] = set()

    def get(self, tag: str) -> Given | None:
        """The answer with this tag, if it is fresh."""
        with self._lock:
            found = self._given.get(tag)
            if found is None or time.monotonic() - found.made_at <= self._fresh_s:
                return found
            self._forget(tag)
            return None

    @contextmanager
    def alone(self, tag: str) -> Iterator[None]:
        """Be the only one who makes the answer with this tag: whoever comes second waits, and then finds it kept."""
        with self._lock:
            self._lock.wait_for(lambda: tag not in self._making)
            self._making.add(tag)
        try:
            yield
        finally:
            with self._lock:
                self._making.discard(tag)
                self._lock.notify_all()

    def keep(self, tag: str, given: Given) -> None:
        """Keep an answer; the oldest ones go."""
        with self._lock:
            if tag in self._given:
                self._forget(tag)
            self._given[tag] = given
            self._bytes += len(given.body)
            while self._bytes > self._most_bytes:
                self._forget(next(iter(self._given)))

    def _forget(self, tag: str) -> None:
        self._bytes -= len(self._given.pop(tag).body)
