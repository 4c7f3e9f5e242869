"""A federation in one process, on the in-memory ledger and stores; everything on the ledger is replayed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from twins import Twins, mining, small_spec

from fl_node import node
from fl_node.config import NodeConfig
from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.content.protocol import ContentStore
from fl_node.errors import ContentError, EntryRejected, NotAMember, StoreFull, StoreUnreachable
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryLedger, memory_account
from fl_node.ledger.protocol import Receipt
from fl_node.node import next_goal, take_part
from fl_node.peer import Stopped
from fl_node.progress import Event
from fl_node.records import Flag, LedgerHead, Reason, Update, UpdateObjected, UpdateRef
from fl_node.round import play_round


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("aggregation", ["fedavg", "uniform"])
def test_every_base_and_selection_replays(tmp_path: Path, mode: str, aggregation: str) -> None:
    spec = small_spec(rounds={"mode": mode, "planned": 4}, merging={"aggregation": aggregation, "sample_cap": 300})
    twins = Twins(tmp_path, spec, size=4)
    assert twins.run() == {1: None, 2: None, 3: None, 4: None}
    updates = twins.replay().check()
    assert len(updates) == 4 * 5
    assert sum(update.final for update in updates) == 4
    for trainer in twins.trainers.values():
        assert trainer.trained == [1, 2, 3, 4]
    if mode == "sync":
        for update in updates:
            expected = [] if update.round == 1 else [1, 2, 3, 4]
            assert [parent.peer for parent in update.parents] == expected
        assert {"missing", "left-out"}.isdisjoint(kind for kinds in twins.kinds.values() for kind in kinds)


@pytest.mark.parametrize("samples", [1, 10_000])
def test_a_policy_that_leaves_out_everybody_is_told(tmp_path: Path, samples: int) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"mode": "sync", "planned": 2}, merging={"min_samples": samples}), size=2)
    assert twins.run() == {1: None, 2: None}
    assert len(twins.replay().check()) == 6
    for kinds in twins.kinds.values():
        assert kinds.count("nothing-merged") == (2 if samples > 1 else 0)


def test_in_a_sync_federation_all_peers_close_with_the_same_model(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"mode": "sync", "planned": 2}))
    twins.run()
    finals = [update for update in twins.replay().check() if update.final]
    assert len({update.update.base for update in finals}) == 1
    # Equal models of two peers do not look equal on the ledger.
    assert len({update.update.weights for update in finals}) == len({update.content for update in finals}) == 3


def test_the_target_score_ends_a_peer_early_with_a_closing_update(tmp_path: Path) -> None:
    spec = small_spec(training={"target_score": 0.5, "epochs": 3}, rounds={"planned": 50})
    twins = Twins(tmp_path, spec)
    assert set(twins.run().values()) == {None}
    updates = twins.replay().check()
    for number in (1, 2, 3):
        mine = [update for update in updates if update.ref.peer == number]
        assert mine[-1].final and len(mine) < 50
    # Once more: nothing is left to do, and nothing is published.
    twins.run()
    assert len(twins.replay().check()) == len(updates)


@pytest.mark.parametrize("target", ["content-gone", "no-validation-rows"])
def test_a_target_score_that_cannot_be_told_is_not_reached(tmp_path: Path, target: str) -> None:
    task = {"validation": 0.0} if target == "no-validation-rows" else {}
    spec = small_spec(training={"target_score": 0.01}, rounds={"planned": 2}, task=task)
    twins = Twins(tmp_path, spec, size=1)
    peer = twins.peer(1)
    goal = next_goal(peer)
    assert goal is not None
    play_round(peer, goal)
    if target == "content-gone":
        twins.stores[1].__init__()  # type: ignore[misc]
    goal = next_goal(peer)
    assert goal is not None and not goal.final


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_rounds_go_on_past_the_plan(tmp_path: Path, mode: str) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2, "mode": mode}))
    twins.run()
    assert twins.run(rounds=4) == {1: None, 2: None, 3: None}
    updates = twins.replay().check()
    for number in (1, 2, 3):
        mine = [(update.round, update.final) for update in updates if update.ref.peer == number]
        assert mine == [(1, False), (2, False), (3, True), (4, False), (5, True)]


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_late_joiner_starts_at_the_round_it_found(tmp_path: Path, mode: str) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 4, "mode": mode}), size=3, members=2)
    both = [twins.peer(1), twins.peer(2)]
    for peer in both:
        peer.ledger.announce(1, bytes(32), bytes(32), f"memory://{peer.number}")
    for _ in range(3):
        for peer in both:
            goal = next_goal(peer)
            assert goal is not None
            play_round(peer, goal)
    twins.chain.ledger().admit(memory_account(3), "site-3")
    # Its first round before the others go on: how far they get meanwhile is a matter of chance.
    newcomer = twins.peer(3)
    goal = next_goal(newcomer)
    assert goal is not None
    play_round(newcomer, goal)
    newcomer.index.close()
    assert twins.run() == {1: None, 2: None, 3: None}
    mine = [update.round for update in twins.replay().check() if update.ref.peer == 3]
    assert mine == [3, 4, 5]


def test_a_retired_peer_stops_and_the_others_go_on(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"mode": "sync", "planned": 3}))
    leaver = twins.peer(3)
    goal = next_goal(leaver)
    assert goal is not None
    play_round(leaver, goal)
    owner = twins.chain.ledger()
    owner.retire(memory_account(3), "left", owner.head().size)
    ended = twins.run()
    assert isinstance(ended[3], NotAMember) and ended[1] is None and ended[2] is None
    updates = twins.replay().check()
    assert [update.ref.peer for update in updates].count(3) == 1
    assert [parent.peer for parent in updates[-1].parents] == [1, 2]


def test_a_peer_retired_while_it_waits_is_told(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"mode": "sync", "planned": 3}))
    owner = twins.chain.ledger()
    retiring = threading.Timer(0.5, lambda: owner.retire(memory_account(1), "left", owner.head().size))
    retiring.start()
    ended = twins.run(1)  # peers 2 and 3 never come
    assert isinstance(ended[1], NotAMember)
    assert twins.trainers[1].trained == [1]


def test_a_peer_that_dies_is_named_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_node.peer.CLOCK_MARGIN_S", 1)
    spec = small_spec(rounds={"mode": "sync", "planned": 3, "deadline_s": 3.0}, merging={"max_staleness": 1})
    twins = Twins(tmp_path, spec)
    for number in (1, 2, 3):  # all of round 1 in one go, so that its deadline is no race
        peer = twins.peer(number)
        peer.ledger.announce(1, bytes(32), bytes(32), f"memory://{number}")
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)
        peer.index.close()
    ended = twins.run(1, 2)
    assert ended == {1: None, 2: None}
    told = [event.detail["peers"] for _, event in twins.events if event.kind == "missing"]
    assert told and all(peers == [3] for peers in told)
    updates = twins.replay().check()
    assert [parent.peer for update in updates if update.round == 2 for parent in update.parents] == [1, 2, 3] * 2
    assert [parent.peer for update in updates if update.round == 4 for parent in update.parents] == [1, 2] * 2


def test_lingering_ends_when_all_have_closed(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1, "linger_s": 3600.0}))
    assert twins.run() == {1: None, 2: None, 3: None}


@pytest.mark.parametrize("depth", [1, 3])
def test_entries_count_only_at_the_wanted_depth(tmp_path: Path, depth: int) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2, "depth": depth}))
    with mining(twins.chain):
        assert twins.run() == {1: None, 2: None, 3: None}
    assert len(twins.replay().check()) == 9
    assert all(trainer.trained == [1, 2] for trainer in twins.trainers.values())


def test_who_waits_for_blocks_that_nobody_makes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "NO_BLOCK_S", 0.2)
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1, "depth": 2}), size=1)
    heard = twins.hear

    def hear(number: int, event: Event) -> None:
        heard(number, event)
        if "anvil --block-time" in event.text:
            threading.Thread(target=twins.chain.mine, args=(2,)).start()

    twins.hear = hear  # type: ignore[method-assign]
    assert twins.run() == {1: None}
    assert sum("anvil --block-time" in event.text for _, event in twins.events) >= 2
    assert twins.trainers[1].trained == [1]


def test_content_that_is_gone_is_objected_to_and_left_out(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}))
    twins.run(3)
    twins.wire.down.add("memory://3")
    assert twins.run(1, 2) == {1: None, 2: None}
    replay = twins.replay()
    updates = replay.check()
    assert all(parent.peer != 3 for update in updates for parent in update.parents if update.ref.peer != 3)
    words = [entry.body for entry in replay.entries if isinstance(entry.body, UpdateObjected)]
    assert {(word.peer, word.reason) for word in words} == {(1, Reason.UNAVAILABLE), (2, Reason.UNAVAILABLE)}


def test_content_that_comes_back_is_merged_again(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 3}), size=2)
    twins.run(2)
    twins.wire.down.add("memory://2")
    peer = twins.peer(1)
    for down in (True, True, False):
        if not down:
            twins.wire.down.clear()
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)
    merged = [[parent.peer for parent in update.parents] for update in twins.replay().check([1])]
    assert merged == [[], [1], [1, 2]]


def test_own_content_that_is_lost_comes_from_others(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}), size=2)
    first, second = twins.peer(1), twins.peer(2)
    for peer in (first, second):
        peer.ledger.announce(1, bytes(32), bytes(32), f"memory://{peer.number}")
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)
    first.sync()
    lost = first.prefix.update(UpdateRef(1, 1))
    twins.stores[1].unpin(Cid("raw", lost.content), "own")
    twins.stores[1].gc()
    goal = next_goal(first)
    assert goal is not None
    play_round(first, goal)
    updates = twins.replay().check()
    assert [parent.peer for parent in updates[-1].parents] == [1, 2]


def test_own_content_that_nobody_has_is_withdrawn(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}), size=2)
    peer = twins.peer(1)
    goal = next_goal(peer)
    assert goal is not None
    play_round(peer, goal)
    first = peer.prefix.size
    twins.stores[1].__init__()  # type: ignore[misc]
    ended = twins.run(1)
    assert ended == {1: None}
    with LedgerIndex(":memory:", twins.chain.ledger()) as index:
        index.sync()
        words = [entry.body for entry in index.entries(first) if isinstance(entry.body, UpdateObjected)]
    assert words == [UpdateObjected(1, UpdateRef(1, 1), Reason.WITHDRAWN, bytes(32))]


class Brittle(MemoryStore):
    """A store that fails on demand."""

    failing: ContentError | None = None

    def has(self, cid: Cid) -> bool:
        if isinstance(self.failing, ContentError) and not isinstance(self.failing, StoreFull):
            raise self.failing
        return super().has(cid)

    def put(self, *args: object, **more: object) -> None:
        if self.failing is not None:
            raise self.failing
        super().put(*args, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("failing", [StoreFull("disk full"), ContentError("the daemon does not answer")])
def test_nobody_is_objected_to_for_the_own_store(tmp_path: Path, failing: ContentError) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}), size=2)
    twins.run(2)
    store = Brittle()
    twins.stores[1] = store
    twins.wire.stores["memory://1"] = store
    peer = twins.peer(1)
    goal = next_goal(peer)
    assert goal is not None
    store.failing = failing
    with pytest.raises((StoreFull, StoreUnreachable)):
        play_round(peer, goal)
    store.failing = None
    assert twins.run(1) == {1: None}
    replay = twins.replay()
    assert [parent.peer for parent in replay.check([1])[0].parents] == [2]
    assert not any(isinstance(entry.body, UpdateObjected) for entry in replay.entries)


def test_a_step_under_way_is_finished_before_leaving(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}), size=1)
    peer = twins.peer(1)
    trained = twins.trainers[1].train
    twins.trainers[1].train = lambda *given: (peer.stop.set(), trained(*given))[1]  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        take_part(peer, "memory://1", NodeConfig(poll_s=0.01))
    draft = peer.journal.load()
    assert draft is not None and draft.trained and not draft.ready
    twins.trainers[1].train = trained  # type: ignore[method-assign]
    assert twins.run() == {1: None}
    assert twins.trainers[1].trained == [1, 2]


# ---- reorganised chains


def test_a_reorganisation_drops_an_update_and_it_is_recorded_again(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 3}), size=2)
    peer = twins.peer(1)
    for _ in range(2):
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)
    twins.chain.reorganise(1)  # drops 1#2, not what it had seen
    assert twins.run() == {1: None, 2: None}
    assert len(twins.replay().check()) == 8
    assert twins.trainers[1].trained == [1, 2, 3]


def test_a_reorganisation_below_what_was_seen_keeps_the_training(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 3}), size=2)
    peer = twins.peer(1)
    for _ in range(2):
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)
        twins.chain.ledger(memory_account(2)).announce(goal.sequence, bytes(32), bytes(32), "memory://2")
    # 1#2 had seen the announcement before it; both and the one after go.
    twins.chain.reorganise(3)
    goal = next_goal(peer)
    assert goal is not None and goal.sequence == 2
    play_round(peer, goal)
    assert twins.trainers[1].trained == [1, 2]
    assert len(twins.replay().check()) == 2
    assert twins.run() == {1: None, 2: None}
    twins.replay().check()


def test_a_reorganisation_that_drops_the_closing_update_while_lingering(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1, "linger_s": 3.0}), size=2)
    told = threading.Event()
    heard = twins.hear

    def hear(number: int, event: object) -> None:
        heard(number, event)  # type: ignore[arg-type]
        if getattr(event, "kind", "") == "recorded" and event.detail["final"] and not told.is_set():  # type: ignore[attr-defined]
            told.set()
            # Below what the closing update had seen as well, so that sending it again as it was will not do.
            threading.Timer(0.3, lambda: twins.chain.reorganise(2)).start()

    twins.hear = hear  # type: ignore[method-assign]
    assert twins.run(1) == {1: None}
    updates = twins.replay().check()
    assert [update.final for update in updates] == [False, True]


def test_a_parent_that_moves_between_selection_and_record(tmp_path: Path) -> None:
    """The ledger refuses the tag of an update that is another one now; the round is looked at again."""
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}), size=2)
    other = twins.peer(2)
    other.ledger.announce(1, bytes(32), bytes(32), "memory://2")
    goal = next_goal(other)
    assert goal is not None
    play_round(other, goal)
    publish = MemoryLedger.publish
    moved = threading.Event()

    def publish_after_a_reorganisation(self: MemoryLedger, update: object, parents: object) -> Receipt:
        if not moved.is_set():
            moved.set()
            twins.chain.reorganise(2)  # drops peer 1's announcement and 2#1
        return publish(self, update, parents)  # type: ignore[arg-type]

    twins.ledgers[1].publish = publish_after_a_reorganisation.__get__(twins.ledgers[1])  # type: ignore[method-assign]
    assert twins.run(1) == {1: None}
    assert "moved" in twins.kinds[1]
    mine = twins.replay().check([1])
    assert [update.round for update in mine] == [1, 2, 3]


def test_a_refusal_that_nothing_explains_is_not_repeated(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1}), size=1)

    def refuse(update: object, parents: object) -> Receipt:
        raise EntryRejected("no", "ScoreTooHigh")

    twins.ledgers[1].publish = refuse  # type: ignore[method-assign]
    assert isinstance(twins.run()[1], EntryRejected)
    assert twins.trainers[1].trained == [1]


def test_a_node_that_answers_with_the_next_blocks_state_is_asked_again(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(), size=2)
    ledger = twins.chain.ledger()
    heads = [ledger.head()]
    early = LedgerHead(heads[0].size + 1, b"x" * 32, heads[0].block_number, heads[0].block_hash)
    answers = [early]
    real = ledger.head
    ledger.head = lambda depth=0, **_: answers.pop() if answers else real(depth)  # type: ignore[method-assign]
    with LedgerIndex(":memory:", ledger) as index:
        assert index.sync().head == heads[0]


# ---- what a state folder may have gone through


def test_a_draft_of_another_ledger_is_not_used(tmp_path: Path) -> None:
    one = Twins(tmp_path, small_spec(rounds={"planned": 1}), size=1)
    peer = one.peer(1)
    peer.stop.set()
    goal = next_goal(peer)
    assert goal is not None
    with pytest.raises(Stopped):
        play_round(peer, goal)
    assert peer.journal.load() is not None
    from fl_node.journal import Journal

    assert Journal(tmp_path / "peer-1", "other").load() is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"ledger": "twins"}', b"\xff\xfe"])
def test_a_damaged_draft_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1}), size=1)
    (tmp_path / "peer-1").mkdir()
    (tmp_path / "peer-1" / "round.json").write_bytes(damage)
    assert twins.run() == {1: None}
    assert (tmp_path / "peer-1" / "round.damaged").read_bytes() == damage


@pytest.mark.parametrize("lost", ["weights", "report"])
def test_bytes_lost_before_the_record_are_made_again(tmp_path: Path, lost: str) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1}), size=1)
    peer = twins.peer(1)

    def interrupted(update: object, parents: object) -> Receipt:
        raise Stopped

    peer.ledger.publish = interrupted  # type: ignore[method-assign]
    goal = next_goal(peer)
    assert goal is not None
    with pytest.raises(Stopped):
        play_round(peer, goal)
    draft = peer.journal.load()
    assert draft is not None and draft.ready
    store: ContentStore = twins.stores[1]
    store.unpin(Cid("raw", draft.content if lost == "weights" else draft.report), "own")
    store.gc()
    del peer.ledger.publish  # type: ignore[attr-defined]
    assert twins.run() == {1: None}
    assert twins.trainers[1].trained == ([1, 1] if lost == "weights" else [1])
    assert len(twins.replay().check()) == 2


def test_an_idle_state_folder_that_lost_everything_but_the_key(tmp_path: Path) -> None:
    """The ledger and the others' stores are enough to go on."""
    twins = Twins(tmp_path, small_spec(rounds={"planned": 2}), size=2)
    for number in (1, 2):
        peer = twins.peer(number)
        peer.ledger.announce(1, bytes(32), bytes(32), f"memory://{number}")
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)
        peer.index.close()
    for path in (tmp_path / "peer-1").iterdir():
        path.unlink()
    assert twins.run() == {1: None, 2: None}
    updates = twins.replay().check()
    assert [update.round for update in updates if update.ref.peer == 1] == [1, 2, 3]
    assert all(not update.update.flags & Flag.DAG_PB for update in updates)


