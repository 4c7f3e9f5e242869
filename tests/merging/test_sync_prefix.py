"""The derived cut: tables of logs, and that more entries never move a cut."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, spec

from fl_node.merging.selection import select
from fl_node.merging.sync import sync_prefix
from fl_node.records import Role, UpdateRef


def rules(quorum=1.0, deadline_s=100.0, **merging):
    return spec(rounds={"mode": "sync", "quorum": quorum, "deadline_s": deadline_s}, merging=merging)


def test_round_one_looks_at_nothing():
    cut = sync_prefix(rules(), Log(3).prefix, 1)
    assert (cut.size, cut.deadline_time_s, cut.missing, cut.present) == (0, None, (), ())


def test_waits_for_a_first_update():
    cut = sync_prefix(rules(), Log(3).prefix, 2, now_s=10**9)
    assert (cut.size, cut.deadline_time_s, cut.missing, cut.needed) == (None, None, (1, 2, 3), 3)


def test_waits_then_cuts_at_the_completing_entry():
    log = Log(3)
    log.at(2_000).publish(1, 1)
    log.at(2_010).publish(2, 1)
    cut = sync_prefix(rules(), log.prefix, 2)
    assert (cut.size, cut.deadline_time_s, cut.missing) == (None, 2_100, (3,))
    assert cut.present == (UpdateRef(1, 1), UpdateRef(2, 1))
    log.announce(2, 1, "http://a")
    log.at(2_099).publish(3, 1)
    size = log.prefix.size
    log.publish(1, 2)
    cut = sync_prefix(rules(), log.prefix, 2)
    assert (cut.size, cut.missing, cut.by_deadline) == (size, (), False)


@pytest.mark.parametrize(
    ("quorum", "peers", "needed"),
    [(1.0, 3, 3), (0.5, 3, 2), (0.5, 4, 2), (0.7, 10, 7), (0.1, 10, 1), (0.01, 5, 1), (0.667, 3, 3), (0.3, 10, 3)],
)
def test_quorum_rounds_up_exactly(quorum, peers, needed):
    log = Log(peers)
    for peer in range(1, peers + 1):
        log.publish(peer, 1)
    cut = sync_prefix(rules(quorum), log.prefix, 2)
    assert (cut.size, cut.needed, len(cut.present)) == (1 + peers + needed, needed, needed)
    assert cut.missing == tuple(range(needed + 1, peers + 1))


def test_deadline_by_a_later_entry():
    log = Log(3)
    log.at(2_000).publish(1, 1)
    log.at(2_099).publish(2, 1)
    size = log.prefix.size
    log.at(2_100).publish(3, 1)
    cut = sync_prefix(rules(), log.prefix, 2)
    assert (cut.size, cut.by_deadline, cut.missing) == (size, True, (3,))


def test_deadline_by_the_clock_agrees_with_the_later_entry():
    log = Log(3)
    log.at(2_000).publish(1, 1)
    log.at(2_050).announce(3, 1, "http://a")
    assert sync_prefix(rules(), log.prefix, 2, now_s=2_099).size is None
    by_clock = sync_prefix(rules(), log.prefix, 2, now_s=2_100)
    log.at(2_100).publish(3, 1)
    assert by_clock == sync_prefix(rules(), log.prefix, 2)
    assert by_clock.size == 6 and by_clock.missing == (2, 3)


def test_deadline_may_be_a_fraction_of_a_second():
    log = Log(2)
    log.at(2_000).publish(1, 1)
    log.at(2_002).publish(2, 1)
    assert not sync_prefix(rules(deadline_s=2.5), log.prefix, 2).by_deadline
    assert sync_prefix(rules(deadline_s=2.0), log.prefix, 2).by_deadline
    assert sync_prefix(rules(deadline_s=2.5), log.prefix, 2).deadline_time_s == 2_003


def test_a_late_joiner_neither_delays_the_round_nor_is_left_out():
    log = Log(2)
    log.publish(1, 1)
    joiner = log.admit()
    log.publish(joiner, 1)
    log.publish(2, 1)
    cut = sync_prefix(rules(), log.prefix, 2)
    assert cut.size == log.prefix.size and cut.missing == ()
    assert UpdateRef(joiner, 1) in cut.present


def test_a_late_joiner_counts_from_the_next_round():
    log = Log(2)
    log.publish(1, 1)
    log.admit()
    log.publish(2, 1)
    log.publish(1, 2)
    log.publish(2, 2)
    cut = sync_prefix(rules(), log.prefix, 3)
    assert cut.size is None and cut.missing == (3,)


def test_a_joiners_update_does_not_stand_for_a_missing_one():
    log = Log(2)
    log.publish(1, 1)
    joiner = log.admit()
    log.publish(joiner, 1)
    assert sync_prefix(rules(), log.prefix, 2).missing == (2,)


def test_retirement_can_complete_a_round():
    log = Log(3)
    log.publish(1, 1)
    log.publish(2, 1)
    log.retire(3)
    size = log.prefix.size
    log.publish(1, 2)
    cut = sync_prefix(rules(), log.prefix, 2)
    assert (cut.size, cut.missing) == (size, ())


def test_an_update_of_a_peer_retired_since_is_not_present():
    log = Log(3)
    log.publish(1, 1)
    log.retire(1)
    log.publish(2, 1)
    log.publish(3, 1)
    assert sync_prefix(rules(), log.prefix, 2).present == (UpdateRef(2, 1), UpdateRef(3, 1))


def test_readers_are_not_expected():
    log = Log(1)
    log.admit(roles=Role.READ)
    log.publish(1, 1)
    assert sync_prefix(rules(), log.prefix, 2).size == log.prefix.size


def test_the_closed_are_not_expected():
    log = Log(3)
    for peer in (1, 2, 3):
        log.publish(peer, 1)
    log.publish(3, 2, final=True)
    log.publish(1, 2)
    log.publish(2, 2)
    cut = sync_prefix(rules(), log.prefix, 3)
    assert cut.size == log.prefix.size and cut.present == (UpdateRef(1, 2), UpdateRef(2, 2))


def test_closing_while_others_wait_completes():
    log = Log(2)
    log.publish(1, 1)
    log.publish(2, 1, final=True)
    assert sync_prefix(rules(), log.prefix, 2).size == log.prefix.size


def test_one_who_ran_ahead_is_not_waited_for():
    log = Log(2)
    log.publish(1, 1)
    log.publish(2, 2)
    assert sync_prefix(rules(), log.prefix, 2).size == log.prefix.size


def test_the_long_silent_are_not_waited_for():
    log = Log(3)
    log.at(2_000).publish(3, 1)
    for round_number in range(1, 5):
        log.at(1_000 + round_number * 1_000)
        log.publish(1, round_number)
        log.publish(2, round_number)
    cuts = [sync_prefix(rules(max_staleness=2), log.prefix, r) for r in (2, 3, 4, 5)]
    assert [cut.missing for cut in cuts] == [(), (3,), (3,), ()]
    assert not cuts[3].by_deadline and cuts[1].by_deadline


def brute_force(quorum, deadline_s, log, number):
    """The rule in words, evaluated anew at every entry; for logs without closing, retirement or silence."""
    first = next((e for e in log.entries if getattr(getattr(e.body, "update", None), "round", 0) == number), None)
    if first is None:
        return None
    expected = {e.body.peer for e in log.entries[: first.index] if e.kind == "PeerAdmitted"}
    there = set()
    for entry in log.entries[first.index :]:
        if entry.time_s - first.time_s >= deadline_s:
            return entry.index
        if entry.kind == "UpdatePublished" and entry.body.update.round == number:
            there.add(entry.body.peer)
        if len(there & expected) >= math.ceil(Fraction(str(quorum)) * len(expected)):
            return entry.index + 1
    return None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ppppna"), st.integers(0, 5)), max_size=30),
    st.sampled_from([1.0, 0.5, 0.7]),
)
def test_against_brute_force_and_more_entries_never_move_a_cut(steps, quorum):
    log, rounds = Log(4), {}
    for gap, what, pick in steps:
        log.time_s += gap
        peer = 1 + pick % log.members
        if what == "p":
            rounds[peer] = rounds.get(peer, 0) + 1
            log.publish(peer, rounds[peer])
        elif what == "n":
            log.announce(peer, 1, "")
        else:
            log.admit()
    # rounds of a peer rise one by one here, so nobody runs ahead of a round that it still owes
    limits = rules(quorum, max_staleness=1_000)
    for number in (1, 2):
        want = brute_force(quorum, 100.0, log, number)
        assert sync_prefix(limits, log.prefix, number + 1).size == want
        for size in range(0, len(log.entries) + 1, 3):
            early = sync_prefix(limits, log.prefix.upto(size), number + 1).size
            assert early is None or early == want


def test_a_peer_that_goes_on_after_closing_looks_again_where_its_closing_update_did():
    log = Log(2)
    log.publish(1, 1)
    log.publish(2, 1)
    decided = log.prefix.size
    log.publish(1, 2, final=True)
    log.publish(2, 2, final=True)
    cut = sync_prefix(rules(), log.prefix, 3, own_peer=1)
    assert (cut.previous, cut.size, cut.round) == (1, decided, 3)
    assert select(rules(), log.prefix, 1, 3).candidates == tuple(
        log.prefix.update(UpdateRef(peer, 1)) for peer in (1, 2)
    )
    log.publish(1, 3)  # the other one follows, and finds a round before its own as usual
    assert sync_prefix(rules(), log.prefix, 4, own_peer=1).previous == 3
    assert sync_prefix(rules(), log.prefix, 3, own_peer=2).previous == 1
