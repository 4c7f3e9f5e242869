"""Who is to attest what, and up to where a synchronous round waits for it.

Pure functions of the log. Where selection looks at attested scores (``merging.scores = "attested"``), a peer attests
before it selects, everything of interest or a sample of it; otherwise what it selected and fetched anyway.
docs/replay-rules.md, section 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fl_node.merging.board import members_of
from fl_node.merging.choice import Choice
from fl_node.merging.draws import in_order, seed_of, tail_of
from fl_node.merging.graphs import neighbours_of
from fl_node.merging.sync import SyncCut, sync_prefix
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import PeerRetired, Reason, UpdateObjected, UpdateRef, UpdatesAttested
from fl_node.spec import Spec

#: As many as the contract takes in one entry.
MOST_ATTESTED: Final = 64


@dataclass(frozen=True, slots=True)
class AttestedCut:
    """Up to where attestations count in round ``round``: at the first ``size`` entries; ``None`` while it must wait.

    ``waits_for``: peers that have not attested all that they were to. ``deadline_time_s``: the block time from which
    waiting for them is over.
    """

    round: int
    size: int | None
    deadline_time_s: int
    waits_for: tuple[int, ...]
    by_deadline: bool = False


def attests_first(spec: Spec) -> bool:
    """Whether a peer attests before it selects, since selection looks at what was attested. In a ring it never does."""
    return spec.merging.scores == "attested" and spec.merging.selection != "ring" and spec.attestation.mode != "none"


def attestable(
    spec: Spec,
    prefix: Prefix,
    own_peer: int,
    round_number: int,
    *,
    seen: int | None = None,
    now_s: int | None = None,
    candidates: Iterable[UpdateEntry] | None = None,
) -> tuple[UpdateEntry, ...]:
    """The updates that a peer is to attest now, by (peer, sequence); what it has attested or objected to is left out.

    Where :func:`attests_first`: others' latest trained updates (in a sync round, those that it looks at; in a graph,
    the neighbours'), drawn as section 11 says. Otherwise those of ``candidates``, which must then be given.

    Args:
        prefix: the log as far as it is known.
        round_number: the round being played.
        seen: async: log size that the round's choice is made from; default all of ``prefix``.
        now_s: sync only, see :func:`sync_prefix`.
        candidates: what the selection gave, for specs under which attesting comes after it.

    Raises:
        LookupError: no such peer.
        ValueError: a sync round whose cut is not there yet, or no candidates where they are needed.
    """
    view = prefix.upto(prefix.size if seen is None else seen)
    cut = None
    if spec.rounds.mode == "sync":
        cut = sync_prefix(spec, prefix, round_number, now_s)
        if cut.size is None:
            raise ValueError(f"round {round_number} must wait for peers {list(cut.missing)} or the deadline")
        view = prefix.upto(cut.size)
    mine = prefix.updates(own_peer)
    began = mine[-1].index if mine else -1
    if attests_first(spec):
        wanted = due(spec, prefix, view, own_peer, round_number, cut)
    else:
        if candidates is None:
            raise ValueError("got no candidates, expected those of the selection: this spec attests what was selected")
        wanted = due(spec, prefix, view, own_peer, round_number, cut, candidates)
    done = {entry.ref for entry in wanted if _spoke(prefix, own_peer, entry.ref, since=-1)}
    room = len(wanted) if cut is not None else _limit(spec) - _attested_since(prefix, own_peer, began)
    rest = [entry for entry in wanted if entry.ref not in done][: max(0, room)]
    return tuple(sorted(rest, key=lambda entry: entry.ref))


def due(
    spec: Spec,
    prefix: Prefix,
    view: Prefix,
    own_peer: int,
    round_number: int,
    cut: SyncCut | None,
    among: Iterable[UpdateEntry] | None = None,
) -> list[UpdateEntry]:
    """What a peer is to attest for a round, in the order of its draw, as its view has it: whatever it did since then.

    In a synchronous round everything is judged by the log at the cut, the sequence of the draw too: so everybody
    knows what everybody is to attest.

    Args:
        among: candidates to choose from; default the latest trained updates of others.
    """
    rules = spec.attestation
    members = members_of(view)
    if rules.mode == "none" or round_number % rules.every or own_peer not in members.attesting:
        return []
    at = view if cut is not None else prefix
    choice = Choice(spec, at, view, view, own_peer, cut)
    began = choice.round_began if cut is None else view.size
    own_site = members.sites[own_peer]
    entries = choice.pool if among is None else {entry.ref.peer: entry for entry in among}
    if among is None and spec.merging.selection == "graph":
        near = neighbours_of(spec, view).get(own_peer, frozenset())
        entries = {peer: entry for peer, entry in entries.items() if peer in near}
    peers = [peer for peer in entries if members.sites[peer] != own_site]
    seed = seed_of(view, own_peer, choice.own_sequence)
    found: list[UpdateEntry] = []
    for peer in in_order(seed, peers, {peer: tail_of(entries[peer].ref) for peer in peers}):
        entry = entries[peer]
        if choice.trouble(entry, lasting=True, others=False) is None and not _attested_before(
            at, own_peer, entry, began
        ):
            found.append(entry)
            if len(found) == _limit(spec):
                break
    return found


def attested_prefix(spec: Spec, prefix: Prefix, round_number: int, now_s: int | None = None) -> AttestedCut:
    """Up to where attestations count in a synchronous round, from the entries alone and, while that does not tell, the
    chain's time.

    The log up to the entry with which every peer that the cut has an update of, and that has the role to attest, has
    attested, or objected to, all that it was to; or the last entry before the deadline: ``rounds.deadline_s`` after the
    cut's own time. More entries never move it. Costs what is new since the last call for the same log and spec.

    Args:
        now_s: as for :func:`sync_prefix`.

    Raises:
        ValueError: the round's cut is not there yet.
    """
    cut = sync_prefix(spec, prefix, round_number, now_s)
    if cut.size is None:
        raise ValueError(f"round {round_number} must wait for peers {list(cut.missing)} or the deadline")
    wait = _wait(spec, prefix, cut)
    wait.scan(prefix)
    return wait.settled(prefix, prefix.time_s if now_s is None else now_s)


@dataclass(slots=True)
class _Wait:
    """Who still has to attest what in one round, after the first ``scanned`` entries."""

    cut: SyncCut
    start: int
    deadline_time_s: int
    owed: dict[int, set[UpdateRef]]
    scanned: int
    #: Log size of the cut, and the size of log that it takes to know it.
    size: int | None = None
    known_at: int = 0
    by_deadline: bool = False
    missing: tuple[int, ...] = field(default=())

    def scan(self, prefix: Prefix) -> None:
        if self.size is not None:
            return
        if not self.owed:
            self._settle(self.start, self.start)
            return
        for fact in prefix.facts(self.scanned):
            if fact.time_s >= self.deadline_time_s:
                self._settle(fact.index, fact.index + 1, by_deadline=True)
                return
            self._strike(fact.body)
            self.scanned = fact.index + 1
            if not self.owed:
                self._settle(fact.index + 1, fact.index + 1)
                return

    def _strike(self, body: object) -> None:
        if isinstance(body, UpdatesAttested):
            self._said(body.peer, {UpdateRef(item.peer, item.sequence) for item in body.items})
        elif isinstance(body, UpdateObjected):
            if body.reason is Reason.WITHDRAWN and body.peer == body.target.peer:
                self._gone({body.target})
            self._said(body.peer, {body.target})
        elif isinstance(body, PeerRetired):
            self.owed.pop(body.peer, None)
            self._gone({ref for refs in self.owed.values() for ref in refs if ref.peer == body.peer})

    def _said(self, peer: int, refs: set[UpdateRef]) -> None:
        owed = self.owed.get(peer)
        if owed is not None:
            owed -= refs
            if not owed:
                del self.owed[peer]

    def _gone(self, refs: set[UpdateRef]) -> None:
        for peer in list(self.owed):
            self._said(peer, refs)

    def _settle(self, size: int, known_at: int, *, by_deadline: bool = False) -> None:
        self.size, self.known_at, self.by_deadline = size, known_at, by_deadline
        self.missing = tuple(sorted(self.owed))

    def settled(self, prefix: Prefix, now_s: int) -> AttestedCut:
        """The cut as this view and the clock have it."""
        number, deadline_s = self.cut.round, self.deadline_time_s
        if self.size is not None and self.known_at <= prefix.size:
            return AttestedCut(number, self.size, deadline_s, self.missing, self.by_deadline)
        missing = tuple(sorted(self.owed))
        if now_s >= deadline_s:
            return AttestedCut(number, prefix.size, deadline_s, missing, by_deadline=True)
        return AttestedCut(number, None, deadline_s, missing)


def _wait(spec: Spec, prefix: Prefix, cut: SyncCut) -> _Wait:
    """The round's wait, as far as it was followed before; from its start for a view that is behind that."""
    rules, scheme = spec.merging, spec.attestation
    chosen_by = (rules.max_staleness, rules.selection, rules.graph, rules.degree, rules.rewire, rules.edges)
    key = ("attested cuts", spec.rounds.quorum, spec.rounds.deadline_s, *chosen_by, scheme.mode, scheme.k, scheme.every)
    waits: dict[int, _Wait] = prefix.derived.setdefault(key, {})
    wait = waits.get(cut.round)
    if wait is not None and wait.start == cut.size and max(wait.scanned, wait.known_at) <= prefix.size:
        return wait
    fresh = _begun(spec, prefix, cut)
    if wait is None or wait.start != cut.size or fresh.scanned > wait.scanned:
        waits[cut.round] = fresh
    return fresh


