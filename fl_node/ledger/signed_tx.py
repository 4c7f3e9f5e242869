"""Signed transactions: who signed, and whether the call says what an entry says.

An entry is made by the contract from a transaction's call data and sender. So a raw signed transaction proves, with no
chain at hand, that this very account asked for this very entry. Sources: EIP-155, EIP-2718, EIP-2930, EIP-1559.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_hash.auto import keccak

from fl_node.errors import ChainUnavailable, LedgerError, MalformedEvidence
from fl_node.ledger import calls
from fl_node.ledger.abi import WRITES, address_bytes, checksum_address, selector_of
from fl_node.ledger.deploy import Opening, committed_artifact, constructor_data
from fl_node.ledger.transport import quantity, raw_bytes
from fl_node.records import (
    Body,
    Entry,
    LedgerOpened,
    Member,
    OwnerChanged,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    UpdateObjected,
    UpdatePublished,
    UpdatesAttested,
)

#: A call with 64 parents takes 9 kB, a deployment with 256 members 60 kB.
MOST_BYTES: Final = 1 << 17
_ACCEPT_OWNERSHIP: Final = selector_of("acceptOwnership()")
#: Of each envelope: how many fields before the signature, and where the recipient and the call data stand.
_LEGACY, _ACCESS_LIST, _DYNAMIC_FEE = (6, 3, 5), (8, 4, 6), (9, 5, 7)
_TYPED: Final = {1: _ACCESS_LIST, 2: _DYNAMIC_FEE}


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A transaction as its signature covers it. ``to`` is None for a deployment; ``chain_id`` for one that any chain
    takes (before EIP-155)."""

    hash: bytes
    sender: str
    to: str | None
    nonce: int
    data: bytes
    chain_id: int | None


def read_signed(raw: bytes) -> SignedCall:
    """Decode a raw signed transaction and recover who signed it.

    Raises:
        MalformedEvidence: no transaction of type 0, 1 or 2, or no valid signature.
    """
    from eth_keys.datatypes import Signature
    from rlp import decode, encode  # type: ignore[import-untyped]
    from rlp.exceptions import RLPException  # type: ignore[import-untyped]

    if not 0 < len(raw) <= MOST_BYTES:
        raise MalformedEvidence(f"got a transaction of {len(raw)} bytes, expected 1 to {MOST_BYTES}")
    try:
        kind = raw[0] if raw[0] < 0x80 else 0
        fields = decode(raw[1:] if kind else raw)
        count, to_at, data_at = _TYPED[kind] if kind else _LEGACY
        if not isinstance(fields, list) or len(fields) != count + 3:
            raise ValueError(f"{len(fields)} fields of type {kind}")
        signed, (v, r, s) = fields[:count], (int.from_bytes(part, "big") for part in fields[count:])
        if kind:
            chain_id, nonce = int.from_bytes(fields[0], "big"), int.from_bytes(fields[1], "big")
            digest, parity = keccak(bytes([kind]) + encode(signed)), v
        elif v >= 35:
            chain_id, nonce = (v - 35) // 2, int.from_bytes(fields[0], "big")
            digest, parity = keccak(encode([*signed, _big(chain_id), b"", b""])), (v - 35) % 2
        else:
            chain_id, nonce = None, int.from_bytes(fields[0], "big")
            digest, parity = keccak(encode(signed)), v - 27
        if len(fields[to_at]) not in (0, 20) or not isinstance(fields[data_at], bytes):
            raise ValueError("a recipient that is no address")
        key = Signature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(digest)
    except (RLPException, ValueError, TypeError, KeyError, IndexError, RecursionError) as cause:
        raise MalformedEvidence(
            f"got bytes that are no signed transaction of type 0, 1 or 2: {str(cause)[:200]}; fetch it again"
        ) from cause
    except Exception as cause:  # eth_keys raises its own, without a common base, for signatures that are none
        raise MalformedEvidence(f"got a transaction whose signature recovers to no key: {str(cause)[:200]}") from cause
    to = checksum_address(fields[to_at]) if fields[to_at] else None
    sender = checksum_address(key.to_canonical_address())
    return SignedCall(keccak(raw), sender, to, nonce, fields[data_at], chain_id)


