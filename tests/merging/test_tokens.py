"""Rings: the chain of tokens, whose turn it is, who is skipped, and that it comes to an end whoever is dead."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, spec

from fl_node.merging.selection import select
from fl_node.merging.tokens import next_turn, own_rings, rings_of, tokens_of
from fl_node.prefix import Prefix
from fl_node.records import Reason, Role, UpdateRef

SILENT_S = 10.0


def rules(planned=3, **more):
    return spec(
        merging={"selection": "ring", "silent_s": SILENT_S, "aggregation": "uniform", **more},
        rounds={"planned": planned},
    )


def chain(policy, prefix, ring=0):
    return [(str(token.entry.ref), token.lap) for token in tokens_of(policy, prefix, rings_of(policy)[ring])]


def names(chosen):
    return [str(entry.ref) for entry in chosen.candidates]


def outcomes(chosen):
    return {item.peer: item.outcome.value for item in chosen.considered}


def test_the_model_goes_round_and_each_takes_its_predecessors():
    log, policy = Log(3), rules()
    taken = []
    for turn in range(7):
        peer = turn % 3 + 1
        chosen = select(policy, log.prefix, peer, turn // 3 + 1)
        taken.append(names(chosen))
        log.publish(peer, turn // 3 + 1)
    assert taken == [[], ["1#1"], ["2#1"], ["3#1"], ["1#2"], ["2#2"], ["3#2"]]
    assert chain(policy, log.prefix) == [
        ("1#1", 1), ("2#1", 1), ("3#1", 1), ("1#2", 2), ("2#2", 2), ("3#2", 2), ("1#3", 3),
    ]  # fmt: skip
    chosen = select(policy, log.prefix, 2, 3)
    assert outcomes(chosen) == {1: "merged", 2: "not-the-token", 3: "not-the-token"}
    assert next(item.reason for item in chosen.considered if item.peer == 2) == (
        "the model that goes round is 1#3 in ring 1"
    )


def test_the_initiator_begins():
    log, policy = Log(3), rules(initiator=2)
    log.at(1_000).publish(1, 1)
    assert chain(policy, log.prefix) == []
    log.publish(2, 1)
    log.publish(3, 1)
    log.publish(1, 2)
    assert chain(policy, log.prefix) == [("2#1", 1), ("3#1", 1), ("1#2", 1)]


@pytest.mark.parametrize(("peer", "time_s", "begins"), [(2, 1_009, False), (2, 1_010, True), (3, 1_010, False)])
def test_a_silent_initiator_is_skipped(peer, time_s, begins):
    log, policy = Log(3), rules()
    log.at(time_s).publish(peer, 1)
    assert bool(chain(policy, log.prefix)) is begins


def test_the_wait_for_the_initiator_runs_from_the_first_announcement():
    log, policy = Log(3), rules()
    log.at(5_000).announce(2, 1, "http://b")
    log.at(5_500).announce(3, 1, "http://c")
    assert next_turn(policy, log.prefix, 2, 5_009).wakes_at_s == 5_010
    log.at(5_009).publish(2, 1)
    assert chain(policy, log.prefix) == [], "the clock of a log may not be trusted to rise; its times are what they are"
    log.at(5_010).publish(2, 2)
    assert chain(policy, log.prefix) == [("2#2", 1)]


@pytest.mark.parametrize(
    ("peer", "time_s", "passes"),
    [(2, 2_000, True), (3, 2_009, False), (3, 2_010, True), (4, 2_019, False), (4, 2_020, True), (1, 2_029, False),
     (1, 2_030, True)],
)  # fmt: skip
def test_who_may_follow_and_from_when(peer, time_s, passes):
    log, policy = Log(4), rules()
    log.at(2_000).publish(1, 1)
    log.at(time_s).publish(peer, 2)
    assert (len(chain(policy, log.prefix)) == 2) is passes


def test_of_two_tokens_the_earlier_entry_wins_and_the_other_waits_for_its_next_turn():
    log, policy = Log(4), rules()
    log.at(2_000).publish(1, 1)
    seen = log.prefix.size
    log.at(2_015).publish(3, 1)  # 2 was silent, and 3 went on
    log.at(2_016).publish(2, 1, seen=seen)  # while 2 was training after all
    assert chain(policy, log.prefix) == [("1#1", 1), ("3#1", 1)]
    assert next_turn(policy, log.prefix, 4, 2_016).ready
    turn = next_turn(policy, log.prefix, 2, 2_016)
    assert (turn.ready, turn.waits_for, turn.wakes_at_s) == (False, 4, 2_015 + 20)
    log.publish(4, 1)
    log.publish(1, 2)
    assert names(select(policy, log.prefix, 2, 2)) == ["1#2"]
    log.publish(2, 2)
    assert chain(policy, log.prefix)[-1] == ("2#2", 2)


def test_who_had_not_seen_the_token_does_not_follow_it():
    log, policy = Log(3), rules()
    index = len(log.entries)
    log.publish(1, 1)
    log.publish(2, 1, seen=index)
    assert chain(policy, log.prefix) == [("1#1", 1)]
    log.publish(2, 2, seen=index + 1)
    assert chain(policy, log.prefix) == [("1#1", 1), ("2#2", 1)]


def test_closed_and_retired_peers_are_passed_by_at_once():
    log, policy = Log(4), rules()
    log.publish(1, 1)
    log.publish(2, 1, final=True)
    log.retire(3)
    log.publish(4, 1)
    assert chain(policy, log.prefix) == [("1#1", 1), ("4#1", 1)]


def test_a_late_joiner_is_inserted_by_number_and_a_reader_is_not():
    log, policy = Log(2), rules()
    log.publish(1, 1)
    log.admit(roles=Role.READ)
    log.admit()
    log.publish(2, 1)
    assert next_turn(policy, log.prefix, 1, log.time_s).waits_for == 4
    log.publish(4, 1)
    log.publish(1, 2)
    assert chain(policy, log.prefix) == [("1#1", 1), ("2#1", 1), ("4#1", 1), ("1#2", 2)]


@pytest.mark.parametrize("trouble", ["withdrawn", "retired", "malformed", "unavailable", "few"])
def test_a_token_that_cannot_be_merged_is_stepped_over(trouble):
    log, policy = Log(4), rules(min_samples=10)
    log.publish(1, 1)
    log.publish(2, 1, samples=5 if trouble == "few" else 50)
    ref = UpdateRef(2, 1)
    if trouble == "withdrawn":
        log.object(2, ref, Reason.WITHDRAWN)
    elif trouble == "retired":
        log.retire(2)
    elif trouble == "malformed":
        log.object(3, ref, Reason.MALFORMED)
    elif trouble == "unavailable":
        log.object(3, ref, Reason.UNAVAILABLE)
    chosen = select(policy, log.prefix, 3, 1)
    assert names(chosen) == ["1#1"] and not chosen.excusable
    assert outcomes(chosen)[2] == {"few": "too-few-samples"}.get(trouble, trouble)
    log.publish(3, 1)
    assert chain(policy, log.prefix)[-1] == ("3#1", 1), "the chain goes on, without what could not be merged"


def test_an_unavailable_token_stays_stepped_over():
    """An objection cannot be repeated, so it binds for ever where the choice depends on it."""
    log, policy = Log(2), rules()
    log.publish(1, 1)
    log.object(2, UpdateRef(1, 1), Reason.UNAVAILABLE)
    log.publish(2, 1)
    assert names(select(policy, log.prefix, 2, 2)) == ["2#1"]


# ---- turns ----


def played(policy, peers, dead=(), join=None, most=400):
    """Everybody alive looks for its turn and takes it, and time passes while nobody has one. The log as it became."""
    log = Log(peers)
    closed = set()
    for step in range(most):
        if join == step:
            log.admit()
        alive = [peer for peer in range(1, log.members + 1) if peer not in closed and peer not in dead]
        if not alive:
            return log
        turns = {peer: next_turn(policy, log.prefix, peer, log.time_s) for peer in alive}
        ready = [peer for peer in alive if turns[peer].ready]
        if not ready:
            log.at(min(turn.wakes_at_s for turn in turns.values()))
            continue
        peer, turn = ready[0], turns[ready[0]]
        last = log.prefix.latest(peer)
        assert (last.round if last else 0) < turn.round <= log.prefix.highest_round + 1, "as the ledger takes it"
        log.publish(peer, turn.round, final=turn.final)
        if turn.final:
            closed.add(peer)
    raise AssertionError(f"it does not come to an end: {len(log.entries)} entries, closed {sorted(closed)}")


@pytest.mark.parametrize("peers", [1, 2, 5])
def test_everybody_has_its_laps_and_closes_with_the_last_model(peers):
    policy = rules(planned=3)
    log = played(policy, peers)
    assert chain(policy, log.prefix) == [(f"{peer}#{lap}", lap) for lap in (1, 2, 3) for peer in range(1, peers + 1)]
    last = UpdateRef(peers, 3)
    for peer in range(1, peers + 1):
        closing = log.prefix.latest(peer)
        assert closing.final and closing.round == 4
        chosen = select(policy, log.prefix.upto(closing.index), peer, 4)
        assert [entry.ref for entry in chosen.candidates] == [last]


@pytest.mark.parametrize("dead", [{1}, {2}, {5}, {1, 2, 3, 4}, {2, 3, 4, 5}, {4, 5}])
def test_it_ends_whoever_is_dead(dead):
    policy = rules(planned=2)
    log = played(policy, 5, dead)
    alive = [peer for peer in range(1, 6) if peer not in dead]
    assert chain(policy, log.prefix) == [(f"{peer}#{lap}", lap) for lap in (1, 2) for peer in alive]
    assert {str(select(policy, log.prefix, peer, 9).candidates[0].ref) for peer in alive} == {f"{alive[-1]}#2"}


def test_a_joiner_halfway():
    policy = rules(planned=3)
    log = played(policy, 3, join=5)
    assert chain(policy, log.prefix)[-1] == ("4#2", 3)


RINGS = ((1, 2, 3), (4, 3, 5))


def test_bridges_carry_models_from_ring_to_ring():
    policy = rules(rings=RINGS)
    log = Log(5)
    log.publish(1, 1)
    log.publish(4, 1)
    log.publish(2, 1)
    chosen = select(policy, log.prefix, 3, 1)
    assert names(chosen) == ["2#1", "4#1"], "the last token of each of its rings"
    log.publish(3, 1)
    assert chain(policy, log.prefix, 0)[-1] == ("3#1", 1) and chain(policy, log.prefix, 1)[-1] == ("3#1", 1)
    assert names(select(policy, log.prefix, 5, 1)) == ["3#1"], "one update that passes on both models"
    assert names(select(policy, log.prefix, 1, 2)) == ["3#1"]


def test_a_bridge_plays_at_its_turn_in_either_ring():
    policy = rules(rings=RINGS)
    log = Log(5)
    log.publish(1, 1)
    log.publish(2, 1)
    assert next_turn(policy, log.prefix, 3, log.time_s).ready
    log.publish(3, 1)
    log.publish(4, 1)
    assert chain(policy, log.prefix, 1) == [("4#1", 1)]
    assert next_turn(policy, log.prefix, 3, log.time_s).ready, "again, in the other ring"
    assert names(select(policy, log.prefix, 3, 2)) == ["3#1", "4#1"]


@pytest.mark.parametrize("dead", [set(), {3}, {1}, {4, 5}, {1, 2}])
def test_rings_with_bridges_end_whoever_is_dead(dead):
    policy = rules(rings=RINGS, planned=2)
    log = played(policy, 5, dead)
    for peer in set(range(1, 6)) - dead:
        assert log.prefix.latest(peer).final


def test_who_stands_in_no_ring_merges_what_all_became():
    policy = rules(rings=((1, 2), (3, 4)), planned=1)
    log = played(policy, 5)
    assert len(own_rings(policy, 5)) == 2 and log.prefix.sequence(5) == 1
    assert names(select(policy, log.prefix, 5, 9)) == ["2#1", "4#1"]
    log = played(policy, 5, dead={1, 2, 3, 4})
    assert log.prefix.latest(5).final


def test_going_on_past_the_plan():
    policy = rules(planned=1)
    log = played(policy, 3)
    turn = next_turn(policy, log.prefix, 2, log.time_s, 2)
    assert (turn.ready, turn.final, turn.lap) == (True, False, 2)
    log.publish(2, turn.round)
    assert chain(policy, log.prefix)[-1] == ("2#3", 2)


def test_an_earlier_view_after_a_later_one():
    policy = rules()
    log = Log(3)
    for peer in (1, 2, 3, 1):
        log.publish(peer, 1 if peer > 1 or log.prefix.sequence(1) == 0 else 2)
    whole = log.prefix
    full = [next_turn(policy, Prefix(log.entries[:size]), 2, 2_000) for size in range(4, whole.size + 1)]
    tokens_of(policy, whole, rings_of(policy)[0])
    assert [next_turn(policy, whole.upto(size), 2, 2_000) for size in range(4, whole.size + 1)] == full


@pytest.mark.parametrize("rings", [(), RINGS, ((1, 2), (2, 3), (3, 4), (4, 5))])
@pytest.mark.parametrize("seed", range(12))
def test_it_ends_however_slow_and_dead_its_members_are(rings, seed):
    """Everybody alive trains for as long as it likes, on the log as it was when it began; some stop for good."""
    dice = random.Random(f"{rings} {seed}")
    policy, log = rules(rings=rings, planned=2), Log(5)
    prefix = log.prefix
    dead, closed, under_way = set(dice.sample(range(1, 6), dice.randint(0, 3))), set(), {}
    while alive := [peer for peer in range(1, 6) if peer not in closed | dead]:
        assert log.time_s < 5_000, f"it does not come to an end: alive {alive}"
        log.at(log.time_s + dice.choice((0, 1, 4)))
        peer = dice.choice(alive)
        if peer not in under_way:
            turn = next_turn(policy, prefix, peer, log.time_s)
            if turn.ready:
                under_way[peer] = turn, prefix.size
        elif dice.random() < 0.3:
            turn, seen = under_way.pop(peer)
            last = prefix.latest(peer)
            assert (last.round if last else 0) < turn.round <= prefix.highest_round + 1, "as the ledger takes it"
            log.publish(peer, turn.round, final=turn.final, seen=seen)
            prefix = prefix.extend(log.entries[prefix.size :])
            closed |= {peer} if turn.final else set()
        elif dice.random() < 0.02 and len(dead) < 4:
            dead.add(peer)
    for ring in rings_of(policy):
        assert len(tokens_of(policy, prefix, ring)) <= 3 * 5, "hardly more than the laps that were planned"


# ---- whatever is appended, tokens stay ----

STEPS = st.lists(
    st.tuples(st.sampled_from(["publish", "final", "retire", "admit", "announce", "old"]), st.integers(1, 5),
              st.integers(0, 25)),
    max_size=40,
)  # fmt: skip


def written(steps):
    log = Log(4)
    retired = set()
    for kind, peer, wait in steps:
        log.at(log.time_s + wait)
        if kind == "admit" and log.members < 6:
            log.admit()
        if peer > log.members or peer in retired:
            continue
        number = log.prefix.latest(peer)
        following = (number.round if number else 0) + 1
        if kind == "retire":
            retired.add(peer)
            log.retire(peer, from_index=max(1, len(log.entries) - wait))
        elif kind == "announce":
            log.announce(peer, 1, "http://x")
        elif kind in ("publish", "final", "old"):
            seen = max(1, len(log.entries) - wait) if kind == "old" else None
            log.publish(peer, following, final=kind == "final", seen=seen)
    return log


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([(), RINGS, ((2, 4, 1), (3, 1))]))
def test_tokens_never_move_when_entries_are_appended(steps, rings):
    policy = rules(rings=rings)
    entries = written(steps).entries
    grown = Prefix(entries[:5])
    for entry in entries[5:]:
        grown = grown.extend([entry])
        for ring in rings_of(policy):
            tokens_of(policy, grown, ring)
    for ring in rings_of(policy):
        whole = tokens_of(policy, grown, ring)
        for size in range(5, len(entries) + 1):
            fresh = tokens_of(policy, Prefix(entries[:size]), ring)
            assert fresh == [token for token in whole if token.entry.index < size]
            assert tokens_of(policy, grown.upto(size), ring) == fresh
        for before, after in itertools.pairwise(whole):
            assert after.entry.update.seen > before.entry.index and after.lap - before.lap in (0, 1)
