"""Selection: which updates are candidates for a base. A pure function of (spec, log up to `seen`, own number).

Everybody can compute it again for every update on the ledger, so "left out, and why" is a fact. The rule in words is
in docs/replay-rules.md; the policies are in :mod:`fl_node.merging.policies`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fl_node.merging.attested import attested_prefix, attests_first
from fl_node.merging.choice import Choice, Verdict
from fl_node.merging.cuts import AttestedCut, SyncCut
from fl_node.merging.draws import draw_rank, draw_seed
from fl_node.merging.outcomes import NAMED_ONE_BY_ONE, Alike, Considered, Failure, Outcome, after_fetching, told
from fl_node.merging.policies import MOST_PARENTS, POLICIES
from fl_node.merging.standing import Standing
from fl_node.merging.sync import view_of_round
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef
from fl_node.spec import Spec

__all__ = [
    "MOST_PARENTS",
    "Considered",
    "Failure",
    "Outcome",
    "Selection",
    "draw_rank",
    "draw_seed",
    "other_parents",
    "select",
    "selection_behind",
]


@dataclass(frozen=True, slots=True)
class Selection:
    """What one peer is to merge, and what became of everybody's update.

    ``candidates`` are by (peer, sequence); ``standing`` has what a rule may know of each. ``size`` is the log size that
    decided; ``cut``, and ``attested`` where attested scores count, there are in a sync round only.

    ``excusable``: candidates that this peer called unavailable in an earlier round. The ledger takes one objection a
    peer and update, so leaving one out again needs no second.
    """

    candidates: tuple[UpdateEntry, ...]
    standing: Mapping[UpdateRef, Standing]
    size: int
    excusable: frozenset[UpdateRef] = frozenset()
    cut: SyncCut | None = None
    attested: AttestedCut | None = None
    _choice: Choice | None = field(default=None, repr=False, compare=False)
    _verdict: Verdict | None = field(default=None, repr=False, compare=False)

    @property
    def considered(self) -> tuple[Considered, ...]:
        """All publishing peers by number, the retired that have published among them. Found when asked for."""
        items = self._one_by_one()
        view = self._choice.view if self._choice else None
        for group in self._alike(items):
            for peer in group.peers:
                entry = view.trained(peer) if view and group.outcome is not Outcome.RETIRED else None
                items.append(Considered(peer, entry, group.outcome, group.reason))
        return tuple(sorted(items, key=lambda item: item.peer))

    def outcomes_after(
        self, failures: Mapping[UpdateRef, Failure], rejected: Mapping[UpdateRef, str] | None = None
    ) -> tuple[dict[str, Any], ...]:
        """What became of each, once candidates were fetched, verified and merged; as JSON for the report.

        Up to 64 peers are named one by one: ``peer, sequence, outcome, reason``. Of more, those that fared alike are
        told together: ``peers`` (numbers and ranges), ``count, outcome, reason``.

        Args:
            failures: candidates that could not be fetched or verified.
            rejected: candidates that the aggregation rule left out, and why.
        """
        rejected = rejected or {}
        items = self._one_by_one()
        groups = self._alike(items)
        if len(items) + sum(len(group.peers) for group in groups) <= NAMED_ONE_BY_ONE:
            return tuple(after_fetching(item, failures, rejected).as_json() for item in self.considered)
        candidates = [after_fetching(item, failures, rejected) for item in items[: len(self.candidates)]]
        return told(candidates, items[len(self.candidates) :], groups)

    def _one_by_one(self) -> list[Considered]:
        items = [Considered(entry.ref.peer, entry, Outcome.MERGED, "") for entry in self.candidates]
        if self._verdict is not None:
            items += [*self._verdict.left, *self._verdict.later()]
        return items

    def _alike(self, one_by_one: list[Considered]) -> tuple[Alike, ...]:
        if self._choice is None or self._verdict is None:
            return ()
        told_of = [item.peer for item in one_by_one]
        for group in self._verdict.alike:
            told_of += group.peers
        return self._verdict.alike + self._choice.absent(told_of)


def select(
    spec: Spec,
    prefix: Prefix,
    own_peer: int,
    round_number: int,
    *,
    seen: int | None = None,
    now_s: int | None = None,
    failed: Mapping[UpdateRef, Failure] | None = None,
) -> Selection:
    """Choose candidates as the spec says.

    Args:
        prefix: the log up to the update that is being made; in an audit, ``full.upto(entry.index)``. What lies beyond
            ``seen`` in it matters for this peer's own objections only.
        own_peer: number of the peer that merges.
        round_number: the round being played, from 1.
        seen: log size that the choice is made from; default all of ``prefix``. In a sync round, the derived cut.
        now_s: sync only, see :func:`fl_node.merging.sync.sync_prefix`.
        failed: while the update is being made: candidates of an earlier look that turned out to be of no use, and that
            this peer objected to. It is as if those objections were in ``prefix``, where an audit finds them.

    Raises:
        LookupError: no such peer.
        ValueError: a sync round whose cut, or whose attestations, are not there yet.
    """
    prefix.peer(own_peer)
    cut = attested = None
    view = words = prefix.upto(prefix.size if seen is None else seen)
    if spec.rounds.mode == "sync":
        cut, view = view_of_round(spec, prefix, round_number, now_s)
        words = view
        if attests_first(spec):
            attested = attested_prefix(spec, prefix, round_number, now_s)
            if attested.size is None:
                waiting = list(attested.waits_for)
                raise ValueError(f"round {round_number} must wait for peers {waiting} to attest, or the deadline")
            words = prefix.upto(attested.size)
    choice = Choice(spec, prefix, view, words, own_peer, cut, failed)
    verdict = POLICIES[spec.merging.selection](choice)
    candidates = tuple(sorted(verdict.chosen, key=lambda entry: entry.ref))
    return Selection(
        candidates,
        {entry.ref: choice.standing(entry) for entry in candidates},
        words.size,
        frozenset(entry.ref for entry in candidates if choice.excusable(entry)),
        cut,
        attested,
        choice,
        verdict,
    )


def selection_behind(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> Selection:
    """The selection that a recorded update must have been made by, again: from what it had seen, and its publisher's
    own words before it. Needs no bytes.

    Args:
        prefix: the log, up to the update at least.

    Raises:
        LookupError, ValueError: the update cannot follow from the log that it claims to have seen.
    """
    before, seen = prefix.upto(entry.index), entry.update.seen
    return select(spec, before, entry.ref.peer, entry.round, seen=seen, now_s=entry.time_s)


def other_parents(chosen: Selection, entry: UpdateEntry) -> str | None:
    """How an update's recorded parents differ from what its policy gives, in words; ``None`` where they do not.

    Args:
        chosen: of :func:`selection_behind`.
    """
    given, recorded = {one.ref for one in chosen.candidates}, {parent.ref for parent in entry.parents}
    if given - chosen.excusable <= recorded <= given:
        return None
    named = ", ".join(map(str, sorted(recorded))) or "no parents"
    expected = ", ".join(map(str, sorted(given))) or "none"
    return f"{entry.ref} records {named}; the policy gives {expected} from the log that it had seen"
