"""What a log says up to some entry: the pure fold of ledger entries that every rule is a function of.

A :class:`Prefix` is a view (facts, size). Facts only ever grow, each stamped with its entry index, and every question
is answered from those below ``size``. So an earlier prefix costs nothing (``upto``), and following a growing log
costs what is new (``extend``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import Any

from fl_node.errors import InconsistentLog
from fl_node.records import (
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


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry without its raw log. ``time_s`` is block time."""

    index: int
    time_s: int
    body: Body


@dataclass(frozen=True, slots=True)
class UpdateEntry:
    """An update with its place in the log."""

    ref: UpdateRef
    index: int
    time_s: int
    update: Update
    parents: tuple[Parent, ...]

    @property
    def content(self) -> bytes:
        return self.update.content

    @property
    def round(self) -> int:
        return self.update.round

    @property
    def final(self) -> bool:
        """Whether this is a closing update: untrained, its weights are its base."""
        return bool(self.update.flags & Flag.FINAL)


@dataclass(frozen=True, slots=True)
class Objection:
    """A peer's word, at an entry, that it could not use an update."""

    peer: int
    index: int
    reason: Reason
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Attested:
    """A peer's pair of scores for an update, at an entry."""

    peer: int
    index: int
    score_ppm: int
    base_score_ppm: int
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Retirement:
    """The end of a membership, at entry ``index``: what the peer wrote from ``from_index`` on does not count."""

    index: int
    from_index: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """A member as a prefix has it. ``admitted`` and ``announced`` are entry indices; ``round_at_admission`` is the
    highest round on the log when it was admitted."""

    number: int
    account: str
    site: str
    roles: Role
    admitted: int
    round_at_admission: int
    retirement: Retirement | None = None
    announcement: PeerAnnounced | None = None
    announced: int | None = None

    @property
    def active(self) -> bool:
        """Whether the peer may still write."""
        return self.retirement is None

    @property
    def publishes(self) -> bool:
        return self.active and bool(self.roles & Role.PUBLISH)


@dataclass(slots=True)
class _Member:
    """Everything about one member, append-only."""

    admission: PeerFacts
    retirement: Retirement | None = None
    announcements: list[Fact] = field(default_factory=list)
    updates: list[UpdateEntry] = field(default_factory=list)
    update_indices: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Facts:
    """The log's facts, append-only; shared by all prefixes of one history."""

    log: list[Fact] = field(default_factory=list)
    opened: LedgerOpened | None = None
    members: dict[int, _Member] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    objections: dict[UpdateRef, list[Objection]] = field(default_factory=dict)
    attestations: dict[UpdateRef, list[Attested]] = field(default_factory=dict)
    rounds: dict[int, list[UpdateEntry]] = field(default_factory=dict)
    peaks: list[tuple[int, int]] = field(default_factory=list)
    derived: dict[Any, Any] = field(default_factory=dict)

    def add(self, fact: Fact) -> None:
        """Fold one entry in."""
        if fact.index != len(self.log):
            raise InconsistentLog(f"got entry {fact.index} of the log, expected entry {len(self.log)}; read it again")
        index, body = fact.index, fact.body
        match body:
            case LedgerOpened():
                if index:
                    raise InconsistentLog(f"entry {index} opens a ledger, as only entry 0 can: not this contract's log")
                self.opened = body
            case PeerAdmitted():
                if body.peer in self.members:
                    raise InconsistentLog(f"entry {index} admits peer {body.peer} again: not this contract's log")
                peak = self.peaks[-1][1] if self.peaks else 0
                facts = PeerFacts(body.peer, body.account, body.site, body.roles, index, peak)
                self.members[body.peer] = _Member(facts)
                self.numbers[body.account.lower()] = body.peer
            case PeerRetired():
                self._member(fact, body.peer).retirement = Retirement(index, body.from_index, body.reason)
            case PeerAnnounced():
                self._member(fact, body.peer).announcements.append(fact)
            case UpdatePublished():
                self._add_update(fact, body)
            case UpdatesAttested():
                for item in body.items:
                    said = Attested(body.peer, index, item.score_ppm, item.base_score_ppm, body.evidence)
                    self.attestations.setdefault(UpdateRef(item.peer, item.sequence), []).append(said)
            case UpdateObjected():
                word = Objection(body.peer, index, body.reason, body.evidence)
                self.objections.setdefault(body.target, []).append(word)
            case _:
                pass  # a new owner changes no rule here; a kind that this version does not know is an entry as well
        self.log.append(fact)

    def _add_update(self, fact: Fact, body: UpdatePublished) -> None:
        member = self._member(fact, body.peer)
        if body.update.sequence != len(member.updates) + 1:
            raise InconsistentLog(
                f"entry {fact.index} is update {body.ref}, expected {body.peer}#{len(member.updates) + 1}: not its log"
            )
        entry = UpdateEntry(body.ref, fact.index, fact.time_s, body.update, body.parents)
        member.updates.append(entry)
        member.update_indices.append(fact.index)
        self.rounds.setdefault(body.update.round, []).append(entry)
        if not self.peaks or body.update.round > self.peaks[-1][1]:
            self.peaks.append((fact.index, body.update.round))

    def _member(self, fact: Fact, number: int) -> _Member:
        try:
            return self.members[number]
        except KeyError:
            raise InconsistentLog(
                f"entry {fact.index} is by peer {number}, who was never admitted: not this contract's log"
            ) from None


