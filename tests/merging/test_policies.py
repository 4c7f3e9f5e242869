"""Every selection policy, case by case as docs/replay-rules.md names them, and what is told of those left out."""

from __future__ import annotations

import pytest
from logs import Log, content, spec

from fl_node.merging.graphs import neighbours_of
from fl_node.merging.outcomes import percent
from fl_node.merging.selection import MOST_PARENTS, Failure, draw_rank, draw_seed, select
from fl_node.records import Parent, Reason, Role, UpdateRef


def rules(selection, **more):
    rounds = more.pop("rounds", {})
    attestation = {"mode": "all"} if more.get("scores") == "attested" else {}
    return spec(merging={"selection": selection, **more}, rounds=rounds, attestation=attestation)


def outcomes(chosen):
    return {item.peer: item.outcome.value for item in chosen.considered}


def reasons(chosen):
    return {item.peer: item.reason for item in chosen.considered}


def names(chosen):
    return [str(entry.ref) for entry in chosen.candidates]


def scored(*scores, base=500_000):
    log = Log(len(scores))
    for peer, score in enumerate(scores, 1):
        log.publish(peer, 1, score=score, base_score=base)
    return log


def parents(*refs, share=500_000):
    return tuple(Parent(peer, sequence, content(peer, sequence)[:4], share) for peer, sequence in refs)


# ---- newer-than-merged ----


def test_newer_than_merged_takes_what_was_not_merged_before():
    log = Log(4)
    for peer in (1, 2, 3, 4):
        log.publish(peer, 1)
    log.publish(1, 2, parents=parents((1, 1), (2, 1)))
    log.publish(3, 2)
    chosen = select(rules("newer-than-merged"), log.prefix, 1, 3)
    assert names(chosen) == ["1#2", "3#2", "4#1"]
    assert outcomes(chosen)[2] == "already-merged" and reasons(chosen)[2].startswith("2#1 was merged before")
    assert outcomes(select(rules("newer-than-merged"), log.prefix, 2, 2))[1] == "merged", (
        "another's history is not mine"
    )


def test_newer_than_merged_does_not_count_a_share_of_zero():
    log = scored(0, 0)
    log.publish(1, 2, parents=(*parents((1, 1), share=1_000_000), *parents((2, 1), share=0)))
    assert names(select(rules("newer-than-merged"), log.prefix, 1, 3)) == ["1#2", "2#1"]


def test_newer_than_merged_keeps_the_highest_sequence():
    """A later merge of an older update, as after a fork of the chain, takes nothing back."""
    log = scored(0, 0)
    log.publish(2, 2)
    log.publish(1, 2, parents=parents((2, 2)))
    log.publish(1, 3, parents=parents((2, 1)))
    assert names(select(rules("newer-than-merged"), log.prefix, 1, 4)) == ["1#3"]


def test_newer_than_merged_asked_about_an_earlier_update():
    """An audit goes back in the log after it has been at its end."""
    log = scored(0, 0)
    before = log.prefix
    whole = before.extend(())
    log.publish(1, 2, parents=parents((1, 1), (2, 1)))
    whole = whole.extend(log.entries[whole.size :])
    assert names(select(rules("newer-than-merged"), whole, 1, 3)) == ["1#2"]
    assert names(select(rules("newer-than-merged"), whole.upto(before.size), 1, 2)) == ["1#1", "2#1"]


# ---- scores ----


def test_top_k_of_the_others_and_ones_own():
    chosen = select(rules("top-k", k=2), scored(1, 900_000, 920_000, 910_000, 915_000).prefix, 1, 2)
    assert names(chosen) == ["1#1", "3#1", "5#1"]
    assert reasons(chosen)[4] == "claimed score 91.00 %, needed above 91.50 %"
    assert outcomes(chosen) == {1: "merged", 2: "outscored", 3: "merged", 4: "outscored", 5: "merged"}
    assert {str(ref): standing.score_ppm for ref, standing in chosen.standing.items()} == {
        "1#1": 1,
        "3#1": 920_000,
        "5#1": 915_000,
    }


def test_top_k_with_as_many_as_there_are_is_all_latest():
    log = scored(5, 4, 3, 2, 1)
    every = select(rules("all-latest"), log.prefix, 2, 2)
    for policy in ("top-k", "random-k"):
        chosen = select(rules(policy, k=4), log.prefix, 2, 2)
        assert chosen.candidates == every.candidates and chosen.considered == every.considered


