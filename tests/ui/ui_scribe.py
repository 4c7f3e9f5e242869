"""Logs written entry by entry, by whichever hand: what no contract of ours would take, too."""

from __future__ import annotations

from typing import Any

from ui_logs import ADDRESS, BEGAN_S, HOSTILE, SPEC, digest

from fl_node.errors import ChainUnavailable
from fl_node.ledger import codec, tree
from fl_node.ledger.memory import memory_account
from fl_node.ledger.protocol import LedgerIdentity, News, RawLog
from fl_node.records import (
    PPM,
    ZERO32,
    Attestation,
    Body,
    Flag,
    LedgerHead,
    LedgerOpened,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)
from fl_node.spec import parse_federation


class Scribe:
    """A ledger whose log is written by hand, an entry in each block, with no contract that would refuse anything.

    It counts what it is asked, can be ``down``, and can be cut back to a shorter log.
    """

    def __init__(self, spec_digest: bytes, address: str = ADDRESS) -> None:
        self.identity = LedgerIdentity(31337, address, 1, spec_digest, digest("genesis"), digest("w"), Flag(0), 0)
        self.logs_made: list[RawLog] = []
        self.down = False
        self.salt = 0
        self.asked = 0
        self.time_s = BEGAN_S
        self._sizes: list[int] = []  # log size at block 1, 2, 3, ...
        self._hashes: list[bytes] = []
        self.say(
            LedgerOpened(
                *(31337, address, spec_digest, digest("genesis"), digest("w"), Flag(0), 0, memory_account(0)),
            )
        )

    @property
    def size(self) -> int:
        return len(self.logs_made)

    def say(self, *bodies: Body) -> int:
        """A block with these entries; the index of the last of them."""
        self.time_s += 1
        logs = [codec.encode(self.size + at, self.time_s, body) for at, body in enumerate(bodies)]
        self.raw(*logs)
        return self.size - 1

    def raw(self, *logs: tuple[tuple[bytes, ...], bytes]) -> None:
        """A block with these very logs."""
        number = len(self._sizes) + 1
        block_hash = digest("block", number, self.salt, self._hashes[-1:])
        tx_hash = digest("tx", number, self.salt)
        self.logs_made += [RawLog(number, block_hash, tx_hash, topics, data) for topics, data in logs]
        self._sizes.append(self.size)
        self._hashes.append(block_hash)

    def unknown(self, *words: bytes, topic: bytes = b"\x99" * 32) -> None:
        """An entry of a kind that nobody knows."""
        self.raw(((topic, self.size.to_bytes(32, "big"), *words), self.time_s.to_bytes(32, "big") + b"??"))

    def admit(self, site: str, roles: Role = Role.ALL, peer: int = 0) -> int:
        known = sum(1 for log in self.logs_made if log.topics[0] == codec.TOPICS["PeerAdmitted"])
        number = peer or known + 1
        self.say(PeerAdmitted(number, memory_account(number), site, roles))
        return number

    def publish(self, peer: int, sequence: int, number: int, *parents: tuple[int, int, int], **changes: Any) -> int:
        """An update; ``parents`` are peer, sequence and share."""
        values: dict[str, Any] = {
            "content": digest("content", peer, sequence),
            "flags": Flag(0),
            "weights": digest("weights", peer, sequence),
            "base": digest("base", peer, sequence),
            "report": digest("report", peer, sequence),
            "seen": self.size,
            "seen_root": ZERO32,
            "sequence": sequence,
            "round": number,
            "score_ppm": 800_000,
            "base_score_ppm": 700_000,
            "train_samples": 100,
            "test_samples": 50,
            "rule": 1,
        }
        made = tuple(Parent(p, s, digest("content", p, s)[:4], share) for p, s, share in parents)
        return self.say(UpdatePublished(peer, Update(**{**values, **changes}), made))

    def attest(self, peer: int, *items: tuple[int, int, int]) -> int:
        """``items``: peer, sequence and score."""
        told = tuple(Attestation(p, s, score, max(0, score - 1000)) for p, s, score in items)
        return self.say(UpdatesAttested(peer, ZERO32, told))

    def object(self, peer: int, target: UpdateRef, reason: Reason = Reason.UNAVAILABLE) -> int:
        return self.say(UpdateObjected(peer, target, reason, ZERO32))

    def retire(self, peer: int, since: int, why: str = "left") -> int:
        return self.say(PeerRetired(peer, since, why))

    def cut(self, size: int) -> None:
        """A reorganisation: only the first ``size`` entries are left, and what comes next, an empty block to begin
        with, is in other blocks."""
        blocks = sum(1 for known in self._sizes if known <= size)
        assert self._sizes[blocks - 1] == size, "cut at the end of a block"
        del self.logs_made[size:], self._sizes[blocks:], self._hashes[blocks:]
        self.salt += 1
        self.raw()

    # ---- LedgerReader ----

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        self._answer()
        blocks = max(1, len(self._sizes) - depth)
        size = self._sizes[blocks - 1]
        frontier = tree.Frontier()
        for log in self.logs_made[:size]:
            frontier.append(tree.entry_leaf(log.topics, log.data))
        return LedgerHead(size, frontier.root, blocks, self._hashes[blocks - 1], 0)

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        head = self.head(depth)
        if known is not None and known[1] == head.block_hash:
            return None
        follows = known is None or self.block_hash(known[0]) == known[1]
        return News(head, follows, self.logs(1 if known is None else known[0] + 1, head.block_number))

    def block_hash(self, number: int) -> bytes | None:
        self._answer()
        return self._hashes[number - 1] if 1 <= number <= len(self._hashes) else None

    def logs(self, first_block: int, last_block: int) -> list[RawLog]:
        self._answer()
        return [log for log in self.logs_made if first_block <= log.block_number <= last_block]

    def peer(self, number: int) -> Any:
        raise LookupError(number)

    def peers(self) -> list[Any]:
        return []

    def peer_of(self, account: str) -> None:
        return None

    def update(self, ref: UpdateRef) -> Any:
        raise LookupError(ref)

    def balance(self, account: str) -> int:
        return 0

    def _answer(self) -> None:
        self.asked += 1
        if self.down:
            raise ChainUnavailable("no answer from http://127.0.0.1:9: connection refused; is the chain running?")


