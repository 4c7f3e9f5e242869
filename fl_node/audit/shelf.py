"""Updates' weights while an audit needs them: each is had, hashed and parsed once and given back after its last use.

Where that would take too much memory, or too many open files, weights that nobody works with are given up and had again
when they are needed. What was found out about them stays, so that they are only read again, not looked at again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fl_node.audit.known import Sketch
from fl_node.audit.means import Blobs
from fl_node.audit.sketch import sketch_of
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.names import cid_of_update
from fl_node.content.protocol import Held
from fl_node.errors import ContentError, ContentMalformed, ContentMismatch, MalformedWeights
from fl_node.merging import weights
from fl_node.merging.weights import Array, Tensors
from fl_node.prefix import UpdateEntry
from fl_node.records import Encoding, Flag, LedgerOpened, UpdateRef
from fl_node.spec import Spec

#: Bytes of models in memory at most, beside those that are at work. Mapped files count as nothing.
BUDGET_BYTES: Final = 256 << 20
#: Mapped files at most, beside those that are at work: each takes one of the process's open files.
MOST_MAPPED: Final = 128


@dataclass(frozen=True, slots=True)
class Opened:
    """One update's bytes, as far as they could be had and read.

    ``findings`` are of the checks *bytes*, *well-formed* and *commitment*. ``tensors`` is ``None`` where the bytes
    could not be had or read. ``good``: all three hold.
    """

    findings: tuple[Finding, Finding, Finding]
    tensors: Tensors | None = None
    held: Held | None = None
    digest: bytes | None = None
    sketch: Sketch | None = None
    resident_bytes: int = 0

    @property
    def good(self) -> bool:
        return all(finding.result is Result.OK for finding in self.findings)

    @property
    def mapped(self) -> bool:
        """Whether the bytes lie in a file that is held open."""
        return self.held is not None and not self.held.in_memory

    def without_bytes(self) -> Opened:
        """What was found out, the weights let go."""
        return replace(self, tensors=None, held=None, resident_bytes=0)


class Shelf:
    """Opens updates on demand. Safe to share between threads; two that want the same one wait for one look at it.

    Args:
        uses: how often each update will be asked for; after that it is given back.
        sketching: also make sketches.
        budget_bytes, most_mapped: what idle weights may take.
    """

    def __init__(
        self,
        spec: Spec,
        opened: LedgerOpened,
        blobs: Blobs,
        schema: weights.Schema,
        uses: Mapping[UpdateRef, int],
        *,
        sketching: bool,
        budget_bytes: int = BUDGET_BYTES,
        most_mapped: int = MOST_MAPPED,
    ) -> None:
        self._spec, self._opened, self._blobs, self._schema = spec, opened, blobs, schema
        self._left = dict(uses)
        self._sketching = sketching
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
                found = self._open(entry) if known is None else self._open_again(entry, known)
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

    def _open_again(self, entry: UpdateEntry, known: Opened) -> Opened:
        """The weights of an update that was looked at before. The same CID names the same bytes, so only whether they
        can be had is asked again."""
        try:
            held = self._blobs.hold(cid_of_update(entry.update), weights.encoded_size(self._schema), entry.ref)
            tensors = weights.decode(held.data, self._schema).tensors
        except (ContentError, MalformedWeights):
            return self._open(entry)
        held.forget()
        return replace(known, tensors=tensors, held=held, resident_bytes=_resident(held, tensors))

    def _open(self, entry: UpdateEntry) -> Opened:
        cid = cid_of_update(entry.update)
        data = {"cid": str(cid)}
        most = weights.encoded_size(self._schema)
        if entry.update.encoding != Encoding.SAFETENSORS or entry.update.flags & Flag.ENCRYPTED:
            what = f"encoding {entry.update.encoding}, flags {int(entry.update.flags)}: not one that this version reads"
            return _unread(Finding("bytes", Result.UNKNOWN, what, data))
        try:
            held = self._blobs.hold(cid, most, entry.ref)
        except ContentMalformed as cause:
            return _unread(
                Finding("bytes", Result.OK, "what the CID names", data),
                Finding("well-formed", Result.FAILED, str(cause)),
            )
        except ContentMismatch as cause:
            return _unread(Finding("bytes", Result.FAILED, str(cause), data))
        except ContentError as cause:
            return _unread(Finding("bytes", Result.UNKNOWN, str(cause), data))
        size = memoryview(held.data).nbytes
        there = Finding("bytes", Result.OK, f"{size} bytes with this CID", {**data, "bytes": size})
        try:
            tensors = weights.decode(held.data, self._schema).tensors
            weights.check_magnitude(tensors, self._spec.merging.max_magnitude)
        except MalformedWeights as cause:
            return _unread(there, Finding("well-formed", Result.FAILED, str(cause)))
        well = Finding("well-formed", Result.OK, f"{len(tensors)} tensors of the federation's model")
        digest = weights.digest(tensors)
        sketch = sketch_of(self._spec, tensors) if self._sketching else None
        held.forget()
        committed = self._commitment(entry, digest)
        return Opened((there, well, committed), tensors, held, digest, sketch, _resident(held, tensors))

    def _commitment(self, entry: UpdateEntry, digest: bytes) -> Finding:
        place = self._opened.chain_id, self._opened.ledger, entry.ref.peer, entry.ref.sequence
        got, expected = weights.commitment(*place, digest), entry.update.weights
        data = {"digest": digest.hex(), "commitment": got.hex()}
        if got != expected:
            text = f"the weights give the commitment {got.hex()}, the ledger has {expected.hex()}"
            return Finding("commitment", Result.FAILED, text, data)
        return Finding("commitment", Result.OK, "the ledger's commitment is to these weights", data)


def _unread(*findings: Finding) -> Opened:
    """What is known of an update whose bytes end at the last of these findings."""
    names = ("bytes", "well-formed", "commitment")
    rest = tuple(
        Finding(name, Result.UNKNOWN, f"without a good result of {findings[-1].check} there is nothing to look at")
        for name in names[len(findings) :]
    )
    first, second, third = (*findings, *rest)
    return Opened((first, second, third))


def explain(opened: Sequence[Opened], entries: Sequence[UpdateEntry]) -> tuple[str | None, bool]:
    """Why these cannot all be used, in words, and whether that is a fact about their publishers (malformed, another
    commitment) rather than something that is not known."""
    for one, entry in zip(opened, entries, strict=True):
        if not one.good:
            worst = next(finding for finding in one.findings if finding.result is not Result.OK)
            fact = worst.result is Result.FAILED and worst.check != "bytes"
            return f"{entry.ref}: {worst.check}: {worst.detail}", fact
    return None, False


def _resident(held: Held, tensors: Tensors) -> int:
    """Bytes in memory: of the file, where it lies in no file of its own, and of tensors that are no views of it."""
    file = memoryview(held.data).nbytes if held.in_memory else 0
    return file + sum(array.nbytes for array in tensors.values() if _copied(array))


def _copied(array: Array) -> bool:
    """Whether an array has memory of its own instead of looking at the file's bytes."""
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, np.ndarray)