@pytest.mark.parametrize("policy", ["top-k", "best"])
def test_equal_scores_go_by_the_order_of_updates(policy):
    log = scored(0, 7, 7, 7, 7)
    chosen = select(rules(policy, k=1), log.prefix, 1, 2)
    first = min((content(peer, 1), peer) for peer in (2, 3, 4, 5))[1]
    assert {entry.ref.peer for entry in chosen.candidates} - {1} == {first}
    other = next(peer for peer in (2, 3, 4, 5) if peer != first)
    assert reasons(chosen)[other].endswith("as good as the last one chosen, but after it in the order of updates")


def test_best_is_one_ones_own_or_another():
    assert names(select(rules("best"), scored(5, 9, 7).prefix, 1, 2)) == ["2#1"]
    chosen = select(rules("best"), scored(5, 9, 7).prefix, 2, 2)
    assert names(chosen) == ["2#1"] and outcomes(chosen) == {1: "outscored", 2: "merged", 3: "outscored"}


def test_above_own():
    log = scored(5, 9, 5, 4)
    assert names(select(rules("above-own"), log.prefix, 1, 2)) == ["1#1", "2#1"]
    assert names(select(rules("above-own"), log.prefix, 2, 2)) == ["2#1"]
    log.admit()
    assert len(names(select(rules("above-own"), log.prefix, 5, 2))) == 4, "who has no score yet takes everybody"


def test_improvement_is_measured_against_the_base():
    log = Log(3)
    log.publish(1, 1, score=100, base_score=50)
    log.publish(2, 1, score=900, base_score=950)
    log.publish(3, 1, score=500, base_score=300)
    chosen = select(rules("best", measure="improvement"), log.prefix, 1, 2)
    assert names(chosen) == ["3#1"] and chosen.standing[UpdateRef(3, 1)].score_ppm == 200
    assert reasons(chosen)[2] == "claimed improvement -0.005 %, needed above 0.02 %"


def test_what_fails_a_check_is_not_compared():
    log = scored(1, 9, 8, 7)
    log.object(2, UpdateRef(2, 1), Reason.WITHDRAWN)
    log.object(1, UpdateRef(3, 1), Reason.MALFORMED)
    chosen = select(rules("best"), log.prefix, 1, 2)
    assert names(chosen) == ["4#1"]
    assert outcomes(chosen) == {1: "outscored", 2: "withdrawn", 3: "malformed", 4: "merged"}


def test_attested_scores_are_a_median_over_sites():
    log = Log()
    for site in ("a", "b", "c", "d", "b", "b", "e"):
        log.admit(site)
    for peer in (1, 2, 3):
        log.publish(peer, 1, score=1_000_000)
    ref = UpdateRef(3, 1)
    said = {1: 100, 2: 400, 5: 300, 6: 500, 4: 200, 7: 900}  # site b: 300, 400, 500 is one voice
    for peer, score in said.items():
        log.attest(peer, ref, score=score, base_score=100)
    policy = rules("top-k", k=1, scores="attested")
    chosen = select(policy, log.prefix, 1, 2)
    assert chosen.standing[ref].score_ppm == 200, "of a 100, b 400, d 200, e 900 the lower middle"
    improved = rules("top-k", k=1, scores="attested", measure="improvement")
    assert select(improved, log.prefix, 1, 2).standing[ref].score_ppm == 100
    log.retire(4, from_index=0)
    assert select(policy, log.prefix, 1, 2).standing[ref].score_ppm == 400, "who was retired said nothing"


def test_a_false_claim_wins_by_claims_and_not_by_attestation():
    log = scored(500_000, 1_000_000, 600_000)
    for by, of, score in [(1, 2, 100_000), (3, 2, 100_000), (2, 3, 0), (1, 3, 590_000), (2, 1, 0), (3, 1, 500_000)]:
        log.attest(by, UpdateRef(of, 1), score=score)
    assert names(select(rules("best"), log.prefix, 1, 2)) == ["2#1"]
    log.admit("site-4")
    log.attest(4, UpdateRef(3, 1), score=590_000)
    log.attest(4, UpdateRef(1, 1), score=500_000)
    log.attest(4, UpdateRef(2, 1), score=100_000)
    assert names(select(rules("best", scores="attested"), log.prefix, 1, 2)) == ["3#1"]


