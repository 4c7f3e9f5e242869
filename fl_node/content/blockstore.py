"""The embedded content store: files in the peer's state folder, one object each (see ``objects``).

Layout of the folder: ``objects/<cid>``, ``partial/<cid>`` (what a fetch that stopped has got so far), ``broken/<cid>``
(what failed its check, kept for a look), ``pins.sqlite``.
Any number of processes may read and add at the same time; collection and pinning take a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.content.cid import Cid
from fl_node.content.memory import expired
from fl_node.content.objects import read_dag, remove_abandoned, store_errors, sync_folder, write_object
from fl_node.content.partial import Partial, Partials
from fl_node.content.pins import Pins
from fl_node.content.protocol import Collected, Held, Pin, Region
from fl_node.content.unixfs import CHUNK_BYTES, Buffer, Dag, build, views
from fl_node.errors import ContentMismatch, ContentTooLarge, ContentUnavailable, UsageError

# A folder changed within this time may change again without a newer time stamp.
_TIMESTAMP_SLACK_NS: Final = 2_000_000_000
#: Smaller files are read: mapping them would save nothing.
_MAPPED_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block lies: in which file, which leaf (-1: an inner node)."""

    root: Cid
    leaf: int


class Blockstore:
    """Files on disk, below ``folder``. Safe to share between threads.

    Args:
        readonly: leave the folder as it is, broken files too: for whoever looks into somebody else's.

    Raises (on opening):
        StoreFull: the folder is not there and cannot be made.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.folder = folder
        self._readonly = readonly
        self._objects = folder / "objects"
        self._lock = threading.RLock()
        self._dags: dict[Cid, Dag] = {}
        self._places: dict[Cid, _Place] = {}
        self._checked: set[Cid] = set()
        self._scanned_ns = (0, 0)
        if not readonly:
            with store_errors(folder):
                self._objects.mkdir(parents=True, exist_ok=True)
        self._pins = Pins(folder)
        self._partials = Partials(folder)

    # ---- files ---------------------------------------------------------------------------------------------------

    def add(
        self,
        data: Buffer | Sequence[Buffer],
        *,
        label: str = "own",
        round: int | None = None,
        durable: bool = True,
    ) -> Cid:
        dag = build(data)
        self.put(dag, data, label=label, round=round, durable=durable)
        return dag.root

    def put(
        self,
        dag: Dag,
        data: Buffer | Sequence[Buffer],
        *,
        label: str = "fetched",
        round: int | None = None,
        durable: bool = False,
    ) -> None:
        with store_errors(self.folder), self._exclusive(shared=True):
            # The pin comes first: bytes without a pin could be collected, a pin without bytes is harmless.
            self._pins.set(Pin(dag.root, label, round), durable)
            if not self._path(dag.root).exists():
                write_object(self._objects, dag, views(data), durable)
                self._remember(dag)
                self._checked.update(cid for cid, _ in dag.walk())
            elif durable:
                self._make_durable(dag.root)

    def get(self, cid: Cid, max_bytes: int) -> Buffer:
        data = self._read(cid, 0, self._bounded(cid, max_bytes))
        if build(data).root != cid:
            raise self._altered(cid)
        return data

    def hold(self, cid: Cid, max_bytes: int) -> Held:
        size_bytes = self._bounded(cid, max_bytes)
        if size_bytes < _MAPPED_BYTES:
            return Held(self.get(cid, max_bytes))
        try:
            with self._path(cid).open("rb") as file:
                if os.fstat(file.fileno()).st_size < size_bytes:
                    raise self._altered(cid)
                mapped = mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as cause:
            raise ContentUnavailable(f"cannot read {cid} in {self.folder}: {cause}; fetch it again") from cause
        data = memoryview(mapped)
        if build(data).root != cid:
            raise self._altered(cid)

        def forget() -> None:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

        forget()
        return Held(data, forget)

    def has(self, cid: Cid) -> bool:
        return self._path(cid).exists()

    def size(self, cid: Cid) -> int:
        return self.dag(cid).size_bytes

    def dag(self, cid: Cid) -> Dag:
        with self._lock:
            known = self._dags.get(cid)
        if known is not None and self.has(cid):
            return known
        try:
            dag = read_dag(self._path(cid), cid)
        except FileNotFoundError as cause:
            self._forget(cid)
            raise ContentUnavailable(f"got no file {cid} in {self.folder}, expected it here; fetch it first") from cause
        except ContentMismatch:
            self._set_aside(cid)
            raise
        except OSError as cause:
            raise ContentUnavailable(f"cannot read {cid} in {self.folder}: {cause}; check the disk") from cause
        self._remember(dag)
        return dag

    # ---- blocks --------------------------------------------------------------------------------------------------

    def block(self, cid: Cid) -> Buffer:
        place = self._find(cid)
        if place is None:
            raise ContentUnavailable(f"got no block {cid} in {self.folder}, expected it here; fetch its file first")
        dag = self.dag(place.root)
        if place.leaf < 0:
            return dag.nodes[cid]
        data = self._read(place.root, *dag.leaf_span(place.leaf))
        if hashlib.sha256(data).digest() != cid.digest:
            self._set_aside(place.root)
            raise ContentMismatch(f"block {cid} of the stored file {place.root} was altered on disk; fetch it again")
        self._checked.add(cid)
        return data

    def block_size(self, cid: Cid) -> int | None:
        place = self._find(cid)
        if place is None:
            return None
        dag = self.dag(place.root)
        return len(dag.nodes[cid]) if place.leaf < 0 else dag.leaf_span(place.leaf)[1]

    def region(self, cid: Cid) -> Region | None:
        place = self._find(cid)
        if place is None or place.leaf < 0:
            return None
        if cid not in self._checked:
            self.block(cid)
        offset, length = self.dag(place.root).leaf_span(place.leaf)
        try:
            return Region(os.open(self._path(place.root), os.O_RDONLY), offset, length)
        except OSError:
            return None

    def label(self, cid: Cid) -> str:
        place = self._find(cid)
        return "" if place is None else self._pins.label(place.root)

    # ---- files on their way: fl_node.content.protocol.Resuming -----------------------------------------------------

    def resume(self, cid: Cid, max_bytes: int) -> Partial | None:
        with store_errors(self.folder):
            return self._partials.resume(cid, max_bytes)

    def begin(self, dag: Dag) -> Partial | None:
        with store_errors(self.folder):
            return self._partials.begin(dag)

    def finish(self, partial: Partial, *, label: str, round: int | None) -> memoryview:
        dag = partial.dag
        with store_errors(self.folder), self._exclusive(shared=True):
            self._pins.set(Pin(dag.root, label, round), durable=False)
            data = partial.complete(self._path(dag.root))
            self._remember(dag)
            self._checked.update(cid for cid, _ in dag.walk())
        return data

    def held_leaves(self, digests: Collection[bytes]) -> Iterator[tuple[bytes, Buffer]]:
        with self._lock:
            self._scan()
            known = [digest for digest in digests if Cid("raw", digest) in self._places]
        for digest in known:
            with contextlib.suppress(ContentMismatch, ContentUnavailable):
                yield digest, self.block(Cid("raw", digest))

    # ---- retention -----------------------------------------------------------------------------------------------

    def pin(self, cid: Cid, label: str, round: int | None = None) -> None:
        with store_errors(self.folder), self._exclusive(shared=True):
            if not self.has(cid):
                raise ContentUnavailable(f"cannot pin {cid}: it is not in {self.folder}; fetch it first")
            self._pins.set(Pin(cid, label, round), durable=True)

    def unpin(self, cid: Cid, label: str) -> None:
        self._pins.drop(cid, label)

    def pins(self) -> tuple[Pin, ...]:
        return self._pins.all()

    def gc(self, oldest_round: int | None = None, *, dry_run: bool = False) -> Collected:
        with store_errors(self.folder), self._exclusive():
            pinned = {pin.cid for pin in self._pins.all() if not expired(pin.round, oldest_round)}
            gone = [cid for cid in self._stored() if cid not in pinned]
            freed = sum(self._path(cid).stat().st_size for cid in gone)
            if not dry_run:
                if oldest_round is not None:
                    self._pins.drop_before(oldest_round)
                for cid in gone:
                    self._path(cid).unlink(missing_ok=True)
                    self._forget(cid)
                remove_abandoned(self._objects)
                freed += self._partials.purge()
            return Collected(tuple(gone), freed)

    def close(self) -> None:
        self._pins.close()

    # ---- inner ---------------------------------------------------------------------------------------------------

    def _bounded(self, cid: Cid, max_bytes: int) -> int:
        size_bytes = self.dag(cid).size_bytes
        if size_bytes > max_bytes:
            # A raw object's size is the disk's word until its bytes are hashed, and damage is nobody's fault.
            if cid.codec == "raw" and (
                size_bytes > CHUNK_BYTES or hashlib.sha256(self._read(cid, 0, size_bytes)).digest() != cid.digest
            ):
                raise self._altered(cid)
            raise ContentTooLarge(f"{cid} holds {size_bytes} bytes, expected at most {max_bytes}")
        return size_bytes

    def _altered(self, cid: Cid) -> ContentMismatch:
        self._set_aside(cid)
        where = f"in {self.folder}" if self._readonly else f"it is set aside in {self.folder / 'broken'}"
        return ContentMismatch(f"the stored file {cid} was altered on disk; {where}; fetch it again")

    def _path(self, cid: Cid) -> Path:
        return self._objects / str(cid)

    def _read(self, cid: Cid, offset: int, length: int) -> bytes:
        try:
            with self._path(cid).open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as cause:
            raise ContentUnavailable(f"cannot read {cid} in {self.folder}: {cause}; fetch it again") from cause
        while len(data) < length:
            # One read stops at 2 GiB; a short file stops for good, and the caller's hash tells.
            rest = self._read(cid, offset + len(data), length - len(data))
            if not rest:
                break
            data += rest
        return data

    def _find(self, cid: Cid) -> _Place | None:
        with self._lock:
            place = self._places.get(cid)
            if place is not None and self.has(place.root):
                return place
            if self.has(cid):
                self.dag(cid)
                return self._places.get(cid)
            self._scan()
            return self._places.get(cid)

    def _scan(self) -> None:
        """Learn of the files that other processes added, and forget those that they removed."""
        changed_ns = self._objects.stat().st_mtime_ns
        if changed_ns == self._scanned_ns[0] and self._scanned_ns[1] - changed_ns > _TIMESTAMP_SLACK_NS:
            return
        self._scanned_ns = (changed_ns, time.time_ns())
        present = self._stored()
        for cid in set(self._dags).difference(present):
            self._forget(cid)
        for cid in present:
            if cid not in self._dags:
                with contextlib.suppress(ContentMismatch, ContentUnavailable):
                    self.dag(cid)

    def _stored(self) -> list[Cid]:
        found = []
        for path in sorted(self._objects.iterdir()):
            with contextlib.suppress(UsageError):
                found.append(Cid.parse(path.name))
        return found

    def _remember(self, dag: Dag) -> None:
        with self._lock:
            self._dags[dag.root] = dag
            for cid, leaf in dag.walk():
                self._places[cid] = _Place(dag.root, leaf)

    def _forget(self, root: Cid) -> None:
        with self._lock:
            dag = self._dags.pop(root, None)
            if dag is None:
                return
            for cid, _ in dag.walk():
                self._checked.discard(cid)
                if cid in self._places and self._places[cid].root == root:
                    del self._places[cid]
            # A block may be part of another file too.
            for other in self._dags.values():
                for cid, leaf in other.walk():
                    self._places.setdefault(cid, _Place(other.root, leaf))

    def _set_aside(self, cid: Cid) -> None:
        """Move a broken file out of the way, so that it counts as absent and can be fetched again."""
        self._forget(cid)
        if self._readonly:
            return
        with contextlib.suppress(OSError):
            aside = self.folder / "broken"
            aside.mkdir(exist_ok=True)
            self._path(cid).replace(aside / str(cid))

    def _make_durable(self, cid: Cid) -> None:
        fd = os.open(self._path(cid), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(self._objects)

    @contextlib.contextmanager
    def _exclusive(self, shared: bool = False) -> Iterator[None]:
        """Keep collection apart from adding and pinning, between threads and processes."""
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
