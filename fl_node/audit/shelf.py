"""Updates' weights while an audit needs them: each is had, decoded and hashed once and given back after its last use.

Where that would take too much memory, or too many open files, weights that nobody works with are given up and had again
when they are needed. What was found out about them stays, so that they are only read again, not looked at again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from fl_node.audit.opened import Opened
from fl_node.audit.reading import Reader
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef

#: Bytes of models in memory at most, beside those that are at work. Mapped files count as nothing.
BUDGET_BYTES: Final = 256 << 20
#: Mapped files at most, beside those that are at work: each takes one of the process's open files.
MOST_MAPPED: Final = 128


class Shelf:
    """Opens updates on demand. Safe to share between threads; two that want the same one wait for one look at it.

    Args:
        reader: reads an update's bytes.
        prefix: a log that has all of them.
        uses: how often each update will be asked for; after that it is given back. What others refer to is counted
            here.
        budget_bytes, most_mapped: what idle weights may take.
    """

    def __init__(
        self,
        reader: Reader,
        prefix: Prefix,
        uses: Mapping[UpdateRef, int],
        *,
        budget_bytes: int = BUDGET_BYTES,
        most_mapped: int = MOST_MAPPED,
    ) -> None:
        self._reader = reader
        self._left = _with_references(uses, reader, prefix)
        self._budget, self._most_mapped = budget_bytes, most_mapped
        self._lock = threading.Lock()
        #: The least lately used first.
        self._there: OrderedDict[UpdateRef, Future[Opened]] = OrderedDict()
        self._at_work: dict[UpdateRef, int] = {}
        #: What was found out about weights that were given up before their last use.
        self._known: dict[UpdateRef, Opened] = {}
        #: Bytes in memory and mapped files of what is there.
        self.resident_bytes = 0
        self.mapped = 0
        #: How many times bytes were had again because memory was short.
        self.reopened = 0

    def take(self, entries: Sequence[UpdateEntry], *, threads: int = 1) -> list[Opened]:
        """These updates' weights, opened by so many threads, to be given back by :meth:`give_back`."""
        if threads <= 1 or len(entries) <= 1:
            return [self._take(entry) for entry in entries]
        with ThreadPoolExecutor(min(threads, len(entries)), "open") as pool:
            return list(pool.map(self._take, entries))

    def give_back(self, entries: Sequence[UpdateEntry]) -> None:
        """Done with these."""
        with self._lock:
            for entry in entries:
                ref = entry.ref
                self._at_work[ref] -= 1
                self._left[ref] = self._left.get(ref, 1) - 1
                if not self._at_work[ref]:
                    del self._at_work[ref]
                if self._left[ref] <= 0 and ref not in self._at_work:
                    self._drop(ref)
                    self._known.pop(ref, None)
            self._shrink()

    def _take(self, entry: UpdateEntry) -> Opened:
        ref = entry.ref
        with self._lock:
            self._at_work[ref] = self._at_work.get(ref, 0) + 1
            future = self._there.get(ref)
            mine = future is None
            if future is None:
                future = self._there[ref] = Future()
            self._there.move_to_end(ref)
            known = self._known.pop(ref, None)
            self.reopened += known is not None
        if mine:
            try:
                found = self._open(entry, known)
            except BaseException as cause:
                future.set_exception(cause)
                raise
            with self._lock:
                self.resident_bytes += found.resident_bytes
                self.mapped += found.mapped
            future.set_result(found)
        return future.result()

    def _drop(self, ref: UpdateRef) -> Opened | None:
        """Let go of an update that nobody works with; what it was."""
        future = self._there.pop(ref, None)
        if future is None or future.exception() is not None:
            return None
        found = future.result()
        self.resident_bytes -= found.resident_bytes
        self.mapped -= found.mapped
        return found

    def _shrink(self) -> None:
        """Give up idle weights, the least lately used first, as far as they take what there is too much of."""
        for ref in list(self._there):
            heavy, many = self.resident_bytes > self._budget, self.mapped > self._most_mapped
            if not heavy and not many:
                return
            if ref in self._at_work:
                continue
            found = self._there[ref].result()
            if (heavy and found.resident_bytes) or (many and found.mapped):
                self._drop(ref)
                self._known[ref] = found.without_bytes()

    def _open(self, entry: UpdateEntry, known: Opened | None) -> Opened:
        """Look at an update, or have the weights of one again that was looked at. What it refers to comes first: then
        no more than one payload of a chain of them is in memory."""
        before = self._reader.reference(entry)
        if before is None:
            return self._reader.look(entry, None) if known is None else self._reader.again(entry, known, None)
        (opened,) = self.take([before])
        try:
            if known is None:
                return self._reader.look(entry, opened)
            return self._reader.again(entry, known, opened)
        finally:
            self.give_back([before])


def _with_references(uses: Mapping[UpdateRef, int], reader: Reader, prefix: Prefix) -> dict[UpdateRef, int]:
    """How often each update is asked for, once more for each that is opened and refers to it."""
    found = dict(uses)
    waiting = list(found)
    while waiting:
        before = reader.reference(prefix.update(waiting.pop()))
        if before is None:
            continue
        if before.ref not in found:
            waiting.append(before.ref)
        found[before.ref] = found.get(before.ref, 0) + 1
    return found
