"""Frozen records that every room shares. No IO, no third-party import.

Units are in the names: ``_ppm`` parts per million, ``_s`` seconds, ``_bytes`` bytes. Digests are 32 raw bytes.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

PPM: Final = 1_000_000
#: Bit of ``Update.encoding``: the bytes are one zstd frame.
ZSTD: Final = 0x80
ZERO32: Final = bytes(32)


class Role(enum.IntFlag):
    """What a member may do."""

    PUBLISH = 1
    ATTEST = 2
    READ = 4
    ALL = 7


class Flag(enum.IntFlag):
    """Bits of ``Update.flags``."""

    DAG_PB = 1
    ENCRYPTED = 2
    FINAL = 4


class Encoding(enum.IntEnum):
    """How the published bytes carry the weights: the low seven bits of ``Update.encoding``. See
    docs/replay-rules.md, section 13."""

    SAFETENSORS = 0
    F16 = 1
    INT8_DELTA = 2
    TOP_K_DELTA = 3


class Reason(enum.IntEnum):
    """Why an update could not be used."""

    UNAVAILABLE = 1
    MALFORMED = 2
    DIGEST_MISMATCH = 3
    WITHDRAWN = 4


class Rule(enum.IntEnum):
    """Aggregation rule that an update names."""

    GENESIS = 0
    FEDAVG = 1
    UNIFORM = 2
    SCORE = 3
    TRUST = 4
    MEDIAN = 5
    TRIMMED_MEAN = 6
    KRUM = 7
    MULTI_KRUM = 8
    GEOMETRIC_MEDIAN = 9
    CENTRED_CLIPPING = 10


def rule_name(number: int) -> str:
    """The aggregation rule of an update as the spec calls it; its number where this version knows no name.

    >>> rule_name(6), rule_name(99)
    ('trimmed-mean', '99')
    """
    try:
        return Rule(number).name.lower().replace("_", "-")
    except ValueError:
        return str(number)


@dataclass(frozen=True, slots=True, order=True)
class UpdateRef:
    """``(peer number, sequence)``: names an update for ever. Printed as ``3#12``."""

    peer: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> UpdateRef | None:
        """What ``3#12`` names; ``None`` if the text reads otherwise or its numbers are beyond any ledger."""
        found = re.fullmatch(r"([0-9]{1,18})#([0-9]{1,18})", text)
        return cls(int(found[1]), int(found[2])) if found else None

    @classmethod
    def unpack(cls, number: int) -> UpdateRef | None:
        """What ``Update.refers_to`` names: ``peer << 32 | sequence``; ``None`` for 0."""
        return cls(number >> 32, number & 0xFFFFFFFF) if number else None

    def packed(self) -> int:
        """As ``Update.refers_to`` has it."""
        return self.peer << 32 | self.sequence

    def __str__(self) -> str:
        return f"{self.peer}#{self.sequence}"


@dataclass(frozen=True, slots=True)
class Parent:
    """One update that was considered for a base. ``share_ppm`` 0: considered, not merged."""

    peer: int
    sequence: int
    tag: bytes
    share_ppm: int

    @property
    def ref(self) -> UpdateRef:
        return UpdateRef(self.peer, self.sequence)


@dataclass(frozen=True, slots=True)
class Update:
    """What a peer records when it publishes. Field by field the contract's ``Update``."""

    content: bytes
    flags: Flag
    weights: bytes
    base: bytes
    report: bytes
    seen: int
    seen_root: bytes
    sequence: int
    round: int
    score_ppm: int
    base_score_ppm: int
    train_samples: int
    test_samples: int
    rule: int
    encoding: int = Encoding.SAFETENSORS
    refers_to: int = 0
    sealed_at: int = 0
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Attestation:
    """One peer's pair of scores for another's update, on its own data."""

    peer: int
    sequence: int
    score_ppm: int
    base_score_ppm: int


@dataclass(frozen=True, slots=True)
class Member:
    """A genesis member, as given to the constructor."""

    account: str
    site: str
    roles: Role = Role.ALL


# ---- bodies of ledger entries, one per event -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LedgerOpened:
    chain_id: int
    ledger: str
    spec_digest: bytes
    genesis_content: bytes
    genesis_weights: bytes
    genesis_flags: Flag
    min_interval_s: int
    owner: str


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    previous: str
    current: str


@dataclass(frozen=True, slots=True)
class PeerAdmitted:
    peer: int
    account: str
    site: str
    roles: Role


@dataclass(frozen=True, slots=True)
class PeerRetired:
    peer: int
    from_index: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerAnnounced:
    peer: int
    epoch: int
    recipient_key: bytes
    tls_pin: bytes
    endpoint: str


@dataclass(frozen=True, slots=True)
class UpdatePublished:
    peer: int
    update: Update
    parents: tuple[Parent, ...]

    @property
    def ref(self) -> UpdateRef:
        return UpdateRef(self.peer, self.update.sequence)


@dataclass(frozen=True, slots=True)
class UpdatesAttested:
    peer: int
    evidence: bytes
    items: tuple[Attestation, ...]


@dataclass(frozen=True, slots=True)
class UpdateObjected:
    peer: int
    target: UpdateRef
    reason: Reason
    evidence: bytes


@dataclass(frozen=True, slots=True)
class UnknownEntry:
    """An event of a kind this version does not know; it is a leaf of the log all the same."""

    topic: bytes


Body: TypeAlias = (
    LedgerOpened
    | OwnerChanged
    | PeerAdmitted
    | PeerRetired
    | PeerAnnounced
    | UpdatePublished
    | UpdatesAttested
    | UpdateObjected
    | UnknownEntry
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger entry: where it stands, the raw log (the leaf's preimage) and what it says.

    ``time_s`` is block time, seconds since 1970. ``topics`` are 32 raw bytes each, topic 0 first.
    """

    index: int
    time_s: int
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    topics: tuple[bytes, ...] = field(repr=False)
    data: bytes = field(repr=False)
    body: Body

    @property
    def kind(self) -> str:
        return type(self.body).__name__


@dataclass(frozen=True, slots=True)
class PeerState:
    """A member as the contract holds it now."""

    number: int
    account: str
    site: str
    roles: Role
    sequence: int
    round: int
    last_entry: int
    retired_from: int | None
    endpoint: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """Size and root of the log at one block."""

    size: int
    root: bytes
    block_number: int
    block_hash: bytes
    highest_round: int = 0
