"""Call data of the contract's six writes, as its ABI has them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from fl_node.errors import LedgerError
from fl_node.ledger.abi import WRITES, address_bytes, selector_of
from fl_node.ledger.codec import (
    check_length,
    encode_attestations,
    encode_bytes,
    encode_parents,
    encode_site,
    encode_update,
)
from fl_node.records import Attestation, Parent, Reason, Role, Update, UpdateRef

_SELECTORS: Final = {name: selector_of(f"{name}({types})") for name, types in WRITES.items()}
_RETIRE = struct.Struct(">12x20s24xQ24xQ")
_ANNOUNCE = struct.Struct(">28xI32s32s24xQ")
_PUBLISH = struct.Struct(">24xQ24xQ")
_ATTEST = struct.Struct(">32s24xQ")


@contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except (ValueError, struct.error) as cause:
        raise LedgerError(f"the entry does not fit the contract's types: {cause}") from cause


@_fitting()
def admit(account: str, site: str, roles: Role) -> bytes:
    """Admit an account as a peer of a site."""
    return _SELECTORS["admit"] + struct.pack(">12x20s32s31xB", address_bytes(account), encode_site(site), roles)


@_fitting()
def retire(account: str, reason: str, from_index: int) -> bytes:
    """Retire a peer from an entry index on."""
    head = _RETIRE.pack(address_bytes(account), _RETIRE.size, from_index)
    return _SELECTORS["retire"] + head + encode_bytes(reason.encode())


@_fitting()
def announce(epoch: int, recipient_key: bytes, tls_pin: bytes, endpoint: str) -> bytes:
    """Announce where a peer serves content."""
    check_length(32, recipient_key, tls_pin)
    head = _ANNOUNCE.pack(epoch, recipient_key, tls_pin, _ANNOUNCE.size)
    return _SELECTORS["announce"] + head + encode_bytes(endpoint.encode())


@_fitting()
def publish(update: Update, parents: Sequence[Parent]) -> bytes:
    """Record an update and its parents."""
    body = encode_update(update)
    head = _PUBLISH.pack(_PUBLISH.size, _PUBLISH.size + len(body))
    return _SELECTORS["publish"] + head + body + encode_parents(parents)


@_fitting()
def attest(evidence: bytes, items: Sequence[Attestation]) -> bytes:
    """Attest to updates of others."""
    check_length(32, evidence)
    return _SELECTORS["attest"] + _ATTEST.pack(evidence, _ATTEST.size) + encode_attestations(items)


@_fitting()
def object_to(target: UpdateRef, reason: Reason, evidence: bytes) -> bytes:
    """Object to an update."""
    check_length(32, evidence)
    row = struct.pack(">28xI28xI31xB32s", target.peer, target.sequence, reason, evidence)
    return _SELECTORS["object"] + row
