"""JSON-RPC errors of four kinds of node -> this package's errors.

Where a node puts the contract's error data differs: Anvil in ``data``, Ganache in ``data`` or ``data.result``,
Hardhat in ``data.data``.
"""

from __future__ import annotations

from typing import Final

from fl_node.errors import InsufficientFunds, LedgerError
from fl_node.ledger.abi import checksum_address, selector_of
from fl_node.ledger.rejection import ERRORS, parameters, rejection
from fl_node.ledger.transport import RpcError

_BY_SELECTOR: Final = {
    selector_of(f"{name}({','.join(kind for kind, _ in parameters(name))})"): name for name in ERRORS
}
_STRING_ERROR: Final = selector_of("Error(string)")
_PANIC: Final = selector_of("Panic(uint256)")
_POOR: Final = ("insufficient funds", "enough funds", "insufficient balance")


def revert_data(error: RpcError) -> bytes | None:
    """The contract's error data in a JSON-RPC error; empty for a bare revert; None if it is no revert."""
    found = _hex_in(error.data)
    if found is not None and (len(found) >= 4 or "revert" in str(error).lower()):
        return found
    return b"" if "revert" in str(error).lower() else None


def decode_revert(data: bytes) -> tuple[str, dict[str, object]]:
    """Name and arguments of a contract error; an empty name if it is none that the contract has."""
    selector, words = data[:4], [data[at : at + 32] for at in range(4, len(data), 32)]
    name = _BY_SELECTOR.get(selector)
    if name is not None and len(words) == len(parameters(name)) and all(len(word) == 32 for word in words):
        return name, {label: _value(kind, word) for (kind, label), word in zip(parameters(name), words, strict=True)}
    if selector == _STRING_ERROR and len(words) >= 3:
        length = int.from_bytes(words[1], "big")
        return "Error", {"message": data[68 : 68 + min(length, 1000)].decode("utf-8", errors="backslashreplace")}
    if selector == _PANIC and len(words) == 1:
        return "Panic", {"code": int.from_bytes(words[0], "big")}
    return "", {}


def translated(error: RpcError) -> LedgerError:
    """The error to raise for a refused call or transaction."""
    data = revert_data(error)
    if data is not None:
        return rejection(*decode_revert(data))
    if any(sign in str(error).lower() for sign in _POOR):
        return InsufficientFunds(
            f"the account cannot pay for the gas ({error}); expected a balance above gas limit times fee: send it some"
        )
    return LedgerError(f"the node refused: {error}; check the node and its version")


def _value(kind: str, word: bytes) -> object:
    if kind == "address":
        return checksum_address(word[12:])
    if kind == "bytes4":
        return word[:4]
    return int.from_bytes(word, "big")


def _hex_in(data: object) -> bytes | None:
    if isinstance(data, str):
        at = data.find("0x")  # Some nodes write "Reverted 0x...".
        digits = data[at + 2 :].split()[0] if at >= 0 and data[at + 2 :].strip() else ""
        try:
            return bytes.fromhex(digits) if at >= 0 else None
        except ValueError:
            return None
    if isinstance(data, dict):
        for key in ("data", "result"):
            found = _hex_in(data.get(key))
            if found is not None:
                return found
    return None
