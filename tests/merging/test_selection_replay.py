"""Selection against a second implementation of its rules, on random logs and under every policy; and that it depends on
nothing but the log: not on what was asked before, nor on what follows."""

from __future__ import annotations

import random

import pytest
from plain_selection import Plain, plain_log, second_cut
from random_logs import SELECTIONS, orderly_log, random_log, random_spec

from fl_node.merging.attested import attested_prefix, attests_first
from fl_node.merging.selection import select
from fl_node.merging.sync import sync_prefix
from fl_node.prefix import Prefix


def plain_cut(cut):
    return {
        "size": cut.size,
        "previous": cut.previous,
        "present": [[ref.peer, ref.sequence] for ref in cut.present],
        "missing": list(cut.missing),
        "by_deadline": cut.by_deadline,
        "deadline": cut.deadline_time_s,
    }


def both(policy, entries, log, prefix, own, round_number, seen, now_s):
    """The package's selection and the plain one, or ``None`` where the round has to wait, for both."""
    tables = policy.model_dump()
    if policy.rounds.mode == "async":
        return select(policy, prefix, own, round_number, seen=seen), Plain(tables, log, own, prefix.size, seen)
    cut = sync_prefix(policy, prefix, round_number, now_s)
    if cut.size is None:
        return None
    words = cut.size
    if attests_first(policy):
        words = second_cut(tables, log, prefix.size, round_number, plain_cut(cut), now_s)
        assert attested_prefix(policy, prefix, round_number, now_s).size == words
        if words is None:
            with pytest.raises(ValueError, match="must wait"):
                select(policy, prefix, own, round_number, now_s=now_s)
            return None
    chosen = select(policy, prefix, own, round_number, now_s=now_s)
    return chosen, Plain(tables, log, own, prefix.size, cut.size, words, plain_cut(cut))


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_second_implementation_selects_the_same(selection, mode):
    if (selection, mode) == ("ring", "sync"):
        mode = "async"
    compared = 0
    for seed in range(25):
        dice = random.Random(f"{selection} {mode} {seed}")
        orderly = mode == "sync" and seed % 2
        log = orderly_log(dice, 6, 4) if orderly else random_log(dice, dice.randint(1, 9), dice.randint(5, 70))
        plain, whole = plain_log(log.entries), log.prefix
        policy = random_spec(dice, selection, mode)
        for _ in range(8):
            prefix = whole.upto(dice.randint(log.members + 1, whole.size)) if log.members < whole.size else whole
            own = dice.choice([facts.number for facts in prefix.peers()])
            mine = prefix.updates(own)
            seen = dice.randint(max(mine[-1].index + 1 if mine else 0, prefix.peer(own).admitted + 1), prefix.size)
            round_number = dice.randint(1, prefix.highest_round + 1)
            found = both(
                policy, log.entries, plain, prefix, own, round_number, seen, prefix.time_s + dice.choice((0, 40))
            )
            if found is None:
                continue
            chosen, by_hand = found
            outcomes = {item.peer: item.outcome.value for item in chosen.considered}
            assert outcomes == by_hand.outcomes, f"{policy.merging} for {own} at {prefix.size}, seen {seen}"
            assert [[e.ref.peer, e.ref.sequence] for e in chosen.candidates] == [
                [u["peer"], u["sequence"]] for u in by_hand.chosen
            ]
            scores = {(ref.peer, ref.sequence): one.score_ppm for ref, one in chosen.standing.items()}
            assert scores == by_hand.scores
            compared += len(chosen.candidates) > 0
    assert compared >= 40


@pytest.mark.parametrize("selection", ["all-latest", "newer-than-merged", "above-own", "graph", "random-k"])
def test_more_than_the_ledger_takes(selection):
    dice = random.Random(selection)
    log = random_log(dice, 90, 60)
    before = log.prefix
    for peer in range(1, 91):
        if before.peer(peer).publishes and not before.sequence(peer):
            log.publish(peer, 1, score=dice.randint(0, 9))
    policy = random_spec(dice, selection, "async")
    changed = {"graph": "full", "k": 63, "scores": "claimed", "edges": ()}
    policy = policy.model_copy(update={"merging": policy.merging.model_copy(update=changed)})
    prefix = log.prefix
    for own in dice.sample([facts.number for facts in prefix.peers() if facts.publishes], 2):
        chosen, by_hand = both(policy, log.entries, plain_log(log.entries), prefix, own, 2, prefix.size, 0)
        assert {item.peer: item.outcome.value for item in chosen.considered} == by_hand.outcomes
        assert len(chosen.candidates) <= 64
        assert selection == "above-own" or "not-drawn" in by_hand.outcomes.values()


@pytest.mark.parametrize("selection", SELECTIONS)
def test_what_was_asked_before_and_what_follows_changes_nothing(selection):
    for seed in range(8):
        dice = random.Random(f"order {selection} {seed}")
        log = random_log(dice, 6, 50)
        policy = random_spec(dice, selection)
        sizes = range(log.members + 1, len(log.entries) + 1)
        questions = [(size, peer.number) for size in sizes for peer in log.prefix.upto(size).peers()]
        dice.shuffle(questions)
        whole = log.prefix
        for size, peer in questions[:40]:
            fresh = asked(policy, Prefix(log.entries[:size]), peer)
            assert asked(policy, whole.upto(size), peer) == fresh
            assert asked(policy, whole.upto(size), peer) == fresh, "asked twice"


def asked(policy, prefix, peer):
    try:
        chosen = select(policy, prefix, peer, prefix.highest_round + 1)
    except ValueError as waiting:
        return str(waiting)
    return chosen.candidates, dict(chosen.standing), chosen.considered, chosen.excusable, chosen.outcomes_after({})


@pytest.mark.parametrize("selection", [name for name in SELECTIONS if name not in ("ring", "graph")])
def test_what_peers_are_numbered_matters_to_nobody(selection):
    """Without draws and ties, peers and their numbers are interchangeable: who is admitted last is treated alike."""
    for seed in range(6):
        dice = random.Random(f"permuted {selection} {seed}")
        policy = random_spec(dice, selection, "async").model_copy()
        policy = policy.model_copy(update={"merging": policy.merging.model_copy(update={"k": 5, "scores": "claimed"})})
        scores = dice.sample(range(1, 100), 6)
        order = list(range(6))
        told = []
        for _ in range(2):
            log = random_log(random.Random(0), 0, 0)
            for _ in order:
                log.admit()
            refs = {who: log.publish(place + 1, 1, score=scores[who] * 10_000) for place, who in enumerate(order)}
            chosen = select(policy, log.prefix, refs[0].peer, 2)
            by_peer = {item.peer: item.outcome for item in chosen.considered}
            told.append({who: by_peer[ref.peer] for who, ref in refs.items()})
            dice.shuffle(order)
        assert told[0] == told[1]
