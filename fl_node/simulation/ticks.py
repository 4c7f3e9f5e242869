"""Ticks: in each, every peer whose turn it is plays one round of the node's own code, all looking at the same log.

follow the log -> goals -> merge -> train (many at once, where that is faster) -> evaluate and publish -> record
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fl_node.errors import FlNodeError
from fl_node.journal import Draft
from fl_node.learning.metrics import Evaluation
from fl_node.merging.attested import attested_prefix, attests_first
from fl_node.merging.sync import sync_prefix
from fl_node.merging.tokens import next_turn
from fl_node.merging.weights import Tensors
from fl_node.node import next_goal
from fl_node.peer import Moved
from fl_node.progress import Event
from fl_node.round import Goal, attest_first, attest_merged, evaluate, merge, record, train
from fl_node.simulation.batches import Batcher
from fl_node.simulation.federation import World
from fl_node.simulation.memory import SimulatedPeer
from fl_node.simulation.rows import Row
from fl_node.training_step import trains_in

#: Seconds of the simulation's clock that a round of a peer takes.
TICK_S = 1.0
#: So many of the spec's longest waits may pass without anybody acting.
_MOST_WAITS = 20


@dataclass(slots=True)
class Part:
    """One peer's part in a tick, step by step. ``seconds`` is wall time."""

    peer: SimulatedPeer
    goal: Goal
    draft: Draft | None = None
    base: Tensors | None = None
    common: Evaluation | None = None
    seconds: float = 0.0

    @property
    def number(self) -> int:
        return self.peer.number


