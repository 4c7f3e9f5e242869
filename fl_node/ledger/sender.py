"""One account's transactions: one at a time, stored before they are sent, followed until they are in a block.

A nonce is used once: if a transaction is stuck, the same nonce is offered a higher fee; after a crash the stored bytes
are sent again. So an entry is never recorded twice, whatever happens in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from fl_node.errors import ChainUnavailable, EntryRejected, InsufficientFunds, LedgerError
from fl_node.ledger.fees import DEFAULT_TIP, Quote, first_offer, higher_offer
from fl_node.ledger.keylock import KeyLock
from fl_node.ledger.outbox import Outbox, Stored
from fl_node.ledger.rejection import rejection
from fl_node.ledger.reverts import decode_revert, revert_data, translated
from fl_node.ledger.transport import Request, Rpc, RpcError, backoff, quantity, raw_bytes

_KNOWN: Final = ("already known", "already imported", "known transaction", "already exists", "already in")
_USED: Final = ("nonce too low", "correct nonce", "nonce is too low", "nonce has already been used", "oldnonce")
_CHEAP: Final = (
    "underpriced",
    "fee too low",
    "less than block base fee",
    "too low for the next block",
    "gasprice too low",
)


_GRACE_S: Final = 1.0


class TransactionSigner(Protocol):
    """What signs: see :class:`fl_node.keys.Signer`."""

    @property
    def address(self) -> str:
        """Checksummed address."""

    def sign(self, transaction: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Raw transaction and its hash."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. ``bump_s``: pending before a higher fee is offered; ``resend_s``: before the same bytes are sent again;
    ``deadline_s``: before giving up for now. ``keep_blocks``: depth that no reorganisation reaches."""

    bump_s: float = 60.0
    resend_s: float = 5.0
    deadline_s: float = 600.0
    poll_most_s: float = 1.0
    keep_blocks: int = 256


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in a block. ``logs`` as JSON-RPC gives them; ``created`` is the address of a new contract."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    gas_used: int
    logs: list[dict[str, Any]]
    created: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a stored transaction: see :class:`fl_node.ledger.protocol.Recovered`."""

    label: str
    outcome: Literal["recorded", "rejected", "superseded"]
    mined: Mined | None = None
    error: LedgerError | None = None


class _NonceTakenError(Exception):
    """Another transaction of this account has the nonce."""


class Sender:
    """Sends for one key; holds its lock. Thread-safe: writes queue up.

    Args:
        state: the peer's state folder; None keeps stored transactions in memory (deployments, tests).

    Raises:
        KeyInUse: another process signs with this key.
        ChainUnavailable: the endpoint does not answer.
    """

    def __init__(
        self,
        rpc: Rpc,
        signer: TransactionSigner,
        chain_id: int,
        genesis_block: bytes,
        state: Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.account = signer.address
        self._rpc, self._signer, self._chain_id = rpc, signer, chain_id
        self._patience = patience or Patience()
        self._queue = threading.RLock()
        self._tip: int | None = None
        chain = f"{chain_id}-{genesis_block.hex()[:16]}"
        self._key_lock = KeyLock(chain, self.account, state)
        try:
            self._outbox = Outbox(state, f"{chain}-{self.account}")
        except BaseException:
            self._key_lock.close()
            raise

    def send(self, to: str | None, data: bytes, gas: int, label: str, value: int = 0) -> Mined:
        """Send a call (``to`` None creates a contract) and wait until it is in a block.

        Raises:
            EntryRejected, AlreadyRecorded, NotAMember: the contract refuses; found out before sending where possible.
            InsufficientFunds: the account cannot pay.
            ChainUnavailable: not in a block within the deadline; it stays stored and is taken up by :meth:`recover`.
        """
        fields: dict[str, Any] = {"chainId": self._chain_id, "gas": gas, "value": value, "data": "0x" + data.hex()}
        if to is not None:
            fields["to"] = to
        with self._queue:
            if self._outbox.pending():
                self.recover()
            for _ in range(3):
                nonce, quote = self._ask(fields)
                stored = self._store(nonce, label, fields | {"nonce": nonce} | first_offer(quote))
                try:
                    return self._follow(stored)
                except _NonceTakenError:
                    self._outbox.forget(nonce)
        raise LedgerError(
            f"every nonce of {self.account} was taken before this process could use it; another machine signs with the "
            "same key: stop one of them"
        )

    def recover(self) -> list[Settled]:
        """Settle what is stored: pending, or dropped from its block by a reorganisation. Oldest nonce first."""
        with self._queue:
            return [done for stored in self._outbox.all() if (done := self._settle(stored)) is not None]

    def close(self) -> None:
        """Let go of the key."""
        with self._queue:
            self._outbox.close()
            self._key_lock.close()

    # ---- below -------------------------------------------------------------------------------------------------

    def _settle(self, stored: Stored) -> Settled | None:
        try:
            mined = self._mined(stored)
            if mined is not None and stored.block is not None:
                return None
            if mined is None:
                self._outbox.reopen(stored.nonce)
                if quantity(self._rpc.call("eth_getTransactionCount", self.account, "latest")) > stored.nonce:
                    raise _NonceTakenError
                refusal = self._refusal(stored.fields)
                if refusal is not None:
                    raise refusal
                mined = self._follow(stored)
            return Settled(stored.label, "recorded", mined)
        except _NonceTakenError:
            self._outbox.forget(stored.nonce)
            return Settled(stored.label, "superseded")
        except ChainUnavailable:
            raise
        except LedgerError as error:
            self._outbox.forget(stored.nonce)
            return Settled(stored.label, "rejected", error=error)

    def _ask(self, fields: Mapping[str, Any]) -> tuple[int, Quote]:
        """In one round trip: would the contract take it, the next nonce, and what gas costs."""
        asked: list[Request] = [("eth_call", [self._call(fields), "latest"])]
        asked += [("eth_getTransactionCount", [self.account, "pending"]), *self._price_requests()]
        refused, nonce, *prices = self._rpc.batch(asked)
        if isinstance(refused, RpcError):
            refusal = _unless_time(translated(refused))
            if refusal is not None:
                raise refusal from refused
        if isinstance(nonce, RpcError):
            raise translated(nonce) from nonce
        return quantity(nonce), self._quote(prices)

    def _refusal(self, fields: Mapping[str, Any]) -> LedgerError | None:
        try:
            self._rpc.call("eth_call", self._call(fields), "latest")
        except RpcError as refused:
            return _unless_time(translated(refused))
        return None

    def _call(self, fields: Mapping[str, Any]) -> dict[str, str]:
        call = {"from": self.account, "data": fields["data"], "gas": hex(fields["gas"]), "value": hex(fields["value"])}
        return call | ({"to": fields["to"]} if "to" in fields else {})

    def _price_requests(self) -> list[Request]:
        asked: list[Request] = [("eth_getBlockByNumber", ["latest", False]), ("eth_gasPrice", [])]
        return asked if self._tip is not None else [*asked, ("eth_maxPriorityFeePerGas", [])]

    def _quote(self, prices: list[Any]) -> Quote:
        block, gas_price, *tip = prices
        if tip:
            # Not every node has the method.
            self._tip = DEFAULT_TIP if isinstance(tip[0], RpcError) else quantity(tip[0])
        base = block.get("baseFeePerGas") if isinstance(block, dict) else None
        price = 0 if isinstance(gas_price, RpcError) else quantity(gas_price)
        return Quote(None if base is None else quantity(base), self._tip or 0, price)

    def _store(self, nonce: int, label: str, fields: dict[str, Any]) -> Stored:
        raw, tx_hash = self._signer.sign(fields)
        return self._outbox.store(nonce, label, fields, raw, tx_hash)

    def _follow(self, stored: Stored) -> Mined:
        """Send, and wait for the receipt; send again what may be lost, offer more for what is stuck."""
        patience, begun = self._patience, time.monotonic()
        next_send, next_bump = begun, begun + patience.bump_s
        refusal, refused_at = None, begun
        down: ChainUnavailable | None = None
        for wait_s in backoff(0.002, patience.poll_most_s):
            now = time.monotonic()
            try:
                if now >= next_bump:
                    stored = self._bump(stored)
                    next_send, next_bump = now, now + patience.bump_s
                if now >= next_send:
                    refusal, refused_at, next_send = self._broadcast(stored), now, now + patience.resend_s
                mined = self._mined(stored)
                if mined is not None:
                    return mined
                down = None
            except ChainUnavailable as cause:
                down = cause
            # Some nodes refuse a transaction that reverts and yet put it into a block, so a receipt gets its chance.
            if refusal is not None and down is None and now - refused_at > _GRACE_S:
                self._outbox.forget(stored.nonce)
                raise refusal
            if now - begun > patience.deadline_s:
                raise ChainUnavailable(
                    f"{stored.label}: transaction 0x{stored.hashes[-1].hex()} is in no block after "
                    f"{patience.deadline_s:g} s; it stays stored and is sent again when the node goes on"
                ) from down
            time.sleep(wait_s)
        raise AssertionError("unreachable: backoff never ends")

    def _bump(self, stored: Stored) -> Stored:
        quote = self._quote(self._rpc.batch(self._price_requests()))
        return self._store(stored.nonce, stored.label, stored.fields | higher_offer(stored.fields, quote))

    def _broadcast(self, stored: Stored) -> Exception | None:
        """Send the bytes. Returns what the node has against them, if anything.

        Raises:
            InsufficientFunds: the account cannot pay; it is not stored any more.
            ChainUnavailable: the endpoint does not answer; whether the bytes arrived is not known.
        """
        try:
            self._rpc.call("eth_sendRawTransaction", "0x" + stored.raw.hex())
        except RpcError as refused:
            text = str(refused).lower()
            if any(sign in text for sign in _KNOWN):
                return None
            if any(sign in text for sign in _USED):
                return _NonceTakenError()
            if len(stored.hashes) > 1 and any(sign in text for sign in _CHEAP):
                return None  # an earlier version is still in the pool; the next bump offers more
            error = translated(refused)
            if isinstance(error, InsufficientFunds) and len(stored.hashes) == 1:
                self._outbox.forget(stored.nonce)
                raise error from refused
            return error
        return None

    def _mined(self, stored: Stored) -> Mined | None:
        """The receipt, whichever version of the transaction it is of.

        Raises:
            EntryRejected: in a block, but the contract refused it there.
        """
        for tx_hash in reversed(stored.hashes):
            receipt = self._rpc.call("eth_getTransactionReceipt", "0x" + tx_hash.hex())
            if receipt is None or receipt.get("blockHash") is None:
                continue
            block = quantity(receipt["blockNumber"])
            if quantity(receipt["status"]) != 1:
                self._outbox.forget(stored.nonce)
                raise self._reason(stored, quantity(receipt["gasUsed"]))
            if stored.block != block:
                self._outbox.mined(stored.nonce, block)
                self._outbox.prune(block - self._patience.keep_blocks)
            return Mined(
                tx_hash,
                block,
                raw_bytes(receipt["blockHash"]),
                quantity(receipt["gasUsed"]),
                receipt["logs"],
                receipt.get("contractAddress"),
            )
        return None

    def _reason(self, stored: Stored, gas_used: int) -> LedgerError:
        """Why a transaction in a block failed: ask the same again, for receipts do not say."""
        if gas_used >= int(stored.fields["gas"]):
            return EntryRejected(f"{stored.label} ran out of gas at {gas_used}; this is a fault of this program")
        try:
            self._rpc.call("eth_call", self._call(stored.fields), "latest")
        except RpcError as refused:
            data = revert_data(refused)
            return rejection(*decode_revert(data)) if data is not None else translated(refused)
        return rejection("")


def _unless_time(error: LedgerError) -> LedgerError | None:
    """None for a refusal that only a question about the past meets: the next block's time is later."""
    if isinstance(error, EntryRejected) and error.name == "TooSoon":
        expected = error.arguments.get("expected")
        if isinstance(expected, int) and time.time() >= expected:
            return None
    return error
