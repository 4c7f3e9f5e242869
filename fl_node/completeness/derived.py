"""The derivation of completeness from spec and log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_node.completeness.merges import Merges, merges_of
from fl_node.completeness.records import (
    Completeness,
    Ignored,
    LeftOut,
    PeerRow,
    RoundNow,
    RoundRow,
    Silence,
    SiteRow,
    State,
    Submission,
    best_of,
)
from fl_node.merging.cuts import SyncCut
from fl_node.merging.sync import counts, expected, sync_prefix
from fl_node.prefix import PeerFacts, Prefix, Retirement, UpdateEntry
from fl_node.records import PeerAnnounced, UpdateObjected, UpdatePublished, UpdateRef, UpdatesAttested
from fl_node.spec import Spec


def completeness(spec: Spec, prefix: Prefix) -> Completeness:
    """Who was expected, submitted, was merged, was left out and why, and is missing: by round, and by site over time.

    A function of the log alone, so anybody gets the same. It replays every selection: a federation of 50 peers takes
    seconds for 100 rounds. What follows from bytes (a candidate that was unavailable, an aggregation rule that gave no
    share) is taken as recorded; whether that was right is for the audit's checks of merge and selection.
    """
    updates = [prefix.update(fact.body.ref) for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]
    ignored = _ignored(spec, prefix, updates)
    uncounted = {one.ref for one in ignored if one.ref is not None}
    counting = [entry for entry in updates if entry.ref not in uncounted]
    merges = merges_of(spec, prefix, updates, (entry.ref for entry in counting))
    rounds = tuple(_Round(spec, prefix, number, uncounted) for number in range(1, prefix.highest_round + 1))
    submissions = tuple(_submission(prefix, entry, rounds[entry.round - 1].cut, merges, uncounted) for entry in updates)
    states = {one.ref: one.state for one in submissions}
    rows = tuple(one.row() for one in rounds)
    sites = _sites(prefix, rounds, rows, states)
    return Completeness(prefix.size, spec.rounds.mode, rows, sites, submissions, ignored, tuple(merges.unreplayed))


def round_now(spec: Spec, prefix: Prefix, number: int) -> RoundNow | None:
    """One round by itself, as :func:`completeness` has it; ``None`` where it holds no update.

    For who follows a log: it costs what the round has of updates and the federation of members.
    """
    entries = prefix.of_round(number)
    if not entries:
        return None
    uncounted = {entry.ref for entry in entries if why_ignored(spec, prefix, entry) is not None}
    one = _Round(spec, prefix, number, uncounted)
    return RoundNow(one.row(), one.absences(), one.closed_at)


class _Round:
    """One round: its updates, and of who has none, why."""

    def __init__(self, spec: Spec, prefix: Prefix, number: int, uncounted: set[UpdateRef]) -> None:
        self.number, self._uncounted = number, uncounted
        self.entries = prefix.of_round(number)
        first = next((entry for entry in self.entries if entry.ref not in uncounted), None)
        self.cut: SyncCut | None = None
        self.expected: tuple[int, ...] | None = None
        self._before = prefix.upto(self.entries[0].index if first is None else first.index)
        self._facts = {facts.number: facts for facts in self._before.peers()}
        if spec.rounds.mode == "sync":
            self.cut = sync_prefix(spec, prefix, number + 1)
            self.expected = expected(spec, prefix, number)
            until = self.cut.size
            self.closed_at = None if until is None else until + self.cut.by_deadline
        else:
            self.expected = None if first is None else tuple(self._able())
            later = prefix.of_round(number + 1)
            until = later[0].index if later else None
            self.closed_at = None if until is None else until + 1
        self.open = until is None
        self._until = prefix.upto(prefix.size if until is None else until)
        self.refs = {entry.ref.peer: entry.ref for entry in self.entries}

    def _able(self) -> list[int]:
        """Who might take part: active when the round began, with the role, not closed. Ascending."""
        return [number for number, facts in sorted(self._facts.items()) if self._takes_part(facts)]

    def _takes_part(self, facts: PeerFacts) -> bool:
        latest = self._before.latest(facts.number) if facts.publishes else None
        return facts.publishes and not (latest is not None and latest.final)

    def absence(self, peer: int) -> State:
        """The state of a peer without an update in this round."""
        facts = self._facts.get(peer)
        if facts is None or self.expected is None:
            return State.NOT_EXPECTED
        if not facts.active:
            return State.RETIRED
        if not self._takes_part(facts):
            return State.NOT_EXPECTED
        if not self._until.peer(peer).active:
            return State.RETIRED
        return State.AWAITED if self.open else State.MISSING

    def absences(self) -> dict[int, State]:
        """The states of peers without an update in this round, but for those that were not expected."""
        found = {peer: self.absence(peer) for peer in self._facts if peer not in self.refs}
        return {peer: state for peer, state in found.items() if state is not State.NOT_EXPECTED}

    def row(self) -> RoundRow:
        absent = [(peer, self.absence(peer)) for peer in self._facts if peer not in self.refs]
        waited_for = set(self.expected or ())
        gone = [peer for peer, state in absent if state in (State.MISSING, State.AWAITED)]
        return RoundRow(
            self.number,
            self.entries[0].index,
            self.entries[-1].index,
            self.expected,
            tuple(entry.ref for entry in self.entries if entry.ref not in self._uncounted and not entry.final),
            tuple(entry.ref for entry in self.entries if entry.ref not in self._uncounted and entry.final),
            tuple(entry.ref for entry in self.entries if entry.ref in self._uncounted),
            tuple(entry.ref for entry in self.entries if entry.ref not in self._uncounted and is_late(entry, self.cut)),
            tuple(peer for peer, state in absent if state is State.MISSING and peer in waited_for),
            tuple(peer for peer, state in absent if state is State.AWAITED and peer in waited_for),
            tuple(peer for peer in gone if peer not in waited_for and not self._ran_ahead(peer)),
            None if self.cut is None else self.cut.size,
            self.cut is not None and self.cut.by_deadline,
        )

    def _ran_ahead(self, peer: int) -> bool:
        """Whether it had published for a later round before this one began: rounds only rise, so nothing can come."""
        latest = self._before.latest(peer)
        return latest is not None and latest.round >= self.number


def is_late(entry: UpdateEntry, cut: SyncCut | None) -> bool:
    """Whether an update that counts was recorded after the cut of the next round, so that nobody looked at it."""
    return cut is not None and cut.size is not None and not entry.final and entry.index >= cut.size


def why_late(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str | None:
    """Why nobody looked at an update that counts, where it came too late for that; ``None`` where it did not. No later
    entry changes it."""
    if spec.rounds.mode != "sync":
        return None
    cut = sync_prefix(spec, prefix, entry.round + 1)
    return _late_words(cut) if is_late(entry, cut) else None


def _late_words(cut: SyncCut) -> str:
    return f"recorded after the cut of round {cut.round} at log size {cut.size}, so nobody looked at it"


def _submission(
    prefix: Prefix, entry: UpdateEntry, cut: SyncCut | None, merges: Merges, uncounted: set[UpdateRef]
) -> Submission:
    ref = entry.ref
    left_out = merges.leavings(ref)
    by = merges.merged_by.get(ref, [])
    late = ref not in uncounted and is_late(entry, cut)
    if late and cut is not None:
        left_out = (LeftOut("late", _late_words(cut), ()), *left_out)
    if ref in uncounted:
        state = State.IGNORED
    elif entry.final:
        state = State.CLOSING
    elif any(child.peer != ref.peer and child not in uncounted for child in by):
        state = State.MERGED
    else:
        state = State.LEFT_OUT if left_out else State.SUBMITTED
    site = prefix.peer(ref.peer).site
    return Submission(ref, site, entry.round, entry.index, state, late, tuple(by), left_out)


# ---- sites over time ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Site:
    """A site's peers while its row is made."""

    peers: list[PeerRow]
    facts: list[PeerFacts]