@dataclass(slots=True)
class Ticks:
    """The run of one federation, tick by tick.

    Args:
        every: score every round's merged model on the common test set, not the final ones only.
    """

    world: World
    batcher: Batcher
    every: bool = False
    tick: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    _closed: set[int] = field(default_factory=set)
    _skipped: dict[int, int] = field(default_factory=dict)
    _busy_until: dict[int, float] = field(default_factory=dict)
    _bytes: dict[int, tuple[int, int]] = field(default_factory=dict)
    _idle_s: float = 0.0

    def run(self) -> Iterator[list[Row]]:
        """Tick after tick until every peer has closed, left or failed; the rows of each, in the order of the ledger.

        Raises:
            FlNodeError: nobody can act any more, though some have not closed.
        """
        world = self.world
        waiting = dict(world.cast.joins)
        if world.cast.slow:
            first = world.clock() + (world.cast.straggle - 1) * TICK_S
            self._busy_until = dict.fromkeys(world.cast.slow, first)
        while True:
            world.follow()
            for number in [n for n, at in waiting.items() if world.prefix.highest_round >= at]:
                del waiting[number]
                world.admit(number)
            if not self._open() and not waiting:
                return
            parts = self._parts()
            rows = self._play(parts) if parts else []
            if not rows:
                self._wait()
                continue
            self.tick += 1
            self._idle_s = 0.0
            world.clock.advance(TICK_S)
            world.follow()
            world.tidy()
            yield rows

    def _open(self) -> list[int]:
        """Who is still in play."""
        return [n for n in self.world.peers if n not in self._closed and n not in self.failures]

    def _wait(self) -> None:
        """Nobody records anything: let time pass, more and more of it, but not past the end of a straggler's round."""
        world, rounds = self.world, self.world.federation.spec.rounds
        step = max(TICK_S, self._idle_s)
        ends = [at - world.clock() for at in self._busy_until.values() if at > world.clock()]
        began = world.clock()
        world.clock.advance(min([step, *ends]))
        self._idle_s += world.clock() - began
        longest = max(rounds.deadline_s, rounds.min_interval_s, world.federation.spec.merging.silent_s, TICK_S)
        if self._idle_s > _MOST_WAITS * longest:
            raise FlNodeError(
                f"peers {self._open()} wait for ever: nobody acted for {self._idle_s:.0f} s of the simulation's clock; "
                "expected somebody to act within the spec's deadlines: fewer faults, or a smaller rounds.deadline_s"
            )

    # ---- who acts ------------------------------------------------------------------------------------------------

    def _parts(self) -> list[Part]:
        found = []
        for number in self._open():
            goal = self._goal(number)
            if goal is not None:
                found.append(Part(self.world.peers[number], goal))
        return found

    def _goal(self, number: int) -> Goal | None:
        """What a peer makes in this tick; ``None``: nothing."""
        world, cast = self.world, self.world.cast
        if self._busy_until.get(number, 0.0) > world.clock():
            return None
        peer = world.peers[number]
        goal = next_goal(peer)
        if goal is None:
            self._closed.add(number)
            return None
        if number in cast.leaves and goal.round > cast.leaves[number]:
            world.retire(number)
            return None
        now = self._its_turn(peer, goal)
        return None if now is None else self._not_missed(number, now)

    def _not_missed(self, number: int, goal: Goal) -> Goal | None:
        """The goal, unless the peer sits this round out. Where nobody waits, the next one is then that of the round
        after; where they do, it comes back when the others have gone on, or when nobody moved for a deadline."""
        rounds = self.world.federation.spec.rounds
        skipped = self._skipped.get(number, 0)
        if self._idle_s > 2 * rounds.deadline_s:
            return goal
        intended = goal.round + skipped
        if not goal.final and intended <= rounds.planned and self.world.cast.misses(number, intended):
            if rounds.mode != "sync" and self.world.federation.spec.merging.selection != "ring":
                self._skipped[number] = skipped + 1
            return None
        if not skipped:
            return goal
        del self._skipped[number]
        reached = min(intended, self.world.prefix.highest_round + 1)
        return Goal(goal.sequence, max(goal.round, reached), goal.final or reached > rounds.planned)

    def _its_turn(self, peer: SimulatedPeer, goal: Goal) -> Goal | None:
        """The goal, if a peer that waits as the spec says may act now; in a ring, that of its turn."""
        spec, prefix, now_s = peer.spec, peer.prefix, peer.chain_time_s()
        last = prefix.latest(peer.number)
        if last is not None and now_s < last.time_s + peer.ledger.identity.min_interval_s:
            return None
        if spec.merging.selection == "ring" and not goal.final:
            turn = next_turn(spec, prefix, peer.number, max(now_s, prefix.time_s))
            return Goal(goal.sequence, turn.round, turn.final) if turn.ready else None
        waits = spec.rounds.mode == "sync" and sync_prefix(spec, prefix, goal.round, now_s).size is None
        return None if waits else goal

    # ---- a tick ----------------------------------------------------------------------------------------------------

    def _play(self, parts: Sequence[Part]) -> list[Row]:
        spec = self.world.federation.spec
        if attests_first(spec):
            parts = self._each(parts, self._attest_first)
            self.world.follow()
            parts = [part for part in parts if self._attested(part)]
        parts = self._each(parts, self._merge)
        if spec.attestation.mode != "none":
            parts = self._each(parts, self._attest_merged)
        share = self._train_ahead(parts) / max(1, len(parts))
        parts = self._each(parts, self._train)
        parts = self._each(parts, self._evaluate)
        self._judge([part for part in parts if self.every or part.goal.final])
        # Who is first on the ledger is chance, the same for the same seed.
        order = np.random.Generator(np.random.PCG64([self.world.cast.seed, self.tick])).permutation(len(parts))
        rows = []
        for part in self._each([parts[place] for place in order], self._record):
            part.seconds += share
            rows.append(self._row(part))
        return rows

    def _each(self, parts: Sequence[Part], step: Callable[[Part], None]) -> list[Part]:
        """One step of all parts; a peer that cannot go on is out, as a real one would be, and stops nobody."""
        done = []
        for part in parts:
            began = time.perf_counter()
            try:
                step(part)
            except Moved:
                continue
            except FlNodeError as error:
                self.failures[part.number] = str(error)
                self.world.events.append((part.number, Event("stopped", str(error), {})))
                continue
            part.seconds += time.perf_counter() - began
            done.append(part)
        return done

    def _attest_first(self, part: Part) -> None:
        attest_first(part.peer, part.goal)

    def _attest_merged(self, part: Part) -> None:
        assert part.draft is not None
        attest_merged(part.peer, part.draft)

    def _attested(self, part: Part) -> bool:
        """Whether all attestations that the round waits for are there."""
        spec, peer = part.peer.spec, part.peer
        if spec.rounds.mode != "sync":
            return True
        return attested_prefix(spec, peer.prefix, part.goal.round, peer.chain_time_s()).size is not None

    def _train_ahead(self, parts: Sequence[Part]) -> float:
        """Train all of them at once, where that is done; wall seconds."""
        began = time.perf_counter()
        jobs = {}
        for part in parts:
            assert part.base is not None
            if not part.goal.final and trains_in(part.peer.spec, part.goal.round):
                jobs[part.number] = (part.peer.whole(part.base, part.goal.sequence - 1), part.goal.sequence)
        self.batcher.train_ahead(jobs, self.world.trainers)
        return time.perf_counter() - began

    def _merge(self, part: Part) -> None:
        part.draft, part.base = merge(part.peer, part.goal, None)

    def _train(self, part: Part) -> None:
        assert part.draft is not None and part.base is not None
        part.draft = train(part.peer, part.draft, part.base)

    def _evaluate(self, part: Part) -> None:
        assert part.draft is not None
        part.draft = evaluate(part.peer, part.draft)

    def _judge(self, parts: Sequence[Part]) -> None:
        """Score merged models on the common test set: no part of a round, and nobody's claim."""
        models = {}
        for part in parts:
            assert part.base is not None
            models[part.number] = part.peer.whole(part.base, part.goal.sequence - 1)
        if models:
            found = self.batcher.scores(models, self.world.dealt.common, self.world.trainers)
            for part in parts:
                part.common = found[part.number]

    def _record(self, part: Part) -> None:
        assert part.draft is not None
        record(part.peer, part.draft)
        part.peer.journal.finish()
        if part.number in self.world.cast.slow:
            self._busy_until[part.number] = self.world.clock() + self.world.cast.straggle * TICK_S

    def _row(self, part: Part) -> Row:
        draft, world = part.draft, self.world
        own = world.trainers[part.number].found
        assert draft is not None and own is not None
        loss = draft.training["loss"] if draft.training else None
        fetched_before, published_before = self._bytes.get(part.number, (0, 0))
        fetched, published = self._bytes[part.number] = (
            world.fetched_bytes(part.number),
            part.peer.published_bytes,
        )
        return Row(
            peers=len(world.dealt.splits),
            seed=world.cast.seed,
            peer=part.number,
            tick=self.tick,
            round=draft.round,
            final=draft.final,
            honest=part.number not in world.cast.malicious,
            score_ppm=draft.score_ppm,
            base_score_ppm=draft.base_score_ppm,
            shares={parent.peer: parent.share_ppm for parent in draft.parents if parent.share_ppm},
            own=own,
            common=part.common,
            train_loss=loss if loss is None or math.isfinite(loss) else None,
            train_samples=draft.train_samples,
            fetched_bytes=fetched - fetched_before,
            published_bytes=published - published_before,
            seconds=part.seconds,
        )
