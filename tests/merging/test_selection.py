"""Which updates are candidates, case by case as docs/replay-rules.md names them."""

from __future__ import annotations

import hashlib

import pytest
from logs import Log, account, spec

from fl_node.merging.selection import MOST_PARENTS, Failure, Outcome, draw_rank, draw_seed, select
from fl_node.records import Reason, Role, UpdateRef

SPEC = spec(merging={"max_staleness": 2, "objection_quorum": 2})


def outcomes(log, own=1, rules=SPEC, **more):
    return {item.peer: item.outcome.value for item in select(rules, log.prefix, own, 9, **more).considered}


def started(peers=4):
    log = Log(peers)
    for peer in range(1, peers + 1):
        log.publish(peer, 1)
    return log


def test_everybodys_latest_and_ones_own():
    log = started(3)
    log.publish(2, 2)
    chosen = select(SPEC, log.prefix, 1, 2)
    assert [str(entry.ref) for entry in chosen.candidates] == ["1#1", "2#2", "3#1"]
    assert chosen.size == len(log.entries)


def test_nobody_has_published():
    log = Log(2)
    assert select(SPEC, log.prefix, 1, 1).candidates == ()
    assert outcomes(log) == {1: "none-yet", 2: "none-yet"}


def test_a_reader_is_not_considered():
    log = started(2)
    log.admit(roles=Role.READ | Role.ATTEST)
    assert outcomes(log) == {1: "merged", 2: "merged"}


@pytest.mark.parametrize(("own_updates", "outcome"), [(1, "merged"), (2, "merged"), (3, "stale")])
def test_staleness_counts_my_own_updates_since(own_updates, outcome):
    log = started(3)
    for round_number in range(2, 2 + own_updates):
        log.publish(1, round_number)
    assert outcomes(log, own=1)[2] == outcome
    assert outcomes(log, own=3)[2] == "merged", "another's updates do not age it for peer 3"


def test_own_update_is_never_stale():
    log = started(2)
    for round_number in range(2, 9):
        log.publish(2, round_number)
    assert outcomes(log, own=1)[1] == "merged"


def test_a_closing_update_does_not_replace_the_trained_one():
    log = started(2)
    log.publish(2, 2, final=True)
    assert [str(entry.ref) for entry in select(SPEC, log.prefix, 1, 2).candidates] == ["1#1", "2#1"]
    assert outcomes(log) == {1: "merged", 2: "merged"}


def test_only_a_closing_update_is_nothing_yet():
    log = Log(2)
    log.publish(2, 1, final=True)
    assert outcomes(log) == {1: "none-yet", 2: "none-yet"}


def test_withdrawn_binds_at_once_attested_or_not():
    log = started()
    log.attest(3, UpdateRef(2, 1))
    log.object(2, UpdateRef(2, 1), Reason.WITHDRAWN)
    assert outcomes(log)[2] == "withdrawn"
    log.publish(2, 2)
    assert outcomes(log)[2] == "merged", "the next one is another update"


def test_retired():
    log = started()
    before = log.prefix
    log.retire(2)
    assert outcomes(log)[2] == "retired"
    assert select(SPEC, log.prefix, 1, 2, seen=before.size).candidates == select(SPEC, before, 1, 2).candidates


OTHERS = [
    # objections of (peer, reason), attested by, outcome for update 2#1 as peer 1 sees it
    ([], [], "merged"),
    ([(3, Reason.UNAVAILABLE)], [], "merged"),
    ([(3, Reason.UNAVAILABLE), (4, Reason.UNAVAILABLE)], [], "objected"),
    ([(3, Reason.UNAVAILABLE), (4, Reason.UNAVAILABLE)], [5], "merged"),
    ([(3, Reason.UNAVAILABLE), (4, Reason.UNAVAILABLE)], [6], "objected"),  # 6 is of the publisher's own site
    ([(3, Reason.UNAVAILABLE), (7, Reason.UNAVAILABLE)], [], "merged"),  # 7 is of the site of 3: one vote
    ([(3, Reason.UNAVAILABLE), (7, Reason.UNAVAILABLE), (4, Reason.UNAVAILABLE)], [], "objected"),
    # What the bytes themselves tell is never believed of others, however many say so.
    ([(3, Reason.MALFORMED), (4, Reason.MALFORMED), (5, Reason.MALFORMED)], [], "merged"),
    ([(3, Reason.DIGEST_MISMATCH), (4, Reason.DIGEST_MISMATCH), (5, Reason.MALFORMED)], [], "merged"),
    ([(3, Reason.UNAVAILABLE), (4, Reason.MALFORMED)], [], "merged"),
    ([(1, Reason.MALFORMED)], [], "malformed"),
    ([(1, Reason.DIGEST_MISMATCH)], [5], "digest-mismatch"),
    ([(1, Reason.UNAVAILABLE)], [], "unavailable"),
]


@pytest.mark.parametrize(("objections", "attested", "outcome"), OTHERS)
@pytest.mark.parametrize("attested_first", [False, True])
def test_objections_and_attestations(objections, attested, outcome, attested_first):
    log = Log()
    for site in ("a", "b", "c", "d", "e", "b", "c"):
        log.admit(site)
    for peer in range(1, 8):
        log.publish(peer, 1)
    words = [lambda p=p, r=r: log.object(p, UpdateRef(2, 1), r) for p, r in objections]
    said = [lambda p=p: log.attest(p, UpdateRef(2, 1)) for p in attested]
    for step in said + words if attested_first else words + said:
        step()
    assert outcomes(log)[2] == outcome


