"""A ledger in memory: the contract's rules, logs equal to the byte, blocks, and reorganisations on demand.

For tests, simulation and notebooks. One :class:`MemoryChain` is shared by any number of :class:`MemoryLedger`, one per
account; every write is a block of its own. Thread-safe.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from fl_node.errors import LedgerError
from fl_node.ledger import calls, codec, tree
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.protocol import LedgerIdentity, News, RawLog, Receipt, Recovered, UpdateState
from fl_node.ledger.rules import MAX_MEMBERS, ZERO_ADDRESS, LedgerState, refused
from fl_node.records import (
    ZERO32,
    Attestation,
    Body,
    Flag,
    LedgerHead,
    LedgerOpened,
    Member,
    Parent,
    PeerState,
    Reason,
    Role,
    Update,
    UpdateRef,
)

FIRST_BLOCK: Final = 1
_NO_FLAGS: Final = Flag(0)
T = TypeVar("T")
_Call: TypeAlias = Callable[[LedgerState, int], Body | None]


@dataclass(frozen=True, slots=True)
class _Block:
    number: int
    hash: bytes
    time_s: int
    head: LedgerHead
    logs: tuple[RawLog, ...]
    call: _Call | None
    tx_hash: bytes


def memory_account(number: int) -> str:
    """The ``number``-th of an endless list of made-up accounts (nobody has their keys)."""
    return checksum_address(hashlib.sha256(f"memory account {number}".encode()).digest()[:20])


class MemoryChain:
    """One chain with one ledger on it.

    Args:
        owner: who may admit; default the first made-up account.
        members: admitted at once, as peers 1, 2, 3, ...
        clock: block time in seconds; blocks never go back in time.
        address: of the contract; default one that no other ledger has, so that a simulation that is to be the same each
            time must name one.
    """

    def __init__(
        self,
        members: Sequence[Member] = (),
        *,
        owner: str | None = None,
        spec_digest: bytes = ZERO32,
        genesis_content: bytes = ZERO32,
        genesis_weights: bytes = ZERO32,
        genesis_flags: Flag = _NO_FLAGS,
        min_interval_s: int = 0,
        chain_id: int = 31337,
        clock: Callable[[], float] = time.time,
        address: str | None = None,
    ) -> None:
        self.owner = checksum_address(address_bytes(owner)) if owner else memory_account(0)
        if self.owner == ZERO_ADDRESS:
            raise refused("OwnableInvalidOwner", self.owner)
        if len(members) > MAX_MEMBERS:
            raise refused("LengthOutOfRange", len(members), 0, MAX_MEMBERS)
        self._members, self._clock = tuple(members), clock
        self._lock = threading.RLock()
        self._salt = 0
        # As on a real chain, two ledgers of the same spec are two addresses.
        seed = hashlib.sha256(
            repr((spec_digest, self.owner, self._members, id(self), time.time_ns())).encode()
        ).digest()
        self.identity = LedgerIdentity(
            *(chain_id, checksum_address(address_bytes(address) if address else seed[:20]), FIRST_BLOCK),
            *(spec_digest, genesis_content, genesis_weights),
            *(genesis_flags, min_interval_s),
        )
        self._blocks: list[_Block] = []
        self._restart()

    def ledger(self, account: str | None = None) -> MemoryLedger:
        """The ledger as this account sees and writes it (default: the owner)."""
        return MemoryLedger(self, account or self.owner)

    def mine(self, count: int = 1) -> None:
        """Add empty blocks."""
        with self._lock:
            for _ in range(count):
                self._include(None, b"")

    def reorganise(self, depth: int, *, keep: bool = False, blocks: int | None = None) -> None:
        """Replace the last ``depth`` blocks by ``blocks`` (default ``depth + 1``) others.

        ``keep`` includes the dropped transactions again, in the same order, those that are still allowed; otherwise
        they are lost.
        """
        with self._lock:
            if not 0 < depth < len(self._blocks) - 1:
                raise ValueError(f"got depth {depth}; expected 1 to {len(self._blocks) - 2}, above the deployment")
            kept, dropped = self._blocks[:-depth], self._blocks[-depth:]
            self._salt += 1
            self._replay(kept)
            wanted = depth + 1 if blocks is None else blocks
            for block in dropped if keep else ():
                if block.call is not None:
                    try:
                        self._include(block.call, block.tx_hash)
                    except LedgerError:  # as on a chain: it reverts there and leaves no log
                        pass
            while len(self._blocks) < len(kept) + wanted:
                self._include(None, b"")

    # ---- used by MemoryLedger ------------------------------------------------------------------------------------

    def write(self, call: _Call) -> Receipt:
        """Include one call in a block of its own."""
        with self._lock:
            tx_hash = hashlib.sha256(
                b"tx" + self._salt.to_bytes(8, "big") + len(self._blocks).to_bytes(8, "big")
            ).digest()
            block = self._include(call, tx_hash)
            index = block.head.size - 1
            return Receipt(index, block.tx_hash, block.number, block.hash, 0)

    def holds(self, tx_hash: bytes) -> bool:
        """Whether a transaction is on the chain as it is now."""
        with self._lock:
            return any(block.tx_hash == tx_hash for block in self._blocks)

    def block(self, number: int) -> _Block | None:
        """A block of the chain as it is now."""
        with self._lock:
            return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def tip(self, depth: int = 0) -> _Block:
        """The block with ``depth`` blocks on top of it, at least the deployment's."""
        with self._lock:
            return self._blocks[max(FIRST_BLOCK, len(self._blocks) - 1 - depth)]

    def read(self, question: Callable[[LedgerState], T]) -> T:
        """Ask the state as of now."""
        with self._lock:
            return question(self._state)

    # ---- below -----------------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        self._state = LedgerState(self.owner, self.identity.min_interval_s)
        self._frontier = tree.Frontier()
        self._blocks = [_Block(0, hashlib.sha256(b"genesis block").digest(), 0, self._empty_head(), (), None, b"")]
        self._include(self._open, hashlib.sha256(b"deployment").digest())

    def _empty_head(self) -> LedgerHead:
        return LedgerHead(0, tree.EMPTY_ROOT, 0, ZERO32)

    def _replay(self, kept: Sequence[_Block]) -> None:
        """State and tree of a shorter chain, by running its calls again at their own times."""
        self._state = LedgerState(self.owner, self.identity.min_interval_s)
        self._frontier = tree.Frontier()
        for block in kept:
            self._apply(block.call, block.time_s)
        self._blocks = list(kept)

    def _open(self, state: LedgerState, time_s: int) -> Body:
        known = self.identity
        state.size += 1
        return LedgerOpened(
            *(known.chain_id, known.address, known.spec_digest, known.genesis_content, known.genesis_weights),
            *(known.genesis_flags, known.min_interval_s, self.owner),
        )

    def _apply(self, call: _Call | None, time_s: int) -> list[tuple[codec.Topics, bytes]]:
        if call is None:
            return []
        body = call(self._state, time_s)
        bodies = [] if body is None else [body]
        if isinstance(body, LedgerOpened):
            bodies += [self._state.enrol(member.account, member.site, member.roles) for member in self._members]
        logs = []
        for each in bodies:
            log = codec.encode(self._frontier.size, time_s, each)
            self._frontier.append(tree.entry_leaf(*log))
            logs.append(log)
        return logs

    def _include(self, call: _Call | None, tx_hash: bytes) -> _Block:
        parent = self._blocks[-1]
        time_s = max(int(self._clock()), parent.time_s)
        number = parent.number + 1
        logs = self._apply(call, time_s)
        seed = parent.hash + b"".join(n.to_bytes(8, "big") for n in (number, time_s, self._salt)) + tx_hash
        block_hash = hashlib.sha256(seed).digest()
        head = LedgerHead(self._frontier.size, self._frontier.root, number, block_hash, self._state.highest_round)
        raw = tuple(RawLog(number, block_hash, tx_hash, topics, data) for topics, data in logs)
        block = _Block(number, block_hash, time_s, head, raw, call, tx_hash)
        self._blocks.append(block)
        return block


