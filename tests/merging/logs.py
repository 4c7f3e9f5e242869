"""A log for tests: written entry by entry, as the contract would have it."""

from __future__ import annotations

import hashlib
from typing import Any

from fl_node.prefix import Prefix
from fl_node.records import (
    Attestation,
    Body,
    Entry,
    Flag,
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
from fl_node.spec import Spec


def account(number: int) -> str:
    return "0x" + f"{number:040x}"


def content(peer: int, sequence: int) -> bytes:
    return hashlib.sha256(f"{peer}#{sequence}".encode()).digest()


def spec(**tables: Any) -> Spec:
    return Spec.model_validate(tables)


class Log:
    """Builds entries; ``time_s`` moves by hand."""

    def __init__(self, peers: int = 0, time_s: int = 1_000) -> None:
        self.entries: list[Entry] = []
        self.time_s = time_s
        self.sequences: dict[int, int] = {}
        self.members = 0
        self.add(LedgerOpened(31337, account(99), b"s" * 32, b"g" * 32, b"w" * 32, Flag(0), 0, account(98)))
        for _ in range(peers):
            self.admit()

    def add(self, body: Body) -> int:
        index = len(self.entries)
        self.entries.append(Entry(index, self.time_s, index, bytes(32), bytes(32), (bytes(32),), b"", body))
        return index

    def at(self, time_s: int) -> Log:
        self.time_s = time_s
        return self

    def admit(self, site: str = "", roles: Role = Role.ALL) -> int:
        self.members += 1
        number = self.members
        self.add(PeerAdmitted(number, account(number), site or f"site-{number}", roles))
        return number

    def publish(
        self,
        peer: int,
        round_number: int,
        *,
        final: bool = False,
        samples: int = 100,
        parents: tuple[Parent, ...] = (),
        seen: int | None = None,
        score: int = 0,
        base_score: int = 0,
    ) -> UpdateRef:
        sequence = self.sequences[peer] = self.sequences.get(peer, 0) + 1
        update = Update(
            content=content(peer, sequence),
            flags=Flag.FINAL if final else Flag(0),
            weights=bytes(32),
            base=bytes(32),
            report=bytes(32),
            seen=len(self.entries) if seen is None else seen,
            seen_root=bytes(32),
            sequence=sequence,
            round=round_number,
            score_ppm=score,
            base_score_ppm=base_score,
            train_samples=samples,
            test_samples=10,
            rule=1,
        )
        self.add(UpdatePublished(peer, update, parents))
        return UpdateRef(peer, sequence)

    def object(self, peer: int, target: UpdateRef, reason: Reason) -> int:
        return self.add(UpdateObjected(peer, target, reason, bytes(32)))

    def attest(self, peer: int, *targets: UpdateRef, score: int = 900_000, base_score: int = 800_000) -> int:
        items = tuple(Attestation(ref.peer, ref.sequence, score, base_score) for ref in targets)
        return self.add(UpdatesAttested(peer, bytes(32), items))

    def retire(self, peer: int, from_index: int | None = None) -> int:
        return self.add(PeerRetired(peer, len(self.entries) if from_index is None else from_index, "left"))

    def announce(self, peer: int, epoch: int, endpoint: str) -> int:
        return self.add(PeerAnnounced(peer, epoch, bytes(32), bytes(32), endpoint))

    @property
    def prefix(self) -> Prefix:
        return Prefix(self.entries)