def test_objections_of_a_retired_peer_do_not_count_from_there():
    log = started()
    log.object(3, UpdateRef(2, 1), Reason.UNAVAILABLE)
    first = log.object(4, UpdateRef(2, 1), Reason.UNAVAILABLE)
    assert outcomes(log)[2] == "objected"
    log.retire(4, from_index=first)
    assert outcomes(log)[2] == "merged"


def test_unavailable_binds_for_one_round_only():
    log = started()
    log.object(1, UpdateRef(2, 1), Reason.UNAVAILABLE)
    log.object(3, UpdateRef(4, 1), Reason.UNAVAILABLE)
    log.object(2, UpdateRef(4, 1), Reason.UNAVAILABLE)
    assert outcomes(log) == {1: "merged", 2: "unavailable", 3: "merged", 4: "objected"}
    log.publish(1, 2)
    chosen = select(SPEC, log.prefix, 1, 3)
    assert {item.outcome for item in chosen.considered} == {Outcome.MERGED}
    assert chosen.excusable == {UpdateRef(2, 1)}, "it may be left out again, for it cannot be objected to twice"


def test_own_objection_after_seen_counts_and_others_do_not():
    """As a reader replays it: the log up to the update, the choice from the log up to `seen`."""
    log = started()
    seen = log.prefix.size
    log.object(1, UpdateRef(2, 1), Reason.MALFORMED)
    log.object(2, UpdateRef(3, 1), Reason.WITHDRAWN)
    log.publish(4, 2)
    assert outcomes(log, seen=seen) == {1: "merged", 2: "malformed", 3: "merged", 4: "merged"}
    chosen = select(SPEC, log.prefix, 1, 2, seen=seen)
    assert UpdateRef(4, 1) in {entry.ref for entry in chosen.candidates}


def test_own_objection_lasts():
    log = started()
    log.object(1, UpdateRef(2, 1), Reason.MALFORMED)
    log.publish(1, 2)
    assert outcomes(log)[2] == "malformed"


def test_outcomes_after_failures():
    chosen = select(SPEC, started().prefix, 1, 2)
    table = chosen.outcomes_after({UpdateRef(2, 1): Failure(Reason.MALFORMED, "tensor 'w' holds nan")})
    assert table[1] == {"peer": 2, "sequence": 1, "outcome": "malformed", "reason": "tensor 'w' holds nan"}
    assert [row["outcome"] for row in table] == ["merged", "malformed", "merged", "merged"]


def test_more_candidates_than_the_ledger_takes():
    """Drawn by hash, one's own always among them; the draw changes with the update's sequence."""
    log = started(MOST_PARENTS + 6)
    chosen = select(SPEC, log.prefix, 70, 2)
    assert len(chosen.candidates) == MOST_PARENTS
    assert UpdateRef(70, 1) in {entry.ref for entry in chosen.candidates}
    seed = hashlib.sha256(b"s" * 32 + bytes.fromhex(account(70)[2:]) + b"\0\0\0\2").digest()
    assert seed == draw_seed(b"s" * 32, bytes.fromhex(account(70)[2:]), 2)
    ranks = sorted((hashlib.sha256(seed + p.to_bytes(4, "big")).digest(), p) for p in range(1, 70))
    assert draw_rank(seed, 3) == hashlib.sha256(seed + b"\0\0\0\3").digest()
    assert sorted(entry.ref.peer for entry in chosen.candidates) == sorted([p for _, p in ranks[:63]] + [70])
    assert sum(item.outcome is Outcome.NOT_DRAWN for item in chosen.considered) == 6
    log.publish(70, 2)
    again = {entry.ref.peer for entry in select(SPEC, log.prefix, 70, 3).candidates}
    assert again != {entry.ref.peer for entry in chosen.candidates}


def test_a_stranger_cannot_select():
    with pytest.raises(LookupError, match="no peer 9"):
        select(SPEC, started().prefix, 9, 2)


def test_sync_uses_the_round_before_only():
    rules = spec(rounds={"mode": "sync", "quorum": 0.5, "deadline_s": 10.0})
    log = started(4)
    log.publish(1, 2)
    log.publish(2, 2)
    cut = log.prefix.size
    log.publish(3, 2)
    chosen = select(rules, log.prefix, 1, 3)
    assert [str(entry.ref) for entry in chosen.candidates] == ["1#2", "2#2"]
    assert chosen.size == cut and chosen.cut.missing == (3, 4)
    assert [item.outcome.value for item in chosen.considered] == ["merged", "merged", "missing", "missing"]


def test_sync_own_objection_after_the_cut_counts():
    rules = spec(rounds={"mode": "sync"})
    log = started(2)
    log.object(1, UpdateRef(2, 1), Reason.MALFORMED)
    assert [str(entry.ref) for entry in select(rules, log.prefix, 1, 2).candidates] == ["1#1"]


def test_sync_must_wait():
    rules = spec(rounds={"mode": "sync"})
    log = Log(2)
    log.publish(1, 1)
    with pytest.raises(ValueError, match=r"round 2 must wait for peers \[2\]"):
        select(rules, log.prefix, 1, 2)


def test_sync_round_one_starts_from_genesis():
    rules = spec(rounds={"mode": "sync"})
    assert select(rules, started(2).prefix, 1, 1).candidates == ()
