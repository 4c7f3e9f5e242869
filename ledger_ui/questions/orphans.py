"""Entries that were on the chain and are not any more: a reorganisation dropped them. They are never silently gone."""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from pydantic import Field

from fl_node.records import UpdatePublished
from ledger_ui.contexts import Context, Digest, Hex, Ref
from ledger_ui.questions.facts import summary_of
from ledger_ui.questions.logged import COLUMNS, entry_of

#: Of a reorganisation, so many entries are told on one page.
MOST: Final = 20

_REF: Final = re.compile("([0-9]{1,10})[#/-]([0-9]{1,10})")
_INDEX: Final = re.compile("[0-9]{1,18}")


class OrphanRow(Context):
    """One entry that a reorganisation dropped."""

    entry: int = Field(description="index that it had; another entry may have it now")
    kind: str
    update: Ref | None = Field(description="the update that it published, if it did")
    peer: int | None
    words: str = Field(description="what it said; may be a stranger's text")
    block: int
    block_hash: Hex
    transaction: Hex
    leaf: Digest
    orphaned_s: float = Field(description="local time at which this explorer saw that it was gone, seconds since 1970")
    now: int | None = Field(
        description="entry of the log by the same transaction, or of the same update; none: there is none"
    )
    same: bool = Field(description="that entry is by the same transaction: it was only moved")


class Orphans(Context):
    """The newest of them."""

    total: int = Field(description="how many there are, of all that match")
    rows: list[OrphanRow]


NONE: Final = Orphans(total=0, rows=[])


def orphans(
    db: sqlite3.Connection,
    *,
    kind: str | None = None,
    peer: int | None = None,
    round_number: int | None = None,
    index: int | None = None,
    most: int = MOST,
) -> Orphans:
    """The newest orphans that match, newest first."""
    given = {"kind": kind, "peer": peer, "round": round_number, "idx": index}
    where = " AND ".join(f"{column} = ?" for column, value in given.items() if value is not None) or "1"
    values = [value for value in given.values() if value is not None]
    total = db.execute(f"SELECT count(*) FROM orphans WHERE {where}", values).fetchone()[0]  # noqa: S608
    if not total:
        return NONE
    query = (
        f"SELECT {COLUMNS}, kind, leaf, orphaned_at FROM orphans WHERE {where} "  # noqa: S608
        "ORDER BY orphaned_at DESC, idx DESC LIMIT ?"
    )
    return Orphans(total=total, rows=[_row(db, row) for row in db.execute(query, [*values, most]).fetchall()])


def dropped(db: sqlite3.Connection, text: str) -> OrphanRow | None:
    """The newest orphan that has the update's name or the index that somebody looks for."""
    asked = text.strip().lower().removeprefix("entry").strip(" #:")
    ref = _REF.fullmatch(asked)
    where: tuple[str, list[int]]
    if ref is not None:
        where = "kind = 'UpdatePublished' AND peer = ? AND sequence = ?", [int(ref[1]), int(ref[2])]
    elif _INDEX.fullmatch(asked):
        where = "idx = ?", [int(asked)]
    else:
        return None
    query = (
        f"SELECT {COLUMNS}, kind, leaf, orphaned_at FROM orphans WHERE {where[0]} "  # noqa: S608
        "ORDER BY orphaned_at DESC, idx DESC LIMIT 1"
    )
    row = db.execute(query, where[1]).fetchone()
    return None if row is None else _row(db, row)


def _row(db: sqlite3.Connection, row: sqlite3.Row) -> OrphanRow:
    entry = entry_of(row)
    body = entry.body
    ref = body.ref if isinstance(body, UpdatePublished) else None
    moved = db.execute(
        "SELECT idx FROM entries WHERE tx_hash = ? AND kind = ? LIMIT 1", (entry.tx_hash, row["kind"])
    ).fetchone()
    found = moved
    if found is None and ref is not None:
        found = db.execute(
            "SELECT idx FROM updates WHERE peer = ? AND sequence = ?", (ref.peer, ref.sequence)
        ).fetchone()
    return OrphanRow(
        entry=entry.index,
        kind=row["kind"],
        update=None if ref is None else str(ref),
        peer=getattr(body, "peer", None),
        words=summary_of(entry),
        block=entry.block_number,
        block_hash=entry.block_hash.hex(),
        transaction=entry.tx_hash.hex(),
        leaf=row["leaf"].hex(),
        orphaned_s=row["orphaned_at"],
        now=None if found is None else found[0],
        same=moved is not None,
    )
