"""Who can read an update: the flag in words, and the readers that follow from the log at the size that it names.

The rule is that of :mod:`fl_node.readers`, asked of the index rather than of a whole log in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from fl_node.readers import MOST_READERS, valid_key
from fl_node.records import Flag, Role
from fl_node.sealing.keytext import recipient_text
from ledger_ui.contexts import Context

#: Members that are looked at: those with the lowest numbers.
_MOST_LOOKED: Final = 4096
_MOST_SKIPPED: Final = 100
CAUTION: Final = (
    "This follows from the log: whom it was to be sealed for. Recipients inside an age file are anonymous, so nobody "
    "else can see whether one was left out; a member that cannot open it says so itself."
)


class Reader(Context):
    """A member that an update is sealed for."""

    peer: int
    site: int | None = Field(description="number of the site's first peer")
    site_name: str | None = Field(description="a stranger's text")
    auditor: bool = Field(description="it may only read")
    recipient: str = Field(description="its key at that size of the log, as age writes it")
    announced: int = Field(description="entry by which that key holds")


class Skipped(Context):
    """A member that an update could not be sealed for."""

    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    why: str


class Sealing(Context):
    """Whether an update is encrypted, and for whom."""

    state: Literal["sealed", "clear", "public", "unclear"] = Field(
        description="sealed: encrypted; clear: not, though the spec asks for it; public: not, as the spec has it; "
        "unclear: flagged as encrypted, but for no size of the log that could say for whom"
    )
    words: str
    warning: str = Field(description="what a reader must know first; empty: nothing")
    sealed_at: int = Field(description="log size that fixed the readers, as recorded; 0: none")
    as_of: int | None = Field(description="the last entry that counted for that; none: not encrypted")
    readers: list[Reader]
    skipped: list[Skipped] = Field(description="active members that could not be sealed for; a hundred at most")
    skipped_many: int
    caution: str = Field(description="what cannot be known; empty where nothing is encrypted")


def sealing_of(db: sqlite3.Connection, index: int, flags: int, sealed_at: int, *, wanted: bool) -> Sealing:
    """Who can read the update at an entry.

    Args:
        wanted: the spec asks for encryption.
    """
    if not flags & Flag.ENCRYPTED:
        return _open(sealed_at, wanted)
    size = min(sealed_at, index)
    readers, skipped = readers_at(db, size)
    unclear = sealed_at == 0 or sealed_at > index
    words = (
        f"Encrypted: readable by members and auditors as of entry {size - 1:,}."
        if size
        else "Encrypted, but it names no size of the log that would say for whom."
    )
    warning = ""
    if unclear:
        warning = f"It says that its readers were fixed at log size {sealed_at:,}, yet it is entry {index:,} itself."
    return Sealing(
        state="unclear" if unclear else "sealed",
        words=words,
        warning=warning if sealed_at else "It is flagged as encrypted, but names no readers.",
        sealed_at=sealed_at,
        as_of=size - 1 if size else None,
        readers=readers,
        skipped=skipped[:_MOST_SKIPPED],
        skipped_many=len(skipped),
        caution=CAUTION,
    )


def _open(sealed_at: int, wanted: bool) -> Sealing:
    reach = "anybody who can reach a peer, or a copy on IPFS"
    return Sealing(
        state="clear" if wanted else "public",
        words=f"In the clear: readable by {reach}.",
        warning=(
            f"The spec asks for encryption, yet this update is in the clear: {reach} can read its weights, and copies "
            "cannot be called back."
            if wanted
            else ""
        ),
        sealed_at=sealed_at,
        as_of=None,
        readers=[],
        skipped=[],
        skipped_many=0,
        caution="",
    )


def readers_at(db: sqlite3.Connection, size: int) -> tuple[list[Reader], list[Skipped]]:
    """The members that an update can be sealed for as of a log size, and the active ones that it cannot, as
    :func:`fl_node.readers.readers_at` has them."""
    readers: list[Reader] = []
    skipped: list[Skipped] = []
    for row in _members_at(db, size):
        who = {"peer": row["peer"], "site": row["site"], "site_name": row["site_name"]}
        trouble = key_trouble(row["recipient_key"], row["idx"])
        if trouble is None and len(readers) >= MOST_READERS:
            trouble = f"only {MOST_READERS} members can read an update"
        if trouble is not None:
            skipped.append(Skipped(**who, why=trouble))
        else:
            key, only = recipient_text(row["recipient_key"]), row["roles"] == int(Role.READ)
            readers.append(Reader(**who, auditor=only, recipient=key, announced=row["idx"]))
    return readers, skipped


def key_trouble(key: bytes | None, announced: int | None) -> str | None:
    """Why nothing can be sealed for a member that announced this last; ``None``: it can."""
    if announced is None or key is None or not any(key):
        return "has announced no key"
    return None if valid_key(key) else f"announced at entry {announced} what is no usable X25519 key"


def _members_at(db: sqlite3.Connection, size: int) -> Iterator[sqlite3.Row]:
    """Active members at a log size, each with its latest announcement before it."""
    yield from db.execute(
        "SELECT p.peer, p.roles, p.site, s.name AS site_name, a.idx, a.recipient_key FROM peers p "
        "LEFT JOIN sites s ON s.site = p.site LEFT JOIN announcements a ON a.idx = "
        "(SELECT max(b.idx) FROM announcements b WHERE b.peer = p.peer AND b.idx < ?1) "
        "WHERE p.admitted < ?1 AND (p.retired IS NULL OR p.retired >= ?1) ORDER BY p.peer LIMIT ?2",
        (size, _MOST_LOOKED),
    )
