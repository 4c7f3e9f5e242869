"""Means of a log and nothing else."""

from __future__ import annotations

from fl_node.audit.means import Means
from fl_node.audit.memory import MemoryTransactions, StoreBlobs
from fl_node.audit.open_means import folded
from fl_node.audit.tiled import identity_of
from fl_node.ledger.checkpoint import opening
from fl_node.ledger.index import LedgerIndex


def bare(log: LedgerIndex) -> Means:
    entries = log.entries()
    return Means(
        identity=identity_of(opening(log)),
        federation=None,
        log=log,
        prefix=folded(entries),
        entries=entries,
        breaches={},
        transactions=MemoryTransactions({}),
        blocks=None,
        blobs=StoreBlobs({}),
        checkpoints=(),
        depth=0,
    )
