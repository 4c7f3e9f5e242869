"""A pack's bytes and transactions as an audit asks for them: read from the file when they are needed, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fl_node.audit.means import Holders
from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.protocol import Held
from fl_node.content.spool import spooled
from fl_node.content.unixfs import build
from fl_node.errors import ContentMismatch, ContentUnavailable
from fl_node.evidence.container import Container, Member
from fl_node.evidence.lines import read_transaction
from fl_node.records import UpdateRef


class PackBlobs:
    """A :class:`fl_node.audit.means.Blobs`: what the pack holds, and nobody to ask beside it.

    Args:
        whole: files that hold the bytes of a CID as they are.
        cars: files that hold them as a CAR.
        scratch: folder for large files while they are in use.
    """

    def __init__(
        self, container: Container, whole: Mapping[Cid, Member], cars: Mapping[Cid, Member], scratch: Path
    ) -> None:
        self._container, self._whole, self._cars, self._scratch = container, whole, cars, scratch

    def hold(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> Held:
        """As :class:`fl_node.audit.means.Blobs` says. A large file is never in memory as a whole."""
        member = self._whole.get(cid)
        if member is not None:
            return self._plain(cid, member, max_bytes)
        member = self._cars.get(cid)
        if member is None:
            raise ContentUnavailable(f"the pack does not hold {cid}; a pack that was written with --blobs may")
        part = partial(self._container.part, member)
        try:
            dag, leaves = car.scan(part, member.size, max_bytes)
        except ContentMismatch as cause:
            raise type(cause)(f"{member.name}: {cause}") from cause
        if dag.root != cid:
            raise ContentMismatch(f"{member.name} in the pack holds {dag.root}")
        return spooled((part(at, size) for at, size in leaves), dag.size_bytes, self._scratch)

    def asked(self, cid: Cid, ref: UpdateRef | None = None) -> Holders | None:
        """Nobody."""
        return None

    def where(self, cid: Cid) -> str:
        """No gateway."""
        return ""

    def _plain(self, cid: Cid, member: Member, max_bytes: int) -> Held:
        if member.size > max_bytes:
            raise ContentMismatch(f"{member.name} in the pack has {member.size} bytes, expected at most {max_bytes}")
        held = spooled(self._container.pieces(member), member.size, self._scratch)
        if (found := build(held.data).root) != cid:
            raise ContentMismatch(f"{member.name} in the pack holds {found}, expected {cid}")
        held.forget()
        return held


class PackInClear:
    """A :class:`fl_node.audit.means.InClear`: weights of encrypted updates that whoever wrote the pack could read."""

    def __init__(self, container: Container, members: Mapping[UpdateRef, Member], scratch: Path) -> None:
        self._container, self._members, self._scratch = container, members, scratch

    def weights(self, ref: UpdateRef, max_bytes: int) -> Held | None:
        """As :class:`fl_node.audit.means.InClear` says."""
        member = self._members.get(ref)
        if member is None:
            return None
        if member.size > max_bytes:
            raise ContentMismatch(f"{member.name} in the pack has {member.size} bytes, expected at most {max_bytes}")
        return spooled(self._container.pieces(member), member.size, self._scratch)


class PackTransactions:
    """A :class:`fl_node.audit.means.Transactions`: those that the pack holds. ``places`` says in which file, and where
    in it, the line of each is. What they hash to is for the audit to see."""

    def __init__(self, container: Container, places: Mapping[bytes, tuple[Member, int, int]]) -> None:
        self._container, self._places = container, places

    def signed(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """By hash, each read when it is looked at."""
        return _Signed(self._container, {one: self._places[one] for one in hashes if one in self._places})


class _Signed(Mapping[bytes, bytes]):
    def __init__(self, container: Container, places: Mapping[bytes, tuple[Member, int, int]]) -> None:
        self._container, self._places = container, places

    def __getitem__(self, tx_hash: bytes) -> bytes:
        member, offset, length = self._places[tx_hash]
        return read_transaction(self._container.part(member, offset, length), member.name).raw

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