def _sites(
    prefix: Prefix, rounds: Sequence[_Round], rows: Sequence[RoundRow], states: dict[UpdateRef, State]
) -> tuple[SiteRow, ...]:
    found: dict[str, _Site] = {}
    for facts in prefix.peers():
        peer = facts.number
        line = tuple(states[one.refs[peer]] if peer in one.refs else one.absence(peer) for one in rounds)
        site = found.setdefault(facts.site, _Site([], []))
        site.peers.append(PeerRow(peer, line, facts.retirement))
        site.facts.append(facts)
    made = []
    for name, site in sorted(found.items()):
        joined = tuple(best_of(each) for each in zip(*(peer.states for peer in site.peers), strict=True))
        missed = tuple(number for number, state in enumerate(joined, 1) if state is State.MISSING)
        silence = _silence(prefix, site.facts, joined, rows)
        made.append(SiteRow(name, joined, tuple(site.peers), missed, silence))
    return tuple(made)


def _silence(
    prefix: Prefix, members: Sequence[PeerFacts], states: Sequence[State], rows: Sequence[RoundRow]
) -> Silence | None:
    """Since when nothing has come, if the site is missing at the end. Rounds that somebody made up, which have not
    begun, say nothing about anybody."""
    missed: list[int] = []
    awaited = False
    begun = [row for row in rows if row.expected is not None]
    for row in reversed(begun):
        state = states[row.number - 1]
        if state is State.MISSING:
            missed.append(row.number)
        elif state is State.AWAITED:
            awaited = True
        else:
            break
    if not missed and not awaited:
        return None
    active = [facts.number for facts in members if facts.publishes]
    if not active:
        return None  # retired since
    given_up = all(peer in begun[-1].given_up for peer in active)
    updates = [entry for facts in members if (entry := prefix.latest(facts.number)) is not None]
    last = max(updates, key=lambda entry: entry.index, default=None)
    if last is not None:
        ref, number, index = last.ref, last.round, last.index
    else:
        ref, number, index = None, 0, min(facts.admitted for facts in members if facts.publishes)
    time_s = next(iter(prefix.facts(index))).time_s
    entries, seconds = prefix.size - 1 - index, prefix.time_s - time_s
    return Silence(tuple(reversed(missed)), awaited, ref, number, index, time_s, entries, seconds, given_up)


