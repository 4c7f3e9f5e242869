"""Rings: a model that goes round. Who holds it, whose turn it is, and when a silent peer is skipped.

Cyclic weight transfer (Chang et al. 2018, doi 10.1093/jamia/ocy017): take the predecessor's model, train, pass on. The
model under way is the *token*, and a ring's tokens are a chain of updates that follows from the log alone:

- The ring's members stand in a fixed order: a listed ring in its own, from its first; the one ring of all peers by
  number, begun by ``merging.initiator``. *Open* at an entry are those of them that are active, publish and have not
  closed (their latest update is not final) in the log before it, and the entry's publisher itself.
- The first token is the earliest trained update by an open member with q open members before it in that order,
  recorded at least q times ``silent_s`` after the ring's start: the first announcement of a member, or the opening of
  the ledger where there was none.
- The next token is the earliest trained update after the last one whose publisher had seen that (``seen`` beyond its
  entry) and that is by the next open member; or by the d-th next, if at least d - 1 times ``silent_s`` have passed
  since the last token. So a silent peer is skipped, two tokens cannot be, and what somebody trained while being
  skipped is passed over: the earlier entry wins.
- A token's *lap* is 1 at first, and rises by one whenever the chain passes the beginning of the order.

All of it is judged by the log before an entry, so that a token never changes, whatever follows. A token that cannot be
merged (its publisher retired or withdrew it, its bytes are bad or gone) is stepped over by whoever merges:
:func:`fl_node.merging.policies.ring` takes the one before.

Rings that share members are a graph of rings. Who stands in several merges the last token of each, and the update it
makes at its turn in one is that ring's next token, and another's too where it was its turn there as well.

:func:`next_turn` says when a peer is to play, and when its rings are finished: after ``rounds.planned`` laps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from fractions import Fraction

from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Flag, PeerAdmitted, PeerAnnounced, PeerRetired, Role, UpdatePublished
from fl_node.spec import Spec


@dataclass(frozen=True, slots=True)
class Ring:
    """One ring: its ``number`` in the spec from 1, and its members in order. No members: all peers, by number, begun
    by ``initiator``."""

    number: int
    members: tuple[int, ...] = ()
    initiator: int = 1

    def place(self, peer: int) -> int | None:
        """Where a peer stands in the order; ``None`` if it does not belong to the ring."""
        if not self.members:
            return (peer - self.initiator) % 2**32
        return self.members.index(peer) if peer in self.members else None

    def peer_at(self, place: int) -> int:
        """The peer that stands at a place."""
        return self.members[place] if self.members else (place + self.initiator) % 2**32


@dataclass(frozen=True, slots=True)
class Token:
    """The update that carried a ring's model, and in which lap."""

    entry: UpdateEntry
    lap: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What a peer of a ring is to do now.

    ``ready``: play now, in round ``round``; ``final``: with its closing update, for its rings are finished. Otherwise
    it waits for ``waits_for`` to pass on the model in ring ``ring``, until the chain's time ``wakes_at_s`` at the
    latest.
    """

    ready: bool
    final: bool
    round: int
    ring: int
    lap: int
    waits_for: int | None
    wakes_at_s: int | None


def rings_of(spec: Spec) -> tuple[Ring, ...]:
    """The spec's rings; one of all peers where none are listed."""
    rules = spec.merging
    if not rules.rings:
        return (Ring(1, (), rules.initiator),)
    return tuple(Ring(number, members) for number, members in enumerate(rules.rings, 1))


def own_rings(spec: Spec, peer: int) -> tuple[Ring, ...]:
    """The rings that a peer stands in; all of them for one that stands in none, which only merges."""
    rings = rings_of(spec)
    return tuple(ring for ring in rings if ring.place(peer) is not None) or rings


def tokens_of(spec: Spec, view: Prefix, ring: Ring) -> list[Token]:
    """A ring's tokens in a view, the first one first. Costs what is new since the last call for the same log."""
    chain = _chain(spec, view, ring)
    return chain.tokens[: bisect_left(chain.indices, view.size)]


def next_turn(spec: Spec, prefix: Prefix, own_peer: int, now_s: int, planned: int = 0) -> Turn:
    """Whether it is a peer's turn, from the log as it is and the chain's time.

    Args:
        now_s: a time before which no further entry can be recorded.
        planned: laps before the ring is finished; 0: the spec's ``rounds.planned``.

    Returns:
        ``ready``: play a round now, or the closing one. Otherwise the earliest time at which waiting ends if nobody
        else records anything; look again then, and whenever the log has grown.
    """
    laps = planned or spec.rounds.planned
    states = [_State(_chain(spec, prefix, ring, exactly=True), own_peer, laps) for ring in own_rings(spec, own_peer)]
    going = [state for state in states if state.ends_at_s is None or now_s < state.ends_at_s]
    latest = prefix.latest(own_peer)
    after_own = (latest.round if latest else 0) + 1
    highest = prefix.highest_round + 1
    if not going:
        round_number = min(max(after_own, laps + 1), highest)
        return Turn(True, True, round_number, states[0].ring.number, laps, None, None)
    turns = [state for state in going if state.turn_at_s is not None and now_s >= state.turn_at_s]
    if turns:
        lap = min(state.lap for state in turns)
        ring = next(state.ring.number for state in turns if state.lap == lap)
        return Turn(True, False, min(max(after_own, lap), highest), ring, lap, None, None)
    first = min(going, key=lambda state: state.wakes_at_s)
    return Turn(False, False, after_own, first.ring.number, first.lap, first.next_peer, first.wakes_at_s)


