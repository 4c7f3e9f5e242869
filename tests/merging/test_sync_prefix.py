"""The derived cut: tables of logs, and that more entries never move a cut."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, spec

from fl_node.merging.selection import Outcome, select
from fl_node.merging.sync import pace, sync_prefix
from fl_node.prefix import Prefix
from fl_node.records import Flag, Role, UpdateRef


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


def test_a_round_in_which_all_closed_is_looked_at_through_the_one_before():
    log = Log(3)
    for peer in (1, 2, 3):
        log.publish(peer, 1)
    log.publish(1, 2, final=True)
    assert sync_prefix(rules(), log.prefix, 3).missing == (2, 3), "they may close in it, or train"
    log.publish(2, 2, final=True)
    log.publish(3, 2, final=True)
    decided = log.prefix.size
    cut = sync_prefix(rules(), log.prefix, 3)
    assert (cut.previous, cut.size, cut.round, len(cut.present)) == (1, decided, 3, 3)
    assert select(rules(), log.prefix, 1, 3).candidates == tuple(
        log.prefix.update(UpdateRef(peer, 1)) for peer in (1, 2, 3)
    )
    log.publish(1, 3)  # going on past the plan: the next one finds a round before its own as usual
    assert sync_prefix(rules(), log.prefix, 4).previous == 3


def test_closing_early_does_not_take_the_others_updates_from_anybody():
    log = Log(3)
    for peer in (1, 2, 3):
        log.publish(peer, 1)
    log.publish(1, 2, final=True)
    log.publish(2, 2)
    log.publish(3, 2)
    cut = sync_prefix(rules(), log.prefix, 3)
    assert (cut.previous, cut.present, cut.missing) == (2, (UpdateRef(2, 2), UpdateRef(3, 2)), ())


def test_one_member_cannot_run_away_with_the_rounds():
    """Peer 3 publishes rounds 1 to 6 at once. Only its first was made in a round that had begun."""
    log = Log(3, time_s=2_000)
    for number in range(1, 7):
        log.publish(3, number)
    assert pace(rules(), log.prefix) == 1
    assert sync_prefix(rules(), log.prefix, 7, now_s=10**9).size is None
    for number in range(1, 7):
        log.at(2_000 + 60 * number)  # all rounds together take longer than a deadline after the rush
        log.publish(1, number)
        assert pace(rules(), log.prefix) == number
        log.publish(2, number)
        cut = sync_prefix(rules(), log.prefix, number + 1)
        assert (cut.size, cut.by_deadline, cut.missing) == (log.prefix.size, False, ())
        chosen = select(rules(), log.prefix, 1, number + 1)
        assert [str(entry.ref) for entry in chosen.candidates] == [f"1#{number}", f"2#{number}"]
        assert chosen.considered[2].outcome is Outcome.OTHER_ROUND
    log.publish(3, 7)
    assert pace(rules(), log.prefix) == 7, "from here on it is in step again"


@pytest.mark.parametrize(("short_by", "counted"), [(0, True), (1, False)])
def test_an_update_counts_if_it_had_seen_its_own_rounds_cut(short_by, counted):
    log = Log(2)
    log.publish(1, 1)
    log.publish(2, 1)
    size = log.prefix.size
    log.announce(1, 1, "http://a")
    log.publish(1, 2, seen=size - short_by)
    assert pace(rules(), log.prefix) == (2 if counted else 1)
    cut = sync_prefix(rules(), log.prefix, 3)
    assert cut.present == ((UpdateRef(1, 2),) if counted else ())
    log.publish(2, 2)
    cut = sync_prefix(rules(), log.prefix, 3)
    assert cut.size == log.prefix.size and cut.missing == (), "it cannot play round 2 again: nobody waits for it"
    assert UpdateRef(2, 2) in cut.present
    considered = select(rules(), log.prefix, 2, 3).considered[0]
    assert considered.outcome is (Outcome.MERGED if counted else Outcome.OTHER_ROUND)
    assert counted or considered.reason == f"made before round 2 had begun, at log size {size - 1}"


def test_after_a_deadline_the_update_that_tells_counts_itself():
    """A peer waits on the clock and sees the whole log; its update is the first entry after the deadline."""
    log = Log(3, time_s=2_000)
    log.publish(1, 1)
    log.publish(2, 1)
    waiting = log.prefix
    assert sync_prefix(rules(), waiting, 2, now_s=2_100).size == waiting.size
    log.at(2_100).publish(1, 2)
    assert pace(rules(), waiting) == 1
    assert pace(rules(), log.prefix) == 2


def test_closing_in_round_after_round_starts_nobodys_clock_early():
    """A hostile peer closes and goes on, to be a round ahead: its next round does not count before its cut."""
    log = Log(3, time_s=2_000)
    for peer in (1, 2, 3):
        log.publish(peer, 1)
    log.publish(3, 2, final=True)
    log.publish(3, 3)
    assert pace(rules(), log.prefix) == 2
    log.at(2_090)
    log.publish(1, 2)
    log.publish(2, 2)
    assert sync_prefix(rules(), log.prefix, 3).size == log.prefix.size
    log.at(2_180).publish(1, 3)
    cut = sync_prefix(rules(), log.prefix, 4)
    assert (cut.size, cut.deadline_time_s, cut.missing) == (None, 2_280, (2,))


def test_a_joiner_admitted_after_a_rush_is_expected_and_in_step():
    log = Log(2)
    for number in range(1, 7):
        log.publish(2, number)
    joiner = log.admit()
    log.publish(1, 1)
    assert pace(rules(), log.prefix) == 1
    assert sync_prefix(rules(), log.prefix, 2).size == log.prefix.size, "it came after the round's first update"
    log.publish(1, 2)
    assert sync_prefix(rules(), log.prefix, 3).missing == (joiner,)


def test_cuts_are_kept_for_the_log_and_not_across_logs_or_specs():
    log = Log(2)
    log.publish(1, 1)
    log.publish(2, 1)
    full = log.prefix
    cut = sync_prefix(rules(), full, 2)
    assert sync_prefix(rules(), full, 2) is cut
    assert sync_prefix(rules(0.5), full, 2).size == cut.size - 1
    assert sync_prefix(rules(), full.upto(cut.size - 1), 2).size is None
    shorter = Log(2)
    shorter.publish(1, 1)
    shorter.announce(1, 1, "http://a")
    shorter.publish(2, 1)
    other = full.upto(cut.size - 1).extend(shorter.entries[cut.size - 1 :])  # the chain was reorganised
    assert sync_prefix(rules(), other, 2).size == cut.size + 1
    assert sync_prefix(rules(), full, 2) is cut


def second_cut(entries, quorum, deadline_s, most_silent, number):
    """Section 10 of the replay rules again, straight from the words: recursive, and anew at every entry."""
    if number == 1:
        return 0
    before = number - 1
    begun = second_cut(entries, quorum, deadline_s, most_silent, before)
    if begun is None:
        return None

    def rounds_of(peer, entries):
        return [e.body.update.round for e in entries if e.kind == "UpdatePublished" and e.body.peer == peer]

    def has_closed(peer, entries):
        mine = [e.body.update.flags for e in entries if e.kind == "UpdatePublished" and e.body.peer == peer]
        return bool(mine) and bool(mine[-1] & Flag.FINAL)

    def retired(entries):
        return {e.body.peer for e in entries if e.kind == "PeerRetired"}

    ours = [e for e in entries if e.kind == "UpdatePublished" and e.body.update.round == before]
    ours = [e for e in ours if e.body.update.seen >= begun]
    if not ours:
        return None
    first = ours[0].index
    past = entries[:first]
    expected = set()
    for admission in past:
        if admission.kind == "PeerAdmitted" and admission.body.peer not in retired(past):
            peer = admission.body.peer
            met = [e.body.update.round for e in entries[: admission.index] if e.kind == "UpdatePublished"]
            last = max(rounds_of(peer, past), default=0)
            alive = max([last, *met])
            if not has_closed(peer, past) and last < before and before - alive <= most_silent:
                expected.add(peer)
    for entry in entries[first:]:
        if entry.time_s - entries[first].time_s >= deadline_s:
            return entry.index
        window = entries[first : entry.index + 1]
        updates = [e for e in window if e.kind == "UpdatePublished"]
        trained = [e for e in updates if e in ours and not e.body.update.flags & Flag.FINAL]
        present = {e.body.peer for e in trained}
        gone = {
            e.body.peer
            for e in updates
            if e not in trained and (e.body.update.flags & Flag.FINAL or e.body.update.round >= before)
        }
        counted = expected - retired(window) - (gone - present)
        if len(present & counted) >= math.ceil(Fraction(str(quorum)) * len(counted)):
            return entry.index + 1
    return None


def second_look(entries, cuts, number):
    """Which round and updates a round looks at, its cut and those below it given; from the words again."""
    view = entries[: cuts[number - 1]]
    left = {e.body.peer for e in view if e.kind == "PeerRetired"}
    for p in range(number - 1, 0, -1):
        ours = [e.body for e in view if e.kind == "UpdatePublished" and e.body.update.round == p]
        ours = [body for body in ours if not body.update.flags & Flag.FINAL and body.peer not in left]
        found = tuple(body.ref for body in ours if body.update.seen >= cuts[p - 1])
        if found:
            return p, found
    return number - 1, ()


STEP = st.tuples(st.integers(0, 15), st.sampled_from("p" * 14 + "fffnar"), st.integers(0, 4), st.integers(0, 3))


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, min_size=4, max_size=40), st.sampled_from([1.0, 0.5, 0.7]), st.sampled_from([1, 3, 1_000]))
def test_against_the_words_and_more_entries_never_move_a_cut(steps, quorum, most_silent):
    """Any log that the ledger takes: rounds skipped and rushed, early and late `seen`, closing, going on, leaving."""
    log, last, own_entry, left = Log(3), {}, {}, set()
    for gap, what, pick, choice in steps:
        log.time_s += gap
        peer = 1 + pick % log.members
        if choice < 2 and what in "pf":  # mostly in step, so that rounds go on
            peer = min(range(1, log.members + 1), key=lambda number: (number in left, last.get(number, 0)))
        if what in "pf" and peer not in left:
            lowest, highest = last.get(peer, 0) + 1, max(last.values(), default=0) + 1
            last[peer] = min(highest, lowest + choice % 2 * choice)
            seen = max(own_entry.get(peer, 0) + 1, len(log.entries) - (choice == 3) * 3)
            log.publish(peer, last[peer], final=what == "f", seen=seen)
            own_entry[peer] = len(log.entries) - 1
        elif what == "n":
            log.announce(peer, 1, "")
        elif what == "a":
            log.admit()
        elif what == "r" and peer not in left:
            log.retire(peer)
            left.add(peer)
    limits = rules(quorum, max_staleness=most_silent)
    whole = log.prefix
    want = [second_cut(log.entries, quorum, 100.0, most_silent, number) for number in range(1, 6)]
    assert want == sorted(want, key=lambda size: math.inf if size is None else size), "one after the other"
    for size in range(0, len(log.entries) + 1, 3):  # the short views first: they must not spoil what is kept
        for number, final in enumerate(want, 1):
            assert sync_prefix(limits, whole.upto(size), number).size in (None, final)
    assert [sync_prefix(limits, whole, number).size for number in range(1, 6)] == want
    for number, size in enumerate(want, 1):
        if size is not None:
            cut = sync_prefix(limits, whole, number)
            assert (cut.previous, cut.present) == second_look(log.entries, want, number)
    for size in range(0, len(log.entries) + 1, 3):
        again = Prefix(log.entries[:size])
        for number in range(1, 6):
            assert sync_prefix(limits, whole.upto(size), number) == sync_prefix(limits, again, number)
        assert pace(limits, whole.upto(size)) == pace(limits, again) <= again.highest_round