def test_the_publishers_own_site_attests_nothing():
    log = Log()
    for site in ("a", "b", "b"):
        log.admit(site)
    for peer in (1, 2):
        log.publish(peer, 1)
    log.attest(3, UpdateRef(2, 1))
    chosen = select(rules("all-latest", scores="attested"), log.prefix, 1, 2)
    assert outcomes(chosen) == {1: "merged", 2: "unattested", 3: "none-yet"}
    assert reasons(chosen)[2] == "attested by 0 other sites, at least 1 are asked for"


def test_too_few_attesting_sites():
    log = scored(1, 2, 3, 4)
    log.attest(3, UpdateRef(2, 1), score=700_000)
    log.attest(2, UpdateRef(3, 1), score=600_000)
    log.attest(4, UpdateRef(3, 1), score=600_000)
    two = {"scores": "attested", "attesting_sites": 2}
    assert names(select(rules("top-k", k=3, **two), log.prefix, 1, 2)) == ["1#1", "3#1"]
    zero = select(rules("top-k", k=3, **two, unattested="zero"), log.prefix, 1, 2)
    assert names(zero) == ["1#1", "2#1", "3#1", "4#1"]
    assert zero.standing[UpdateRef(2, 1)].score_ppm == 0 and zero.standing[UpdateRef(3, 1)].score_ppm == 600_000


@pytest.mark.parametrize("policy", ["all-latest", "newer-than-merged", "top-k", "above-own", "random-k", "best"])
def test_where_nothing_is_attested_ones_own_is_left(policy):
    """Otherwise a peer would lose its training to the genesis."""
    log = scored(4, 5, 6)
    chosen = select(rules(policy, k=2, scores="attested"), log.prefix, 1, 2)
    assert names(chosen) == ["1#1"] and outcomes(chosen) == {1: "merged", 2: "unattested", 3: "unattested"}
    assert chosen.standing[UpdateRef(1, 1)].score_ppm == 4, "its own claim stands for it"


def test_in_an_asynchronous_round_ones_own_needs_no_attestation():
    log = scored(4, 5, 6)
    log.attest(1, UpdateRef(2, 1))
    assert names(select(rules("all-latest", scores="attested"), log.prefix, 1, 2)) == ["1#1", "2#1"]
    assert names(select(rules("best", scores="attested"), log.prefix, 1, 2)) == ["2#1"]


def test_too_few_samples():
    log = Log(3)
    for peer, samples in ((1, 5), (2, 50), (3, 49)):
        log.publish(peer, 1, samples=samples)
    chosen = select(rules("all-latest", min_samples=50), log.prefix, 2, 2)
    assert outcomes(chosen) == {1: "too-few-samples", 2: "merged", 3: "too-few-samples"}
    assert reasons(chosen)[3] == "49 training samples, at least 50 are asked for"


# ---- draws and graphs ----


def test_random_k_draws_anew_for_every_update():
    log = scored(*range(20))
    chosen = select(rules("random-k", k=4), log.prefix, 7, 2)
    seed = draw_seed(b"s" * 32, (7).to_bytes(20, "big"), 2)
    ranks = sorted((draw_rank(seed, peer), peer) for peer in range(1, 21) if peer != 7)
    assert {entry.ref.peer for entry in chosen.candidates} == {7, *(peer for _, peer in ranks[:4])}
    assert reasons(chosen)[ranks[-1][1]] == "not among the 4 drawn for this update"
    log.publish(7, 2)
    again = select(rules("random-k", k=4), log.prefix, 7, 3)
    assert {entry.ref.peer for entry in again.candidates} != {entry.ref.peer for entry in chosen.candidates}


def test_nobody_is_drawn_for_publishing_more():
    log = scored(*range(20))
    policy = rules("random-k", k=4)
    drawn = {entry.ref.peer for entry in select(policy, log.prefix, 7, 2).candidates}
    (eager, *_) = sorted(set(range(1, 21)) - drawn)
    for number in range(2, 40):
        log.publish(eager, number)
        assert {entry.ref.peer for entry in select(policy, log.prefix, 7, 2).candidates} == drawn


def test_random_k_draws_on_past_what_cannot_be_merged():
    log = scored(*range(12))
    seed = draw_seed(b"s" * 32, (1).to_bytes(20, "big"), 2)
    order = sorted(range(2, 13), key=lambda peer: draw_rank(seed, peer))
    log.object(order[0], UpdateRef(order[0], 1), Reason.WITHDRAWN)
    log.object(1, UpdateRef(order[2], 1), Reason.MALFORMED)
    chosen = select(rules("random-k", k=3), log.prefix, 1, 2)
    assert {entry.ref.peer for entry in chosen.candidates} == {1, order[1], order[3], order[4]}
    told = outcomes(chosen)
    assert told[order[0]] == "withdrawn" and told[order[2]] == "malformed" and told[order[5]] == "not-drawn"


