"""What the ledger's digests name: CIDs of updates and of the genesis."""

from __future__ import annotations

from fl_node.content.cid import Cid
from fl_node.records import Flag, LedgerOpened, Update


def cid_of_update(update: Update) -> Cid:
    """The CID of an update's content: dag-pb where its flag says so, raw otherwise."""
    return _cid(update.flags, update.content)


def cid_of_genesis(opened: LedgerOpened) -> Cid:
    """The CID of the initial weights."""
    return _cid(opened.genesis_flags, opened.genesis_content)


def _cid(flags: Flag, digest: bytes) -> Cid:
    return Cid("dag-pb" if flags & Flag.DAG_PB else "raw", digest)