def raw_transaction(answer: Mapping[str, Any]) -> bytes | None:
    """The raw transaction of a JSON-RPC answer to ``eth_getTransactionByHash``, put together from its fields; ``None``
    for a kind that is not known here. The caller compares its hash.

    Raises:
        ChainUnavailable: fields are missing or malformed.
    """
    from rlp import encode

    try:
        kind = quantity(answer.get("type", "0x0"))
        head = [_number(answer["nonce"])]
        to = raw_bytes(answer["to"]) if answer.get("to") else b""
        call = [_number(answer["gas"]), to, _number(answer["value"]), raw_bytes(answer["input"])]
        signature = [_number(answer["v"]), _number(answer["r"]), _number(answer["s"])]
        if kind == 0:
            return bytes(encode([*head, _number(answer["gasPrice"]), *call, *signature]))
        if kind not in _TYPED:
            return None
        signature[0] = _number(answer.get("yParity", answer["v"]))
        access = [
            [raw_bytes(item["address"]), [raw_bytes(key) for key in item["storageKeys"]]]
            for item in answer.get("accessList") or ()
        ]
        fees = ("gasPrice",) if kind == 1 else ("maxPriorityFeePerGas", "maxFeePerGas")
        fields = [_number(answer["chainId"]), *head, *(_number(answer[fee]) for fee in fees), *call, access, *signature]
        return bytes([kind]) + bytes(encode(fields))
    except (KeyError, TypeError, AttributeError) as cause:
        raise ChainUnavailable(f"got a malformed transaction from the endpoint: {str(answer)[:200]}") from cause


class Disagreement(Exception):
    """A transaction and an entry that do not belong together. The message says how they differ."""


class Indirect(Exception):
    """A transaction that reached the contract through another one, so that its call data say nothing of the entry."""


def check_call(
    call: SignedCall,
    entry: Entry,
    contract: str,
    chain_id: int,
    account: str | None,
    owner: str,
    together: Sequence[Entry],
) -> None:
    """Hold a signed transaction against the entry that it is said to have made.

    Args:
        account: of the peer that the entry is by (for an admission, of the new one); ``None`` for entries of no peer.
        owner: of the ledger, by the entries before this one.
        together: all entries of the same transaction: a deployment makes several.

    Raises:
        Disagreement: another signer, another chain, another call.
        Indirect: the call went to another contract, so nothing can be said.
    """
    if call.hash != entry.tx_hash:
        raise Disagreement(f"the transaction has hash 0x{call.hash.hex()}, expected 0x{entry.tx_hash.hex()}")
    if call.chain_id not in (None, chain_id):
        raise Disagreement(f"the transaction is signed for chain {call.chain_id}, expected {chain_id}")
    if call.to is None:
        _check_deployment(call, contract, together)
        return
    if call.to.lower() != contract.lower():
        raise Indirect(f"the transaction calls {call.to}, which called the ledger")
    if isinstance(entry.body, LedgerOpened):
        raise Disagreement("a ledger is opened by the transaction that makes its contract, not by a call to it")
    if len(together) != 1:
        raise Disagreement(f"one call makes one entry, of this one there are {len(together)}")
    allowed = _signers(entry.body, account, owner)
    if allowed is not None and call.sender.lower() not in (one.lower() for one in allowed if one):
        whom = " or ".join(one or "nobody's account" for one in allowed)
        raise Disagreement(f"signed by {call.sender}, expected {whom}")
    expected = _expected(entry, account)
    if call.data != expected and not _same_call(call.data, expected):
        raise Disagreement(f"the signed call asks for something else than this {entry.kind} entry says")


