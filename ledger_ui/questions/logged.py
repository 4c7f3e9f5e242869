"""Entries as the log has them: raw, decoded, and proved under a root. All of it from the snapshot that a page is of."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field

from fl_node.errors import LedgerError
from fl_node.ledger import codec, tree
from fl_node.records import Entry
from ledger_ui.contexts import Context, Digest, Hex

#: What a query must select for :func:`entry_of`.
COLUMNS: Final = "idx, block, block_hash, tx_hash, topics, data"


class ProofStep(Context):
    """One sibling on the way from a leaf to the root."""

    side: Literal["left", "right"] = Field(description="where the sibling stands")
    hash: Digest


class RawEntry(Context):
    """An event log as the chain has it, and its place in the tree."""

    topics: list[Hex] = Field(description="topic 0 is the kind, topic 1 the entry index")
    data: Hex
    leaf: Digest = Field(description="SHA-256(00 || topics || data)")
    block: int
    block_hash: Hex
    transaction: Hex = Field(description="hash of the transaction that made it")
    size: int = Field(description="entries of the tree that the proof is for; 0: no proof, the entry is in none")
    root: Digest | None = Field(description="its root")
    proof: list[ProofStep] = Field(description="siblings from the leaf up, so that anybody can go from leaf to root")


def entry_of(row: sqlite3.Row | dict[str, Any]) -> Entry:
    """A row of :data:`COLUMNS`, decoded. Never raises for what is in it."""
    joined = row["topics"]
    topics = tuple([joined[at : at + 32] for at in range(0, len(joined), 32)])
    _, time_s, body = codec.decode(topics, row["data"])
    return Entry(row["idx"], time_s, row["block"], row["block_hash"], row["tx_hash"], topics, row["data"], body)


def entry_at(db: sqlite3.Connection, index: int) -> Entry | None:
    """One entry; ``None`` where the log has none."""
    row = db.execute(f"SELECT {COLUMNS} FROM entries WHERE idx = ?", (index,)).fetchone()  # noqa: S608
    return None if row is None else entry_of(row)


def root_of(db: sqlite3.Connection, size: int) -> bytes | None:
    """Root of the first ``size`` entries; ``None`` where the index does not hold so many."""
    held = db.execute("SELECT max(idx) FROM entries").fetchone()[0]
    if not 0 <= size <= (-1 if held is None else held) + 1:
        return None
    try:
        return tree.root_at(size, lambda level, position: _subtree(db, level, position))
    except LedgerError:
        return None


def raw_of(db: sqlite3.Connection, entry: Entry, size: int) -> RawEntry:
    """An entry with its proof under the root of the first ``size`` entries; without one if it is not among them."""
    steps: list[ProofStep] = []
    root = root_of(db, size) if entry.index < size else None
    if root is not None:
        steps = _steps(db, entry.index, size)
    return RawEntry(
        topics=[topic.hex() for topic in entry.topics],
        data=entry.data.hex(),
        leaf=tree.entry_leaf(entry.topics, entry.data).hex(),
        block=entry.block_number,
        block_hash=entry.block_hash.hex(),
        transaction=entry.tx_hash.hex(),
        size=size if root is not None else 0,
        root=None if root is None else root.hex(),
        proof=steps,
    )


def folded(leaf: bytes, proof: Sequence[ProofStep]) -> bytes:
    """The root that a leaf and its proof give."""
    node = leaf
    for step in proof:
        other = bytes.fromhex(step.hash)
        pair = node + other if step.side == "right" else other + node
        node = hashlib.sha256(b"\x01" + pair).digest()
    return node


def _steps(db: sqlite3.Connection, index: int, size: int) -> list[ProofStep]:
    """The audit path, each sibling with its side: RFC 9162, 2.1.3.2."""
    path = tree.inclusion_proof(index, size, lambda level, position: _subtree(db, level, position))
    steps, position, last = [], index, size - 1
    for sibling in path:
        left = bool(position & 1) or position == last
        steps.append(ProofStep(side="left" if left else "right", hash=sibling.hex()))
        if left:
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        position, last = position >> 1, last >> 1
    return steps


def _subtree(db: sqlite3.Connection, level: int, position: int) -> bytes:
    if level == 0:
        row = db.execute("SELECT leaf FROM entries WHERE idx = ?", (position,)).fetchone()
    else:
        query = "SELECT hash FROM nodes WHERE level = ? AND position = ?"
        row = db.execute(query, (level, position)).fetchone()
    if row is None:
        raise LedgerError(f"the index lacks subtree {level}/{position}; delete it, and it is made again")
    return bytes(row[0])
