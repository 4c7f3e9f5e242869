"""The contract's views: call data and answers, decoded into records. All answers but lists are static words."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from fl_node.errors import ChainUnavailable
from fl_node.ledger.abi import address_bytes, checksum_address, selector_of
from fl_node.ledger.codec import decode_text
from fl_node.ledger.protocol import UpdateState
from fl_node.records import Flag, PeerState, Role, UpdateRef

PAGE: Final = 256

_U8, _U32, _U64, _B32, _ADDRESS = "31xB", "28xI", "24xQ", "32s", "12x20s"
_STATE: Final = struct.Struct(">" + _U64 + _B32 + _U32 * 3 + _U64 * 2 + _B32 * 2 + _ADDRESS)
_PEER: Final = struct.Struct(">" + _U32 + _ADDRESS + _B32 + _U8 + _U32 * 2 + _U64 * 2 + _U32 + _U8 + _U64)
_UPDATE: Final = struct.Struct(">" + _B32 + _U32 * 2 + _U64 + _U32 * 2 + _U64 + _U8 * 2)
_GENESIS: Final = struct.Struct(">" + _B32 * 2 + _U8)

SIGNATURES: Final = {
    "state": "state()",
    "genesis": "genesis()",
    "number_of": "numberOf(address)",
    "peer": "peer(uint32)",
    "peers": "peers(uint32,uint32)",
    "update": "update(uint32,uint32)",
}
_SELECTORS: Final = {name: selector_of(signature) for name, signature in SIGNATURES.items()}


@dataclass(frozen=True, slots=True)
class ContractState:
    """What ``state()`` answers."""

    size: int
    root: bytes
    highest_round: int
    members: int
    min_interval_s: int
    chain_id: int
    spec_digest: bytes
    owner: str


def state_call() -> bytes:
    """Call data of ``state()``."""
    return _SELECTORS["state"]


def read_state(answer: bytes) -> ContractState:
    """The answer to :func:`state_call`."""
    size, root, highest, members, interval, _, _, chain, spec, owner = _unpacked(_STATE, answer)
    chain_id = int.from_bytes(bytes(chain), "big")
    return ContractState(size, root, highest, members, interval, chain_id, spec, checksum_address(owner))


def genesis_call() -> bytes:
    """Call data of ``genesis()``."""
    return _SELECTORS["genesis"]


def read_genesis(answer: bytes) -> tuple[bytes, bytes, Flag]:
    """Content digest, weights digest and flags."""
    content, weights, flags = _unpacked(_GENESIS, answer)
    return content, weights, Flag(flags)


def number_call(account: str) -> bytes:
    """Call data of ``numberOf(account)``."""
    return _SELECTORS["number_of"] + bytes(12) + address_bytes(account)


def peer_call(number: int) -> bytes:
    """Call data of ``peer(number)``."""
    return _SELECTORS["peer"] + number.to_bytes(32, "big")


def read_peer(answer: bytes) -> PeerState:
    """The answer to :func:`peer_call`. Endpoints are in the log only."""
    number, account, site, roles, sequence, round_, last_entry, _, epoch, retired, retired_from = _unpacked(
        _PEER, answer
    )
    return PeerState(
        number=number,
        account=checksum_address(account),
        site=decode_text(site.rstrip(b"\0")),
        roles=Role(roles),
        sequence=sequence,
        round=round_,
        last_entry=last_entry,
        retired_from=retired_from if retired else None,
        epoch=epoch,
    )


def peers_call(start: int, limit: int = PAGE) -> bytes:
    """Call data of ``peers(start, limit)``."""
    return _SELECTORS["peers"] + start.to_bytes(32, "big") + limit.to_bytes(32, "big")


def read_peers(answer: bytes) -> list[PeerState]:
    """The answer to :func:`peers_call`."""
    count = int.from_bytes(answer[32:64], "big")
    if len(answer) != 64 + count * _PEER.size:
        raise ChainUnavailable(f"got {len(answer)} bytes for {count} peers; expected {64 + count * _PEER.size}")
    return [read_peer(answer[at : at + _PEER.size]) for at in range(64, len(answer), _PEER.size)]


def update_call(ref: UpdateRef) -> bytes:
    """Call data of ``update(number, sequence)``."""
    return _SELECTORS["update"] + ref.peer.to_bytes(32, "big") + ref.sequence.to_bytes(32, "big")


def read_update(ref: UpdateRef, answer: bytes) -> UpdateState:
    """The answer to :func:`update_call`."""
    content, round_, score, time_s, train, test, index, flags, encoding = _unpacked(_UPDATE, answer)
    return UpdateState(
        ref=ref,
        content=content,
        index=index,
        round=round_,
        score_ppm=score,
        time_s=time_s,
        train_samples=train,
        test_samples=test,
        flags=Flag(flags),
        encoding=encoding,
    )


def _unpacked(layout: struct.Struct, answer: bytes) -> tuple[Any, ...]:
    if len(answer) != layout.size:
        raise ChainUnavailable(
            f"got {len(answer)} bytes from a view, expected {layout.size}; the endpoint or the contract is another one"
        )
    return layout.unpack(answer)