class Prefix:
    """The log up to ``size``, folded. Immutable: ``extend`` and ``upto`` give another one.

    Entries of a retired peer from its ``from_index`` on do not count: they are left out of ``objections``,
    ``attestations``, ``latest`` and ``trained`` once the retirement lies in the prefix. ``updates`` has them all.
    """

    __slots__ = ("_facts", "size")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Fold a log from entry 0.

        Raises:
            InconsistentLog: the entries are not contiguous from 0 or cannot come from the contract.
        """
        self._facts = _Facts()
        for entry in entries:
            self._facts.add(Fact(entry.index, entry.time_s, entry.body))
        self.size = len(self._facts.log)

    def extend(self, entries: Iterable[Entry]) -> Prefix:
        """The prefix with these entries after it; costs what is new. This one stays as it is.

        On an older prefix (``prefix.upto(n)``, after a reorganised chain) the facts below ``n`` are folded again.

        Raises:
            InconsistentLog: the first entry's index is not ``size``, there is a gap, or it is not the contract's log.
        """
        facts = self._facts
        if self.size != len(facts.log):
            facts = _Facts()
            for fact in self._facts.log[: self.size]:
                facts.add(fact)
        for entry in entries:
            facts.add(Fact(entry.index, entry.time_s, entry.body))
        return _view(facts, len(facts.log))

    def upto(self, size: int) -> Prefix:
        """The first ``size`` entries; costs nothing.

        Raises:
            ValueError: ``size`` is below 0 or beyond this prefix.
        """
        if not 0 <= size <= self.size:
            raise ValueError(f"got size {size}, expected 0 to {self.size}")
        return _view(self._facts, size)

    # ---- the log ----

    @property
    def time_s(self) -> int:
        """Block time of the last entry; 0 for the empty log."""
        return self._facts.log[self.size - 1].time_s if self.size else 0

    @property
    def opened(self) -> LedgerOpened:
        """Entry 0.

        Raises:
            InconsistentLog: the log is empty.
        """
        if not self.size or self._facts.opened is None:
            raise InconsistentLog("the log has no entry 0 that opens a ledger; read it from the contract's first block")
        return self._facts.opened

    @property
    def highest_round(self) -> int:
        """Highest round of any update; 0: none yet."""
        peaks = self._facts.peaks
        at = bisect_left(peaks, self.size, key=itemgetter(0))
        return peaks[at - 1][1] if at else 0

    def facts(self, start: int = 0) -> Iterable[Fact]:
        """The entries from ``start`` on, in order, without their raw logs."""
        log = self._facts.log
        return (log[index] for index in range(start, self.size))

    @property
    def derived(self) -> dict[Any, Any]:
        """For what follows from this log and no further entry changes; all prefixes of one history share it."""
        return self._facts.derived

    # ---- peers ----

    def peer(self, number: int) -> PeerFacts:
        """A member by number.

        Raises:
            LookupError: no such member in this prefix.
        """
        member = self._facts.members.get(number)
        if member is None or member.admission.admitted >= self.size:
            raise LookupError(f"no peer {number} among the first {self.size} entries")
        return self._peer(member)

    def announcements(self, number: int) -> Sequence[Fact]:
        """All announcements of a member, in the order of the log; none of a stranger."""
        member = self._facts.members.get(number)
        if member is None:
            return []
        return member.announcements[: bisect_left(member.announcements, self.size, key=attrgetter("index"))]

    def peer_of(self, account: str) -> PeerFacts | None:
        """The member with this account, in any case of letters; ``None`` if there is none."""
        number = self._facts.numbers.get(account.lower())
        try:
            return None if number is None else self.peer(number)
        except LookupError:
            return None

    def peers(self) -> tuple[PeerFacts, ...]:
        """All members ever admitted, by number."""
        members = self._facts.members.values()
        return tuple(self._peer(member) for member in members if member.admission.admitted < self.size)

    def _peer(self, member: _Member) -> PeerFacts:
        facts = member.admission
        said = bisect_left(member.announcements, self.size, key=attrgetter("index"))
        retirement = self._retirement(member)
        if not said and retirement is None:
            return facts
        latest = member.announcements[said - 1] if said else None
        body = latest.body if latest else None
        announcement = body if isinstance(body, PeerAnnounced) else None
        announced = latest.index if latest else None
        return replace(facts, retirement=retirement, announcement=announcement, announced=announced)

    def _retirement(self, member: _Member) -> Retirement | None:
        retirement = member.retirement
        return retirement if retirement is not None and retirement.index < self.size else None

    def counts(self, peer: int, index: int) -> bool:
        """Whether what ``peer`` wrote at entry ``index`` counts, its retirement considered."""
        member = self._facts.members.get(peer)
        if member is None:
            return False
        retirement = self._retirement(member)
        return index < self.size and (retirement is None or index < retirement.from_index)

    # ---- updates ----

    def update(self, ref: UpdateRef) -> UpdateEntry:
        """An update by name.

        Raises:
            LookupError: no such update in this prefix.
        """
        member = self._facts.members.get(ref.peer)
        if member is not None and 1 <= ref.sequence <= len(member.updates):
            entry = member.updates[ref.sequence - 1]
            if entry.index < self.size:
                return entry
        raise LookupError(f"no update {ref} among the first {self.size} entries")

    def updates(self, peer: int) -> Sequence[UpdateEntry]:
        """All updates of a peer by sequence, counted or not; none of a stranger."""
        member = self._facts.members.get(peer)
        return member.updates[: bisect_left(member.update_indices, self.size)] if member else []

    def sequence(self, peer: int) -> int:
        """The sequence of a peer's last update; 0: none yet."""
        member = self._facts.members.get(peer)
        return bisect_left(member.update_indices, self.size) if member else 0

    def latest(self, peer: int) -> UpdateEntry | None:
        """A peer's latest update that counts, a closing one too."""
        return self._latest(peer, trained=False)

    def trained(self, peer: int) -> UpdateEntry | None:
        """A peer's latest update that counts and is not a closing one."""
        return self._latest(peer, trained=True)

    def _latest(self, peer: int, *, trained: bool) -> UpdateEntry | None:
        member = self._facts.members.get(peer)
        if member is None:
            return None
        for position in range(bisect_left(member.update_indices, self.size) - 1, -1, -1):
            entry = member.updates[position]
            if self.counts(peer, entry.index) and not (trained and entry.final):
                return entry
        return None

    def of_round(self, number: int) -> tuple[UpdateEntry, ...]:
        """All updates of a round in the order of the log, counted or not."""
        return tuple(entry for entry in self._facts.rounds.get(number, ()) if entry.index < self.size)

    def updates_since(self, peer: int, index: int) -> int:
        """Number of updates that ``peer`` recorded after entry ``index``."""
        member = self._facts.members.get(peer)
        if member is None:
            return 0
        indices = member.update_indices
        return max(0, bisect_left(indices, self.size) - bisect_left(indices, index + 1))

    # ---- what others say ----

    def objections(self, ref: UpdateRef) -> tuple[Objection, ...]:
        """Objections to an update that count, in the order of the log."""
        return tuple(word for word in self._facts.objections.get(ref, ()) if self.counts(word.peer, word.index))

    def attestations(self, ref: UpdateRef) -> tuple[Attested, ...]:
        """Attestations of an update that count, in the order of the log."""
        return tuple(said for said in self._facts.attestations.get(ref, ()) if self.counts(said.peer, said.index))


def _view(facts: _Facts, size: int) -> Prefix:
    view = Prefix.__new__(Prefix)
    view._facts = facts
    view.size = size
    return view
