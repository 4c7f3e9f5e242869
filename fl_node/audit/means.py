"""What an audit works with, behind small seams: the log, signed transactions, blocks, bytes.

An audit over a chain and one over an evidence pack differ in nothing but these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fl_node.content.cid import Cid
from fl_node.content.protocol import Held
from fl_node.decoding import Opening
from fl_node.ledger.chain_look import Block
from fl_node.ledger.checkpoint import SignedCheckpoint
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.protocol import LedgerIdentity
from fl_node.prefix import Prefix
from fl_node.records import Entry, UpdateRef
from fl_node.spec import Federation

Progress: TypeAlias = Callable[[str, int, int], None]
"""``(phase, done, total)``, called now and then."""


class Blobs(Protocol):
    """Bytes by CID, from wherever this audit may look. Safe to share between threads."""

    def hold(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> Held:
        """A whole file, checked against its CID.

        Args:
            ref: the update whose content (or report) it is, where it is one: its publisher is asked first.

        Raises:
            ContentUnavailable: nobody gives it.
            ContentMismatch: somebody gives other bytes and nobody the right ones; the message names who.
            ContentMalformed: the CID names no file of the profile, or a larger one. The publisher's doing.
        """

    def asked(self, cid: Cid, ref: UpdateRef | None = None) -> Holders | None:
        """Who has it now; ``None`` where there is nobody to ask (a pack)."""

    def where(self, cid: Cid) -> str:
        """A gateway's URL for commands by which a person repeats a check; empty if none is known."""


@dataclass(frozen=True, slots=True)
class Holders:
    """Answers to "do you have it": names (``peer 3 http://...``) of those who do, who do not, who did not answer.

    ``publisher``: what the publisher itself said: True, False, or None for no answer (or nobody to ask).
    """

    having: tuple[str, ...]
    lacking: tuple[str, ...]
    silent: tuple[str, ...]
    publisher: bool | None


class InClear(Protocol):
    """Decoded weights of encrypted updates, from whoever could read them: an evidence pack that was written with keys.
    They count only where the ledger's commitment is to them."""

    def weights(self, ref: UpdateRef, max_bytes: int) -> Held | None:
        """An update's weights as a canonical safetensors file; ``None`` where there are none.

        Raises:
            ContentMismatch: more than ``max_bytes``.
        """


class Transactions(Protocol):
    """Signed transactions by hash."""

    def signed(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Raw signed transactions (as keccak-256 hashes them) of those hashes that can be had.

        Raises:
            ChainUnavailable: the endpoint does not answer.
        """


class Blocks(Protocol):
    """The chain as it is now."""

    def of(self, numbers: Sequence[int]) -> Mapping[int, Block | None]:
        """Each block; ``None`` where there is no such block.

        Raises:
            ChainUnavailable: the endpoint does not answer.
        """

    def tip(self) -> int:
        """Number of the latest block."""

    def code(self) -> bytes:
        """The contract's code."""

    def highest_round(self) -> int:
        """The highest round on the ledger at the latest block, which may be beyond the log that is audited."""


@dataclass(frozen=True, slots=True)
class Means:
    """Everything that one audit may look at.

    Attributes:
        identity: the ledger and what it was opened with, as its entry 0 says.
        federation: the spec, from bytes whose SHA-256 is in entry 0; ``None`` where they cannot be had.
        log: the entries, the tree and its proofs.
        prefix: the entries folded, up to the first that no contract of ours would have taken.
        entries: all of the log.
        breaches: what was wrong with entries by the contract's own rules, by entry index.
        blocks: ``None`` offline.
        checkpoints: signed by members or others; not yet held against the log.
        served: those of them that gateways gave unasked, by note: anybody can sign one, so only a member's counts.
        depth: blocks on top of an entry before it counts.
        rpc: endpoint as it may be shown; empty offline.
        on_chain: entries that the contract had when the log was read, which may be from elsewhere; 0: not known.
        opener: private keys that open updates; ``None``: none are at hand.
        in_clear: weights of encrypted updates that are at hand without keys.
    """

    identity: LedgerIdentity
    federation: Federation | None
    log: LogStore
    prefix: Prefix
    entries: Sequence[Entry]
    breaches: Mapping[int, str]
    transactions: Transactions
    blocks: Blocks | None
    blobs: Blobs
    checkpoints: tuple[SignedCheckpoint, ...]
    depth: int
    rpc: str = ""
    served: frozenset[bytes] = frozenset()
    on_chain: int = 0
    opener: Opening | None = None
    in_clear: InClear | None = None

    @property
    def sound(self) -> Prefix:
        """The entries before the first that no contract can have taken: what may be summed up. A log that breaks the
        rules may name a round of four billion."""
        return self.prefix.upto(min(self.prefix.size, *self.breaches, len(self.entries)))

    @property
    def spec_digest(self) -> bytes:
        """SHA-256 of the spec at hand, which need not be the one that the ledger was opened with; zeros without one."""
        return bytes(32) if self.federation is None else self.federation.digest
