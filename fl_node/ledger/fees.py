"""What to offer for gas: EIP-1559 where the chain has a base fee, a legacy gas price elsewhere. All in wei."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DEFAULT_TIP: Final = 10**9
# Nodes refuse a replacement that offers less than 10 % more (some 12.5 %).
_BUMP_NUMERATOR: Final = 9
_BUMP_DENOMINATOR: Final = 8


@dataclass(frozen=True, slots=True)
class Quote:
    """What the chain asks for now. ``base_fee`` is None where the chain has none."""

    base_fee: int | None
    tip: int
    gas_price: int


def first_offer(quote: Quote) -> dict[str, int]:
    """Fee fields of a new transaction: room for the base fee to double, which takes at least six full blocks."""
    if quote.base_fee is None:
        return {"gasPrice": quote.gas_price}
    return {"type": 2, "maxFeePerGas": 2 * quote.base_fee + quote.tip, "maxPriorityFeePerGas": quote.tip}


def higher_offer(fields: Mapping[str, Any], quote: Quote) -> dict[str, int]:
    """Fee fields that replace an earlier version of a transaction: each an eighth more, or what is asked now."""
    fresh = first_offer(quote)
    if "gasPrice" in fields:
        return {"gasPrice": max(_raised(int(fields["gasPrice"])), fresh.get("gasPrice", 0))}
    return {
        "type": 2,
        "maxFeePerGas": max(_raised(int(fields["maxFeePerGas"])), fresh.get("maxFeePerGas", 0)),
        "maxPriorityFeePerGas": max(_raised(int(fields["maxPriorityFeePerGas"])), fresh.get("maxPriorityFeePerGas", 0)),
    }


def _raised(fee: int) -> int:
    return -(-fee * _BUMP_NUMERATOR // _BUMP_DENOMINATOR) + 1
