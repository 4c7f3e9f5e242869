"""A ledger whose entries carry real signed transactions, without a chain: what an audit can hold against keys.

The rules are those of :class:`fl_node.ledger.rules.LedgerState`, the logs those of the codec, and every transaction is
signed offline (EIP-1559), the deployment too. Each one stands in a block of its own, a second after the one before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from eth_hash.auto import keccak
from rlp import encode as rlp_encode

from fl_node.errors import LedgerError
from fl_node.keys import Signer, from_private_key
from fl_node.ledger import calls, codec, tree
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.deploy import Opening, committed_artifact, constructor_data
from fl_node.ledger.protocol import RawLog
from fl_node.ledger.rules import LedgerState
from fl_node.prefix import Prefix
from fl_node.records import (
    Attestation,
    Body,
    Entry,
    LedgerOpened,
    Member,
    Parent,
    PeerAdmitted,
    Reason,
    Role,
    Update,
    UpdatePublished,
    UpdateRef,
)

CHAIN_ID = 31337
FIRST_BLOCK = 7
BEGAN_S = 1_767_225_600


@cache
def key(name: str) -> Signer:
    """The same key for the same name, in every run."""
    return from_private_key(hashlib.sha256(f"test key of {name}".encode()).digest())


def block_hash(number: int, salt: str = "") -> bytes:
    return hashlib.sha256(f"block {number} {salt}".encode()).digest()


@dataclass
class SignedLedger:
    """Writes entries. ``salt`` tells the blocks of two chains apart.

    Every write takes ``force``: the entry is made even where the contract would refuse it, as one who makes up a log
    can; and ``signer`` and ``data``, to sign by another key or over other call data than the entry says.
    """

    owner: Signer
    salt: str = ""
    time_s: int = BEGAN_S
    address: str = ""
    entries: list[Entry] = field(default_factory=list)
    logs: list[RawLog] = field(default_factory=list)
    raws: dict[bytes, bytes] = field(default_factory=dict)
    nonces: dict[str, int] = field(default_factory=dict)
    block: int = FIRST_BLOCK - 1
    keys: dict[int, Signer] = field(default_factory=dict)
    #: What was done, by transaction, to be done again elsewhere: see :meth:`replayed`.
    deeds: dict[bytes, Callable[[LedgerState], list[Body]]] = field(default_factory=dict)
    state: LedgerState = field(default_factory=lambda: LedgerState("", 0))

    def __post_init__(self) -> None:
        self._frontier, self._roots, self._folded = tree.Frontier(), [tree.EMPTY_ROOT], Prefix()

    def open(self, opening: Opening, members: Sequence[tuple[Signer, str]], *, code: bytes | None = None) -> None:
        """Deploy: entry 0 and an admission for each founding member."""
        account = self.owner.address
        nonce = self.nonces.get(account, 0)
        made = keccak(rlp_encode([address_bytes(account), nonce]))[12:]
        self.address = checksum_address(bytes(made))
        self.state = LedgerState(opening.owner, opening.min_interval_s)
        data = (code or committed_artifact().bytecode) + constructor_data(opening)
        self.keys = {number: signer for number, (signer, _) in enumerate(members, 1)}

        def build(state: LedgerState) -> list[Body]:
            state.size += 1
            facts = opening
            opened = LedgerOpened(
                *(CHAIN_ID, self.address, facts.spec_digest, facts.genesis_content, facts.genesis_weights),
                *(facts.genesis_flags, facts.min_interval_s, facts.owner),
            )
            return [opened, *(state.enrol(m.account, m.site, m.roles) for m in facts.members)]

        self.deed(self.owner, None, data, build)

    def admit(self, signer: Signer, site: str, *, by: Signer | None = None) -> int:
        """By the owner. Returns the new peer's number."""
        data, owner = calls.admit(signer.address, site, Role.ALL), self.owner.address
        body = self._write(by or self.owner, data, lambda state: state.admit(owner, signer.address, site, Role.ALL))
        assert isinstance(body, PeerAdmitted)
        self.keys[body.peer] = signer
        return body.peer

    def replayed(self, without: int, salt: str) -> SignedLedger:
        """What an operator can make of the chain: all signed transactions again, but for that of one entry. Those that
        the contract then refuses make no entry."""
        other = SignedLedger(self.owner, salt, BEGAN_S, self.address, raws=dict(self.raws), keys=dict(self.keys))
        other.state = LedgerState(self.state.owner, self.state.min_interval_s)
        for tx_hash, build in self.deeds.items():
            if tx_hash != self.entries[without].tx_hash:
                try:
                    other.add(build(other.state), tx_hash)
                except LedgerError:
                    other.add([], tx_hash)
        return other

    def retire(self, peer: int, from_index: int, *, by: Signer | None = None) -> None:
        """By the owner."""
        account, why = self.keys[peer].address, "left the study"
        data, owner = calls.retire(account, why, from_index), self.owner.address
        self._write(by or self.owner, data, lambda state: state.retire(owner, account, why, from_index))

    def announce(self, peer: int, endpoint: str, recipient: bytes = bytes(32)) -> None:
        account = self.keys[peer].address
        state_peer = self.state.peer(peer)
        assert state_peer is not None
        epoch = state_peer.epoch + 1
        data = calls.announce(epoch, recipient, bytes(32), endpoint)
        self._write(self.keys[peer], data, lambda state: state.announce(account, epoch, recipient, bytes(32), endpoint))

    def publish(
        self,
        peer: int,
        update: Update,
        parents: Sequence[Parent],
        *,
        force: bool = False,
        signer: Signer | None = None,
        data: bytes | None = None,
    ) -> None:
        account, time_s = self.keys[peer].address, self.time_s + 1
        body = UpdatePublished(peer, update, tuple(parents))
        self._write(
            signer or self.keys[peer],
            calls.publish(update, parents) if data is None else data,
            lambda state: state.publish(account, time_s, update, parents),
            body if force else None,
        )

    def attest(self, peer: int, items: Sequence[Attestation], *, signer: Signer | None = None) -> None:
        account, fixed = self.keys[peer].address, tuple(items)
        data = calls.attest(bytes(32), fixed)
        self._write(signer or self.keys[peer], data, lambda state: state.attest(account, bytes(32), fixed))

    def object(self, peer: int, target: UpdateRef, reason: Reason, *, signer: Signer | None = None) -> None:
        account = self.keys[peer].address
        data = calls.object_to(target, reason, bytes(32))
        self._write(signer or self.keys[peer], data, lambda state: state.object(account, target, reason, bytes(32)))

    # ---- below -----------------------------------------------------------------------------------------------------

    def _write(
        self, signer: Signer, data: bytes, call: Callable[[LedgerState], Body], forced: Body | None = None
    ) -> Body:
        def build(state: LedgerState) -> list[Body]:
            if forced is None:
                return [call(state)]
            try:
                return [call(state)]
            except LedgerError:
                state.size += 1
                return [forced]

        return self.deed(signer, address_bytes(self.address), data, build)[0]

    def deed(
        self, signer: Signer, to: bytes | None, data: bytes, build: Callable[[LedgerState], list[Body]]
    ) -> list[Body]:
        """Sign a transaction, put it into a block, and write its entries."""
        bodies = build(self.state)
        tx_hash, raw = self.signed(signer, to, data)
        self.raws[tx_hash], self.deeds[tx_hash] = raw, build
        self.add(bodies, tx_hash)
        return bodies

    def signed(self, signer: Signer, to: bytes | None, data: bytes) -> tuple[bytes, bytes]:
        """Hash and raw bytes of a transaction with the account's next nonce."""
        nonce = self.nonces.get(signer.address, 0)
        self.nonces[signer.address] = nonce + 1
        fields = {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": nonce,
            "maxPriorityFeePerGas": 1,
            "maxFeePerGas": 10**9,
            "gas": 5_000_000,
            "value": 0,
            "data": data,
        }
        if to is not None:
            fields["to"] = to
        raw, tx_hash = signer.sign(fields)
        return tx_hash, raw

    def add(self, bodies: Sequence[Body], tx_hash: bytes) -> None:
        """Entries of one transaction, in the next block."""
        self.time_s += 1
        self.block += 1
        where = self.block, block_hash(self.block, self.salt), tx_hash
        for body in bodies:
            index = len(self.entries)
            topics, data = codec.encode(index, self.time_s, body)
            self._frontier.append(tree.entry_leaf(topics, data))
            self._roots.append(self._frontier.root)
            self.entries.append(Entry(index, self.time_s, *where, topics, data, body))
            self.logs.append(RawLog(*where, topics, data))

    # ---- questions -------------------------------------------------------------------------------------------------

    @property
    def prefix(self) -> Prefix:
        self._folded = self._folded.extend(self.entries[self._folded.size :])
        return self._folded

    def root(self, size: int) -> bytes:
        return self._roots[size]


def founders(members: Sequence[tuple[Signer, str]]) -> list[Member]:
    return [Member(signer.address, site) for signer, site in members]