def test_the_least_interval_is_waited_for(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1, "min_interval_s": 1}), size=1)
    assert twins.run() == {1: None}
    first, second = twins.replay().check()
    assert second.time_s - first.time_s >= 1


def test_a_clock_ahead_of_the_chain_waits_for_the_chain(tmp_path: Path) -> None:
    behind = 2.0
    twins = Twins(
        tmp_path,
        small_spec(rounds={"planned": 1, "min_interval_s": 1}),
        size=1,
        clock=lambda: time.time() - behind,
    )
    assert twins.run() == {1: None}
    assert len(twins.replay().check()) == 2


# ---- one member against the pace


def rush(twins: Twins, number: int, rounds: int) -> None:
    """A member of its own making: publishes these rounds in one go, whatever the others do."""
    ledger = twins.ledgers[number]
    for sequence in range(1, rounds + 1):
        junk = bytes([number, sequence]) * 16
        size = ledger.head().size
        update = Update(junk, Flag(0), junk, junk, junk, size, junk, sequence, sequence, 1, 1, 100, 10, 1)
        ledger.publish(update, ())


@pytest.mark.parametrize("when", ["before-all", "after-round-1"])
def test_one_member_cannot_end_a_sync_federation(tmp_path: Path, when: str) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"mode": "sync", "planned": 5}))
    if when == "before-all":
        rush(twins, 3, 6)
    else:
        heard, begun = twins.hear, threading.Event()

        def hear(number: int, event: Event) -> None:
            heard(number, event)
            if event.kind == "recorded" and not begun.is_set():
                begun.set()
                rush(twins, 3, 6)

        twins.hear = hear  # type: ignore[method-assign]
    assert twins.run(1, 2) == {1: None, 2: None}
    honest = twins.replay().check([1, 2])
    for number in (1, 2):
        mine = [update for update in honest if update.ref.peer == number]
        assert [(update.round, update.final) for update in mine] == [*((r, False) for r in range(1, 6)), (6, True)]
        assert twins.trainers[number].trained == [1, 2, 3, 4, 5]
        assert [[parent.peer for parent in update.parents] for update in mine[1:]] == [[1, 2]] * 5
    assert "missing" not in twins.kinds[1] + twins.kinds[2]
