"""What a federation adds up to. Nothing is counted row by row that a log may hold a million of."""

from __future__ import annotations

import sqlite3

from pydantic import Field

from ledger_ui.contexts import Context, Frame


class Totals(Context):
    """Counts over the whole log."""

    entries: int
    updates: int
    highest_round: int | None = Field(description="highest round of an update that counts; none yet")
    peers_active: int
    peers_retired: int
    sites: int
    attestations: int = Field(description="entries by which peers attested updates, one or more in each")
    objections: int
    bytes: int | None = Field(description="size of published content, as far as it is known; none: of nothing")
    bytes_of: int = Field(description="updates whose size is known")
    gas: int | None = Field(description="gas that was used, as far as it is known; none: of nothing")
    gas_of: int = Field(description="transactions whose gas is known")


def totals(db: sqlite3.Connection, frame: Frame) -> Totals:
    """What is known at this state of the index."""
    kinds = dict(db.execute("SELECT kind, entries FROM kinds").fetchall())
    known = dict(
        db.execute("SELECT key, value FROM ui_state WHERE key IN ('gas', 'gas_of', 'bytes', 'bytes_of')").fetchall()
    )
    peers, retired = db.execute("SELECT count(*), count(retired) FROM peers").fetchone()
    gas_of, bytes_of = int(known.get("gas_of") or 0), int(known.get("bytes_of") or 0)
    return Totals(
        entries=frame.size,
        updates=kinds.get("UpdatePublished", 0),
        highest_round=db.execute("SELECT max(round) FROM updates WHERE ignored IS NULL").fetchone()[0],
        peers_active=peers - retired,
        peers_retired=retired,
        sites=db.execute("SELECT count(*) FROM sites").fetchone()[0],
        attestations=kinds.get("UpdatesAttested", 0),
        objections=kinds.get("UpdateObjected", 0),
        bytes=int(known["bytes"]) if bytes_of else None,
        bytes_of=bytes_of,
        gas=int(known["gas"]) if gas_of else None,
        gas_of=gas_of,
    )
