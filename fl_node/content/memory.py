"""The in-memory content store: the twin that simulations and tests use."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fl_node.content.cid import Cid
from fl_node.content.protocol import Collected, Held, Pin, Region
from fl_node.content.unixfs import Buffer, Dag, build, views
from fl_node.errors import ContentTooLarge, ContentUnavailable


class MemoryStore:
    """Files in a dictionary. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._files: dict[Cid, tuple[Dag, bytes]] = {}
        self._blocks: dict[Cid, tuple[Cid, int]] = {}
        self._pins: dict[tuple[Cid, str], int | None] = {}

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
        with self._lock:
            self._files[dag.root] = (dag, b"".join(views(data)))
            self._blocks.update({cid: (dag.root, leaf) for cid, leaf in dag.walk()})
            self._pins[dag.root, label] = round

    def get(self, cid: Cid, max_bytes: int) -> Buffer:
        dag, data = self._file(cid)
        if dag.size_bytes > max_bytes:
            raise ContentTooLarge(f"{cid} holds {dag.size_bytes} bytes, expected at most {max_bytes}")
        return data

    def hold(self, cid: Cid, max_bytes: int) -> Held:
        return Held(self.get(cid, max_bytes))

    def has(self, cid: Cid) -> bool:
        return cid in self._files

    def size(self, cid: Cid) -> int:
        return self._file(cid)[0].size_bytes

    def dag(self, cid: Cid) -> Dag:
        return self._file(cid)[0]

    def block(self, cid: Cid) -> Buffer:
        with self._lock:
            if cid not in self._blocks:
                raise ContentUnavailable(f"got no block {cid} in this store, expected it here; fetch its file first")
            root, leaf = self._blocks[cid]
            dag, data = self._files[root]
        if leaf < 0:
            return dag.nodes[cid]
        offset, length = dag.leaf_span(leaf)
        return memoryview(data)[offset : offset + length]

    def block_size(self, cid: Cid) -> int | None:
        return len(self.block(cid)) if cid in self._blocks else None

    def region(self, cid: Cid) -> Region | None:
        return None

    def label(self, cid: Cid) -> str:
        with self._lock:
            root = self._blocks.get(cid, (cid, 0))[0]
            return min((label for kept, label in self._pins if kept == root), default="")

    def pin(self, cid: Cid, label: str, round: int | None = None) -> None:
        with self._lock:
            self._file(cid)
            self._pins[cid, label] = round

    def unpin(self, cid: Cid, label: str) -> None:
        with self._lock:
            self._pins.pop((cid, label), None)

    def pins(self) -> tuple[Pin, ...]:
        with self._lock:
            return tuple(Pin(cid, label, round) for (cid, label), round in sorted(self._pins.items(), key=_order))

    def gc(self, oldest_round: int | None = None, *, dry_run: bool = False) -> Collected:
        with self._lock:
            kept = {key: at for key, at in self._pins.items() if not expired(at, oldest_round)}
            pinned = {cid for cid, _ in kept}
            gone = [cid for cid in sorted(self._files, key=str) if cid not in pinned]
            freed = sum(self._files[cid][0].size_bytes for cid in gone)
            if not dry_run:
                self._pins = kept
                for cid in gone:
                    del self._files[cid]
                self._blocks = {
                    block: (dag.root, leaf) for dag, _ in self._files.values() for block, leaf in dag.walk()
                }
            return Collected(tuple(gone), freed)

    def close(self) -> None:
        pass

    def _file(self, cid: Cid) -> tuple[Dag, bytes]:
        with self._lock:
            if cid not in self._files:
                raise ContentUnavailable(f"got no file {cid} in this store, expected it here; fetch it first")
            return self._files[cid]


def expired(round: int | None, oldest_round: int | None) -> bool:
    """Whether a pin of ``round`` may go when rounds before ``oldest_round`` may."""
    return round is not None and oldest_round is not None and round < oldest_round


def _order(item: tuple[tuple[Cid, str], int | None]) -> tuple[str, str]:
    (cid, label), _ = item
    return str(cid), label
