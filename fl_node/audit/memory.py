"""The audit's seams in memory: for tests, notebooks and simulations, and for evidence that is at hand anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fl_node.audit.means import Holders
from fl_node.content.cid import Cid
from fl_node.content.protocol import ContentStore, Held
from fl_node.content.unixfs import build
from fl_node.errors import ContentMismatch, ContentUnavailable
from fl_node.ledger.chain_look import Block
from fl_node.records import UpdateRef


class StoreBlobs:
    """Bytes from content stores, each a peer's; nobody is asked over a network.

    Args:
        stores: by peer number; all are looked at, the publisher's first.
        asking: whether :meth:`asked` answers for them, as if each were a gateway.
    """

    def __init__(self, stores: Mapping[int, ContentStore], *, asking: bool = False) -> None:
        self._stores, self._asking = dict(stores), asking

    def hold(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> Held:
        """As :class:`fl_node.audit.means.Blobs` says."""
        altered: ContentMismatch | None = None
        own = ref.peer if ref is not None else 0
        for number in sorted(self._stores, key=lambda one: (one != own, one)):
            store = self._stores[number]
            try:
                if store.has(cid):
                    return _checked(cid, store.hold(cid, max_bytes))
            except ContentUnavailable:
                continue
            except ContentMismatch as cause:
                altered = cause
        if altered is not None:
            raise altered
        raise ContentUnavailable(f"none of {len(self._stores)} stores has {cid}; name one that has it")

    def asked(self, cid: Cid, ref: UpdateRef | None = None) -> Holders | None:
        """What each store says, or ``None``."""
        if not self._asking:
            return None
        having = tuple(f"peer {number}" for number, store in sorted(self._stores.items()) if store.has(cid))
        lacking = tuple(f"peer {number}" for number, store in sorted(self._stores.items()) if not store.has(cid))
        publisher = self._stores.get(ref.peer) if ref is not None else None
        return Holders(having, lacking, (), None if publisher is None else publisher.has(cid))

    def where(self, cid: Cid) -> str:
        """No gateway is known."""
        return ""


def _checked(cid: Cid, held: Held) -> Held:
    """A store of somebody else's making may give other bytes than it was asked for.

    Raises:
        ContentMismatch: it does.
    """
    got = build(held.data).root
    if got != cid:
        raise ContentMismatch(f"a store gave bytes with the CID {got}, expected {cid}; name another one that has it")
    return held


class MemoryTransactions:
    """Raw signed transactions by hash."""

    def __init__(self, raws: Mapping[bytes, bytes]) -> None:
        self._raws = dict(raws)

    def signed(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Those of these that are there."""
        return {tx_hash: self._raws[tx_hash] for tx_hash in hashes if tx_hash in self._raws}


class MemoryBlocks:
    """A chain's blocks by number."""

    def __init__(self, blocks: Mapping[int, Block], code: bytes) -> None:
        self._blocks, self._code = dict(blocks), code

    def of(self, numbers: Sequence[int]) -> Mapping[int, Block | None]:
        """Those of these that are there."""
        return {number: self._blocks.get(number) for number in numbers}

    def tip(self) -> int:
        """Number of the latest block."""
        return max(self._blocks, default=0)

    def code(self) -> bytes:
        """The contract's code."""
        return self._code

    def highest_round(self) -> int:
        """0: what the log says stands."""
        return 0
