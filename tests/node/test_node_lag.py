"""An update's `seen` stays within the spec's `rounds.max_lag`, however much others write during a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from twins import Twins, small_spec

from fl_node.ledger.memory import memory_account
from fl_node.node import next_goal
from fl_node.peer import Moved
from fl_node.round import play_round

MOST = 10


def meanwhile(twins: Twins, write: object) -> None:
    """Have others write while peer 1 trains the first time."""
    train = twins.trainers[1].train

    def busy(start: object, sequence: int) -> object:
        twins.trainers[1].train = train  # type: ignore[method-assign]
        write()  # type: ignore[operator]
        return train(start, sequence)

    twins.trainers[1].train = busy  # type: ignore[method-assign]


def test_what_was_trained_stands_where_the_same_parents_are_chosen(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2, "max_lag": MOST}), size=2)
    other = twins.chain.ledger(memory_account(2))

    def talk() -> None:
        for epoch in range(1, MOST + 5):
            other.announce(epoch, bytes(32), bytes(32), "memory://2")

    meanwhile(twins, talk)
    peer = twins.peer(1)
    goal = next_goal(peer)
    assert goal is not None
    update = play_round(peer, goal)
    assert twins.trainers[1].trained == [1]
    entry = peer.ledger.update(peer.prefix.updates(1)[0].ref) if peer.sync() else None
    assert entry is not None and entry.index - update.seen <= MOST // 2
    assert len(twins.replay().check()) == 1


def test_the_round_is_played_again_where_others_would_be_chosen(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 20, "max_lag": MOST}), size=2)
    for number in (1, 2):
        twins.chain.ledger(memory_account(number)).announce(1, bytes(32), bytes(32), f"memory://{number}")
    first = twins.peer(1)
    goal = next_goal(first)
    assert goal is not None
    play_round(first, goal)

    def overtake() -> None:
        other = twins.peer(2)
        for _ in range(MOST):
            theirs = next_goal(other)
            assert theirs is not None
            play_round(other, theirs)

    meanwhile(twins, overtake)
    goal = next_goal(first)
    assert goal is not None
    with pytest.raises(Moved, match="max_lag"):
        play_round(first, goal)
    goal = next_goal(first)
    assert goal is not None
    update = play_round(first, goal)
    assert twins.trainers[1].trained == [1, 2, 2]
    (found,) = [entry for entry in twins.replay().check([1]) if entry.ref.sequence == 2]
    assert found.index - update.seen <= MOST // 2 and {parent.peer for parent in found.parents} == {1, 2}