def test_random_k_in_a_synchronous_round_draws_from_the_round_before():
    log = scored(*range(6))
    for peer in range(1, 7):
        log.publish(peer, 2)
    chosen = select(rules("random-k", k=2, rounds={"mode": "sync"}), log.prefix, 1, 3)
    assert len(chosen.candidates) == 3 and {entry.round for entry in chosen.candidates} == {2}


def test_neighbours_only():
    log = scored(*range(6))
    policy = rules("graph", graph="ring")
    chosen = select(policy, log.prefix, 1, 2)
    assert names(chosen) == ["1#1", "2#1", "6#1"]
    assert outcomes(chosen)[4] == "not-a-neighbour" and reasons(chosen)[4] == "no neighbour in the graph 'ring'"
    log.retire(2)
    assert names(select(policy, log.prefix, 1, 2)) == ["1#1", "3#1", "6#1"], "the ring closes over who left"
    assert outcomes(select(policy, log.prefix, 1, 2))[2] == "retired"


def test_the_graph_is_of_those_who_publish():
    log = scored(*range(3))
    log.admit(roles=Role.READ)
    log.admit()
    policy = rules("graph", graph="line")
    assert neighbours_of(policy, log.prefix)[3] == {2, 5}
    assert outcomes(select(policy, log.prefix, 3, 2)) == {1: "not-a-neighbour", 2: "merged", 3: "merged", 5: "none-yet"}


@pytest.mark.parametrize(("selection", "more"), [("random-k", {"k": 2}), ("graph", {"graph": "ring"}), ("top-k", {})])
def test_a_newcomer_whom_the_round_does_not_know_yet(selection, more):
    """Admitted after the cut, it merges what the others merge, and does not begin at the genesis."""
    log = scored(1, 2, 3, 4, 5)
    for peer in (1, 2, 3, 4, 5):
        log.publish(peer, 2)
    own = log.admit()
    chosen = select(rules(selection, rounds={"mode": "sync"}, **more), log.prefix, own, 3)
    assert len(chosen.candidates) >= 2 and own not in outcomes(chosen)
    if selection == "graph":
        assert names(chosen) == ["1#2", "5#2"]


# ---- what is told ----


def test_rejected_by_the_rule_and_failed_to_come():
    chosen = select(rules("all-latest"), scored(1, 2, 3).prefix, 1, 2)
    table = chosen.outcomes_after(
        {UpdateRef(2, 1): Failure(Reason.UNAVAILABLE, "no provider")}, {UpdateRef(3, 1): "far from all others"}
    )
    assert [(row["outcome"], row["reason"]) for row in table] == [
        ("merged", ""),
        ("unavailable", "no provider"),
        ("rejected", "far from all others"),
    ]


def test_many_that_fared_alike_are_told_together():
    log = Log(80)
    for peer in range(1, 76):
        log.publish(peer, 1)
    log.publish(1, 2, parents=parents((9, 1)))
    log.retire(70)
    log.object(20, UpdateRef(20, 1), Reason.WITHDRAWN)
    log.object(30, UpdateRef(30, 1), Reason.WITHDRAWN)
    chosen = select(rules("newer-than-merged"), log.prefix, 1, 3)
    table = chosen.outcomes_after({})
    merged = [row for row in table if row["outcome"] == "merged"]
    assert [row["sequence"] for row in merged if row["peer"] == 1] == [2]
    others = {row["outcome"]: row for row in table if row["outcome"] != "merged"}
    assert others["none-yet"]["peers"] == "76-80" and others["none-yet"]["count"] == 5
    assert others["already-merged"]["peers"] == "9" and others["retired"]["peers"] == "70"
    counted = len(merged) + sum(row.get("count", 1) for row in others.values())
    assert counted == len(chosen.considered) == 80
    assert len(chosen.candidates) == MOST_PARENTS
    by_hand = {row["outcome"]: row.get("count", 1) for row in table if row["outcome"] != "merged"}
    assert by_hand == {outcome: sum(item.outcome.value == outcome for item in chosen.considered) for outcome in by_hand}


def test_percentages_tell_a_score_exactly():
    assert [percent(ppm) for ppm in (0, 1, 912_000, 912_050, 1_000_000, -20)] == [
        "0.00 %",
        "0.0001 %",
        "91.20 %",
        "91.205 %",
        "100.00 %",
        "-0.002 %",
    ]
