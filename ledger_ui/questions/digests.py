"""What in the log a digest, a hash or their first digits name."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from fl_node.content.cid import Cid
from fl_node.records import Flag, LedgerOpened, UpdateRef
from ledger_ui.questions.logged import entry_at
from ledger_ui.registry import Here

#: Rows of one kind: many updates may start from one base.
_MOST: Final = 20
_MOST_PEERS: Final = 20_000
#: Columns of updates with an index of their own, and what they are.
_COLUMNS: Final = {
    "content": "the content of {}",
    "weights": "the weights commitment of {}",
    "base": "the base of {}",
    "report": "the report of {}",
    "seen_root": "the root that {} had seen",
}
_LEAF_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Named:
    """One thing that is named so."""

    kind: str
    words: str
    url: str


def by_digest(here: Here, digest: bytes, named: Cid | None = None) -> list[Named]:
    """What these 32 bytes name.

    Args:
        named: the CID that they are of: then only contents and reports are looked at.
    """
    found = _updates(here, digest, named)
    if named is None:
        found += (
            _of_federation(here, digest) + _transaction(here, digest) + _leaf(here, digest) + _dropped(here, digest)
        )
    return found


def by_start(here: Here, start: str, end: str = "") -> list[Named]:
    """What has a digest, hash or address that begins, and ends, with these digits."""
    found: list[Named] = []
    if len(start) + len(end) <= 64:
        found += _updates_from(here, start, end)
        found += _transactions_from(here, start, end)
        found += _leaves_from(here, start, end)
        for words, digest in _known_digests(here):
            if digest.startswith(start) and digest.endswith(end):
                found.append(Named("federation", words, here.urls.federation()))
    if len(start) + len(end) <= 40:
        found += _accounts(here, start, end)
    return found


# ---- whole ----------------------------------------------------------------------------------------------------------


def _updates(here: Here, digest: bytes, cid: Cid | None) -> list[Named]:
    found = []
    for column, words in _COLUMNS.items():
        if cid is not None and column not in ("content", "report"):
            continue
        for row in here.db.execute(
            f"SELECT peer, sequence, flags FROM updates WHERE {column} = ? ORDER BY idx LIMIT ?",  # noqa: S608
            (digest, _MOST),
        ):
            codec = "dag-pb" if column == "content" and row["flags"] & Flag.DAG_PB else "raw"
            if cid is None or cid.codec == codec:
                found.append(_update(here, row, words))
    return found


def _update(here: Here, row: sqlite3.Row, words: str) -> Named:
    ref = UpdateRef(row["peer"], row["sequence"])
    return Named("update", words.format(ref), here.urls.update(ref))


def _known_digests(here: Here) -> list[tuple[str, str]]:
    """Digests that the federation itself has."""
    known = [("the digest of the spec", here.frame.spec_digest)]
    if here.frame.root:
        known.append((f"the root of all {here.frame.size:,} entries", here.frame.root))
    opened = entry_at(here.db, 0)
    if opened is not None and isinstance(opened.body, LedgerOpened):
        known.append(("the content of the genesis weights", opened.body.genesis_content.hex()))
        known.append(("the digest of the genesis weights", opened.body.genesis_weights.hex()))
    return known


def _of_federation(here: Here, digest: bytes) -> list[Named]:
    found = [
        Named("federation", words, here.urls.federation())
        for words, known in _known_digests(here)
        if known == digest.hex()
    ]
    note = here.db.execute("SELECT size FROM notes WHERE root = ? LIMIT 1", (digest,)).fetchone()
    if note is not None:
        found.append(Named("federation", f"the root of a checkpoint of {note[0]:,} entries", here.urls.federation()))
    return found


def _transaction(here: Here, digest: bytes) -> list[Named]:
    rows = here.db.execute("SELECT idx FROM entries WHERE tx_hash = ? ORDER BY idx LIMIT 2", (digest,)).fetchall()
    if not rows:
        return []
    if len(rows) == 1:
        return [Named("transaction", f"the transaction of entry {rows[0][0]}", here.urls.entry(rows[0][0]))]
    return [Named("transaction", "a transaction that made several entries", here.urls.entries(tx=digest.hex()))]


def _leaf(here: Here, digest: bytes) -> list[Named]:
    row = here.db.execute(
        "SELECT idx FROM entries WHERE substr(leaf, 1, 6) = ? AND leaf = ? LIMIT 1", (digest[:6], digest)
    ).fetchone()
    return [] if row is None else [Named("entry", f"the leaf of entry {row[0]}", here.urls.entry(row[0]))]


def _dropped(here: Here, digest: bytes) -> list[Named]:
    row = here.db.execute(
        "SELECT idx FROM orphans WHERE tx_hash = ? OR leaf = ? OR block_hash = ? LIMIT 1", (digest, digest, digest)
    ).fetchone()
    words = "of an entry that a reorganisation dropped"
    return [] if row is None else [Named("entry", words, here.urls.entries())]


# ---- by first and last digits ---------------------------------------------------------------------------------------


def _range(start: str, digits: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of that length that begin so."""
    return bytes.fromhex(start[:digits].ljust(digits, "0")), bytes.fromhex(start[:digits].ljust(digits, "f"))


def _updates_from(here: Here, start: str, end: str) -> list[Named]:
    found = []
    for column, words in _COLUMNS.items():
        for row in here.db.execute(
            f"SELECT peer, sequence, {column} AS digest FROM updates WHERE {column} BETWEEN ? AND ? LIMIT ?",  # noqa: S608
            (*_range(start, 64), _MOST),
        ):
            if row["digest"].hex().endswith(end):
                found.append(_update(here, row, words))
    return found


def _transactions_from(here: Here, start: str, end: str) -> list[Named]:
    rows = here.db.execute(
        "SELECT tx_hash, idx FROM entries WHERE tx_hash BETWEEN ? AND ? ORDER BY tx_hash LIMIT ?",
        (*_range(start, 64), _MOST),
    )
    hashes = {row["tx_hash"]: row["idx"] for row in rows if row["tx_hash"].hex().endswith(end)}
    return [named for digest in hashes for named in _transaction(here, digest)]


def _leaves_from(here: Here, start: str, end: str) -> list[Named]:
    rows = here.db.execute(
        "SELECT idx, leaf FROM entries WHERE substr(leaf, 1, 6) BETWEEN ? AND ? LIMIT ?",
        (*_range(start, _LEAF_DIGITS), _MOST),
    )
    return [
        Named("entry", f"the leaf of entry {row['idx']}", here.urls.entry(row["idx"]))
        for row in rows
        if row["leaf"].hex().startswith(start) and row["leaf"].hex().endswith(end)
    ]


def _accounts(here: Here, start: str, end: str) -> list[Named]:
    found = []
    for peer, account in here.db.execute("SELECT peer, account FROM peers ORDER BY peer LIMIT ?", (_MOST_PEERS,)):
        digits = account[2:].lower()
        if digits.startswith(start) and digits.endswith(end):
            found.append(Named("peer", f"account {account} of peer {peer}", here.urls.peer(peer)))
            if len(found) >= _MOST:
                break
    contract = here.frame.contract[2:].lower()
    if contract.startswith(start) and contract.endswith(end):
        found.append(Named("federation", "the ledger’s contract", here.urls.federation()))
    return found
