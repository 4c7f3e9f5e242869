"""A peer's life: take part round after round, ride out what passes, close, and go on serving until all are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fl_node.assembly import assembled, check_membership
from fl_node.config import NodeConfig
from fl_node.errors import (
    ChainUnavailable,
    ContentError,
    EntryRejected,
    MalformedWeights,
    SpecError,
    StoreUnreachable,
    Unreadable,
)
from fl_node.key_keeping import remember_superseded, tend
from fl_node.lost_keys import lost_key
from fl_node.merging.fit import check_fit
from fl_node.merging.outcomes import ranges
from fl_node.merging.sync import pace
from fl_node.pacing import common_round
from fl_node.peer import Moved, Peer, Stopped
from fl_node.prefix import UpdateEntry
from fl_node.progress import Emit, Ended, Event, OneAtATime
from fl_node.records import ZERO32, Flag, Update, UpdateRef
from fl_node.retention import collect, oldest_kept
from fl_node.round import Goal, play_round
from fl_node.sealing.age import recipient_text
from fl_node.supply import obtain, tensors_of
from fl_node.turns import Meanwhile, await_readers, await_token, await_turn, nothing, pause

P = ParamSpec("P")
T = TypeVar("T")
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0
#: Without a block for so long, a peer that waits for some says so.
NO_BLOCK_S = 30.0
#: Refusals that a chain which moved between looking and writing explains; another look may find another way.
_MOVED = frozenset(
    {
        "SequenceNotNext",
        "RoundOutOfRange",
        "SeenOutOfRange",
        "UnknownUpdate",
        "TagMismatch",
        "TooSoon",
        "EpochNotNext",
    }
)
_MOST_SETBACKS = 5


def run(config: NodeConfig, emit: Emit, stop: threading.Event, password: str | None = None) -> Ended:
    """Take part until the rounds are done or ``stop`` is set. Goes on where an earlier run left off.

    Raises:
        FlNodeError: what keeps this peer from going on. What was finished is on the ledger or in the journal.
    """
    with OneAtATime(emit) as emit, assembled(config, emit, stop, password) as (peer, gateway):
        warn_of_misfits(peer)
        try:
            take_part(peer, config.endpoint or gateway.endpoint, config, lambda: gateway.tls_pin)
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
            sent_bytes=peer.meter.sent_bytes if peer.meter else 0,
            received_bytes=peer.meter.received_bytes if peer.meter else 0,
        )


def warn_of_misfits(peer: Peer) -> None:
    """Tell where the spec's policies do not fit the members as they are now. That stops nobody: members may yet be
    admitted, and rules fall back to what the number of candidates allows."""
    members = [facts.number for facts in peer.prefix.peers() if facts.publishes]
    try:
        warnings = check_fit(peer.spec, members)
    except SpecError as error:
        warnings = (str(error),)
    for text in warnings:
        peer.emit(Event("misfit", text, {"members": len(members)}))


def take_part(peer: Peer, endpoint: str, config: NodeConfig, tls_pin: Callable[[], bytes] = lambda: ZERO32) -> None:
    """Round after round, then the closing update, then serving the others. ``tls_pin``: of the gateway now; it changes
    when its certificate is replaced by one with another key, and is announced anew then.

    Raises:
        Stopped: somebody asked to, and the step under way is finished.
        FlNodeError: as :func:`run`.
    """
    patience = _Patience(config.retry_s, peer.stop, peer.emit)
    poll_s = config.poll_s
    patience.through(catch_up, peer, poll_s)
    setbacks = 0

    def meanwhile() -> None:
        """While this peer waits for others: the fresh key that somebody asked for."""
        if peer.secrecy is not None and peer.secrecy.keys.rotation_requested():
            keep_keys(peer)
            announce(peer, endpoint, poll_s, tls_pin())

    while True:
        try:
            patience.through(keep_keys, peer)
            patience.through(announce, peer, endpoint, poll_s, tls_pin())
            goal = patience.through(next_goal, peer, config.rounds)
            if goal is None:
                if patience.through(linger, peer, poll_s, config.rounds, meanwhile):
                    return
                continue
            if peer.spec.merging.selection == "ring" and not goal.final:
                goal = patience.through(await_token, peer, goal, poll_s, config.rounds, meanwhile)
            patience.through(await_readers, peer, poll_s, meanwhile)
            patience.through(await_turn, peer, goal, poll_s, meanwhile)
            update = patience.through(play_round, peer, goal)
            peer.emit(_recorded_event(peer, update))
            patience.through(settle, peer, update.sequence, poll_s)
            if not config.archive:
                tidy(peer)
            setbacks = 0
        except (Moved, EntryRejected) as error:
            setbacks += 1
            if isinstance(error, EntryRejected) and (error.name not in _MOVED or setbacks >= _MOST_SETBACKS):
                raise
            peer.emit(Event("moved", f"the chain moved under this round, looking again: {error}", {}))
            pause(peer, max(_too_soon_s(error), min(poll_s * 2 ** min(setbacks, 10), _LONGEST_PAUSE_S)))


def _too_soon_s(error: Exception) -> float:
    """Seconds by which the chain's clock is short of the least interval between two updates, if that was refused."""
    if not isinstance(error, EntryRejected) or error.name != "TooSoon":
        return 0.0
    got, expected = error.arguments.get("got"), error.arguments.get("expected")
    return float(expected - got) if isinstance(got, int) and isinstance(expected, int) else 0.0


