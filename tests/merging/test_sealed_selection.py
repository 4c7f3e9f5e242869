"""Selection where updates are encrypted, against a second implementation: keys of all kinds, late joiners, members that
were retired, updates that refer to earlier ones; and what no log may change."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from logs import Log, spec
from plain_selection import Plain, owed, plain_log, sealed_for, usable
from random_logs import SELECTIONS, UNUSABLE, SealedLog, orderly_log, random_log, random_spec
from test_selection_replay import both, plain_cut

from fl_node import readers
from fl_node.merging.attested import attests_first
from fl_node.merging.outcomes import Outcome
from fl_node.merging.owed import due
from fl_node.merging.selection import select
from fl_node.merging.sync import sync_prefix
from fl_node.prefix import Prefix
from fl_node.records import Flag, PeerAnnounced, UpdatePublished, UpdateRef


def keyed(dice: random.Random, orderly: bool) -> Log:
    log = SealedLog(random.Random(dice.random()))
    return orderly_log(dice, 6, 4, log) if orderly else random_log(dice, dice.randint(1, 9), dice.randint(5, 70), log)


def with_depth(policy, full_every):
    encoding = policy.encoding.model_copy(update={"kind": "int8-delta", "full_every": full_every})
    return policy.model_copy(update={"encoding": encoding})


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_second_implementation_selects_the_same(selection, mode):
    if (selection, mode) == ("ring", "sync"):
        mode = "async"
    compared, left_out = 0, 0
    for seed in range(30):
        dice = random.Random(f"sealed {selection} {mode} {seed}")
        log = keyed(dice, mode == "sync" and seed % 2 == 1)
        plain, whole = plain_log(log.entries), log.prefix
        policy = with_depth(random_spec(dice, selection, mode), dice.randint(1, 3))
        for _ in range(16):
            prefix = whole.upto(dice.randint(2, whole.size))
            numbers = [facts.number for facts in prefix.peers()]
            if not numbers:
                continue
            own = dice.choice(numbers)
            mine = prefix.updates(own)
            earliest = max(mine[-1].index + 1 if mine else 0, prefix.peer(own).admitted + 1)
            seen = dice.randint(earliest, prefix.size)
            round_number = dice.randint(1, prefix.highest_round + 1)
            now_s = prefix.time_s + dice.choice((0, 40))
            found = both(policy, log.entries, plain, prefix, own, round_number, seen, now_s)
            if found is None:
                continue
            chosen, by_hand = found
            outcomes = {item.peer: item.outcome.value for item in chosen.considered}
            assert outcomes == by_hand.outcomes, f"{policy.merging} for {own} at {prefix.size}, seen {seen}"
            assert [[e.ref.peer, e.ref.sequence] for e in chosen.candidates] == [
                [u["peer"], u["sequence"]] for u in by_hand.chosen
            ]
            compared += len(chosen.candidates) > 0
            left_out += "not-sealed" in outcomes.values()
    assert compared >= 40 and left_out >= 15


def test_who_can_read_what_is_the_same_by_hand():
    asked = answers = 0
    for seed in range(40):
        dice = random.Random(f"readers {seed}")
        log = keyed(dice, bool(seed % 2))
        plain, prefix, most = plain_log(log.entries), log.prefix, dice.randint(1, 4)
        tables = {"encoding": {"full_every": most}}
        for entry in (e for facts in prefix.peers() for e in prefix.updates(facts.number)):
            for facts in prefix.peers():
                mine = readers.sealed_for(prefix, entry, facts.number, most)
                assert mine == sealed_for(tables, plain, plain[entry.index], facts.number)
                asked, answers = asked + 1, answers + mine
    assert 0.1 < answers / asked < 0.9


def test_what_is_owed_is_the_same_by_hand():
    """What a peer is to attest in a synchronous round: nothing that it cannot read, or whose base it cannot make."""
    compared = 0
    for seed in range(60):
        dice = random.Random(f"owed {seed}")
        log = keyed(dice, orderly=True)
        policy = with_depth(random_spec(dice, dice.choice(SELECTIONS[:5]), "sync"), 2)
        clip = dice.choice(("none", "norm"))
        attestation = policy.attestation.model_copy(update={"every": 1})
        merging = policy.merging.model_copy(update={"scores": "attested", "clip": clip})
        policy = policy.model_copy(update={"attestation": attestation, "merging": merging})
        assert attests_first(policy)
        plain, prefix = plain_log(log.entries), log.prefix
        for round_number in range(1, prefix.highest_round + 2):
            cut = sync_prefix(policy, prefix, round_number, prefix.time_s + 1_000)
            if cut.size is None:
                continue
            view = prefix.upto(cut.size)
            for facts in view.peers():
                found = due(policy, prefix, view, facts.number, round_number, cut)
                by_hand = owed(policy.model_dump(), plain, facts.number, round_number, plain_cut(cut))
                assert [(e.ref.peer, e.ref.sequence) for e in found] == by_hand
                compared += bool(found)
    assert compared > 50


# ---- single rules --------------------------------------------------------------------------------------------------

KEY = bytes(31) + b"\x05"


def say(log: Log, peer: int, key: bytes, epoch: int = 1) -> None:
    log.add(PeerAnnounced(peer, epoch, key, bytes(32), "http://x"))


def seal(log: Log, peer: int, sealed_at: int | None = None, refers_to: int = 0, round_number: int = 1) -> UpdateRef:
    ref = log.publish(peer, round_number)
    entry = log.entries[-1]
    assert isinstance(entry.body, UpdatePublished)
    at = entry.index if sealed_at is None else sealed_at
    update = replace(entry.body.update, flags=Flag.ENCRYPTED, sealed_at=at, refers_to=refers_to)
    log.entries[-1] = replace(entry, body=replace(entry.body, update=update))
    return ref


def outcome(log: Log, own: int, of: int) -> str:
    chosen = select(spec(), log.prefix, own, 2)
    return next(item.outcome.value for item in chosen.considered if item.peer == of)


@pytest.fixture
def two() -> Log:
    log = Log(2)
    say(log, 1, KEY)
    return log


def test_a_late_joiner_starts_from_what_follows(two: Log) -> None:
    seal(two, 1)
    assert outcome(two, 2, 1) == "not-sealed"
    say(two, 2, KEY)
    assert outcome(two, 2, 1) == "not-sealed"
    seal(two, 1, round_number=2)
    assert outcome(two, 2, 1) == "merged"


def test_one_s_own_updates_are_readable_whatever_the_log_says(two: Log) -> None:
    seal(two, 2)
    assert outcome(two, 2, 2) == "merged"


@pytest.mark.parametrize("key", [bytes(32), *UNUSABLE])
def test_a_key_that_is_none_reads_nothing(two: Log, key: bytes) -> None:
    say(two, 2, key)
    seal(two, 1)
    assert outcome(two, 2, 1) == "not-sealed"
    if any(key):
        assert not usable(key.hex())


def test_a_key_that_was_taken_back_reads_nothing(two: Log) -> None:
    say(two, 2, KEY)
    say(two, 2, bytes(32), epoch=2)
    seal(two, 1)
    assert outcome(two, 2, 1) == "not-sealed"


def test_what_refers_to_something_unreadable_is_unreadable(two: Log) -> None:
    first = seal(two, 1)
    say(two, 2, KEY)
    seal(two, 1, refers_to=first.packed(), round_number=2)
    assert outcome(two, 2, 1) == "not-sealed"
    seal(two, 1, round_number=3)  # a full one
    assert outcome(two, 2, 1) == "merged"


def test_the_log_size_that_an_update_names_decides_and_not_its_entry(two: Log) -> None:
    before = len(two.entries)
    say(two, 2, KEY)
    seal(two, 1, sealed_at=before)
    assert outcome(two, 2, 1) == "not-sealed"
    seal(two, 1, sealed_at=before + 1, round_number=2)
    assert outcome(two, 2, 1) == "merged"
    seal(two, 1, sealed_at=2**40, round_number=3)  # no log is that long: its own entry decides
    assert outcome(two, 2, 1) == "merged"


def test_no_more_than_256_read_and_those_with_the_lowest_numbers() -> None:
    log = Log(300)
    for peer in range(1, 301):
        say(log, peer, bytes(30) + peer.to_bytes(2, "little") if peer != 9 else bytes(32))
    seal(log, 1)
    plain = plain_log(log.entries)
    tables = {"encoding": {"full_every": 1}}
    entry = log.prefix.update(UpdateRef(1, 1))
    for peer in (2, 9, 256, 257, 258, 300):
        found = readers.sealed_for(log.prefix, entry, peer, 1)
        assert found == sealed_for(tables, plain, plain[-1], peer) == (peer not in (9, 258, 300))
    assert len(readers.readers_at(log.prefix).keys) == 256


def test_not_sealed_comes_before_what_else_may_be_said(two: Log) -> None:
    ref = seal(two, 1)
    two.object(1, ref, reason=4)  # type: ignore[arg-type]
    assert outcome(two, 2, 1) == Outcome.NOT_SEALED.value


def test_what_follows_changes_nothing() -> None:
    for seed in range(10):
        dice = random.Random(f"after {seed}")
        log = keyed(dice, bool(seed % 2))
        policy = with_depth(random_spec(dice, "all-latest", "async"), 2)
        for size in dice.sample(range(2, len(log.entries)), min(12, len(log.entries) - 2)):
            for facts in log.prefix.upto(size).peers():
                alone = select(policy, Prefix(log.entries[:size]), facts.number, 99)
                within = select(policy, log.prefix.upto(size), facts.number, 99)
                assert alone.candidates == within.candidates and alone.considered == within.considered


def test_plain_rules_are_used() -> None:
    """What these tests compare with does look at keys."""
    log = Log(2)
    say(log, 1, KEY)
    seal(log, 1)
    assert (
        Plain(spec().model_dump(), plain_log(log.entries), 2, len(log.entries), len(log.entries)).outcomes[1]
        == "not-sealed"
    )
