"""Random choices that nobody can steer and everybody can repeat: docs/replay-rules.md, section 8.

The seed depends on the spec, the account and the sequence of the update being made: never on the ledger's root, which
its last writer could grind, nor on a library's generator, whose stream may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from heapq import heapify, heappop

from fl_node.prefix import Prefix
from fl_node.records import UpdateRef


def draw_seed(spec_digest: bytes, account: bytes, sequence: int) -> bytes:
    """Seed of an update's random choices: SHA-256(spec digest, 20 bytes of account, u32 sequence, big-endian)."""
    return sha256(spec_digest + account + sequence.to_bytes(4, "big")).digest()


def draw_rank(seed: bytes, ref: UpdateRef) -> bytes:
    """What a candidate is sorted by; the smallest are chosen: SHA-256(seed, u32 peer, u32 sequence, big-endian)."""
    return sha256(seed + tail_of(ref)).digest()


def tail_of(ref: UpdateRef) -> bytes:
    """A candidate's name in eight bytes: what of it enters its rank."""
    return ref.peer.to_bytes(4, "big") + ref.sequence.to_bytes(4, "big")


def seed_of(view: Prefix, peer: int, sequence: int) -> bytes:
    """The seed for a peer's update number ``sequence`` in this log's federation."""
    account = bytes.fromhex(view.peer(peer).account.removeprefix("0x"))
    return draw_seed(view.opened.spec_digest, account, sequence)


def in_order(seed: bytes, peers: Iterable[int], tails: Mapping[int, bytes]) -> Iterator[int]:
    """These peers in the order of their updates' ranks, found as far as they are asked for.

    Args:
        tails: :func:`tail_of` each peer's update.
    """
    ranks = [(sha256(seed + tails[peer]).digest(), peer) for peer in peers]
    heapify(ranks)
    while ranks:
        yield heappop(ranks)[1]