def catch_up(peer: Peer, poll_s: float) -> None:
    """Wait until the log as seen has all that the contract has of this peer. It lags where the spec asks for depth, or
    where an endpoint is behind; acting on it then would do the same twice."""
    told, idle, tip, since = False, False, -1, time.monotonic()
    while True:
        peer.sync()
        state = peer.ledger.peer(peer.number)
        announcement = peer.prefix.peer(peer.number).announcement
        epoch = announcement.epoch if announcement else 0
        if peer.prefix.sequence(peer.number) >= state.sequence and epoch >= state.epoch:
            return
        if not told:
            text = f"waiting until this peer's own entries are {peer.spec.rounds.depth} blocks deep"
            peer.emit(Event("waiting", text, {"depth": peer.spec.rounds.depth}))
            told = True
        if not idle and peer.spec.rounds.depth:
            now, block = time.monotonic(), peer.ledger.head(fresh=True).block_number
            if block != tip:
                tip, since = block, now
            elif now - since >= NO_BLOCK_S:
                text = f"still waiting: no block came after {tip} in {NO_BLOCK_S:g} s; a chain for development makes "
                text += "one only with a transaction unless told otherwise (`anvil --block-time 1`)"
                peer.emit(Event("waiting", text, {"depth": peer.spec.rounds.depth, "block": tip}))
                idle = True
        pause(peer, poll_s)


def settle(peer: Peer, sequence: int, poll_s: float) -> None:
    """Wait until the log as seen has this peer's update, unless the chain dropped it."""
    peer.sync()
    if peer.prefix.sequence(peer.number) < sequence:
        with peer.watch.phase("wait"):
            catch_up(peer, poll_s)


def tidy(peer: Peer) -> None:
    """Delete content beyond the spec's retention. That it could not be done is told, and stops nothing."""
    with peer.watch.phase("tidy"):
        try:
            gone = collect(peer.spec, peer.prefix, peer.store)
        except ContentError as error:
            peer.emit(Event("untidy", f"could not delete old content: {error}", {}))
            return
    if gone.cids:
        text = f"deleted {len(gone.cids)} files of rounds before {oldest_kept(peer.spec, peer.prefix)}"
        peer.emit(Event("tidied", text, {"files": len(gone.cids), "freed_bytes": gone.freed_bytes}))


def keep_keys(peer: Peer) -> None:
    """Make a fresh key where one is due or lost, and destroy what is past its overlap; :func:`announce` tells the
    ledger."""
    if peer.secrecy is None:
        return
    peer.sync()
    with peer.watch.phase("keys"):
        lost = lost_key(peer.secrecy, peer.prefix, peer.number, oldest_kept(peer.spec, peer.prefix))
        if lost is not None:
            peer.emit(Event("key-lost", lost.told(), {"key": lost.public.hex(), "updates": len(lost.updates)}))
        done = tend(
            peer.secrecy,
            peer.spec,
            peer.prefix,
            peer.number,
            peer.store,
            oldest_round=oldest_kept(peer.spec, peer.prefix),
            fetch=lambda entry: obtain(peer, entry).data,
        )
    if done.made:
        peer.emit(Event("key-made", f"made a fresh key, {recipient_text(done.made)}", {"key": done.made.hex()}))
    for key in done.destroyed:
        text = f"destroyed the old key {recipient_text(key)}; {done.kept} updates that it opened went into the vault"
        peer.emit(Event("key-destroyed", text, {"key": key.hex(), "vault": done.kept}))


def announce(peer: Peer, endpoint: str, poll_s: float, tls_pin: bytes = ZERO32) -> None:
    """Say on the ledger where this peer's content is served, and which key others encrypt for, unless it says so
    already. With a key, wait until the log as seen has it: what this peer seals without, it could not read itself."""
    key = ZERO32
    if peer.secrecy is not None:
        remember_superseded(peer.secrecy.keys, peer.prefix, peer.number)
        key = peer.secrecy.recipient(common_round(peer.prefix), peer.prefix.size)
    wanted = key, tls_pin, endpoint
    if _announced(peer) == wanted:
        return
    catch_up(peer, poll_s)
    if _announced(peer) == wanted:
        return
    announcement = peer.prefix.peer(peer.number).announcement
    with peer.watch.phase("record"):
        peer.ledger.announce(announcement.epoch + 1 if announcement else 1, key, tls_pin, endpoint)
    if peer.secrecy is not None:
        catch_up(peer, poll_s)


def _announced(peer: Peer) -> tuple[bytes, bytes, str] | None:
    said = peer.prefix.peer(peer.number).announcement
    return (said.recipient_key, said.tls_pin, said.endpoint) if said else None