def hostile(spec: str = SPEC) -> Scribe:
    """Everything that a contract should have refused, and names that want to be more than names."""
    told = Scribe(parse_federation(spec.encode()).digest)
    most = 2**64 - 1
    for site in HOSTILE:
        told.admit(site)
    told.admit("again", peer=1)
    told.admit("beyond", peer=2**32 - 1)
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, (1, 1, PPM))
    told.publish(2, 1, 1, (1, 1, PPM), score_ppm=1)  # the same name twice
    told.publish(3, 2**32 - 1, 2**32 - 1, (3, 2**32 - 1, 2**32 - 1), (1, 1, 2**32 - 1), (1, 1, 5), score_ppm=2**32 - 1)
    told.publish(77, 1, 2, (78, 9, PPM))  # a stranger, and a parent that is nowhere
    told.publish(4, 0, 0, seen=most, sealed_at=most, refers_to=most, train_samples=2**32 - 1, rule=65_535)
    told.publish(5, 1, 2, (1, 1, 0), (2, 1, 0), extra=b"\x00\xff" * 128, flags=Flag(255), encoding=200)
    told.publish(6, 1, 3, flags=Flag.FINAL)
    told.attest(2, (1, 1, 2**32 - 1), (1, 1, 7), (9, 9, 1))
    told.attest(77, (1, 1, 500_000))
    told.object(3, UpdateRef(1, 1), Reason.MALFORMED)
    told.object(3, UpdateRef(1, 1), Reason.MALFORMED)
    told.object(77, UpdateRef(8, 8), Reason.WITHDRAWN)
    told.say(PeerAnnounced(1, 2**32 - 1, ZERO32, ZERO32, "javascript:alert(1)\n<b>" + "x" * 200))
    told.say(PeerAnnounced(99, 1, ZERO32, ZERO32, "=cmd|' /C calc'!A0"))
    told.say(PeerRetired(2, most, "<img src=x onerror=alert(1)>\u202e"))
    told.say(PeerRetired(2, 0, "again"))
    told.unknown()
    told.unknown(b"\xff" * 32, b"\xfe" * 32)
    told.unknown(topic=codec.TOPICS["UpdatePublished"])
    return told


# ---- an explorer over them -------------------------------------------------------------------------------------------
