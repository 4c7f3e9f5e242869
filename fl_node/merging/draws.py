"""Random choices that nobody can steer and everybody can repeat: docs/replay-rules.md, section 8.

The seed depends on the spec, the account and the sequence of the update being made: never on the ledger's root, which
its last writer could grind, nor on a library's generator, whose stream may change. A candidate's rank depends on its
publisher alone, not on its sequence: one could publish until it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from heapq import heapify, heappop

from fl_node.prefix import Prefix


def draw_seed(spec_digest: bytes, account: bytes, sequence: int) -> bytes:
    """Seed of an update's random choices: SHA-256(spec digest, 20 bytes of account, u32 sequence, big-endian)."""
    return sha256(spec_digest + account + sequence.to_bytes(4, "big")).digest()


def draw_rank(seed: bytes, peer: int) -> bytes:
    """What candidates are sorted by, each by its publisher; the smallest are chosen: SHA-256(seed, u32 peer,
    big-endian)."""
    return sha256(seed + peer.to_bytes(4, "big")).digest()


def seed_of(view: Prefix, peer: int, sequence: int) -> bytes:
    """The seed for a peer's update number ``sequence`` in this log's federation."""
    account = bytes.fromhex(view.peer(peer).account.removeprefix("0x"))
    return draw_seed(view.opened.spec_digest, account, sequence)


def in_order(seed: bytes, peers: Iterable[int]) -> Iterator[int]:
    """These peers in the order of their ranks, found as far as they are asked for."""
    ranks = [(draw_rank(seed, peer), peer) for peer in peers]
    heapify(ranks)
    while ranks:
        yield heappop(ranks)[1]
