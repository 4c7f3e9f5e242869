"""When a peer may play: what it waits for, what it tells meanwhile, and what waiting may not last longer than."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from fl_node.assembly import check_membership
from fl_node.merging.attested import attested_prefix, attests_first
from fl_node.merging.outcomes import ranges
from fl_node.merging.sync import sync_prefix
from fl_node.merging.tokens import next_turn
from fl_node.peer import Moved, Peer, Stopped
from fl_node.prefix import UpdateEntry
from fl_node.progress import Event
from fl_node.round import Goal, attest_first

#: What a peer does at each look while it waits.
Meanwhile: TypeAlias = Callable[[], None]


def nothing() -> None:
    """A :data:`Meanwhile`."""


def await_readers(peer: Peer, poll_s: float, meanwhile: Meanwhile = nothing) -> None:
    """Before the first own update: give members that have announced no key yet the spec's time to do so. An update that
    is sealed without a member's key, that member can never read."""
    if peer.secrecy is None or peer.prefix.sequence(peer.number):
        return
    deadline = time.monotonic() + peer.spec.privacy.key_wait_s
    told = False
    with peer.watch.phase("wait"):
        while True:
            peer.sync()
            missing = [facts.number for facts in peer.prefix.peers() if facts.publishes and facts.announcement is None]
            if not missing or time.monotonic() >= deadline:
                return
            if not told:
                text = f"waiting for the keys of peers {ranges(missing)}, so that they can read the first update"
                peer.emit(Event("waiting", text, {"peers": missing}))
                told = True
            meanwhile()
            pause(peer, poll_s)


def await_turn(peer: Peer, goal: Goal, poll_s: float, meanwhile: Meanwhile = nothing) -> None:
    """Wait for what a round needs: the least interval between two own updates and, in sync mode, the previous round.
    Where the policy looks at attested scores: attest what this peer has to, and wait until the others have."""
    with peer.watch.phase("wait"):
        last = peer.prefix.latest(peer.number)
        interval_s = peer.ledger.identity.min_interval_s
        if last is not None and interval_s:
            # The entry has the chain's time: where its clock is ahead of this one, waiting must not take longer for it.
            sleep_until(peer, min(last.time_s, time.time()) + interval_s, meanwhile)
        told = False
        while peer.spec.rounds.mode == "sync":
            now_s = peer.chain_time_s()  # before the look at the chain: entries after it cannot be earlier
            peer.sync()
            check_membership(peer.prefix.peer(peer.number))
            cut = sync_prefix(peer.spec, peer.prefix, goal.round, now_s)
            if cut.size is not None:
                if cut.missing:
                    names = ", ".join(str(number) for number in cut.missing)
                    text = f"round {goal.round} goes on without peers {names}, who sent nothing in time"
                    peer.emit(Event("missing", text, {"round": goal.round, "peers": list(cut.missing)}))
                break
            if not told:
                waiting = f"round {goal.round} waits for the round before to be complete"
                peer.emit(Event("waiting", waiting, {"round": goal.round}))
                told = True
            meanwhile()
            pause(peer, poll_s)
    if peer.spec.rounds.mode == "sync" and attests_first(peer.spec):
        attest_first(peer, goal)
        with peer.watch.phase("wait"):
            await_attestations(peer, goal, poll_s, meanwhile)


def await_attestations(peer: Peer, goal: Goal, poll_s: float, meanwhile: Meanwhile = nothing) -> None:
    """Wait until all that are to attest for a synchronous round have done so, or the deadline has passed again."""
    told = False
    while True:
        now_s = peer.chain_time_s()  # before the look at the chain: entries after it cannot be earlier
        peer.sync()
        check_membership(peer.prefix.peer(peer.number))
        try:
            cut = attested_prefix(peer.spec, peer.prefix, goal.round, now_s)
        except ValueError as cause:
            raise Moved(f"round {goal.round} must wait again: {cause}") from cause
        names = ", ".join(str(number) for number in cut.waits_for)
        if cut.size is not None:
            if cut.waits_for:
                text = f"round {goal.round} goes on without the attestations of peers {names}"
                peer.emit(Event("missing", text, {"round": goal.round, "peers": list(cut.waits_for)}))
            return
        if not told:
            text = f"round {goal.round} waits for peers {names} to attest"
            peer.emit(Event("waiting", text, {"round": goal.round, "peers": list(cut.waits_for)}))
            told = True
        meanwhile()
        pause(peer, poll_s)


def await_token(peer: Peer, goal: Goal, poll_s: float, rounds: int = 0, meanwhile: Meanwhile = nothing) -> Goal:
    """Wait until the model that goes round is here, or its bearer has been silent for too long, or the rings are
    finished; what to make then.

    Raises:
        NotAMember: this peer was retired.
    """
    told: tuple[int, int | None] | None = None
    began: UpdateEntry | None = None
    with peer.watch.phase("wait"):
        while True:
            now_s = peer.chain_time_s()  # before the look at the chain: entries after it cannot be earlier
            peer.sync()
            check_membership(peer.prefix.peer(peer.number))
            # Nor can they be earlier than the last one that there is.
            turn = next_turn(peer.spec, peer.prefix, peer.number, max(now_s, peer.prefix.time_s), rounds)
            if turn.ready:
                silent = told[1] if told is not None and told[0] == turn.ring and not turn.final else None
                if silent is not None and peer.prefix.latest(silent) == began:
                    text = f"peer {silent} passed nothing on in ring {turn.ring}; going on without it"
                    peer.emit(Event("skipped", text, {"ring": turn.ring, "peer": silent}))
                return Goal(goal.sequence, turn.round, turn.final)
            if told != (turn.ring, turn.waits_for):
                told = turn.ring, turn.waits_for
                began = peer.prefix.latest(turn.waits_for) if turn.waits_for else None
                whom = f"peer {turn.waits_for}" if turn.waits_for else "the end"
                text = f"lap {turn.lap} of ring {turn.ring} waits for {whom}"
                detail = {"round": goal.round, "ring": turn.ring, "lap": turn.lap, "peer": turn.waits_for}
                peer.emit(Event("waiting", text, detail))
            meanwhile()
            pause(peer, poll_s)


def pause(peer: Peer, seconds: float) -> None:
    """Wait a little.

    Raises:
        Stopped: somebody asked this peer to stop.
    """
    if peer.stop.wait(seconds):
        raise Stopped


def sleep_until(peer: Peer, time_s: float, meanwhile: Meanwhile = nothing) -> None:
    """Wait until this machine's clock says so."""
    while (left := time_s - time.time()) > 0:
        meanwhile()
        pause(peer, min(left, 1.0))