# ---- what does not count -----------------------------------------------------------------------------------------


def why_ignored(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str | None:
    """Why an update does not count; ``None``: it does. Of later entries only a retirement can change it."""
    retirement = prefix.peer(entry.ref.peer).retirement
    if retirement is not None and entry.index >= retirement.from_index:
        return _retired_words(retirement)
    if spec.rounds.mode == "sync" and not counts(spec, prefix, entry):
        return _too_early(spec, prefix, entry)
    return None


def _retired_words(retirement: Retirement) -> str:
    return f"its writer was retired from entry {retirement.from_index} on, at entry {retirement.index}"


def _ignored(spec: Spec, prefix: Prefix, updates: Sequence[UpdateEntry]) -> tuple[Ignored, ...]:
    found = {one.index: one for one in _of_the_retired(prefix)}
    if spec.rounds.mode == "sync":
        for entry in updates:
            if entry.index not in found and not counts(spec, prefix, entry):
                why = _too_early(spec, prefix, entry)
                found[entry.index] = Ignored(entry.index, entry.ref.peer, "UpdatePublished", entry.ref, why)
    return tuple(found[index] for index in sorted(found))


def _of_the_retired(prefix: Prefix) -> list[Ignored]:
    """What retired peers wrote from the entry on from which they were retired."""
    retired = {facts.number: facts.retirement for facts in prefix.peers() if facts.retirement is not None}
    if not retired:
        return []
    found = []
    for fact in prefix.facts(min(one.from_index for one in retired.values())):
        body = fact.body
        if not isinstance(body, UpdatePublished | UpdatesAttested | UpdateObjected | PeerAnnounced):
            continue
        retirement = retired.get(body.peer)
        if retirement is not None and fact.index >= retirement.from_index:
            ref = body.ref if isinstance(body, UpdatePublished) else None
            found.append(Ignored(fact.index, body.peer, type(body).__name__, ref, _retired_words(retirement)))
    return found


def _too_early(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str:
    """Why an update of a synchronous round does not count."""
    made = f"made at log size {entry.update.seen}"
    cut = sync_prefix(spec, prefix, entry.round)
    if cut.size is None or cut.size > entry.index:
        return f"{made}, before round {entry.round} had begun"
    if entry.update.seen < cut.size:
        return f"{made}, before its round had begun: the cut of round {entry.round} is at log size {cut.size}"
    return f"{made}, before the others of round {entry.round} had attested or run out of time"
