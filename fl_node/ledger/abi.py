"""The contract's interface as Python tables: events, functions, their topics and selectors.

Written out here so that reading a log needs neither web3 nor a JSON file; a test compares every line with the ABI of
the committed artifact.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from eth_hash.auto import keccak

_ADDRESS: Final = re.compile("0x[0-9a-fA-F]{40}")

UPDATE: Final = (
    "(bytes32,uint8,uint8,uint64,bytes32,bytes32,bytes32,uint64,bytes32,uint64,"
    "uint32,uint32,uint32,uint32,uint32,uint32,uint16,bytes)"
)
PARENT: Final = "(uint32,uint32,bytes4,uint32)"
ATTESTATION: Final = "(uint32,uint32,uint32,uint32)"

# Event name -> parameter types, indexed ones first (as they stand in the declaration).
EVENTS: Final[dict[str, str]] = {
    "LedgerOpened": "uint64,uint64,uint256,address,bytes32,bytes32,bytes32,uint8,uint32,address",
    "OwnerChanged": "uint64,uint64,address,address",
    "PeerAdmitted": "uint64,uint32,uint64,address,bytes32,uint8",
    "PeerRetired": "uint64,uint32,uint64,uint64,string",
    "PeerAnnounced": "uint64,uint32,uint64,uint32,bytes32,bytes32,string",
    "UpdatePublished": f"uint64,uint32,uint32,uint64,{UPDATE},{PARENT}[]",
    "UpdatesAttested": f"uint64,uint32,uint64,bytes32,{ATTESTATION}[]",
    "UpdateObjected": "uint64,uint32,uint64,uint32,uint32,uint8,bytes32",
}

WRITES: Final[dict[str, str]] = {
    "admit": "address,bytes32,uint8",
    "retire": "address,string,uint64",
    "announce": "uint32,bytes32,bytes32,string",
    "publish": f"{UPDATE},{PARENT}[]",
    "attest": f"bytes32,{ATTESTATION}[]",
    "object": "uint32,uint32,uint8,bytes32",
}


def topic_of(name: str) -> bytes:
    """Topic 0 of an event: keccak-256 of its signature, 32 bytes."""
    return bytes(keccak(f"{name}({EVENTS[name]})".encode()))


def selector_of(signature: str) -> bytes:
    """First four bytes of keccak-256 of ``name(types)``: function selectors and custom errors alike."""
    return bytes(keccak(signature.encode())[:4])


TOPICS: Final[dict[str, bytes]] = {name: topic_of(name) for name in EVENTS}


@lru_cache(maxsize=4096)
def checksum_address(raw: bytes) -> str:
    """20 bytes as a mixed-case address (ERC-55)."""
    digits = raw.hex()
    digest = keccak(digits.encode()).hex()
    return "0x" + "".join(
        char.upper() if int(nibble, 16) >= 8 else char for char, nibble in zip(digits, digest, strict=False)
    )


def address_bytes(address: str) -> bytes:
    """A 0x-prefixed address in any case as 20 bytes.

    Raises:
        ValueError: not 0x and 40 hexadecimal digits.
    """
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"got {address[:100]!r}; expected an address: 0x and 40 hexadecimal digits")
    return bytes.fromhex(address[2:])
