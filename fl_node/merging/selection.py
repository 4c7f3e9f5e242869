"""Selection: which updates are candidates for a base. A pure function of (spec, log up to `seen`, own number).

Everybody can compute it again for every update on the ledger, so "left out, and why" is a fact. The rule in words is
in docs/replay-rules.md.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fl_node.merging.sync import SyncCut, sync_prefix
from fl_node.prefix import PeerFacts, Prefix, UpdateEntry
from fl_node.records import Reason, UpdateRef
from fl_node.spec import Spec

#: As many parents as the contract takes.
MOST_PARENTS: Final = 64


class Outcome(enum.StrEnum):
    """What became of a peer's update in one selection."""

    MERGED = "merged"
    NONE_YET = "none-yet"
    MISSING = "missing"
    OTHER_ROUND = "other-round"
    RETIRED = "retired"
    WITHDRAWN = "withdrawn"
    STALE = "stale"
    OBJECTED = "objected"
    UNAVAILABLE = "unavailable"
    MALFORMED = "malformed"
    DIGEST_MISMATCH = "digest-mismatch"
    NOT_DRAWN = "not-drawn"


_OF_REASON: Final = {
    Reason.UNAVAILABLE: Outcome.UNAVAILABLE,
    Reason.MALFORMED: Outcome.MALFORMED,
    Reason.DIGEST_MISMATCH: Outcome.DIGEST_MISMATCH,
    Reason.WITHDRAWN: Outcome.WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate could not be used after all: what goes into the objection, and words for people."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Considered:
    """One publishing peer and what became of its update; ``entry`` is ``None`` where it has none to consider."""

    peer: int
    entry: UpdateEntry | None
    outcome: Outcome
    reason: str

    def as_json(self) -> dict[str, Any]:
        sequence = self.entry.ref.sequence if self.entry else None
        return {"peer": self.peer, "sequence": sequence, "outcome": self.outcome.value, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Selection:
    """All publishing peers by number. ``size`` is the log size that decided; ``cut`` there is in a sync round only.

    ``excusable``: candidates that this peer called unavailable in an earlier round. The ledger takes one objection a
    peer and update, so leaving one out again needs no second.
    """

    considered: tuple[Considered, ...]
    size: int
    excusable: frozenset[UpdateRef] = frozenset()
    cut: SyncCut | None = None

    @property
    def candidates(self) -> tuple[UpdateEntry, ...]:
        """What is to be merged, by (peer, sequence)."""
        return tuple(item.entry for item in self.considered if item.entry and item.outcome is Outcome.MERGED)

    def outcomes_after(self, failures: Mapping[UpdateRef, Failure]) -> tuple[dict[str, Any], ...]:
        """What became of each, once candidates were fetched and verified; as JSON for the report."""
        return tuple(_failed(item, failures).as_json() for item in self.considered)


def select(
    spec: Spec, prefix: Prefix, own_peer: int, round_number: int, *, seen: int | None = None, now_s: int | None = None
) -> Selection:
    """Choose candidates as the spec says.

    Args:
        prefix: the log up to the update that is being made; in an audit, ``full.upto(entry.index)``. What lies beyond
            ``seen`` in it matters for this peer's own objections only.
        own_peer: number of the peer that merges.
        round_number: the round being played, from 1.
        seen: log size that the choice is made from; default all of ``prefix``. In a sync round, the derived cut.
        now_s: sync only, see :func:`sync_prefix`.

    Raises:
        LookupError: no such peer.
        ValueError: a sync round whose cut is not there yet.
    """
    prefix.peer(own_peer)
    cut = None
    view = prefix.upto(prefix.size if seen is None else seen)
    if spec.rounds.mode == "sync":
        cut = sync_prefix(spec, prefix, round_number, now_s)
        if cut.size is None:
            raise ValueError(f"round {round_number} must wait for peers {list(cut.missing)} or the deadline")
        view = prefix.upto(cut.size)
    return _POLICIES[spec.merging.selection](_Choice(spec, prefix, view, own_peer, cut))


class _Choice:
    """What the checks of one selection share: the log at the decision, and this peer's own words up to its update."""

    def __init__(self, spec: Spec, prefix: Prefix, view: Prefix, own_peer: int, cut: SyncCut | None) -> None:
        self.spec, self.view, self.own_peer, self.cut = spec, view, own_peer, cut
        self.prefix = prefix
        self.present = frozenset(cut.present if cut else ())
        self.own_sequence = prefix.sequence(own_peer) + 1
        previous = prefix.updates(own_peer)
        #: Entry of this peer's previous update: what lies after it belongs to this round.
        self.round_began = previous[-1].index if previous else -1

    def of(self, peer: PeerFacts) -> Considered:
        """One peer's update against every check, in the order that the replay rules give."""
        if not peer.active:
            return self._left(
                peer, None, Outcome.RETIRED, f"retired at entry {peer.retirement and peer.retirement.index}"
            )
        entry = self.view.trained(peer.number)
        if entry is None:
            return self._left(peer, None, *self._absent(peer))
        if self.cut is not None and entry.ref not in self.present:
            if entry.round == self.cut.previous:
                early = f"made before round {entry.round} had begun, at log size {entry.update.seen}"
                return self._left(peer, entry, Outcome.OTHER_ROUND, early)
            return self._left(peer, entry, *self._absent(peer))
        for check in (self._withdrawn, self._stale, self._own_objection, self._objected):
            found = check(peer, entry)
            if found is not None:
                return self._left(peer, entry, *found)
        return Considered(peer.number, entry, Outcome.MERGED, "")

    def _absent(self, peer: PeerFacts) -> tuple[Outcome, str]:
        if self.cut is None:
            return Outcome.NONE_YET, "has published nothing that was trained"
        if peer.number in self.cut.missing:
            return Outcome.MISSING, f"no update of round {self.cut.previous} before the cut at entry {self.cut.size}"
        return Outcome.OTHER_ROUND, f"not in round {self.cut.previous}"

    def _withdrawn(self, peer: PeerFacts, entry: UpdateEntry) -> tuple[Outcome, str] | None:
        for word in self.view.objections(entry.ref):
            if word.peer == peer.number and word.reason is Reason.WITHDRAWN:
                return Outcome.WITHDRAWN, f"withdrawn by its publisher at entry {word.index}"
        return None

    def _stale(self, peer: PeerFacts, entry: UpdateEntry) -> tuple[Outcome, str] | None:
        most = self.spec.merging.max_staleness
        since = self.view.updates_since(self.own_peer, entry.index)
        if since <= most:
            return None
        return Outcome.STALE, f"{since} own updates since entry {entry.index}, at most {most} are allowed"

    def _own_objection(self, peer: PeerFacts, entry: UpdateEntry) -> tuple[Outcome, str] | None:
        for word in self.prefix.objections(entry.ref):
            lasting = word.reason is not Reason.UNAVAILABLE or word.index > self.round_began
            if word.peer == self.own_peer and lasting:
                return _OF_REASON[word.reason], f"own objection at entry {word.index}"
        return None

    def excusable(self, entry: UpdateEntry) -> bool:
        """Whether this peer called the update unavailable in an earlier round."""
        words = self.prefix.objections(entry.ref)
        return any(word.peer == self.own_peer and word.reason is Reason.UNAVAILABLE for word in words)

    def _objected(self, peer: PeerFacts, entry: UpdateEntry) -> tuple[Outcome, str] | None:
        sites = set()
        for word in self.view.objections(entry.ref):
            # "Malformed" and "digest mismatch" anybody can check on the bytes: others are never believed about that.
            if word.reason is not Reason.UNAVAILABLE or word.index <= self.round_began:
                continue
            if word.peer not in (self.own_peer, peer.number):
                sites.add(self.view.peer(word.peer).site)
        if len(sites) < self.spec.merging.objection_quorum:
            return None
        for said in self.view.attestations(entry.ref):
            if self.view.peer(said.peer).site != peer.site:
                return None
        names = ", ".join(sorted(sites))
        return Outcome.OBJECTED, f"called unavailable by {len(sites)} sites, attested by nobody: {names}"

    def _left(self, peer: PeerFacts, entry: UpdateEntry | None, outcome: Outcome, reason: str) -> Considered:
        return Considered(peer.number, entry, outcome, reason)


def _all_latest(choice: _Choice) -> Selection:
    """Every active peer's latest trained update, one's own among them; in a sync round, that of the round before."""
    considered = [choice.of(peer) for peer in choice.view.peers() if _published(choice, peer)]
    considered = _drawn(choice, considered)
    usable = (item.entry for item in considered if item.entry and item.outcome is Outcome.MERGED)
    excusable = frozenset(entry.ref for entry in usable if choice.excusable(entry))
    return Selection(tuple(considered), choice.view.size, excusable, choice.cut)


def _published(choice: _Choice, peer: PeerFacts) -> bool:
    return peer.publishes or (not peer.active and choice.view.sequence(peer.number) > 0)


def _drawn(choice: _Choice, considered: list[Considered]) -> list[Considered]:
    """At most as many candidates as the ledger takes: one's own, and the smallest hashes under this update's seed."""
    rivals = [item for item in considered if item.outcome is Outcome.MERGED and item.peer != choice.own_peer]
    own = any(item.outcome is Outcome.MERGED and item.peer == choice.own_peer for item in considered)
    room = MOST_PARENTS - own
    if len(rivals) <= room:
        return considered
    account = bytes.fromhex(choice.view.peer(choice.own_peer).account.removeprefix("0x"))
    seed = draw_seed(choice.view.opened.spec_digest, account, choice.own_sequence)
    rivals.sort(key=lambda item: draw_rank(seed, item.entry.ref if item.entry else UpdateRef(item.peer, 0)))
    out = {item.peer for item in rivals[room:]}
    why = f"more than {MOST_PARENTS} candidates; not among those drawn for this update"
    return [Considered(i.peer, i.entry, Outcome.NOT_DRAWN, why) if i.peer in out else i for i in considered]


def draw_seed(spec_digest: bytes, account: bytes, sequence: int) -> bytes:
    """Seed of an update's random choices: SHA-256(spec digest, 20 bytes of account, u32 sequence, big-endian)."""
    return hashlib.sha256(spec_digest + account + sequence.to_bytes(4, "big")).digest()


def draw_rank(seed: bytes, ref: UpdateRef) -> bytes:
    """What a candidate is sorted by; the smallest are chosen: SHA-256(seed, u32 peer, u32 sequence, big-endian)."""
    return hashlib.sha256(seed + ref.peer.to_bytes(4, "big") + ref.sequence.to_bytes(4, "big")).digest()


def _failed(item: Considered, failures: Mapping[UpdateRef, Failure]) -> Considered:
    failure = failures.get(item.entry.ref) if item.entry and item.outcome is Outcome.MERGED else None
    if failure is None:
        return item
    return Considered(item.peer, item.entry, _OF_REASON[failure.reason], failure.message)


_POLICIES: Final[Mapping[str, Callable[[_Choice], Selection]]] = {"all-latest": _all_latest}
