"""A peer's life: take part round after round, ride out what passes, close, and go on serving until all are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fl_node.assembly import assembled
from fl_node.config import NodeConfig
from fl_node.content.gateway import Gateway
from fl_node.errors import ChainUnavailable
from fl_node.merging.sync import sync_prefix
from fl_node.peer import Peer, Stopped
from fl_node.progress import Emit, Ended, Event
from fl_node.records import Flag, Update, UpdateRef
from fl_node.round import Goal, play_round
from fl_node.supply import cid_of_update, stored_weights

T = TypeVar("T")
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0
_NO_KEYS = bytes(32)


def run(config: NodeConfig, emit: Emit, stop: threading.Event, password: str | None = None) -> Ended:
    """Take part until the rounds are done or ``stop`` is set. Goes on where an earlier run left off.

    Raises:
        FlNodeError: what keeps this peer from going on. What was finished is on the ledger or in the journal.
    """
    with assembled(config, emit, stop, password) as (peer, gateway):
        patience = _Patience(config.retry_s, stop, emit)
        try:
            patience.through(lambda: announce(peer, config.endpoint or gateway.endpoint))
            while (goal := patience.through(lambda: next_goal(peer, config.rounds))) is not None:
                patience.through(lambda: await_turn(peer, goal, config.poll_s))
                update = patience.through(lambda: play_round(peer, goal))
                emit(_recorded_event(peer, update))
            linger(peer, gateway, config.poll_s)
        except Stopped:
            emit(Event("stopped", "stopped as asked; the next start goes on from here", {}))
        last = peer.prefix.latest(peer.number)
        return Ended(
            peer=peer.number,
            sequence=peer.prefix.sequence(peer.number),
            round=last.round if last else 0,
            closed=bool(last and last.final),
            seconds=dict(peer.watch.seconds),
            published_bytes=peer.published_bytes,
            fetched_bytes=peer.fetched_bytes,
        )


def announce(peer: Peer, endpoint: str) -> None:
    """Say on the ledger where this peer's content is served, unless it says so already."""
    peer.sync()
    facts = peer.prefix.peer(peer.number)
    if facts.announcement is not None and facts.announcement.endpoint == endpoint:
        return
    epoch = facts.announcement.epoch + 1 if facts.announcement else 1
    with peer.watch.phase("record"):
        peer.ledger.announce(epoch, _NO_KEYS, _NO_KEYS, endpoint)


def next_goal(peer: Peer, rounds: int = 0) -> Goal | None:
    """What to make next; ``None`` once the closing update is on the ledger.

    A member that was admitted while the federation was under way starts at the round it found. In sync mode a peer
    that fell behind goes on at the highest round: nobody would merge what it made for an earlier one.
    """
    peer.sync()
    planned = rounds or peer.spec.rounds.planned
    prefix = peer.prefix
    last = prefix.latest(peer.number)
    own_round = last.round if last else 0
    if last is not None and last.final and own_round > planned:
        return None
    if last is not None and last.final and not rounds:
        return None
    earliest = max(1, prefix.peer(peer.number).round_at_admission) if last is None else own_round + 1
    if peer.spec.rounds.mode == "sync":
        earliest = max(earliest, prefix.highest_round)
    final = earliest > planned or (last is not None and not last.final and reached_target(peer, last.update))
    return Goal(prefix.sequence(peer.number) + 1, earliest, final)


def reached_target(peer: Peer, update: Update) -> bool:
    """Whether the last own model is good enough by the spec, on the validation split: the test split makes claims and
    steers nothing."""
    target = peer.spec.training.target_score
    if not target:
        return False
    found = peer.trainer.validate(stored_weights(peer, cid_of_update(update)))
    return found is not None and found.score_ppm >= round(target * 1_000_000)