def next_goal(peer: Peer, rounds: int = 0) -> Goal | None:
    """What to make next; ``None`` once the closing update is on the ledger.

    A member that was admitted while the federation was under way starts at the round it found. In sync mode a peer
    that fell behind goes on at the highest round that has begun: nobody would merge what it made for an earlier one.

    Raises:
        NotAMember: this peer was retired.
    """
    peer.sync()
    check_membership(peer.prefix.peer(peer.number))
    planned = rounds or peer.spec.rounds.planned
    prefix = peer.prefix
    last = prefix.latest(peer.number)
    own_round = last.round if last else 0
    if last is not None and last.final and own_round > planned:
        return None
    if last is not None and last.final and not rounds:
        return None
    earliest = own_round + 1
    if last is None:
        earliest = max(1, min(prefix.peer(peer.number).round_at_admission, common_round(prefix)))
    if peer.spec.rounds.mode == "sync":
        # Not the highest round on the ledger: one member can raise that by publishing rounds that have not begun.
        earliest = max(own_round + 1, pace(peer.spec, prefix))
    # In a ring, rounds are laps, and it is the ring that is finished: see await_token.
    done = earliest > planned and peer.spec.merging.selection != "ring"
    final = done or (last is not None and not last.final and reached_target(peer, last))
    return Goal(prefix.sequence(peer.number) + 1, earliest, final)


def reached_target(peer: Peer, last: UpdateEntry) -> bool:
    """Whether the last own model is good enough by the spec, on the validation split: the test split makes claims and
    steers nothing. A model that cannot be had any more is not."""
    target = peer.spec.training.target_score
    if not target:
        return False
    try:
        tensors = tensors_of(peer, last)
    except (ContentError, MalformedWeights, Unreadable) as error:
        peer.emit(Event("lost", f"cannot tell whether {last.ref} reached the target score: {error}", {}))
        return False
    found = peer.trainer.validate(peer.whole(tensors, last.ref.sequence))
    return found is not None and found.score_ppm >= round(target * 1_000_000)


def linger(peer: Peer, poll_s: float, rounds: int = 0, meanwhile: Meanwhile = nothing) -> bool:
    """Serve the others until every active peer has closed, or ``linger_s`` has passed since this peer closed.

    Returns False at once if the chain drops the closing update: there is something to do again.
    """
    deadline = time.monotonic() + peer.spec.rounds.linger_s
    with peer.watch.phase("linger"):
        while True:
            last = peer.prefix.latest(peer.number)
            if last is None or not last.final:
                return False
            if time.monotonic() >= deadline or not open_peers(peer, rounds):
                return True
            pause(peer, poll_s)
            try:
                meanwhile()
                peer.sync()
            except ChainUnavailable:
                continue  # nothing is left to write: go on serving


def open_peers(peer: Peer, rounds: int = 0) -> tuple[int, ...]:
    """Active peers that have not closed. Where this peer goes on past the plan, to round ``rounds``, those that closed
    before it may go on as well."""
    prefix = peer.prefix
    latest = {facts.number: prefix.latest(facts.number) for facts in prefix.peers() if facts.publishes}
    return tuple(
        number for number, entry in latest.items() if entry is None or not entry.final or entry.round <= rounds
    )


def _recorded_event(peer: Peer, update: Update) -> Event:
    ref = UpdateRef(peer.number, update.sequence)
    draft = peer.journal.last()
    parents = draft.parents if draft else ()
    merged = [parent.peer for parent in parents if parent.share_ppm]
    final = bool(update.flags & Flag.FINAL)
    what = "closing model" if final else f"round {update.round}"
    whom = "the genesis" if not merged else f"peers {ranges(merged)}" if len(merged) > 1 else f"peer {merged[0]}"
    text = (
        f"{what}: merged {whom}, score {update.base_score_ppm / 10_000:.2f} % merged, "
        f"{update.score_ppm / 10_000:.2f} % published"
    )
    return Event(
        "recorded",
        text,
        {
            "update": str(ref),
            "round": update.round,
            "final": final,
            "merged": len(merged),
            "parents": [[parent.peer, parent.share_ppm] for parent in parents],
            "score_ppm": update.score_ppm,
            "base_score_ppm": update.base_score_ppm,
            "bytes": peer.fetched_bytes,
        },
    )


class _Patience:
    """Tries again, with growing pauses, while the chain or the own store does not answer: ``retry_s`` at a stretch."""

    def __init__(self, retry_s: float, stop: threading.Event, emit: Emit) -> None:
        self._retry_s = retry_s
        self._stop = stop
        self._emit = emit

    def through(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        pause = _FIRST_PAUSE_S
        began: float | None = None
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return work(*args, **kwargs)
            except (ChainUnavailable, StoreUnreachable) as error:
                now = time.monotonic()
                if began is None:
                    began = now
                    kind = "waiting-for-chain" if isinstance(error, ChainUnavailable) else "waiting-for-store"
                    self._emit(Event(kind, f"trying again: {error}", {}))
                if now - began > self._retry_s:
                    raise
                if self._stop.wait(pause):
                    raise Stopped from error
                pause = min(2 * pause, _LONGEST_PAUSE_S)
