"""A Kubo daemon as content store, through ``ipfshttpclient``.

The daemon only stores and serves: blocks are cut and named here and uploaded as a CAR (``dag/import``), so a CID never
depends on its settings, and every block read back is checked, so nothing depends on its honesty either. Who a file is
kept for stays in the peer's state folder, since a daemon knows pins without labels or rounds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.memory import expired
from fl_node.content.objects import store_errors
from fl_node.content.pins import Pins
from fl_node.content.protocol import Collected, Held, Pin, Region
from fl_node.content.unixfs import CHUNK_BYTES, MAX_NODE_BYTES, Buffer, Dag, assemble, build, views
from fl_node.errors import (
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentTooLarge,
    ContentUnavailable,
    StoreFull,
    StoreUnreachable,
    UsageError,
)

_UPLOAD_BYTES: Final = 1 << 18
_MAX_DAG_BYTES: Final = 1 << 40
_NO_ROOM: Final = ("no space left", "read-only file system", "storage max", "quota", "enospc", "erofs")


class KuboStore:
    """Files in a Kubo daemon. Safe to share between threads, which take turns.

    Args:
        folder: where this peer's pins (for whom, until which round) are kept.
        api: multiaddr of the daemon's RPC.
        timeout_s: seconds for the daemon to take an upload or a pin.
        block_s: seconds for the daemon to give a block; one that takes longer counts as not there.
        search: whether the daemon may look in its network for a block that it has not got.

    Raises (on construction; no connection is made yet):
        UsageError: ``ipfshttpclient`` is not installed, or the multiaddr is not one.
        StoreFull: the folder is not there and cannot be made.

    Every method raises StoreUnreachable where the daemon does not answer.
    """

    def __init__(
        self,
        folder: Path,
        api: str = "/ip4/127.0.0.1/tcp/5001",
        *,
        timeout_s: float = 60.0,
        block_s: float = 5.0,
        search: bool = False,
    ) -> None:
        try:
            self._library: Any = importlib.import_module("ipfshttpclient")
        except ImportError as cause:
            raise UsageError("content = kubo needs a package: pip install 'fl-node[kubo]'") from cause
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._pins = Pins(folder)
        self._api = api
        # Some daemons ignore ``offline`` and search for ever, hence the time limit as well.
        self._reading: dict[str, Any] = {"timeout": block_s, "offline": not search}
        self._lock = threading.RLock()
        errors = self._library.exceptions
        self._absent = (errors.ErrorResponse, errors.TimeoutError)
        try:
            # Client, not connect(): that refuses every daemon younger than the library.
            self._client: Any = self._library.Client(api, chunk_size=_UPLOAD_BYTES, timeout=timeout_s, session=True)
        except Exception as cause:
            raise UsageError(f"got the IPFS API {api!r}, expected a multiaddr like /ip4/127.0.0.1/tcp/5001") from cause

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
        pieces = views(data)

        def leaf(_: Cid, index: int) -> Iterator[Buffer]:
            yield from _slices(pieces, *dag.leaf_span(index))

        with self._daemon(f"store {dag.root}") as client:
            answer = client.dag.imprt(_Stream(car.write(dag, leaf)))
            root = dict(answer["Root"])
            if root.get("PinErrorMsg"):
                raise ContentError(f"the IPFS daemon stored {dag.root} but did not pin it: {root['PinErrorMsg']}")
            if dict(root["Cid"]).get("/") != str(dag.root):
                raise ContentMismatch(f"the IPFS daemon says it stored {root['Cid']}, expected {dag.root}")
        self._pins.set(Pin(dag.root, label, round), durable)

    def get(self, cid: Cid, max_bytes: int) -> Buffer:
        if cid.codec == "raw":
            block = self.block(cid)
            if len(block) > max_bytes:
                raise ContentTooLarge(f"{cid} holds {len(block)} bytes, expected at most {max_bytes}")
            return block
        dag = assemble(cid, lambda node: bytes(self.block(node)), max_bytes)
        data = bytearray(dag.size_bytes)
        for index, digest in enumerate(dag.leaves):
            offset, length = dag.leaf_span(index)
            leaf = self.block(Cid("raw", digest))
            if len(leaf) != length:
                raise ContentMalformed(f"leaf {index} of {cid} has {len(leaf)} bytes, expected {length}")
            data[offset : offset + length] = leaf
        return data

    def hold(self, cid: Cid, max_bytes: int) -> Held:
        return Held(self.get(cid, max_bytes))

    def has(self, cid: Cid) -> bool:
        try:
            with self._daemon(f"look for {cid}") as client:
                return bool(client.pin.ls(str(cid), type="recursive")["Keys"])
        except ContentUnavailable as cause:
            if isinstance(cause.__cause__, self._library.exceptions.ErrorResponse):
                return False
            raise

    def size(self, cid: Cid) -> int:
        return self.dag(cid).size_bytes

    def dag(self, cid: Cid) -> Dag:
        if cid.codec == "dag-pb":
            return assemble(cid, lambda node: bytes(self.block(node)), _MAX_DAG_BYTES)
        size = self.block_size(cid)
        if size is None:
            raise ContentUnavailable(f"got no file {cid} in the IPFS daemon, expected it there; fetch it first")
        return Dag(cid, size, (cid.digest,), {})

    # ---- blocks --------------------------------------------------------------------------------------------------

    def block(self, cid: Cid) -> Buffer:
        with self._daemon(f"read {cid}", reading=True) as client:
            block: bytes = client.block.get(str(cid), **self._reading)
        if len(block) > (CHUNK_BYTES if cid.codec == "raw" else MAX_NODE_BYTES):
            raise ContentMalformed(f"block {cid} has {len(block)} bytes, expected at most {CHUNK_BYTES}")
        if hashlib.sha256(block).digest() != cid.digest:
            raise ContentMismatch(f"the IPFS daemon at {self._api} gave other bytes for {cid}; check its repository")
        return block

    def block_size(self, cid: Cid) -> int | None:
        try:
            with self._daemon(f"look for {cid}", reading=True) as client:
                return int(client.block.stat(str(cid), **{**self._reading, "offline": True})["Size"])
        except ContentUnavailable as cause:
            if isinstance(cause.__cause__, self._absent):
                return None
            raise

    def region(self, cid: Cid) -> Region | None:
        return None

    def label(self, cid: Cid) -> str:
        """Of a file of one block, or the root of one: which file another block belongs to, the daemon does not say."""
        return self._pins.label(cid)

    # ---- retention -----------------------------------------------------------------------------------------------

    def pin(self, cid: Cid, label: str, round: int | None = None) -> None:
        if not self.has(cid):
            raise ContentUnavailable(f"cannot pin {cid}: the IPFS daemon does not keep it; fetch it first")
        self._pins.set(Pin(cid, label, round), durable=True)

    def unpin(self, cid: Cid, label: str) -> None:
        labels = {pin.label for pin in self._pins.all() if pin.cid == cid}
        if labels == {label}:
            self._unpin_in_daemon(cid)
        self._pins.drop(cid, label)

    def pins(self) -> tuple[Pin, ...]:
        return self._pins.all()

    def gc(self, oldest_round: int | None = None, *, dry_run: bool = False) -> Collected:
        """Unpin in the daemon what no pin of this peer keeps. The daemon frees the space at its own collection."""
        everything = self._pins.all()
        kept = {pin.cid for pin in everything if not expired(pin.round, oldest_round)}
        gone = sorted({pin.cid for pin in everything} - kept, key=str)
        freed = sum(self.size(cid) for cid in gone)
        if not dry_run:
            for cid in gone:
                self._unpin_in_daemon(cid)
            if oldest_round is not None:
                self._pins.drop_before(oldest_round)
        return Collected(tuple(gone), freed)

    def close(self) -> None:
        self._pins.close()
        with self._lock:
            self._client.close()

    def _unpin_in_daemon(self, cid: Cid) -> None:
        if self.has(cid):
            with self._daemon(f"unpin {cid}") as client:
                client.pin.rm(str(cid), recursive=True)

    @contextlib.contextmanager
    def _daemon(self, task: str, reading: bool = False) -> Iterator[Any]:
        """The client, for one call; its errors become ours. ``reading``: too late means not there."""
        errors = self._library.exceptions
        with self._lock:
            try:
                yield self._client
            except errors.ErrorResponse as cause:
                message = str(cause)
                if any(words in message.lower() for words in _NO_ROOM):
                    raise StoreFull(
                        f"the IPFS daemon at {self._api} cannot {task}: {message}; give it room. Nothing was lost"
                    ) from cause
                raise ContentUnavailable(f"the IPFS daemon at {self._api} cannot {task}: {message}") from cause
            except errors.TimeoutError as cause:
                late = f"the IPFS daemon at {self._api} took too long to {task}"
                raise (ContentUnavailable(late) if reading else StoreUnreachable(late)) from cause
            except (errors.Error, KeyError, TypeError, AssertionError, OSError) as cause:
                raise StoreUnreachable(
                    f"the IPFS daemon at {self._api} does not answer as one ({task}: {cause}); "
                    "start it (ipfs daemon), or pass its RPC address with --ipfs-api"
                ) from cause


class _Stream:
    """A readable file made of buffers, as the upload wants it."""

    def __init__(self, parts: Iterator[Buffer]) -> None:
        self._parts = parts
        self._pending = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``, or nothing at the end."""
        while not self._pending:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._pending = memoryview(part)
        given, self._pending = self._pending[:size], self._pending[size:]
        return bytes(given)


def _slices(pieces: list[memoryview], offset: int, length: int) -> Iterator[memoryview]:
    """The bytes of a span of the file, out of the buffers it lies in."""
    for piece in pieces:
        if length and offset < piece.nbytes:
            part = piece[offset : offset + length]
            yield part
            length -= part.nbytes
            offset = 0
        else:
            offset -= min(offset, piece.nbytes)
