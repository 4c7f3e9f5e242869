"""The contract's refusals as this package's errors, in words. The in-memory twin raises the very same ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fl_node.errors import AlreadyRecorded, EntryRejected, LedgerError, NotAMember

# Contract error -> its parameters ("type name") and what a person does next. A test compares this with the ABI.
ERRORS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "NotMember": (("address account",), "this account was never admitted; ask the owner to run `fl-node admit`"),
    "PeerIsRetired": (
        ("uint32 peer", "uint64 fromIndex"),
        "this peer was retired; its site can be admitted again with another key",
    ),
    "RoleMissing": (
        ("uint32 peer", "uint8 got", "uint8 expected"),
        "the peer was admitted without this role (1 publish, 2 attest, 4 read)",
    ),
    "AccountKnown": (
        ("address account", "uint32 peer"),
        "an account is one peer for ever; admit the site with a fresh key",
    ),
    "AccountZero": (("address account",), "name a real account"),
    "RolesOutOfRange": (("uint8 got", "uint8 least", "uint8 most"), "roles are a sum of 1 publish, 2 attest, 4 read"),
    "NotOwnerNorSelf": (
        ("address sender", "address owner", "address account"),
        "only the owner or the peer itself may retire it",
    ),
    "OwnerCannotRenounce": (("address owner",), "transfer the ownership instead"),
    "LengthOutOfRange": (("uint256 got", "uint256 least", "uint256 most"), "shorten or fill the list or text"),
    "SequenceNotNext": (
        ("uint32 got", "uint32 expected"),
        "lower: that update is recorded already; higher: read the ledger again",
    ),
    "RoundOutOfRange": (("uint32 got", "uint32 least", "uint32 most"), "read the ledger and choose a round in between"),
    "SeenOutOfRange": (
        ("uint64 got", "uint64 least", "uint64 most"),
        "sync: `seen` covers one's own last entry and nothing beyond the log",
    ),
    "BeyondLog": (("uint64 got", "uint64 most"), "name a position inside the log"),
    "TooSoon": (("uint64 got", "uint64 expected"), "wait until that block time; the spec sets the least interval"),
    "ScoreTooHigh": (("uint32 got", "uint32 most"), "scores are parts per million"),
    "ContentZero": (("uint32 sequence",), "an update names its bytes"),
    "ParentsNotAscending": (
        ("uint256 position", "uint64 got", "uint64 previous"),
        "sort parents by peer and sequence, each once",
    ),
    "UnknownUpdate": (("uint32 peer", "uint32 sequence"), "no such update on this chain; sync again"),
    "TagMismatch": (
        ("uint32 peer", "uint32 sequence", "bytes4 got", "bytes4 expected"),
        "the chain was reorganised: that update is another one now; sync and merge again",
    ),
    "SharesNotWhole": (("uint256 got", "uint256 expected"), "shares are parts per million and sum to the whole"),
    "OwnUpdate": (("uint32 peer", "uint32 sequence"), "a peer attests others' updates only"),
    "AlreadyAttested": (("uint32 peer", "uint32 target", "uint32 sequence"), "recorded already"),
    "AlreadyObjected": (("uint32 peer", "uint32 target", "uint32 sequence"), "recorded already"),
    "ReasonOutOfRange": (
        ("uint8 got", "uint8 least", "uint8 most"),
        "a publisher can only withdraw (4), others only object (1 to 3)",
    ),
    "EpochNotNext": (("uint32 got", "uint32 expected"), "read the peer's epoch from the ledger and add one"),
    "UnknownPeer": (("uint32 got", "uint32 most"), "no peer of that number"),
    "OwnableUnauthorizedAccount": (("address account",), "only the ledger's owner may do this"),
    "OwnableInvalidOwner": (("address owner",), "name a real owner"),
}
_MEMBERSHIP: Final = frozenset({"NotMember", "PeerIsRetired", "RoleMissing"})
_DOUBLES: Final = frozenset({"AlreadyAttested", "AlreadyObjected"})


def parameters(name: str) -> tuple[tuple[str, str], ...]:
    """Parameters of a contract error as (type, name) pairs, in order."""
    return tuple((kind, label) for kind, label in (row.split(" ") for row in ERRORS[name][0]))


def rejection(name: str, arguments: Mapping[str, object] | None = None) -> LedgerError:
    """The error for a contract refusal: ``NotAMember``, ``AlreadyRecorded`` or ``EntryRejected``.

    ``name`` may be empty: the chain refused without a reason of the contract (out of gas, another contract).
    """
    given = dict(arguments or {})
    if not name:
        return EntryRejected("the chain refused the entry without a reason of the contract (out of gas?)")
    advice = ERRORS[name][1] if name in ERRORS else "this version does not know that rule; see the contract's interface"
    listed = ", ".join(f"{key}={_shown(value)}" for key, value in given.items())
    message = f"the ledger refused the entry: {name}({listed}): {advice}"
    if name in _MEMBERSHIP:
        return NotAMember(message)
    if name in _DOUBLES or (name == "SequenceNotNext" and _integer(given, "got") < _integer(given, "expected")):
        return AlreadyRecorded(message, name, given)
    return EntryRejected(message, name, given)


def _integer(arguments: Mapping[str, object], key: str) -> int:
    value = arguments.get(key)
    return value if isinstance(value, int) else 0


def _shown(value: object) -> object:
    return f"0x{value.hex()}" if isinstance(value, bytes) else value
