"""The derived prefix of a synchronous round: up to which entry everybody looks when choosing parents for it.

Not chosen by the peer but computed from the log, so that all peers of a round merge the same updates and a reader can
tell who was waited for. docs/replay-rules.md has the rule in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from fl_node.prefix import Prefix
from fl_node.records import PeerRetired, UpdatePublished, UpdateRef
from fl_node.spec import Spec


@dataclass(frozen=True, slots=True)
class SyncCut:
    """Where round ``round`` looks: at the first ``size`` entries; ``None`` while it must wait.

    ``previous`` is the round whose updates it merges: the one before; for a peer that closed in that one, yet another.

    ``present`` are the previous round's updates in that prefix that can be used, ``missing`` the peers that were
    expected and have none. ``deadline_time_s`` is the block time from which waiting is over; ``None`` before the
    previous round's first update. ``needed`` is how many of the ``present`` and ``missing`` complete the quorum.
    """

    round: int
    previous: int
    size: int | None
    deadline_time_s: int | None
    present: tuple[UpdateRef, ...]
    missing: tuple[int, ...]
    needed: int
    by_deadline: bool = False


def sync_prefix(
    spec: Spec, prefix: Prefix, round_number: int, now_s: int | None = None, own_peer: int | None = None
) -> SyncCut:
    """The cut for a round, from the entries alone and, while there is none, the chain's time.

    Args:
        prefix: the log as far as it is known. Once it holds the cut, more entries do not change it.
        round_number: the round to be played, from 1. Round 1 looks at nothing.
        now_s: a time before which no further entry can be recorded: block time of the block up to which ``prefix`` is
            complete. Default: that of its last entry. In an audit of an update: the block time of its entry.
        own_peer: who plays the round; matters only for one that goes on after its closing update.
    """
    previous = round_number - 1
    closing = prefix.latest(own_peer) if own_peer is not None else None
    if closing is not None and closing.final and closing.round == previous:
        # This peer goes on past the plan. Nobody merges closing updates: it looks again where its own did.
        previous -= 1
    if previous < 1:
        return SyncCut(round_number, 0, 0, None, (), (), 0)
    count = _Count(spec, prefix, previous, round_number)
    if count.first is None:
        return count.cut(None, None)
    opened_s = count.first_time_s
    deadline_time_s = opened_s + math.ceil(spec.rounds.deadline_s)
    for fact in prefix.facts(count.first):
        if fact.time_s >= deadline_time_s:
            return count.cut(fact.index, deadline_time_s, by_deadline=True)
        if isinstance(fact.body, UpdatePublished | PeerRetired):
            count.add(fact.body)
            if len(count.present & count.counted) >= count.needed:
                return count.cut(fact.index + 1, deadline_time_s)
    if (prefix.time_s if now_s is None else now_s) >= deadline_time_s:
        return count.cut(prefix.size, deadline_time_s, by_deadline=True)
    return count.cut(None, deadline_time_s)


class _Count:
    """Who is expected in round ``number`` and who is there, entry by entry; decides about round ``played``."""

    def __init__(self, spec: Spec, prefix: Prefix, number: int, played: int) -> None:
        self._prefix = prefix
        self._number = number
        self._played = played
        # The shortest decimal that reads as this float is what stands in the spec: 0.7 of 10 peers are 7, not 8.
        self._quorum = Fraction(repr(spec.rounds.quorum))
        trained = [entry for entry in prefix.of_round(number) if not entry.final]
        self.first = trained[0].index if trained else None
        self.first_time_s = trained[0].time_s if trained else 0
        before = prefix.upto(prefix.size if self.first is None else self.first)
        self._expected: set[int] = set()
        for peer in before.peers():
            latest = before.latest(peer.number)
            alive = max(peer.round_at_admission, latest.round if latest else 0)
            gone = latest is not None and (latest.final or latest.round > number)
            if peer.publishes and not gone and number - alive <= spec.merging.max_staleness:
                self._expected.add(peer.number)
        self.present: set[int] = set()
        self._gone: set[int] = set()
        self._retired: set[int] = set()

    @property
    def counted(self) -> set[int]:
        """Peers whose update of the round is there or may still come."""
        return self._expected - self._retired - (self._gone - self.present)

    @property
    def needed(self) -> int:
        return math.ceil(self._quorum * len(self.counted))

    def add(self, body: UpdatePublished | PeerRetired) -> None:
        if isinstance(body, PeerRetired):
            self._retired.add(body.peer)
            return
        entry = self._prefix.update(body.ref)
        if entry.round == self._number and not entry.final:
            self.present.add(body.peer)
        elif entry.final or entry.round > self._number:
            self._gone.add(body.peer)

    def cut(self, size: int | None, deadline_time_s: int | None, *, by_deadline: bool = False) -> SyncCut:
        view = self._prefix.upto(self._prefix.size if size is None else size)
        present = tuple(
            entry.ref
            for entry in view.of_round(self._number)
            if not entry.final and view.peer(entry.ref.peer).publishes
        )
        missing = tuple(sorted(self.counted - self.present))
        return SyncCut(self._played, self._number, size, deadline_time_s, present, missing, self.needed, by_deadline)
