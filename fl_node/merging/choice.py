"""What the checks of one selection share, and the checks that every policy makes of a candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fl_node.merging.board import Members, board_of, board_of_present, members_of, perhaps_objected
from fl_node.merging.cuts import SyncCut
from fl_node.merging.draws import in_order, seed_of
from fl_node.merging.outcomes import OF_REASON, Alike, Considered, Failure, Outcome
from fl_node.merging.scores import attested_ppm, claimed_ppm
from fl_node.merging.standing import Standing
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import sealed_for
from fl_node.records import Reason, UpdateRef
from fl_node.spec import Spec

#: Policies under which somebody else takes the place of an update that could not be had. There, one's own word that it
#: could not be had binds for ever: otherwise a dead peer's best update would take a place in every round.
PICK_FEW: Final = frozenset({"top-k", "best", "random-k"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy decided: the candidates, what was left out one by one, and what was left out together.

    ``later``: more of what was left out one by one, put into words when somebody asks.
    """

    chosen: tuple[UpdateEntry, ...]
    left: tuple[Considered, ...] = ()
    alike: tuple[Alike, ...] = ()
    later: Callable[[], Sequence[Considered]] = tuple


class Choice:
    """One peer's choice: the log at the decision, and this peer's own words up to its update.

    ``pool`` are the updates that may be candidates, by peer: everybody's latest trained one; in a synchronous round
    those it looks at. ``words`` is the log up to where attestations count. ``failed`` are updates that this peer found
    it cannot use, whose objection comes before its update, though maybe not yet into the log as it sees it.
    """

    def __init__(
        self,
        spec: Spec,
        prefix: Prefix,
        view: Prefix,
        words: Prefix,
        own_peer: int,
        cut: SyncCut | None,
        failed: Mapping[UpdateRef, Failure] | None = None,
    ) -> None:
        self.spec, self.prefix, self.view, self.words, self.own_peer, self.cut = (
            spec,
            prefix,
            view,
            words,
            own_peer,
            cut,
        )
        self._board = board_of(view) if cut is None else board_of_present(view, cut.present)
        self.pool = self._board.latest
        self.own = self.pool.get(own_peer)
        self._objected_at_all = perhaps_objected(prefix)
        self._failed = failed or {}
        self._picks_few = spec.merging.selection in PICK_FEW
        mine = prefix.updates(own_peer)
        self.own_sequence = len(mine) + 1
        #: Entry of this peer's previous update: what lies after it belongs to this round.
        self.round_began = mine[-1].index if mine else -1
        seen = view.sequence(own_peer)
        most = spec.merging.max_staleness
        self._scores: dict[int, int | None] = {}
        #: An update before this entry is stale.
        self._stale_before = mine[seen - most - 1].index if seen > most else -1

    @property
    def members(self) -> Members:
        return members_of(self.view)

    @property
    def others(self) -> list[int]:
        """The peers of the pool without this one."""
        return [peer for peer in self.pool if peer != self.own_peer]

    def drawn(self, peers: Iterable[int]) -> Iterator[int]:
        """Peers of the pool in the order of this update's draw, lazily."""
        return in_order(seed_of(self.prefix, self.own_peer, self.own_sequence), peers)

    # ---- scores ----

    @property
    def by_attestation(self) -> bool:
        """Whether attested scores count. In a ring the model that goes round is taken without a look at its score."""
        return self.spec.merging.scores == "attested" and self.spec.merging.selection != "ring"

    def attested(self, entry: UpdateEntry) -> int | None:
        """The attested score; ``None`` where too few sites attested and that leaves an update out."""
        if entry.index not in self._scores:
            found, _ = attested_ppm(self.spec, self.words, entry)
            zero = found is None and self.spec.merging.unattested == "zero"
            self._scores[entry.index] = 0 if zero else found
        return self._scores[entry.index]

    def score(self, entry: UpdateEntry) -> int:
        """What is compared. This peer's own update stands by its claim where too few sites attested it."""
        found = self.attested(entry) if self.by_attestation else None
        return claimed_ppm(self.spec, entry) if found is None else found

    def standing(self, entry: UpdateEntry) -> Standing:
        return Standing(self.view.updates_since(self.own_peer, entry.index), self.score(entry))

    # ---- the checks, in the order that the replay rules give ----

    def fault(self, entry: UpdateEntry) -> Considered | None:
        """The first check that an update of the pool fails; ``None`` if it passes all."""
        return self.trouble(entry, lasting=self._picks_few) or self.few_samples(entry) or self.unattested(entry)

    def trouble(self, entry: UpdateEntry, *, lasting: bool = False, others: bool = True) -> Considered | None:
        """Not sealed for this peer, withdrawn, stale or objected to. ``lasting``: own words bind for ever,
        ``unavailable`` too. Without ``others`` it is this peer's own objections only that count."""
        failure = self._failed.get(entry.ref)
        if failure is not None:
            return left(entry, OF_REASON[failure.reason], failure.message, "own objection")
        if not sealed_for(self.view, entry, self.own_peer, self.spec.encoding.full_every):
            words = f"sealed at log size {entry.update.sealed_at}, or refers to what was, without a key of this peer"
            return left(entry, Outcome.NOT_SEALED, words, "sealed without a key of this peer")
        if entry.ref in self._objected_at_all:
            return (
                self._withdrawn(entry)
                or self._stale(entry)
                or self._own_objection(entry, lasting)
                or (self._objected(entry) if others else None)
            )
        return self._stale(entry)

    def _withdrawn(self, entry: UpdateEntry) -> Considered | None:
        for word in self.view.objections(entry.ref):
            if word.peer == entry.ref.peer and word.reason is Reason.WITHDRAWN:
                return left(entry, Outcome.WITHDRAWN, f"withdrawn by its publisher at entry {word.index}", "withdrawn")
        return None

    def _stale(self, entry: UpdateEntry) -> Considered | None:
        if entry.index >= self._stale_before:
            return None
        most = self.spec.merging.max_staleness
        since = self.view.updates_since(self.own_peer, entry.index)
        reason = f"{since} own updates since entry {entry.index}, at most {most} are allowed"
        return left(entry, Outcome.STALE, reason, f"more than {most} own updates since")

    def _own_objection(self, entry: UpdateEntry, lasting: bool) -> Considered | None:
        for word in self.prefix.objections(entry.ref):
            binds = lasting or word.reason is not Reason.UNAVAILABLE or word.index > self.round_began
            if word.peer == self.own_peer and binds:
                return left(entry, OF_REASON[word.reason], f"own objection at entry {word.index}", "own objection")
        return None

    def _objected(self, entry: UpdateEntry) -> Considered | None:
        sites = set()
        for word in self.view.objections(entry.ref):
            # "Malformed" and "digest mismatch" anybody can check on the bytes: others are never believed about that.
            if word.reason is not Reason.UNAVAILABLE or word.index <= self.round_began:
                continue
            if word.peer not in (self.own_peer, entry.ref.peer):
                sites.add(self.members.sites[word.peer])
        if len(sites) < self.spec.merging.objection_quorum:
            return None
        own_site = self.members.sites[entry.ref.peer]
        if any(self.words.peer(said.peer).site != own_site for said in self.words.attestations(entry.ref)):
            return None
        names = ", ".join(sorted(sites))
        reason = f"called unavailable by {len(sites)} sites, attested by nobody: {names}"
        return left(entry, Outcome.OBJECTED, reason, "called unavailable by a quorum of sites, attested by nobody")

    def few_samples(self, entry: UpdateEntry) -> Considered | None:
        least, got = self.spec.merging.min_samples, entry.update.train_samples
        if got >= least:
            return None
        words = f"at least {least} are asked for"
        return left(entry, Outcome.TOO_FEW_SAMPLES, f"{got} training samples, {words}", f"training samples: {words}")

    def unattested(self, entry: UpdateEntry) -> Considered | None:
        if not self.by_attestation or self.attested(entry) is not None:
            return None
        least = self.spec.merging.attesting_sites
        _, sites = attested_ppm(self.spec, self.words, entry)
        words = f"at least {least} are asked for"
        return left(entry, Outcome.UNATTESTED, f"attested by {sites} other sites, {words}", f"attesting sites: {words}")

    def excusable(self, entry: UpdateEntry) -> bool:
        """Whether this peer called the update unavailable in an earlier round."""
        if entry.ref not in self._objected_at_all:
            return False
        words = self.prefix.objections(entry.ref)
        return any(word.peer == self.own_peer and word.reason is Reason.UNAVAILABLE for word in words)

    # ---- those without an update to consider ----

    def absent(self, told: Iterable[int]) -> tuple[Alike, ...]:
        """Members that a policy said nothing of: retired ones that have published, and those not in the pool."""
        groups: dict[tuple[Outcome, str], list[int]] = {}
        known = set(told)
        for peer, index in self.members.retired:
            if peer not in known and self.view.sequence(peer):
                groups.setdefault((Outcome.RETIRED, f"retired at entry {index}"), []).append(peer)
        for peer in self.members.publishing:
            if peer not in known:
                groups.setdefault(self._absence(peer), []).append(peer)
        return tuple(Alike(tuple(peers), *words) for words, peers in groups.items())

    def _absence(self, peer: int) -> tuple[Outcome, str]:
        entry = self.view.trained(peer)
        if self.cut is None:
            return Outcome.NONE_YET, "has published nothing that was trained"
        if entry is not None and entry.round == self.cut.previous:
            early = f"made before round {entry.round} had begun, at log size {entry.update.seen}"
            return Outcome.OTHER_ROUND, early
        if peer in self.cut.missing:
            return Outcome.MISSING, f"no update of round {self.cut.previous} before the cut at entry {self.cut.size}"
        return Outcome.OTHER_ROUND, f"not in round {self.cut.previous}"


def left(entry: UpdateEntry, outcome: Outcome, reason: str, alike: str = "") -> Considered:
    """An update that is no candidate, and why."""
    return Considered(entry.ref.peer, entry, outcome, reason, alike)
