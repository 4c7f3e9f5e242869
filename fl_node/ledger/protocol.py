"""What a ledger is to the rest of the package: reading anybody's, writing as one account.

Two adapters: :class:`fl_node.ledger.memory.MemoryLedger` (ships for tests and simulation) and
:class:`fl_node.ledger.rpc.RpcLedger` (any EVM chain). One conformance suite runs over both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, runtime_checkable

from fl_node.errors import LedgerError
from fl_node.records import Attestation, Flag, LedgerHead, Parent, PeerState, Reason, Role, Update, UpdateRef

MOST_TOPICS: Final = 4
#: Block numbers and sizes that a log may have: what SQLite's integers hold.
MOST_BLOCKS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """What never changes about a ledger: where it is and what it was opened with."""

    chain_id: int
    address: str
    first_block: int
    spec_digest: bytes
    genesis_content: bytes
    genesis_weights: bytes
    genesis_flags: Flag
    min_interval_s: int


@dataclass(frozen=True, slots=True)
class RawLog:
    """One event log as the chain gives it; topics are 32 raw bytes each."""

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    topics: tuple[bytes, ...] = field(repr=False)
    data: bytes = field(repr=False)

    @property
    def fault(self) -> str | None:
        """Why this is no event log of a ledger, whatever it says; ``None`` where it may be one."""
        if not 2 <= len(self.topics) <= MOST_TOPICS or any(len(topic) != 32 for topic in self.topics):
            return f"got topics of {[len(topic) for topic in self.topics]} bytes, expected 2 to {MOST_TOPICS} of 32"
        if len(self.block_hash) != 32 or len(self.tx_hash) != 32:
            return f"got hashes of {len(self.block_hash)} and {len(self.tx_hash)} bytes, expected 32"
        if not 0 <= self.block_number <= MOST_BLOCKS:
            return f"got block {self.block_number}, expected 63 bits"
        return None


@dataclass(frozen=True, slots=True)
class News:
    """What the chain has beyond a block that a reader knows.

    ``follows``: that block is still on the chain (or none was named); else a reorganisation dropped it. ``logs``: those
    after that block (or of the whole ledger) up to ``head``, to be read once, and only when ``follows``.
    """

    head: LedgerHead
    follows: bool
    logs: Iterable[RawLog] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UpdateState:
    """What contract state (not only the log) keeps of an update. ``index`` is its entry; ``time_s`` block time."""

    ref: UpdateRef
    content: bytes
    index: int
    round: int
    score_ppm: int
    time_s: int
    train_samples: int
    test_samples: int
    flags: Flag
    encoding: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A write that is in a block. ``gas_used`` is 0 in memory."""

    index: int
    tx_hash: bytes
    block_number: int
    block_hash: bytes
    gas_used: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of a write that an earlier process, or a reorganisation, had left open.

    ``outcome``: *recorded*, it is in a block; *rejected*, the contract refuses it by now (``error`` says why);
    *superseded*, another transaction took its place.
    """

    label: str
    outcome: Literal["recorded", "rejected", "superseded"]
    receipt: Receipt | None = None
    error: LedgerError | None = None


@runtime_checkable
class LedgerReader(Protocol):
    """Reads a ledger. Every method raises :class:`ChainUnavailable` when the endpoint does not answer."""

    @property
    def identity(self) -> LedgerIdentity:
        """Where the ledger is and what it was opened with."""

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        """Size and root at the block with ``depth`` blocks on top of it (never before the deployment's block).

        An answer may be remembered while the chain does not move; ``fresh`` asks again.
        """

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        """Head and logs beyond a known block, by number and hash (None: of the whole ledger), never from memory.

        None when ``known`` is the block with ``depth`` blocks on top of it: there is no news.
        """

    def block_hash(self, number: int) -> bytes | None:
        """Hash of a block of the chain as it is now; None above its tip."""

    def logs(self, first_block: int, last_block: int) -> Iterable[RawLog]:
        """The contract's logs of these blocks, both included, in the order of the chain."""

    def peer(self, number: int) -> PeerState:
        """A member by number, from contract state now.

        Raises:
            LookupError: no such member.
        """

    def peers(self) -> Sequence[PeerState]:
        """All members ever admitted, by number, from contract state now."""

    def peer_of(self, account: str) -> PeerState | None:
        """The member that writes with this account; None if it is none."""

    def update(self, ref: UpdateRef) -> UpdateState:
        """An update from contract state now.

        Raises:
            LookupError: no such update.
        """

    def balance(self, account: str) -> int:
        """What an account can pay for gas with, in wei."""


@runtime_checkable
class Ledger(LedgerReader, Protocol):
    """A ledger with an account that writes. Each write returns once it is in a block.

    Every write raises :class:`EntryRejected` (with the contract error's name and arguments) or its subclass
    :class:`AlreadyRecorded`, :class:`NotAMember`, :class:`InsufficientFunds`, or :class:`ChainUnavailable`.
    """

    @property
    def account(self) -> str:
        """Address that writes."""

    def recover(self) -> Sequence[Recovered]:
        """Finish what a crash left open, and send again what a reorganisation dropped. Empty when nothing was.

        Call it at start, and when a sync reports orphaned entries of one's own.
        """

    def publish(self, update: Update, parents: Sequence[Parent]) -> Receipt:
        """Record an update and what was merged into its base."""

    def attest(self, evidence: bytes, items: Sequence[Attestation]) -> Receipt:
        """Attest to updates of others; ``evidence`` is the digest of a report, or zeros."""

    def object(self, target: UpdateRef, reason: Reason, evidence: bytes = bytes(32)) -> Receipt:
        """Object to an update."""

    def announce(self, epoch: int, recipient_key: bytes, tls_pin: bytes, endpoint: str) -> Receipt:
        """Announce keys and where content is served; ``epoch`` rises by one each time, from 1."""

    def admit(self, account: str, site: str, roles: Role = Role.ALL) -> Receipt:
        """Admit a member (owner only)."""

    def retire(self, account: str, reason: str, from_index: int) -> Receipt:
        """Retire a member from an entry index on (the owner, or the member itself)."""
