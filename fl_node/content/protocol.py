"""The seam between the federation and wherever bytes live by CID.

A store holds *files*, each named by its root CID, and gives any block of them. What it gives was checked against the
CID, so a caller may parse it. Every file that is kept has at least one *pin*: a label that says for whom, and the
round it belongs to, so that retention can be counted in rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fl_node.content.cid import Cid
from fl_node.content.unixfs import Buffer, Dag

if TYPE_CHECKING:
    from fl_node.content.partial import Partial


@dataclass(frozen=True, slots=True)
class Pin:
    """Why a file is kept. ``round`` None: for ever."""

    cid: Cid
    label: str
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed (or, on a dry run, would remove)."""

    cids: tuple[Cid, ...]
    freed_bytes: int


def _nothing() -> None:
    """For bytes that lie in memory anyway."""


@dataclass(frozen=True, slots=True)
class Held:
    """A whole file, checked. ``forget`` gives back the memory of what was read, where the bytes lie on disk as well:
    whoever reads ``data`` again gets the same bytes."""

    data: Buffer
    forget: Callable[[], None] = _nothing

    @property
    def in_memory(self) -> bool:
        """Whether the bytes lie in memory only."""
        return self.forget is _nothing


@dataclass(frozen=True, slots=True)
class Region:
    """Where a block's bytes lie in an open file. Whoever asked for it closes ``fd``."""

    fd: int
    offset: int
    length_bytes: int


class ContentStore(Protocol):
    """Files and blocks by CID. Every method may raise ContentError; the others are named."""

    def add(
        self,
        data: Buffer | Sequence[Buffer],
        *,
        label: str = "own",
        round: int | None = None,
        durable: bool = True,
    ) -> Cid:
        """Hash, store and pin a file. ``durable``: it survives a power cut once this returns.

        Raises:
            StoreFull: nothing was changed.
        """

    def put(
        self,
        dag: Dag,
        data: Buffer | Sequence[Buffer],
        *,
        label: str = "fetched",
        round: int | None = None,
        durable: bool = False,
    ) -> None:
        """Store and pin a file whose blocks were hashed already: ``dag`` must come from those very bytes.

        Raises:
            StoreFull: nothing was changed.
        """

    def get(self, cid: Cid, max_bytes: int) -> Buffer:
        """A whole file, checked.

        Raises:
            ContentUnavailable: not here.
            ContentMismatch: altered on the way or on the disk.
            ContentMalformed: larger than ``max_bytes``, or not a file of the profile.
        """

    def hold(self, cid: Cid, max_bytes: int) -> Held:
        """As :meth:`get`, without keeping the file in memory where the store can help it."""

    def has(self, cid: Cid) -> bool:
        """Whether this store holds the file without asking anybody else."""

    def size(self, cid: Cid) -> int:
        """Bytes of a file. Raises ContentUnavailable where it is not here."""

    def dag(self, cid: Cid) -> Dag:
        """The shape of a file. Raises as :meth:`get`, without reading the leaves."""

    def block(self, cid: Cid) -> Buffer:
        """One block, root, node or leaf, checked. Raises as :meth:`get`."""

    def block_size(self, cid: Cid) -> int | None:
        """Bytes of one block; None where it is not here."""

    def region(self, cid: Cid) -> Region | None:
        """A block as a part of an open file, so that the kernel can send it; None: use :meth:`block`.

        Its bytes were checked at least once since this store was opened.
        """

    def pin(self, cid: Cid, label: str, round: int | None = None) -> None:
        """Keep a file for one more reason, or give a reason another round. Raises ContentUnavailable: not here."""

    def unpin(self, cid: Cid, label: str) -> None:
        """Drop one reason; dropping one that is not there does nothing. The bytes go at the next :meth:`gc`."""

    def pins(self) -> tuple[Pin, ...]:
        """Every reason, by CID, then label."""

    def gc(self, oldest_round: int | None = None, *, dry_run: bool = False) -> Collected:
        """Drop the pins of rounds before ``oldest_round``, then every file without a pin. A pinned file stays."""

    def close(self) -> None:
        """Let go of files and connections. Closing twice does nothing."""


@runtime_checkable
class Labelled(Protocol):
    """A store that can tell for whom it keeps a block."""

    def label(self, cid: Cid) -> str:
        """A label of the file that a block belongs to; empty where none is known."""


@runtime_checkable
class Resuming(Protocol):
    """A store that keeps what came of a file whose fetch stopped half-way."""

    def resume(self, cid: Cid, max_bytes: int) -> Partial | None:
        """What is here of a file of several blocks, each leaf checked; None if nothing, or somebody is at it.

        Raises:
            ContentMalformed: it is larger than ``max_bytes``.
        """

    def begin(self, dag: Dag) -> Partial | None:
        """A file of which nothing is here; None if somebody is at it. Raises StoreFull."""

    def finish(self, partial: Partial, *, label: str, round: int | None) -> memoryview:
        """Keep a file whose leaves are all here, as :meth:`ContentStore.put` does; its bytes. Raises StoreFull."""

    def held_leaves(self, digests: Collection[bytes]) -> Iterator[tuple[bytes, Buffer]]:
        """Those of these leaves that other files in the store have, checked."""
