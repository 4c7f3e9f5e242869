"""Transactions behind the entries: who sent them, what gas they used, and the signed bytes themselves."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fl_node.errors import ChainUnavailable, MalformedEvidence
from fl_node.ledger.chain_look import RpcTransactions
from fl_node.ledger.signed_tx import read_signed
from fl_node.ledger.transport import Request, Rpc, RpcError, quantity
from ledger_ui.index.newest import Newest
from ledger_ui.index.store import Store

#: Transactions of so many of the latest entries are kept.
MOST_ENTRIES: Final = 50_000
_AT_ONCE: Final = 100
#: A block holds less; beyond, the endpoint makes things up.
_MOST_GAS: Final = 1 << 40

_MISSING: Final = (
    "SELECT e.idx, e.tx_hash FROM entries e LEFT JOIN transactions t ON t.tx_hash = e.tx_hash "
    "WHERE e.idx >= :low AND e.idx < :high AND t.tx_hash IS NULL ORDER BY e.idx {way} LIMIT :most"
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction. ``sender``: as its signature says, where the signed bytes are at hand; else ``None``."""

    tx_hash: bytes
    sender: str | None
    gas_used: int | None
    raw: bytes | None


class Transactions:
    """Fetches some transactions at a time."""

    def __init__(self, store: Store) -> None:
        self._store, self._newest = store, Newest(_MISSING)

    def wanted(self, db: sqlite3.Connection) -> list[bytes]:
        """Hashes of the next ones."""
        size = db.execute("SELECT value FROM ui_state WHERE key = 'folded'").fetchone()
        floor = max(0, int(size[0] or 0) - MOST_ENTRIES) if size else 0
        return list(dict.fromkeys(bytes(row[1]) for row in self._newest.next(db, _AT_ONCE, floor)))

    def again(self) -> None:
        """Those that were wanted last were not got: begin at the top once more."""
        self._newest.again()

    def keep(self, sent: Iterable[Sent]) -> None:
        """Write them down."""
        now = time.time()
        with self._store.writing() as db:
            db.executemany(
                "INSERT INTO transactions VALUES (?, ?, ?, ?, ?) ON CONFLICT (tx_hash) DO NOTHING",
                [
                    (one.tx_hash, one.sender, one.gas_used, one.raw, now)
                    for one in sent
                    if one.raw is not None or one.gas_used is not None
                ],
            )


def fetched(rpc: Rpc, hashes: Sequence[bytes]) -> list[Sent]:
    """What the endpoint says of these transactions; of those that it does not have, nothing is known.

    Raises:
        ChainUnavailable: no answer.
    """
    signed = RpcTransactions(rpc).signed(hashes)
    asked: list[Request] = [("eth_getTransactionReceipt", ["0x" + one.hex()]) for one in hashes]
    gas = dict(zip(hashes, map(_gas_used, rpc.batch(asked)), strict=True))
    return [Sent(one, _sender(signed.get(one)), gas[one], signed.get(one)) for one in hashes]


def _gas_used(receipt: object) -> int | None:
    if isinstance(receipt, RpcError) or not isinstance(receipt, dict):
        return None
    try:
        used = quantity(receipt.get("gasUsed"))
    except ChainUnavailable:
        return None
    return used if used <= _MOST_GAS else None


def _sender(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else read_signed(raw).sender
    except MalformedEvidence:
        return None
