"""The transaction behind an entry: who signed it, what it called, and whether that is what the entry says."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from pydantic import Field

from fl_node.errors import MalformedEvidence
from fl_node.ledger.abi import WRITES, selector_of
from fl_node.ledger.signed_tx import Disagreement, Indirect, SignedCall, check_call, read_signed
from fl_node.records import Entry, LedgerOpened, OwnerChanged
from ledger_ui.contexts import Context, Hex
from ledger_ui.questions.logged import COLUMNS, entry_at, entry_of

_NAMES: Final = {selector_of(f"{name}({types})"): f"{name}({types})" for name, types in WRITES.items()}
_MOST_TOGETHER: Final = 300


class Sent(Context):
    """A transaction, as far as it was fetched."""

    state: str = Field(
        description="agrees (signed by whom it must be, and asking for what the entry says); differs; indirect (made "
        "through another contract); unread (bytes that are no transaction); or not-fetched"
    )
    words: str = Field(description="what that means, or how it differs")
    sender: str | None = Field(description="the account that signed it")
    to: str | None = Field(description="the contract that it calls; none: it makes one, or is not known")
    nonce: int | None
    chain_id: int | None
    call: str | None = Field(description="the function that it calls, by its selector")
    gas_used: int | None
    raw: Hex | None = Field(description="the signed bytes")


def sent_of(db: sqlite3.Connection, entry: Entry, contract: str, chain_id: int) -> Sent:
    """The transaction that made an entry."""
    row = db.execute("SELECT sender, gas_used, raw FROM transactions WHERE tx_hash = ?", (entry.tx_hash,)).fetchone()
    if row is None:
        return _told("not-fetched", "The transaction has not been fetched yet.")
    raw: bytes | None = row["raw"]
    if raw is None:
        words = "Its signed bytes are not at hand: the endpoint gives them in a form that is not known here."
        return _told("not-fetched", words, sender=row["sender"], gas_used=row["gas_used"])
    try:
        call = read_signed(raw)
    except MalformedEvidence as cause:
        return _told("unread", str(cause), gas_used=row["gas_used"], raw=raw)
    state, words = _held_against(db, entry, call, contract, chain_id)
    return _told(state, words, call, call.sender, row["gas_used"], raw)


def _told(
    state: str,
    words: str,
    call: SignedCall | None = None,
    sender: str | None = None,
    gas_used: int | None = None,
    raw: bytes | None = None,
) -> Sent:
    return Sent(
        state=state,
        words=words,
        sender=sender,
        to=None if call is None else call.to,
        nonce=None if call is None else call.nonce,
        chain_id=None if call is None else call.chain_id,
        call=None if call is None else _function(call),
        gas_used=gas_used,
        raw=None if raw is None else raw.hex(),
    )


def _function(call: SignedCall) -> str:
    if call.to is None:
        return "the making of a contract"
    return _NAMES.get(call.data[:4], f"selector 0x{call.data[:4].hex()}")


def _held_against(
    db: sqlite3.Connection, entry: Entry, call: SignedCall, contract: str, chain_id: int
) -> tuple[str, str]:
    together = [
        entry_of(row)
        for row in db.execute(
            f"SELECT {COLUMNS} FROM entries WHERE tx_hash = ? ORDER BY idx LIMIT ?",  # noqa: S608
            (entry.tx_hash, _MOST_TOGETHER),
        ).fetchall()
    ]
    try:
        check_call(call, entry, contract, chain_id, _account(db, entry.body), _owner(db, entry.index), together)
    except Disagreement as cause:
        return "differs", f"{cause}."
    except Indirect as cause:
        return "indirect", f"{cause}: its call data say nothing of this entry."
    return "agrees", "Signed by the account that it must be, and its call asks for exactly what this entry says."


def _account(db: sqlite3.Connection, body: Any) -> str | None:
    peer = getattr(body, "peer", None)
    row = None if peer is None else db.execute("SELECT account FROM peers WHERE peer = ?", (peer,)).fetchone()
    return None if row is None else row[0]


def _owner(db: sqlite3.Connection, index: int) -> str:
    """The ledger's owner by the entries before this one; empty: nobody knows."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM entries WHERE kind = 'OwnerChanged' AND idx < ? ORDER BY idx DESC LIMIT 1",  # noqa: S608
        (index,),
    ).fetchone()
    if row is not None:
        body = entry_of(row).body
        return body.current if isinstance(body, OwnerChanged) else ""
    first = entry_at(db, 0)
    return first.body.owner if first is not None and isinstance(first.body, LedgerOpened) else ""