@dataclass(slots=True)
class _Chain:
    """One ring's tokens among the first ``scanned`` entries, and its open members' places after them."""

    ring: Ring
    silent_s: Fraction
    scanned: int = 0
    started_at_s: int | None = None
    opened_at_s: int = 0
    places: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def advance(self, prefix: Prefix) -> None:
        for fact in prefix.facts(self.scanned):
            body = fact.body
            if fact.index == 0:
                self.opened_at_s = fact.time_s
            if isinstance(body, PeerAdmitted) and body.roles & Role.PUBLISH:
                self._open(self.ring.place(body.peer))
            elif isinstance(body, PeerRetired):
                self._close(self.ring.place(body.peer))
            elif isinstance(body, PeerAnnounced):
                if self.started_at_s is None and self.ring.place(body.peer) is not None:
                    self.started_at_s = fact.time_s
            elif isinstance(body, UpdatePublished):
                place = self.ring.place(body.peer)
                if body.update.flags & Flag.FINAL:
                    self._close(place)
                elif place is not None:
                    self._open(place)
                    self._consider(prefix.update(body.ref), place)
        self.scanned = prefix.size

    def _open(self, place: int | None) -> None:
        if place is not None and not self._is_open(place):
            insort(self.places, place)

    def _close(self, place: int | None) -> None:
        if place is not None and self._is_open(place):
            self.places.remove(place)

    def _is_open(self, place: int) -> bool:
        at = bisect_left(self.places, place)
        return at < len(self.places) and self.places[at] == place

    def _consider(self, entry: UpdateEntry, place: int) -> None:
        if self.tokens and entry.update.seen <= self.tokens[-1].entry.index:
            return
        if entry.time_s >= self.turn_at_s(place):
            self.tokens.append(Token(entry, self.lap(place)))
            self.indices.append(entry.index)

    @property
    def last_place(self) -> int:
        """Where the last token's publisher stands; before the first token, in front of everybody."""
        place = self.ring.place(self.tokens[-1].entry.ref.peer) if self.tokens else None
        return -1 if place is None else place

    def waits(self, place: int) -> int:
        """How many open members come before this one, counted from the last token's publisher round the ring."""
        last = self.last_place
        after, before = bisect_right(self.places, last), bisect_left(self.places, place)
        if place > last:
            return before - after
        return len(self.places) - after + before

    def turn_at_s(self, place: int) -> Fraction:
        """The block time from which an update from this place is the next token."""
        if self.tokens:
            start = self.tokens[-1].entry.time_s
        else:
            start = self.opened_at_s if self.started_at_s is None else self.started_at_s
        return start + self.waits(place) * self.silent_s

    def lap(self, place: int) -> int:
        """The lap in which the next token would be, if it came from this place."""
        if not self.tokens:
            return 1
        return self.tokens[-1].lap + (place <= self.last_place)


class _State:
    """One ring as a peer that looks for its turn sees it."""

    def __init__(self, chain: _Chain, own_peer: int, laps: int) -> None:
        self.ring = chain.ring
        own = chain.ring.place(own_peer)
        # One that closed and goes on past the plan is open again by what it is about to record.
        places = sorted({*chain.places, own}) if own is not None else chain.places
        after = places[bisect_right(places, chain.last_place) :]
        order = after + places[: len(places) - len(after)]
        others = [place for place in order if place != own]
        self.next_peer = chain.ring.peer_at(others[0]) if others else None
        done = chain.tokens[-1].lap if chain.tokens else 0
        #: When it is this peer's turn if nobody records anything more; ``None``: it has no turn any more.
        self.turn_at_s = None
        self.lap = laps
        if own is not None and chain.lap(own) <= laps:
            self.lap = chain.lap(own)
            self.turn_at_s = _ceil(chain.turn_at_s(own))
        #: When this ring is finished if nobody records anything more; ``None``: this peer will go on itself.
        self.ends_at_s: int | None = None
        left = after if done == laps else order
        if done > laps or not left:
            self.ends_at_s = 0
        elif done == laps or own is None:
            self.ends_at_s = _ceil(chain.turn_at_s(left[-1]) + chain.silent_s)

    @property
    def wakes_at_s(self) -> int:
        return min(time_s for time_s in (self.ends_at_s, self.turn_at_s) if time_s is not None)


def _chain(spec: Spec, prefix: Prefix, ring: Ring, *, exactly: bool = False) -> _Chain:
    """A ring's chain, from this view's entries at least; ``exactly``: from no others."""
    silent_s = Fraction(repr(spec.merging.silent_s))
    chain: _Chain = prefix.derived.setdefault(("tokens", ring, silent_s), _Chain(ring, silent_s))
    if exactly and chain.scanned > prefix.size:
        chain = _Chain(ring, silent_s)
    if chain.scanned < prefix.size:
        chain.advance(prefix)
    return chain


def _ceil(time_s: Fraction) -> int:
    return -(-time_s.numerator // time_s.denominator)
