"""Checkpoints that were found: who signed them, and whether the log still agrees."""

from __future__ import annotations

import sqlite3
from typing import Final

from pydantic import Field

from ledger_ui.contexts import Context, Digest

_LOOKED_AT: Final = 300
_SHOWN: Final = 12


class SignedCheckpoint(Context):
    """The latest checkpoint of one signer."""

    signer: str = Field(description="address of the key that signed it")
    peer: int | None = Field(description="the member with that key; none: no member")
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    size: int = Field(description="entries that the log had, says the signer")
    root: Digest = Field(description="its root, says the signer")
    holds: bool = Field(description="the log as it is here has that root at that size")
    trouble: str = Field(description="why it does not hold, or could not be held against the log; empty if it holds")
    seen_at: float | None = Field(description="local time at which it was found, seconds since 1970")


def checkpoints(db: sqlite3.Connection) -> list[SignedCheckpoint]:
    """The latest of each signer, the longest log first."""
    query = (
        "SELECT n.signer, n.peer, p.site, s.name, n.size, n.root, n.trouble, n.seen_at FROM notes n "
        "LEFT JOIN peers p ON p.peer = n.peer LEFT JOIN sites s ON s.site = p.site ORDER BY n.size DESC LIMIT ?"
    )
    found: dict[str, SignedCheckpoint] = {}
    for row in db.execute(query, (_LOOKED_AT,)):
        found.setdefault(
            row["signer"],
            SignedCheckpoint(
                signer=row["signer"],
                peer=row["peer"],
                site=row["site"],
                site_name=row["name"],
                size=row["size"],
                root=row["root"].hex(),
                holds=not row["trouble"],
                trouble=row["trouble"] or "",
                seen_at=row["seen_at"],
            ),
        )
    return list(found.values())[:_SHOWN]
