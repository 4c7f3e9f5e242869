"""What peers owe each other in a round: which updates each is to attest, and who has not done so yet.

Pure functions of the log. docs/replay-rules.md, section 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fl_node.merging.board import members_of
from fl_node.merging.choice import Choice
from fl_node.merging.cuts import AttestedCut, SyncCut
from fl_node.merging.draws import in_order, seed_of
from fl_node.merging.graphs import neighbours_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import sealed_for
from fl_node.records import PeerRetired, Reason, UpdateObjected, UpdateRef, UpdatesAttested
from fl_node.spec import Spec

#: As many as the contract takes in one entry.
MOST_ATTESTED: Final = 64


def attests_first(spec: Spec) -> bool:
    """Whether a peer attests before it selects, since selection looks at what was attested. In a ring it never does."""
    return spec.merging.scores == "attested" and spec.merging.selection != "ring" and spec.attestation.mode != "none"


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
    for peer in in_order(seed, peers):
        entry = entries[peer]
        if (
            choice.trouble(entry, lasting=True, others=False) is None
            and not _attested_before(at, own_peer, entry, began)
            and _base_sealed_for(spec, view, entry, own_peer)
        ):
            found.append(entry)
            if len(found) == limit_of(spec):
                break
    return found


def _base_sealed_for(spec: Spec, view: Prefix, entry: UpdateEntry, own_peer: int) -> bool:
    """Whether a peer can make an update's base again: who joined after what it was merged from cannot."""
    behind = [view.update(parent.ref) for parent in entry.parents]
    if spec.merging.clip != "none" or spec.merging.aggregation == "centred-clipping":
        behind += view.updates(entry.ref.peer)[: entry.ref.sequence - 1][-1:]
    return all(sealed_for(view, one, own_peer, spec.encoding.full_every) for one in behind)


@dataclass(slots=True)
class Wait:
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


def wait_for(spec: Spec, prefix: Prefix, cut: SyncCut) -> Wait:
    """The round's wait, as far as this view's entries tell of it. Costs what is new since the last call for the same
    log and spec.

    Args:
        cut: of the round; it must be there.
    """
    key = ("attested cuts", spec.rounds.quorum, spec.rounds.deadline_s, spec.merging.max_staleness, *depends_on(spec))
    waits: dict[int, Wait] = prefix.derived.setdefault(key, {})
    wait = waits.get(cut.round)
    if wait is None or wait.start != cut.size or max(wait.scanned, wait.known_at) > prefix.size:
        fresh = _begun(spec, prefix, cut)
        if wait is None or wait.start != cut.size:
            waits[cut.round] = fresh
        wait = fresh
    wait.scan(prefix)
    return wait


def depends_on(spec: Spec) -> tuple[object, ...]:
    """What of a spec decides who is to attest what."""
    rules, scheme = spec.merging, spec.attestation
    graph = (rules.graph, rules.degree, rules.rewire, rules.edges)
    return (rules.selection, *graph, scheme.mode, scheme.k, scheme.every)


def waited(spec: Spec, prefix: Prefix, cut: SyncCut, seen: int) -> bool:
    """Whether an update in this view that had seen so much was made after the second cut of its round, or its spec
    knows of none.

    What the entries up to an update do not settle is settled beyond what it can have seen, so any view that has the
    update gives the same answer.
    """
    if not attests_first(spec):
        return True
    size = wait_for(spec, prefix, cut).size
    return size is not None and seen >= size


def _begun(spec: Spec, prefix: Prefix, cut: SyncCut) -> Wait:
    size = cut.size or 0
    view = prefix.upto(size)
    owed = {}
    for ref in cut.present:
        wanted = due(spec, view, view, ref.peer, cut.round, cut)
        if wanted:
            owed[ref.peer] = {entry.ref for entry in wanted}
    return Wait(cut, size, _cut_time_s(view, cut) + math.ceil(spec.rounds.deadline_s), owed, size)


def _cut_time_s(view: Prefix, cut: SyncCut) -> int:
    """When the cut was there: the time of its last entry, or the deadline that made it."""
    if cut.by_deadline and cut.deadline_time_s is not None:
        return cut.deadline_time_s
    return view.time_s


def limit_of(spec: Spec) -> int:
    return spec.attestation.k if spec.attestation.mode == "sample" else MOST_ATTESTED


def _attested_before(prefix: Prefix, own_peer: int, entry: UpdateEntry, began: int) -> bool:
    """Whether this peer attested the update in an earlier round."""
    return any(said.peer == own_peer and said.index <= began for said in prefix.attestations(entry.ref))
