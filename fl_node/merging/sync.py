"""The derived prefix of a synchronous round: up to which entry everybody looks when choosing parents for it.

Not chosen by the peer but computed from the log, so that all peers of a round merge the same updates and a reader can
tell who was waited for. An update sets the pace only if it was made after its own round's cut, so that nobody can run
ahead of the others by publishing rounds that have not begun. docs/replay-rules.md has the rule in words.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction

from fl_node.merging.cuts import SyncCut
from fl_node.merging.owed import attests_first, depends_on, waited
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import PeerRetired, UpdatePublished, UpdateRef
from fl_node.spec import Spec


def sync_prefix(spec: Spec, prefix: Prefix, round_number: int, now_s: int | None = None) -> SyncCut:
    """The cut for a round, from the entries alone and, while there is none, the chain's time.

    Costs what is new since the last call for the same log and spec.

    Args:
        prefix: the log as far as it is known. Once it holds the cut, more entries do not change it.
        round_number: the round to be played, from 1. Round 1 looks at nothing.
        now_s: a time before which no further entry can be recorded: block time of the block up to which ``prefix`` is
            complete. Default: that of its last entry. In an audit of an update: the block time of its entry.
    """
    cuts = _settled(spec, prefix)
    if round_number <= cuts.known(prefix):
        return cuts.settled[round_number - 1]
    count = cuts.counting(spec, prefix, round_number - 1)
    found = count.scan(prefix)
    if found is not None:
        return found
    if count.first is not None and (prefix.time_s if now_s is None else now_s) >= count.deadline_time_s:
        return count.cut(prefix, prefix.size, by_deadline=True)
    return count.cut(prefix, None)


def view_of_round(spec: Spec, prefix: Prefix, round_number: int, now_s: int | None = None) -> tuple[SyncCut, Prefix]:
    """The cut of a round that can be played, and the log up to it; see :func:`sync_prefix`.

    Raises:
        ValueError: the round must wait.
    """
    cut = sync_prefix(spec, prefix, round_number, now_s)
    if cut.size is None:
        raise ValueError(f"round {round_number} must wait for peers {list(cut.missing)} or the deadline")
    return cut, prefix.upto(cut.size)


def pace(spec: Spec, prefix: Prefix) -> int:
    """Highest round of an update that counts: made after its own round's cut. 0: none yet."""
    cuts = _settled(spec, prefix)
    known = cuts.known(prefix)
    return known if cuts.opening(prefix, known) is not None else known - 1


