"""The keys that updates are encrypted to, by member and over time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from pydantic import Field

from fl_node.sealing.keytext import recipient_text
from ledger_ui.contexts import Context, Hex
from ledger_ui.questions.members import Whose
from ledger_ui.questions.sealing import key_trouble

#: Announcements of each peer that are looked at, the latest; and keys that are told.
_LOOKED: Final = 200
_LISTED: Final = 30


class RecipientKey(Context):
    """A key that a member announced, for as long as it held."""

    peer: int
    epoch: int = Field(description="the peer's count of announcements when it was announced")
    entry: int = Field(description="entry that announced it")
    time_s: int | None = Field(description="block time of that, seconds since 1970")
    until: int | None = Field(description="entry that announced another one instead; none: it is the latest")
    state: Literal["current", "superseded", "retired"] = Field(
        description="current: updates are sealed to it now; superseded: kept for a while, to read what was "
        "sealed before; retired: its peer is no member any more"
    )
    recipient: str = Field(description="as age writes it; empty: it is no key that one can encrypt to")
    key: Hex = Field(description="the 32 bytes as announced; zeros: none")
    trouble: str = Field(description="why nothing is sealed to it; empty: it is usable")
    same_as: int | None = Field(description="another peer that had announced this very key before; none: nobody")
    same_entry: int | None = Field(description="entry of that")


def recipient_keys(db: sqlite3.Connection, whose: Whose) -> list[RecipientKey]:
    """The keys of these peers, newest first; the last thirty."""
    found = [key for peer in whose.peers for key in _of_peer(db, peer)]
    return sorted(found, key=lambda one: -one.entry)[:_LISTED]


def _of_peer(db: sqlite3.Connection, peer: int) -> Iterator[RecipientKey]:
    """A key for each run of announcements that have the same one."""
    rows = db.execute(
        "SELECT a.idx, a.epoch, a.recipient_key, e.time_s FROM announcements a LEFT JOIN entries e ON e.idx = a.idx "
        "WHERE a.peer = ? ORDER BY a.idx DESC LIMIT ?",
        (peer, _LOOKED),
    ).fetchall()
    gone = db.execute("SELECT retired FROM peers WHERE peer = ?", (peer,)).fetchone()
    retired = gone is not None and gone[0] is not None
    until = None
    for place, row in enumerate(rows):
        before = rows[place + 1] if place + 1 < len(rows) else None
        if before is not None and before["recipient_key"] == row["recipient_key"]:
            continue  # announced again, with another endpoint
        yield _key(db, peer, row, until, "superseded" if until is not None else "retired" if retired else "current")
        until = row["idx"]


def _key(
    db: sqlite3.Connection,
    peer: int,
    row: sqlite3.Row,
    until: int | None,
    state: Literal["current", "superseded", "retired"],
) -> RecipientKey:
    key = bytes(row["recipient_key"])
    trouble = key_trouble(key, row["idx"])
    before = _before(db, key, peer, row["idx"]) if any(key) else None
    return RecipientKey(
        peer=peer,
        epoch=row["epoch"],
        entry=row["idx"],
        time_s=row["time_s"],
        until=until,
        state=state,
        recipient="" if trouble else recipient_text(key),
        key=key.hex(),
        trouble=trouble or "",
        same_as=None if before is None else before[0],
        same_entry=None if before is None else before[1],
    )


def _before(db: sqlite3.Connection, key: bytes, peer: int, entry: int) -> tuple[int, int] | None:
    """Who else announced a key first, and where."""
    query = "SELECT peer, idx FROM announcements WHERE recipient_key = ? AND idx < ? AND peer != ? ORDER BY idx LIMIT 1"
    row = db.execute(query, (key, entry, peer)).fetchone()
    return None if row is None else (row[0], row[1])


class KeyTrouble(Context):
    """An active member whose latest key is not as it should be."""

    peer: int
    site_name: str | None = Field(description="a stranger's text")
    trouble: str
    time_s: int | None = Field(description="block time of the announcement")


def key_troubles(db: sqlite3.Connection, most: int) -> Sequence[KeyTrouble]:
    """Active members that announced something else than a key, or a key of somebody else. Who has announced none yet
    is not among them."""
    rows = db.execute(
        "SELECT p.peer, s.name, a.idx, a.recipient_key, e.time_s FROM peers p JOIN announcements a ON a.idx = "
        "(SELECT max(b.idx) FROM announcements b WHERE b.peer = p.peer) LEFT JOIN sites s ON s.site = p.site "
        "LEFT JOIN entries e ON e.idx = a.idx WHERE p.retired IS NULL ORDER BY a.idx DESC"
    )
    found: list[KeyTrouble] = []
    for row in rows:
        key = bytes(row["recipient_key"])
        if not any(key):
            continue
        trouble = key_trouble(key, row["idx"])
        before = None if trouble else _before(db, key, row["peer"], row["idx"])
        if before is not None:
            trouble = f"announced at entry {row['idx']} a key that peer {before[0]} had announced at entry {before[1]}"
        if trouble:
            found.append(KeyTrouble(peer=row["peer"], site_name=row["name"], trouble=trouble, time_s=row["time_s"]))
            if len(found) >= most:
                break
    return found
