"""Who is to attest what, and the second cut of a synchronous round: up to where attestations count."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, account, spec

from fl_node.merging.attested import attestable, attested_prefix, attests_first
from fl_node.merging.scores import lower_median
from fl_node.merging.selection import draw_rank, draw_seed, select
from fl_node.merging.sync import pace, sync_prefix
from fl_node.prefix import Prefix
from fl_node.records import Reason, Role, UpdateRef


def rules(mode="async", attest="all", k=3, every=1, scores="attested", **merging):
    return spec(
        merging={"scores": scores, **merging},
        attestation={"mode": attest, "k": k, "every": every},
        rounds={"mode": mode, "deadline_s": 100.0},
    )


def names(entries):
    return [str(entry.ref) for entry in entries]


def started(peers=4, time_s=2_000):
    log = Log(peers)
    for peer in range(1, peers + 1):
        log.at(time_s).publish(peer, 1)
    return log


def test_a_lower_median():
    assert [lower_median(values) for values in ([7], [1, 9], [3, 1, 2], [4, 1, 3, 2], [0, -5])] == [7, 1, 2, 2, -5]


# ---- what to attest ----


def test_everybody_elses_latest_and_nothing_twice():
    log = started()
    assert names(attestable(rules(), log.prefix, 1, 2)) == ["2#1", "3#1", "4#1"]
    log.attest(1, UpdateRef(3, 1))
    assert names(attestable(rules(), log.prefix, 1, 2)) == ["2#1", "4#1"]
    log.publish(1, 2)
    log.publish(3, 2)
    log.publish(4, 2, final=True)
    assert names(attestable(rules(), log.prefix, 1, 3)) == ["2#1", "3#2", "4#1"]


def test_what_is_not_attested():
    log = Log()
    for site in ("a", "a", "b", "c", "d", "e"):
        log.admit(site)
    for peer in range(1, 7):
        log.publish(peer, 1)
    log.object(3, UpdateRef(3, 1), Reason.WITHDRAWN)
    log.object(1, UpdateRef(4, 1), Reason.UNAVAILABLE)
    log.retire(5)
    assert names(attestable(rules(), log.prefix, 1, 2)) == ["6#1"], "2 is of the own site"
    log.admit("f", roles=Role.PUBLISH)
    assert attestable(rules(), log.prefix, 7, 2) == ()


def test_stale_updates_are_not_attested():
    log = started(2)
    for round_number in range(2, 5):
        log.publish(1, round_number)
    assert names(attestable(rules(max_staleness=3), log.prefix, 1, 5)) == ["2#1"]
    assert names(attestable(rules(max_staleness=2), log.prefix, 1, 5)) == []


@pytest.mark.parametrize(("every", "rounds"), [(1, {2, 3, 4, 5, 6}), (2, {2, 4, 6}), (3, {3, 6})])
def test_in_every_kth_round(every, rounds):
    log = started()
    assert {r for r in range(2, 7) if attestable(rules(every=every), log.prefix, 1, r)} == rounds


def test_none():
    assert attestable(rules(attest="none", scores="claimed"), started().prefix, 1, 2, candidates=()) == ()


def test_a_sample_is_drawn_and_a_crash_draws_no_other():
    log = started(12)
    policy = rules(attest="sample", k=4)
    seed = draw_seed(b"s" * 32, bytes.fromhex(account(5)[2:]), 2)
    order = sorted((peer for peer in range(1, 13) if peer != 5), key=lambda peer: draw_rank(seed, peer))
    assert [entry.ref.peer for entry in attestable(policy, log.prefix, 5, 2)] == sorted(order[:4])
    log.attest(5, UpdateRef(order[0], 1), UpdateRef(order[2], 1))
    assert [entry.ref.peer for entry in attestable(policy, log.prefix, 5, 2)] == sorted([order[1], order[3]])
    log.attest(5, UpdateRef(order[1], 1), UpdateRef(order[3], 1))
    log.publish(2, 2)
    assert attestable(policy, log.prefix, 5, 2) == ()
    log.publish(5, 2)
    assert len(attestable(policy, log.prefix, 5, 3)) == 4


def test_at_most_64_in_a_round():
    assert len(attestable(rules(), started(80).prefix, 1, 2)) == 64


def test_by_claims_it_is_what_was_selected():
    log = started(6)
    policy = rules(scores="claimed", selection="random-k", k=2)
    chosen = select(policy, log.prefix, 1, 2)
    wanted = attestable(policy, log.prefix, 1, 2, candidates=chosen.candidates)
    assert [entry.ref for entry in wanted] == [entry.ref for entry in chosen.candidates if entry.ref.peer != 1]
    with pytest.raises(ValueError, match="expected those of the selection"):
        attestable(policy, log.prefix, 1, 2)


def test_in_a_graph_the_neighbours():
    policy = rules(selection="graph", graph="ring")
    assert names(attestable(policy, started(6).prefix, 1, 2)) == ["2#1", "6#1"]


def test_in_a_ring_the_token():
    policy = rules(selection="ring")
    log = started(3)
    assert not attests_first(policy)
    chosen = select(policy, log.prefix, 1, 2)
    assert names(attestable(policy, log.prefix, 1, 2, candidates=chosen.candidates)) == ["3#1"]


# ---- the second cut ----


def test_waits_until_all_have_attested():
    log, policy = started(3), rules("sync")
    cut = log.prefix.size
    assert names(attestable(policy, log.prefix, 1, 2)) == ["2#1", "3#1"]
    for peer, others in ((1, (2, 3)), (2, (1, 3))):
        log.attest(peer, *(UpdateRef(other, 1) for other in others))
    waiting = attested_prefix(policy, log.prefix, 2)
    assert (waiting.size, waiting.waits_for, waiting.deadline_time_s) == (None, (3,), 2_100)
    with pytest.raises(ValueError, match=r"round 2 must wait for peers \[3\] to attest"):
        select(policy, log.prefix, 1, 2)
    log.attest(3, UpdateRef(1, 1))
    assert attested_prefix(policy, log.prefix, 2).size is None, "one is still owed"
    log.attest(3, UpdateRef(2, 1))
    size = log.prefix.size
    log.publish(1, 2)
    done = attested_prefix(policy, log.prefix, 2)
    assert (done.size, done.waits_for, done.by_deadline) == (size, (), False)
    chosen = select(policy, log.prefix, 1, 2)
    assert (chosen.size, chosen.cut.size, chosen.attested) == (size, cut, done)
    assert names(chosen.candidates) == ["1#1", "2#1", "3#1"]


def test_bases_are_equal_whatever_follows():
    log, policy = started(3), rules("sync", selection="best")
    for peer in (1, 2, 3):
        for other in {1, 2, 3} - {peer}:
            log.attest(peer, UpdateRef(other, 1), score=100_000 * other)
    first = select(policy, log.prefix, 1, 2)
    assert names(first.candidates) == ["3#1"]
    log.admit("site-4")
    log.attest(4, UpdateRef(1, 1), score=1_000_000)
    log.publish(1, 2)
    for peer in (1, 2, 3):
        again = select(policy, log.prefix, peer, 2)
        assert again.candidates == first.candidates and again.size == first.size
        assert {ref: one.score_ppm for ref, one in again.standing.items()} == {UpdateRef(3, 1): 300_000}


def test_an_objection_is_as_good_as_an_attestation():
    log, policy = started(2), rules("sync")
    log.attest(1, UpdateRef(2, 1))
    log.object(2, UpdateRef(1, 1), Reason.UNAVAILABLE)
    assert attested_prefix(policy, log.prefix, 2).size == log.prefix.size


def test_the_withdrawn_and_the_retired_are_not_waited_for():
    log, policy = started(4), rules("sync")
    log.attest(1, UpdateRef(2, 1))
    log.attest(2, UpdateRef(1, 1))
    log.object(3, UpdateRef(3, 1), Reason.WITHDRAWN)
    log.attest(3, UpdateRef(1, 1), UpdateRef(2, 1))
    waiting = attested_prefix(policy, log.prefix, 2)
    assert waiting.size is None and waiting.waits_for == (1, 2, 3, 4)
    log.retire(4)
    assert attested_prefix(policy, log.prefix, 2).size == log.prefix.size


def test_the_deadline_runs_from_the_cut():
    log, policy = started(3), rules("sync")
    log.at(2_050).attest(1, UpdateRef(2, 1), UpdateRef(3, 1))
    size = log.prefix.size
    assert attested_prefix(policy, log.prefix, 2, now_s=2_099).size is None
    by_clock = attested_prefix(policy, log.prefix, 2, now_s=2_100)
    assert (by_clock.size, by_clock.waits_for, by_clock.by_deadline) == (size, (2, 3), True)
    chosen = select(policy, log.prefix, 1, 2, now_s=2_100)
    assert names(chosen.candidates) == ["2#1", "3#1"], "its own is left out as it is for the others"
    log.at(2_100).attest(2, UpdateRef(1, 1))
    assert attested_prefix(policy, log.prefix, 2) == by_clock
    assert select(policy, log.prefix, 3, 2).candidates == chosen.candidates


def test_after_a_cut_by_deadline_the_second_runs_from_that_deadline():
    log, policy = Log(2), rules("sync")
    log.at(2_000).publish(1, 1)
    assert attested_prefix(policy, log.prefix, 2, now_s=2_100).size == log.prefix.size, "nothing to attest for anybody"
    log.admit()
    log = Log(3)
    log.at(2_000).publish(1, 1)
    log.at(2_010).publish(2, 1)
    waiting = attested_prefix(policy, log.prefix, 2, now_s=2_150)
    assert (waiting.size, waiting.deadline_time_s, waiting.waits_for) == (None, 2_200, (1, 2))


def attest_all(log, peers, round_number):
    """Each attests all others' updates of a round; its own count of updates is that round's number."""
    for peer in peers:
        log.attest(peer, *(UpdateRef(other, round_number) for other in peers if other != peer))


def test_in_a_round_without_attesting_nobody_is_waited_for():
    log, policy = started(3), rules("sync", every=2)
    assert attested_prefix(policy, log.prefix, 2).waits_for == (1, 2, 3)
    attest_all(log, (1, 2, 3), 1)
    for peer in (1, 2, 3):
        log.publish(peer, 2)
    assert attested_prefix(policy, log.prefix, 3).size == log.prefix.size


def test_who_does_not_wait_for_attestations_starts_nobodys_clock():
    """Peer 4 attests nothing and publishes as soon as the round has its cut. The others wait for it until the deadline;
    if its update counted, the next round's deadline would be there when they begin to train, and they would be merging
    what it published, alone."""
    log, policy = started(4), rules("sync", selection="best")
    log.at(2_001).publish(4, 2, score=1_000_000)
    attest_all(log, (1, 2, 3), 1)
    for peer in (1, 2, 3):
        log.attest(peer, UpdateRef(4, 1))
    assert attested_prefix(policy, log.prefix, 2).waits_for == (4,)
    assert pace(policy, log.prefix) == 1
    for time_s, peer in ((2_100, 1), (2_110, 2), (2_120, 3)):
        assert sync_prefix(policy, log.prefix, 3, now_s=time_s).size is None
        log.at(time_s).publish(peer, 2)
    cut = sync_prefix(policy, log.prefix, 3)
    assert (cut.size, cut.missing) == (log.prefix.size, ()), "it can publish nothing for round 2 any more"
    assert cut.present == (UpdateRef(1, 2), UpdateRef(2, 2), UpdateRef(3, 2))
    assert pace(policy, log.prefix) == 2
    attest_all(log, (1, 2, 3), 2)
    chosen = select(policy, log.prefix, 1, 3)
    assert chosen.candidates[0].ref.peer != 4
    early = log.prefix.update(UpdateRef(4, 2)).update.seen
    assert chosen.considered[3].reason == f"made before round 2 had begun, at log size {early}"


@pytest.mark.parametrize(("short_by", "counted"), [(0, True), (1, False)])
def test_an_update_counts_if_it_had_seen_the_attestations(short_by, counted):
    log, policy = started(3), rules("sync")
    attest_all(log, (1, 2, 3), 1)
    log.publish(1, 2, seen=log.prefix.size - short_by)
    assert pace(policy, log.prefix) == (2 if counted else 1)
    late = started(3)
    late.attest(1, UpdateRef(2, 1), UpdateRef(3, 1))
    late.at(2_100).announce(1, 1, "http://a")  # the first entry after the deadline is what tells
    late.publish(1, 2, seen=late.prefix.size - 1 - short_by)
    assert pace(policy, late.prefix) == (2 if counted else 1)


WORDS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["attest", "attest", "object", "retire", "late"]),
              st.integers(0, 30)),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(WORDS, st.sampled_from(["all", "sample"]))
def test_more_entries_never_move_it(words, mode):
    policy = rules("sync", mode, k=2)
    log = started(4)
    first = log.prefix.size
    done = set()
    for by, of, kind, wait in words:
        log.at(log.time_s + wait)
        if kind == "retire" and ("retired", by) not in done and len(done) < 30:
            done.add(("retired", by))
            log.retire(by)
        elif ("retired", by) in done or by == of or (by, of) in done:
            continue
        elif kind == "late":
            log.publish(by, log.prefix.latest(by).round + 1)
        else:
            done.add((by, of))
            if kind == "attest":
                log.attest(by, UpdateRef(of, 1))
            else:
                log.object(by, UpdateRef(of, 1), Reason.UNAVAILABLE)
    entries = log.entries
    found = None
    grown = Prefix(entries[:first])
    for size in range(first, len(entries) + 1):
        grown = grown.extend(entries[grown.size : size])
        fresh = attested_prefix(policy, Prefix(entries[:size]), 2)
        assert attested_prefix(policy, grown, 2) == fresh
        assert found is None or fresh == found
        found = fresh if fresh.size is not None else None
    for size in range(first, len(entries) + 1):
        fresh = attested_prefix(policy, Prefix(entries[:size]), 2)
        assert attested_prefix(policy, grown.upto(size), 2) == fresh
        by_clock = attested_prefix(policy, grown.upto(size), 2, now_s=fresh.deadline_time_s)
        assert by_clock.size is not None and by_clock == attested_prefix(
            policy, Prefix(entries[:size]), 2, now_s=fresh.deadline_time_s
        )