def _begun(spec: Spec, prefix: Prefix, cut: SyncCut) -> _Wait:
    size = cut.size or 0
    view = prefix.upto(size)
    owed = {}
    for ref in cut.present:
        wanted = due(spec, view, view, ref.peer, cut.round, cut)
        if wanted:
            owed[ref.peer] = {entry.ref for entry in wanted}
    return _Wait(cut, size, _cut_time_s(view, cut) + math.ceil(spec.rounds.deadline_s), owed, size)


def _cut_time_s(view: Prefix, cut: SyncCut) -> int:
    """When the cut was there: the time of its last entry, or the deadline that made it."""
    if cut.by_deadline and cut.deadline_time_s is not None:
        return cut.deadline_time_s
    return view.time_s


def _limit(spec: Spec) -> int:
    return spec.attestation.k if spec.attestation.mode == "sample" else MOST_ATTESTED


def _attested_before(prefix: Prefix, own_peer: int, entry: UpdateEntry, began: int) -> bool:
    """Whether this peer attested the update in an earlier round."""
    return any(said.peer == own_peer and said.index <= began for said in prefix.attestations(entry.ref))


def _spoke(prefix: Prefix, own_peer: int, ref: UpdateRef, *, since: int) -> bool:
    """Whether this peer has attested an update, or objected to it, after an entry."""
    words: Sequence[object] = [
        *(said for said in prefix.attestations(ref) if said.peer == own_peer and said.index > since),
        *(word for word in prefix.objections(ref) if word.peer == own_peer and word.index > since),
    ]
    return bool(words)


def _attested_since(prefix: Prefix, own_peer: int, began: int) -> int:
    """How many updates this peer has attested after entry ``began``."""
    bodies = (fact.body for fact in prefix.facts(began + 1))
    return sum(len(body.items) for body in bodies if isinstance(body, UpdatesAttested) and body.peer == own_peer)
