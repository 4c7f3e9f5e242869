"""The contract's rules in Python: what an entry must satisfy, in the contract's order, with the contract's errors.

``LedgerState`` is the contract's storage and knows no chain: the in-memory ledger feeds it senders, block times and
calls, and gets bodies of entries back. Each method names the function of ``contracts/ModelLedger.sol`` it mirrors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fl_node.errors import LedgerError
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.codec import encode_site
from fl_node.ledger.protocol import UpdateState
from fl_node.ledger.rejection import parameters, rejection
from fl_node.records import (
    PPM,
    ZERO32,
    Attestation,
    Body,
    OwnerChanged,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    PeerState,
    Reason,
    Role,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)

MAX_PARENTS: Final = 64
MAX_ITEMS: Final = 64
MAX_MEMBERS: Final = 256
MAX_BYTES: Final = 256
ZERO_ADDRESS: Final = "0x" + "00" * 20


@dataclass(slots=True)
class _Peer:
    number: int
    account: str
    site: str
    roles: Role
    last_entry: int
    sequence: int = 0
    round: int = 0
    last_time: int = 0
    epoch: int = 0
    retired_from: int | None = None


@dataclass(slots=True)
class LedgerState:
    """What the contract stores, and its checks. Accounts are checksummed addresses."""

    owner: str
    min_interval_s: int
    size: int = 0
    highest_round: int = 0
    pending_owner: str = ZERO_ADDRESS
    _peers: list[_Peer] = field(default_factory=list)
    _by_account: dict[str, _Peer] = field(default_factory=dict)
    _updates: dict[UpdateRef, UpdateState] = field(default_factory=dict)
    _attested: set[tuple[int, UpdateRef]] = field(default_factory=set)
    _objected: set[tuple[int, UpdateRef]] = field(default_factory=set)

    # ---- reading -----------------------------------------------------------------------------------------------

    def peer(self, number: int) -> PeerState | None:
        """A member by number."""
        return _shown(self._peers[number - 1]) if 1 <= number <= len(self._peers) else None

    def peers(self) -> list[PeerState]:
        """All members, by number."""
        return [_shown(peer) for peer in self._peers]

    def peer_of(self, account: str) -> PeerState | None:
        """The member that writes with this account."""
        peer = self._by_account.get(account)
        return _shown(peer) if peer else None

    def update(self, ref: UpdateRef) -> UpdateState | None:
        """What is kept of an update."""
        return self._updates.get(ref)

    # ---- writing: each returns the body of its entry and counts it -----------------------------------------------

    def admit(self, sender: str, account: str, site: str, roles: Role) -> Body:
        """``admit``: by the owner."""
        self._only_owner(sender)
        return self.enrol(account, site, roles)

    def enrol(self, account: str, site: str, roles: Role) -> Body:
        """``_admit``: also for genesis members, in the constructor."""
        address = checksum_address(address_bytes(account))
        encode_site(site)
        if address == ZERO_ADDRESS:
            raise refused("AccountZero", address)
        if not 1 <= roles <= Role.ALL:
            raise refused("RolesOutOfRange", int(roles), 1, int(Role.ALL))
        known = self._by_account.get(address)
        if known:
            raise refused("AccountKnown", address, known.number)
        peer = _Peer(len(self._peers) + 1, address, site, Role(roles), self.size)
        self._peers.append(peer)
        self._by_account[address] = peer
        return self._counted(PeerAdmitted(peer.number, address, site, peer.roles))

    def retire(self, sender: str, account: str, reason: str, from_index: int) -> Body:
        """``retire``: by the owner or the peer itself."""
        address = checksum_address(address_bytes(account))
        if sender not in (self.owner, address):
            raise refused("NotOwnerNorSelf", sender, self.owner, address)
        peer = self._member(address)
        if from_index > self.size:
            raise refused("BeyondLog", from_index, self.size)
        _check_length(len(reason.encode()), 0, MAX_BYTES)
        peer.retired_from = from_index
        return self._counted(PeerRetired(peer.number, from_index, reason))

    def announce(self, sender: str, epoch: int, recipient_key: bytes, tls_pin: bytes, endpoint: str) -> Body:
        """``announce``: by any member."""
        peer = self._member(sender)
        if epoch != peer.epoch + 1:
            raise refused("EpochNotNext", epoch, peer.epoch + 1)
        _check_length(len(endpoint.encode()), 0, MAX_BYTES)
        peer.epoch = epoch
        return self._counted(PeerAnnounced(peer.number, epoch, recipient_key, tls_pin, endpoint))

    def publish(self, sender: str, time_s: int, update: Update, parents: Sequence[Parent]) -> Body:
        """``publish``: role publish."""
        peer = self._member(sender, Role.PUBLISH)
        self._check_update(update, peer, time_s)
        self._check_parents(parents)
        self._updates[UpdateRef(peer.number, update.sequence)] = UpdateState(
            ref=UpdateRef(peer.number, update.sequence),
            content=update.content,
            index=self.size,
            round=update.round,
            score_ppm=update.score_ppm,
            time_s=time_s,
            train_samples=update.train_samples,
            test_samples=update.test_samples,
            flags=update.flags,
            encoding=update.encoding,
        )
        peer.sequence, peer.round, peer.last_entry, peer.last_time = update.sequence, update.round, self.size, time_s
        self.highest_round = max(self.highest_round, update.round)
        return self._counted(UpdatePublished(peer.number, update, tuple(parents)))

    def attest(self, sender: str, evidence: bytes, items: Sequence[Attestation]) -> Body:
        """``attest``: role attest; all items or none."""
        peer = self._member(sender, Role.ATTEST)
        _check_length(len(items), 1, MAX_ITEMS)
        marks: set[tuple[int, UpdateRef]] = set()
        for item in items:
            ref = UpdateRef(item.peer, item.sequence)
            if item.peer == peer.number:
                raise refused("OwnUpdate", peer.number, item.sequence)
            _check_score(item.score_ppm)
            _check_score(item.base_score_ppm)
            self._content_of(ref)
            if (peer.number, ref) in self._attested or (peer.number, ref) in marks:
                raise refused("AlreadyAttested", peer.number, ref.peer, ref.sequence)
            marks.add((peer.number, ref))
        self._attested |= marks
        return self._counted(UpdatesAttested(peer.number, evidence, tuple(items)))

    def object(self, sender: str, target: UpdateRef, reason: Reason, evidence: bytes) -> Body:
        """``object``: role publish or attest."""
        peer = self._member(sender, Role.PUBLISH | Role.ATTEST)
        self._content_of(target)
        own = target.peer == peer.number
        least, most = (Reason.WITHDRAWN, Reason.WITHDRAWN) if own else (Reason.UNAVAILABLE, Reason.DIGEST_MISMATCH)
        if not least <= reason <= most:
            raise refused("ReasonOutOfRange", int(reason), int(least), int(most))
        if (peer.number, target) in self._objected:
            raise refused("AlreadyObjected", peer.number, target.peer, target.sequence)
        self._objected.add((peer.number, target))
        return self._counted(UpdateObjected(peer.number, target, reason, evidence))

    def transfer_ownership(self, sender: str, new_owner: str) -> None:
        """``transferOwnership``: offers it; no entry yet."""
        self._only_owner(sender)
        self.pending_owner = new_owner

    def accept_ownership(self, sender: str) -> Body:
        """``acceptOwnership``: by whom it was offered to."""
        if sender != self.pending_owner:
            raise refused("OwnableUnauthorizedAccount", sender)
        previous, self.owner, self.pending_owner = self.owner, sender, ZERO_ADDRESS
        return self._counted(OwnerChanged(previous, sender))

    # ---- checks, in the contract's order -------------------------------------------------------------------------

    def _check_update(self, update: Update, peer: _Peer, time_s: int) -> None:
        if update.sequence != peer.sequence + 1:
            raise refused("SequenceNotNext", update.sequence, peer.sequence + 1)
        if not peer.round < update.round <= self.highest_round + 1:
            raise refused("RoundOutOfRange", update.round, peer.round + 1, self.highest_round + 1)
        if not peer.last_entry < update.seen <= self.size:
            raise refused("SeenOutOfRange", update.seen, peer.last_entry + 1, self.size)
        if update.sealed_at > self.size:
            raise refused("BeyondLog", update.sealed_at, self.size)
        if peer.sequence and time_s < peer.last_time + self.min_interval_s:
            raise refused("TooSoon", time_s, peer.last_time + self.min_interval_s)
        if update.content == ZERO32:
            raise refused("ContentZero", update.sequence)
        _check_score(update.score_ppm)
        _check_score(update.base_score_ppm)
        _check_length(len(update.extra), 0, MAX_BYTES)

    def _check_parents(self, parents: Sequence[Parent]) -> None:
        _check_length(len(parents), 0, MAX_PARENTS)
        previous = 0
        for position, parent in enumerate(parents):
            key = parent.peer << 32 | parent.sequence
            if key <= previous:
                raise refused("ParentsNotAscending", position, key, previous)
            previous = key
            expected = self._content_of(parent.ref)[:4]
            if parent.tag != expected:
                raise refused("TagMismatch", parent.peer, parent.sequence, parent.tag, expected)
        total = sum(parent.share_ppm for parent in parents)
        if parents and total != PPM:
            raise refused("SharesNotWhole", total, PPM)

    def _member(self, account: str, any_of: Role | None = None) -> _Peer:
        peer = self._by_account.get(account)
        if peer is None:
            raise refused("NotMember", account)
        if peer.retired_from is not None:
            raise refused("PeerIsRetired", peer.number, peer.retired_from)
        if any_of is not None and not peer.roles & any_of:
            raise refused("RoleMissing", peer.number, int(peer.roles), int(any_of))
        return peer

    def _content_of(self, ref: UpdateRef) -> bytes:
        known = self._updates.get(ref)
        if known is None:
            raise refused("UnknownUpdate", ref.peer, ref.sequence)
        return known.content

    def _only_owner(self, sender: str) -> None:
        if sender != self.owner:
            raise refused("OwnableUnauthorizedAccount", sender)

    def _counted(self, body: Body) -> Body:
        self.size += 1
        return body


def refused(name: str, *values: object) -> LedgerError:
    """The contract error ``name`` with these arguments in order."""
    return rejection(name, {label: value for (_, label), value in zip(parameters(name), values, strict=True)})


def _check_score(score_ppm: int) -> None:
    if score_ppm > PPM:
        raise refused("ScoreTooHigh", score_ppm, PPM)


def _check_length(got: int, least: int, most: int) -> None:
    if not least <= got <= most:
        raise refused("LengthOutOfRange", got, least, most)


def _shown(peer: _Peer) -> PeerState:
    # Endpoints are in the log only, as in the contract.
    return PeerState(
        *(peer.number, peer.account, peer.site, peer.roles, peer.sequence, peer.round, peer.last_entry),
        *(peer.retired_from, "", peer.epoch),
    )