def _signers(body: Body, account: str | None, owner: str) -> tuple[str | None, ...] | None:
    """Accounts whose call the contract takes for an entry; ``None`` where that is not known. A transaction of anybody
    else's reverts, yet stands in a block as any other."""
    match body:
        case UpdatePublished() | UpdatesAttested() | UpdateObjected() | PeerAnnounced():
            return (account,)
        case PeerAdmitted():
            return (owner,)
        case PeerRetired():
            return (owner, account)
        case OwnerChanged():
            return (body.current,)
    return None


def _expected(entry: Entry, account: str | None) -> bytes:
    """The call data that make this entry."""
    body = entry.body
    try:
        match body:
            case UpdatePublished():
                return calls.publish(body.update, body.parents)
            case UpdatesAttested():
                return calls.attest(body.evidence, body.items)
            case UpdateObjected():
                return calls.object_to(body.target, body.reason, body.evidence)
            case PeerAnnounced():
                return calls.announce(body.epoch, body.recipient_key, body.tls_pin, body.endpoint)
            case PeerAdmitted():
                return calls.admit(body.account, body.site, body.roles)
            case PeerRetired():
                return calls.retire(account or "", body.reason, body.from_index)
            case OwnerChanged():
                return _ACCEPT_OWNERSHIP
    except LedgerError as cause:
        raise Disagreement(f"no call makes this {entry.kind} entry: {cause}") from cause
    except ValueError as cause:  # an address of nobody, or text that is no UTF-8
        raise Disagreement(f"no call makes this {entry.kind} entry: {cause}") from cause
    raise Indirect(f"this version does not know which call makes a {entry.kind} entry")


def _same_call(got: bytes, expected: bytes) -> bool:
    """Whether two call data mean the same: other software may lay the same values out in another order."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    if got[:4] != expected[:4]:
        return False
    for name, types in WRITES.items():
        if selector_of(f"{name}({types})") == got[:4]:
            try:
                kinds = _top_level(types)
                return bool(decode(kinds, got[4:]) == decode(kinds, expected[4:]))
            except (DecodingError, ValueError, OverflowError):
                return False
    return False


def _top_level(types: str) -> list[str]:
    """``(a,b),c`` as its two types."""
    found, depth, start = [], 0, 0
    for at, char in enumerate(types):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            found.append(types[start:at])
            start = at + 1
    return [*found, types[start:]]


def _check_deployment(call: SignedCall, contract: str, together: Sequence[Entry]) -> None:
    """The transaction that made the contract: its code, and entry 0 with the founding members."""
    created = checksum_address(created_address(call))
    if created.lower() != contract.lower():
        raise Disagreement(f"the transaction made the contract {created}, expected {contract}")
    opened = [entry.body for entry in together if isinstance(entry.body, LedgerOpened)]
    admitted = [entry.body for entry in together if isinstance(entry.body, PeerAdmitted)]
    if len(opened) != 1 or len(opened) + len(admitted) != len(together):
        raise Disagreement("a deployment makes entry 0 and admissions, this one is said to have made others")
    body = opened[0]
    try:
        members = [Member(one.account, one.site, one.roles) for one in admitted]
        expected = committed_artifact().bytecode + constructor_data(
            Opening(
                *(body.spec_digest, body.genesis_content, body.genesis_weights, body.genesis_flags),
                *(body.min_interval_s, body.owner, members),
            )
        )
    except LedgerError as cause:
        raise Disagreement(f"no deployment makes these entries: {cause}") from cause
    if call.data != expected:
        code = committed_artifact().bytecode
        what = "opened with other values than entry 0 says" if call.data.startswith(code) else "not this version's code"
        raise Disagreement(f"the contract is {what}")


def created_address(call: SignedCall) -> bytes:
    """Address of the contract that a deployment makes: the last 20 bytes of keccak-256(rlp([sender, nonce]))."""
    from rlp import encode

    return bytes(keccak(encode([address_bytes(call.sender), _big(call.nonce)]))[12:])


def _number(value: object) -> bytes:
    return _big(quantity(value))


def _big(number: int) -> bytes:
    """An integer as RLP has it: big-endian without leading zeros."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
