"""A ledger's reader that is watched while it is asked: how much it has given, and how long it has kept silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from fl_node.ledger.protocol import LedgerIdentity, LedgerReader, News, RawLog
from fl_node.records import LedgerHead

T = TypeVar("T")
_TOLD_EVERY: int = 500


class Waiting:
    """Since when an answer is waited for. Read by one thread, written by another."""

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """How long the answer has been waited for; 0 while none is."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """These items; each is waited for."""
        found = iter(items)
        while True:
            with self():
                try:
                    item = next(found)
                except StopIteration:
                    return
            yield item


class Watched:
    """Hands on what another reader is asked by an index.

    Args:
        reader: the other one.
        waiting: told of every wait.
        progress: called now and then with the number of logs that were read for one look at the chain. What it raises
            ends that look.
    """

    def __init__(self, reader: LedgerReader, waiting: Waiting, progress: Callable[[int], None]) -> None:
        self._reader, self._waiting, self._progress = reader, waiting, progress
        self._read = 0

    @property
    def identity(self) -> LedgerIdentity:
        return self._reader.identity

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        self._read = 0
        with self._waiting():
            news = self._reader.news(known, depth)
        return None if news is None else replace(news, logs=self._counted(news.logs))

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        with self._waiting():
            return self._reader.head(depth, fresh)

    def block_hash(self, number: int) -> bytes | None:
        with self._waiting():
            return self._reader.block_hash(number)

    def logs(self, first_block: int, last_block: int) -> Iterator[RawLog]:
        with self._waiting():
            found = self._reader.logs(first_block, last_block)
        return self._counted(found)

    def close(self) -> None:
        """Close the other one, if it can be."""
        close = getattr(self._reader, "close", None)
        if close is not None:
            close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def _counted(self, logs: Iterable[RawLog]) -> Iterator[RawLog]:
        for log in self._waiting.each(logs):
            yield log
            self._read += 1
            if self._read % _TOLD_EVERY == 0:
                self._progress(self._read)
