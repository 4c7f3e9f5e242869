"""Blocks and signed transactions over JSON-RPC, many at a time: what an audit asks a chain besides the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from eth_hash.auto import keccak

from fl_node.errors import ChainUnavailable
from fl_node.ledger import views
from fl_node.ledger.protocol import MOST_BLOCKS
from fl_node.ledger.signed_tx import MOST_BYTES, raw_transaction
from fl_node.ledger.transport import Request, Rpc, RpcError, quantity, raw_bytes

T = TypeVar("T")
_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Block:
    """A block as a chain has it: its hash, the hashes of its transactions, and its time in seconds since 1970."""

    hash: bytes
    transactions: frozenset[bytes]
    time_s: int


class RpcTransactions:
    """Raw signed transactions, put together from what the endpoint says and checked against their hashes."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def signed(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """By hash; those that the endpoint lacks, or gives altered, are absent."""
        found: dict[bytes, bytes] = {}
        for some in _batches(list(dict.fromkeys(hashes))):
            asked: list[Request] = [("eth_getTransactionByHash", ["0x" + tx_hash.hex()]) for tx_hash in some]
            for tx_hash, answer in zip(some, self._rpc.batch(asked), strict=True):
                if isinstance(answer, RpcError) or not isinstance(answer, dict):
                    continue
                try:
                    raw = raw_transaction(answer)
                except (ChainUnavailable, OverflowError):
                    continue
                if raw is not None and len(raw) <= MOST_BYTES and keccak(raw) == tx_hash:
                    found[tx_hash] = raw
        return found


class RpcBlocks:
    """The chain as an endpoint has it now."""

    def __init__(self, rpc: Rpc, contract: str) -> None:
        self._rpc, self._contract = rpc, contract

    def of(self, numbers: Sequence[int]) -> Mapping[int, Block | None]:
        """Each block; ``None`` where there is no such block.

        Raises:
            ChainUnavailable: no answer. A refusal is none either: the block may well be there.
        """
        found: dict[int, Block | None] = {}
        for some in _batches(sorted(set(numbers))):
            asked: list[Request] = [("eth_getBlockByNumber", [hex(number), False]) for number in some]
            for number, answer in zip(some, self._rpc.batch(asked), strict=True):
                if isinstance(answer, RpcError):
                    raise self._refused(answer)
                found[number] = None if answer is None else _block(answer, self._rpc.place)
        return found

    def tip(self) -> int:
        """Number of the latest block."""
        number = quantity(self._asked("eth_blockNumber"))
        if number > MOST_BLOCKS:
            raise ChainUnavailable(f"{self._rpc.place} is at block {number}, which no chain is; use another endpoint")
        return number

    def code(self) -> bytes:
        """The contract's code."""
        return raw_bytes(self._asked("eth_getCode", self._contract, "latest"))

    def highest_round(self) -> int:
        """The highest round that the contract has now."""
        data = "0x" + views.state_call().hex()
        answer = self._asked("eth_call", {"to": self._contract, "data": data}, "latest")
        return views.read_state(raw_bytes(answer)).highest_round

    def _asked(self, method: str, *params: Any) -> Any:
        try:
            return self._rpc.call(method, *params)
        except RpcError as refusal:
            raise self._refused(refusal) from refusal

    def _refused(self, refusal: RpcError) -> ChainUnavailable:
        return ChainUnavailable(f"{self._rpc.place} refuses to answer: {refusal}; use another endpoint")


def _block(answer: Any, place: str) -> Block:
    try:
        transactions = frozenset(raw_bytes(tx_hash) for tx_hash in answer["transactions"])
        return Block(raw_bytes(answer["hash"]), transactions, quantity(answer["timestamp"]))
    except (KeyError, TypeError) as cause:
        raise ChainUnavailable(f"got a malformed block from {place}: {str(answer)[:200]}") from cause


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
