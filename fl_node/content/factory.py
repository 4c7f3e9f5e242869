"""Open the content store that a peer's configuration names."""

from __future__ import annotations

from pathlib import Path

from fl_node.content.protocol import ContentStore
from fl_node.errors import UsageError

KINDS = ("embedded", "kubo", "memory")


def open_store(kind: str, folder: Path, ipfs_api: str = "/ip4/127.0.0.1/tcp/5001") -> ContentStore:
    """The store of this kind: ``embedded`` (in ``folder``), ``kubo`` (a daemon; pins in ``folder``), ``memory``.

    Raises:
        UsageError: no such kind, or the package for it is not installed.
        StoreFull: the folder cannot be made.
    """
    # Each kind is imported only where it is used: none needs the libraries of another.
    if kind == "embedded":
        from fl_node.content.blockstore import Blockstore

        return Blockstore(folder)
    if kind == "kubo":
        from fl_node.content.kubo import KuboStore

        return KuboStore(folder, ipfs_api)
    if kind == "memory":
        from fl_node.content.memory import MemoryStore

        return MemoryStore()
    raise UsageError(f"got content store {kind!r}, expected one of {', '.join(KINDS)}")