class MemoryLedger:
    """One account's view of a :class:`MemoryChain`; a :class:`fl_node.ledger.protocol.Ledger`."""

    def __init__(self, chain: MemoryChain, account: str) -> None:
        self.chain = chain
        self._account = checksum_address(address_bytes(account))
        self._written: list[tuple[str, _Call, bytes]] = []

    @property
    def identity(self) -> LedgerIdentity:
        return self.chain.identity

    @property
    def account(self) -> str:
        return self._account

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        return self.chain.tip(depth).head

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        head = self.head(depth)
        if known is not None and known[1] == head.block_hash:
            return None
        follows = known is None or (known[0] <= head.block_number and self.block_hash(known[0]) == known[1])
        return News(head, follows, self.logs(FIRST_BLOCK if known is None else known[0] + 1, head.block_number))

    def block_hash(self, number: int) -> bytes | None:
        block = self.chain.block(number)
        return block.hash if block else None

    def logs(self, first_block: int, last_block: int) -> list[RawLog]:
        found: list[RawLog] = []
        for number in range(first_block, last_block + 1):
            block = self.chain.block(number)
            found += block.logs if block else ()
        return found

    def peer(self, number: int) -> PeerState:
        found = self.chain.read(lambda state: state.peer(number))
        if found is None:
            raise LookupError(f"no peer {number} on ledger {self.identity.address}")
        return found

    def peers(self) -> list[PeerState]:
        return self.chain.read(LedgerState.peers)

    def peer_of(self, account: str) -> PeerState | None:
        address = checksum_address(address_bytes(account))
        return self.chain.read(lambda state: state.peer_of(address))

    def update(self, ref: UpdateRef) -> UpdateState:
        found = self.chain.read(lambda state: state.update(ref))
        if found is None:
            raise LookupError(f"no update {ref} on ledger {self.identity.address}")
        return found

    def balance(self, account: str) -> int:
        """Writing is free here: always one ether."""
        return 10**18

    def recover(self) -> list[Recovered]:
        settled, kept = [], []
        for label, call, tx_hash in self._written:
            if self.chain.holds(tx_hash):
                kept.append((label, call, tx_hash))
                continue
            try:
                receipt = self.chain.write(call)
            except LedgerError as error:
                settled.append(Recovered(label, "rejected", error=error))
            else:
                kept.append((label, call, receipt.tx_hash))
                settled.append(Recovered(label, "recorded", receipt))
        self._written = kept
        return settled

    def publish(self, update: Update, parents: Sequence[Parent]) -> Receipt:
        fixed = tuple(parents)
        calls.publish(update, fixed)  # refuses what the contract's types cannot hold
        label = f"publish sequence {update.sequence}"
        return self._write(label, lambda state, now: state.publish(self._account, now, update, fixed))

    def attest(self, evidence: bytes, items: Sequence[Attestation]) -> Receipt:
        fixed = tuple(items)
        calls.attest(evidence, fixed)
        return self._write("attest", lambda state, now: state.attest(self._account, evidence, fixed))

    def object(self, target: UpdateRef, reason: Reason, evidence: bytes = ZERO32) -> Receipt:
        calls.object_to(target, reason, evidence)
        return self._write(f"object {target}", lambda state, now: state.object(self._account, target, reason, evidence))

    def announce(self, epoch: int, recipient_key: bytes, tls_pin: bytes, endpoint: str) -> Receipt:
        calls.announce(epoch, recipient_key, tls_pin, endpoint)
        return self._write(
            f"announce epoch {epoch}",
            lambda state, now: state.announce(self._account, epoch, recipient_key, tls_pin, endpoint),
        )

    def admit(self, account: str, site: str, roles: Role = Role.ALL) -> Receipt:
        calls.admit(account, site, roles)
        return self._write(f"admit {account}", lambda state, now: state.admit(self._account, account, site, roles))

    def retire(self, account: str, reason: str, from_index: int) -> Receipt:
        calls.retire(account, reason, from_index)
        return self._write(
            f"retire {account}", lambda state, now: state.retire(self._account, account, reason, from_index)
        )

    def _write(self, label: str, call: _Call) -> Receipt:
        receipt = self.chain.write(call)
        self._written.append((label, call, receipt.tx_hash))
        return receipt