def await_turn(peer: Peer, goal: Goal, poll_s: float) -> None:
    """Wait for what a round needs: the least interval between two own updates and, in sync mode, the previous round."""
    with peer.watch.phase("wait"):
        last = peer.prefix.latest(peer.number)
        if last is not None:
            _sleep_until(peer, last.time_s + peer.ledger.identity.min_interval_s)
            while peer.index.size <= last.index:  # the contract wants one's previous update among the seen
                _pause(peer, poll_s)
                peer.sync()
        told = False
        while peer.spec.rounds.mode == "sync":
            now_s = peer.chain_time_s()  # before the look at the chain: entries after it cannot be earlier
            peer.sync()
            cut = sync_prefix(peer.spec, peer.prefix, goal.round, now_s)
            if cut.size is not None:
                if cut.missing:
                    names = ", ".join(str(number) for number in cut.missing)
                    text = f"round {goal.round} goes on without peers {names}, who sent nothing in time"
                    peer.emit(Event("missing", text, {"round": goal.round, "peers": list(cut.missing)}))
                return
            if not told:
                waiting = f"round {goal.round} waits for the round before to be complete"
                peer.emit(Event("waiting", waiting, {"round": goal.round}))
                told = True
            _pause(peer, poll_s)


def linger(peer: Peer, gateway: Gateway, poll_s: float) -> None:
    """Serve the others until every active peer has closed, or ``linger_s`` has passed since this peer closed."""
    last = peer.prefix.latest(peer.number)
    if last is None:
        return
    deadline = time.monotonic() + peer.spec.rounds.linger_s
    with peer.watch.phase("linger"):
        while time.monotonic() < deadline:
            if not open_peers(peer):
                return
            _pause(peer, poll_s)
            try:
                peer.sync()
            except ChainUnavailable:
                continue  # nothing is left to write: go on serving


def open_peers(peer: Peer) -> tuple[int, ...]:
    """Active peers that have not closed."""
    prefix = peer.prefix
    latest = {facts.number: prefix.latest(facts.number) for facts in prefix.peers() if facts.publishes}
    return tuple(number for number, entry in latest.items() if entry is None or not entry.final)


def _recorded_event(peer: Peer, update: Update) -> Event:
    ref = UpdateRef(peer.number, update.sequence)
    draft = peer.journal.last()
    merged = sum(1 for parent in draft.parents if parent.share_ppm) if draft else 0
    final = bool(update.flags & Flag.FINAL)
    what = "closing model" if final else f"round {update.round}"
    text = (
        f"{what}: merged {merged}, score {update.base_score_ppm / 10_000:.2f} % merged, "
        f"{update.score_ppm / 10_000:.2f} % published"
    )
    return Event(
        "recorded",
        text,
        {
            "update": str(ref),
            "round": update.round,
            "final": final,
            "merged": merged,
            "score_ppm": update.score_ppm,
            "base_score_ppm": update.base_score_ppm,
            "bytes": peer.fetched_bytes,
        },
    )


def _pause(peer: Peer, seconds: float) -> None:
    if peer.stop.wait(seconds):
        raise Stopped


def _sleep_until(peer: Peer, time_s: float) -> None:
    while (left := time_s - time.time()) > 0:
        _pause(peer, min(left, 1.0))


class _Patience:
    """Tries again while the chain does not answer, with growing pauses, for ``retry_s`` seconds at a stretch."""

    def __init__(self, retry_s: float, stop: threading.Event, emit: Emit) -> None:
        self._retry_s = retry_s
        self._stop = stop
        self._emit = emit

    def through(self, work: Callable[[], T]) -> T:
        pause = _FIRST_PAUSE_S
        began: float | None = None
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return work()
            except ChainUnavailable as error:
                now = time.monotonic()
                if began is None:
                    began = now
                    self._emit(Event("waiting-for-chain", f"the chain does not answer, trying again: {error}", {}))
                if now - began > self._retry_s:
                    raise
                if self._stop.wait(pause):
                    raise Stopped from error
                pause = min(2 * pause, _LONGEST_PAUSE_S)