def counts(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> bool:
    """Whether an update in this prefix was made after its own round had begun. One that was not sets nobody's pace and
    is never a candidate."""
    return _settled(spec, prefix).counts(prefix, entry)


def expected(spec: Spec, prefix: Prefix, round_number: int) -> tuple[int, ...] | None:
    """The peers that a round waits for, as its first update that counts found them, ascending; ``None`` while there is
    no such update."""
    count = _Count(spec, prefix, _settled(spec, prefix), round_number)
    return None if count.first is None else count.expected


@dataclass(slots=True)
class _Cuts:
    """The cuts that a log's entries settle, of rounds 1, 2, 3, ...: one cannot be there without those before it.

    ``sizes`` has how many entries it takes to know each. More entries never change one, so all views share them.
    ``openings`` are the rounds' first updates that count, which never change either; ``under_way`` is the count for the
    next cut, as far as any view has taken it.
    """

    spec: Spec
    settled: list[SyncCut] = field(default_factory=lambda: [SyncCut(1, 0, 0, None, (), (), 0)])
    sizes: list[int] = field(default_factory=lambda: [0])
    openings: dict[int, UpdateEntry] = field(default_factory=dict)
    under_way: _Count | None = None

    def known(self, prefix: Prefix) -> int:
        """The highest round whose cut this prefix holds; at least 1."""
        return bisect_right(self.sizes, prefix.size)

    def counts(self, prefix: Prefix, entry: UpdateEntry) -> bool:
        """Whether an update in this view was made after its own round had begun: after the cut and, where attested
        scores count, after the others had time to attest. Cuts not known here lie behind the update."""
        if entry.round > len(self.settled):
            return False
        cut, seen = self.settled[entry.round - 1], entry.update.seen
        return cut.size is not None and seen >= cut.size and waited(self.spec, prefix, cut, seen)

    def opening(self, prefix: Prefix, number: int) -> UpdateEntry | None:
        """A round's first update that counts, closing or not."""
        found = self.openings.get(number)
        if found is None:
            found = next((entry for entry in prefix.of_round(number) if self.counts(prefix, entry)), None)
            if found is not None:
                self.openings[number] = found
        return found if found is not None and found.index < prefix.size else None

    def counting(self, spec: Spec, prefix: Prefix, number: int) -> _Count:
        """The count of a round's updates, as far as it was taken before; a new one for a view that is behind that."""
        count = self.under_way
        if count is not None and count.number == number and count.scanned <= prefix.size:
            return count
        fresh = _Count(spec, prefix, self, number)
        if fresh.first is not None and number == len(self.settled) and (count is None or count.number != number):
            self.under_way = fresh
        return fresh


def _settled(spec: Spec, prefix: Prefix) -> _Cuts:
    """The cuts of this log under this spec, all that the prefix settles among them."""
    key: tuple[object, ...] = ("sync cuts", spec.rounds.quorum, spec.rounds.deadline_s, spec.merging.max_staleness)
    if attests_first(spec):
        key += depends_on(spec)
    cuts: _Cuts = prefix.derived.setdefault(key, _Cuts(spec))
    while cuts.known(prefix) == len(cuts.settled):
        if cuts.opening(prefix, len(cuts.settled)) is None:
            break
        found = cuts.counting(spec, prefix, len(cuts.settled)).scan(prefix)
        if found is None or found.size is None:
            break
        cuts.settled.append(found)
        cuts.sizes.append(found.size + found.by_deadline)  # the entry after the deadline is what tells
    return cuts


class _Count:
    """Who is expected in round ``number`` and who is there, after the first ``scanned`` entries; decides about the
    round after it."""

    def __init__(self, spec: Spec, prefix: Prefix, cuts: _Cuts, number: int) -> None:
        self._cuts, self.number = cuts, number
        # The shortest decimal that reads as this float is what stands in the spec: 0.7 of 10 peers are 7, not 8.
        self._quorum = Fraction(repr(spec.rounds.quorum))
        first = cuts.opening(prefix, number)
        self.first = first.index if first else None
        self.scanned = first.index if first else prefix.size
        self.deadline_time_s = first.time_s + math.ceil(spec.rounds.deadline_s) if first else 0
        before = prefix if first is None else prefix.upto(first.index)
        self._expected: set[int] = set()
        for peer in before.peers():
            latest = before.latest(peer.number)
            alive = max(peer.round_at_admission, latest.round if latest else 0)
            gone = latest is not None and (latest.final or latest.round >= number)
            if peer.publishes and not gone and number - alive <= spec.merging.max_staleness:
                self._expected.add(peer.number)
        #: Those of the expected whose update is there or may still come, and those whose update is there.
        self._counted = set(self._expected)
        self._there: set[int] = set()

    @property
    def expected(self) -> tuple[int, ...]:
        """Ascending, without those that retired in what was scanned."""
        return tuple(sorted(self._expected))

    @property
    def needed(self) -> int:
        return math.ceil(self._quorum * len(self._counted))

    def scan(self, prefix: Prefix) -> SyncCut | None:
        """The cut that the entries from the round's first update on settle; ``None`` where they do not.

        Goes on where the last call stopped, so the prefix must hold at least ``scanned`` entries.
        """
        if self.first is None:
            return None
        for fact in prefix.facts(self.scanned):
            if fact.time_s >= self.deadline_time_s:
                return self.cut(prefix, fact.index, by_deadline=True)
            self.scanned = fact.index + 1
            if isinstance(fact.body, UpdatePublished | PeerRetired):
                self._add(prefix, fact.body)
                if len(self._there) >= self.needed:
                    return self.cut(prefix, fact.index + 1)
        return None

    def _add(self, prefix: Prefix, body: UpdatePublished | PeerRetired) -> None:
        if isinstance(body, PeerRetired):
            self._expected.discard(body.peer)
            self._counted.discard(body.peer)
            self._there.discard(body.peer)
            return
        if body.peer not in self._expected:
            return
        entry = prefix.update(body.ref)
        if entry.round == self.number and not entry.final and self._cuts.counts(prefix, entry):
            self._counted.add(body.peer)
            self._there.add(body.peer)
        elif (entry.final or entry.round >= self.number) and body.peer not in self._there:
            # The ledger takes rising rounds only: one for this round cannot come any more.
            self._counted.discard(body.peer)

    def cut(self, prefix: Prefix, size: int | None, *, by_deadline: bool = False) -> SyncCut:
        view = prefix.upto(prefix.size if size is None else size)
        previous, present = self.number, self._present(view, self.number)
        while size is not None and not present and previous > 1:
            previous -= 1
            present = self._present(view, previous)
        if not present:
            previous = self.number
        missing = tuple(sorted(self._counted - self._there))
        deadline_time_s = None if self.first is None else self.deadline_time_s
        return SyncCut(self.number + 1, previous, size, deadline_time_s, present, missing, self.needed, by_deadline)

    def _present(self, view: Prefix, number: int) -> tuple[UpdateRef, ...]:
        return tuple(
            entry.ref
            for entry in view.of_round(number)
            if not entry.final and self._cuts.counts(view, entry) and view.peer(entry.ref.peer).publishes
        )
