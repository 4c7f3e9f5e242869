"""Means for an audit of federations that live in memory: a simulation's world, or the twins of real peers."""

from __future__ import annotations

from typing import Any

from fl_node.audit.means import Means
from fl_node.audit.memory import MemoryTransactions, StoreBlobs
from fl_node.audit.open_means import folded
from fl_node.content.protocol import ContentStore
from fl_node.ledger.breaches import breaches
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.protocol import LedgerIdentity
from fl_node.spec import Federation


def means_over(
    index: LedgerIndex, identity: LedgerIdentity, federation: Federation, stores: dict[int, ContentStore], **more: Any
) -> Means:
    """An audit's means without a chain: nothing is signed in memory."""
    entries = index.entries()
    given: dict[str, Any] = {
        "identity": identity,
        "federation": federation,
        "log": index,
        "prefix": folded(entries),
        "entries": entries,
        "breaches": breaches(entries),
        "transactions": MemoryTransactions({}),
        "blocks": None,
        "blobs": StoreBlobs(stores),
        "checkpoints": (),
        "depth": 0,
    }
    return Means(**{**given, **more})
