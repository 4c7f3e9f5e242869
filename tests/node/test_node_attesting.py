"""Attestations: what others' updates are worth on one's own validation rows, said once, coarsely, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twins import Twins, flipped, small_spec

from fl_node.attesting import coarsened
from fl_node.errors import ChainUnavailable
from fl_node.learning.training import Trainer
from fl_node.merging import weights
from fl_node.node import next_goal
from fl_node.peer import Peer
from fl_node.records import PPM, Parent, Reason, Role, Rule, UpdateObjected, UpdateRef
from fl_node.round import play_round
from fl_node.turns import await_turn

ATTESTED = {"selection": "best", "scores": "attested", "aggregation": "uniform"}


def play(peer: Peer, rounds: int = 1) -> None:
    for _ in range(rounds):
        goal = next_goal(peer)
        assert goal is not None
        await_turn(peer, goal, 0.01)
        play_round(peer, goal)


def announced(twins: Twins, *numbers: int) -> list[Peer]:
    peers = [twins.peer(number) for number in numbers]
    for peer in peers:
        peer.ledger.announce(1, bytes(32), bytes(32), f"memory://{peer.number}")
    return peers


def check_scores(twins: Twins, step: int) -> dict[tuple[int, UpdateRef], tuple[int, int]]:
    """Every attestation against the attesting peer's own trainer and a replayed base."""
    replay = twins.replay()
    said = replay.check_attestations()
    for (peer, ref), scores in said.items():
        update = replay.full.update(ref)
        base = replay.base_of(update)
        trainer: Trainer = twins.trainers[peer]
        for tensors, score in zip((replay.tensors(update), base), scores, strict=True):
            found = trainer.validate(tensors)
            assert found is not None and score == coarsened(found.score_ppm, step)
    return said


@pytest.mark.parametrize("rule", ["fedavg", "trust", "centred-clipping"])
def test_candidates_are_attested_with_their_bases(tmp_path: Path, rule: str) -> None:
    spec = small_spec(
        attestation={"mode": "all", "coarsen_ppm": 50_000}, merging={"aggregation": rule}, rounds={"planned": 3}
    )
    twins = Twins(tmp_path, spec)
    assert set(twins.run().values()) == {None}
    updates = twins.replay().check()
    said = check_scores(twins, 50_000)
    merged = {
        (update.ref.peer, parent.ref)
        for update in updates
        for parent in update.parents
        if parent.peer != update.ref.peer
    }
    assert set(said) == merged


def test_a_sample_in_every_second_round(tmp_path: Path) -> None:
    spec = small_spec(attestation={"mode": "sample", "k": 1, "every": 2}, rounds={"planned": 4, "mode": "sync"})
    twins = Twins(tmp_path, spec, size=4)
    assert set(twins.run().values()) == {None}
    replay = twins.replay()
    replay.check()
    rounds = {(peer, replay.full.update(ref).round) for peer, ref in replay.check_attestations()}
    assert rounds == {(peer, number) for peer in (1, 2, 3, 4) for number in (1, 3)}  # in rounds 2 and 4


def test_a_peer_without_the_role_attests_nothing(tmp_path: Path) -> None:
    spec = small_spec(attestation={"mode": "all"}, rounds={"mode": "sync", "planned": 2})
    twins = Twins(tmp_path, spec, roles={2: Role.PUBLISH})
    assert set(twins.run().values()) == {None}
    assert {peer for peer, _ in twins.replay().check_attestations()} == {1, 3}


@pytest.mark.parametrize("scores", ["attested", "claimed"])
def test_who_claims_most_wins_by_claims_and_never_by_attestations(tmp_path: Path, scores: str) -> None:
    merging = {**ATTESTED, "scores": scores, "attesting_sites": 2}
    spec = small_spec(merging=merging, attestation={"mode": "all"}, rounds={"mode": "sync", "planned": 3})
    twins = Twins(tmp_path, spec, size=4)
    twins.trainers[4].spoil = flipped
    twins.trainers[4].boast = True
    assert set(twins.run().values()) == {None}
    replay = twins.replay()
    updates = replay.check()
    chosen = [parent.peer for update in updates if update.round > 1 for parent in update.parents]
    assert chosen and all((peer == 4) == (scores == "claimed") for peer in chosen)
    for number in (2, 3, 4):
        assert len({update.update.base for update in updates if update.round == number}) == 1
    assert all("missing" not in kinds for kinds in twins.kinds.values())


def test_a_dead_attester_is_waited_for_until_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_node.peer.CLOCK_MARGIN_S", 1)
    spec = small_spec(
        merging=ATTESTED, attestation={"mode": "all"}, rounds={"mode": "sync", "planned": 1, "deadline_s": 4.0}
    )
    twins = Twins(tmp_path, spec)
    in_turn(announced(twins, 1, 2, 3), 1)  # peer 3 publishes in round 1, and is not there to attest the others
    assert twins.run(1, 2) == {1: None, 2: None}
    replay = twins.replay()
    updates = replay.check()
    second = [update for update in updates if update.round == 2]
    assert len(second) == 2 and len({update.update.base for update in second}) == 1
    assert {peer for peer, _ in replay.check_attestations()} == {1, 2}
    told = [event.detail["peers"] for _, event in twins.events if event.kind == "missing"]
    assert told and all(peers == [3] for peers in told)


def test_a_crash_after_attesting_attests_nothing_twice(tmp_path: Path) -> None:
    spec = small_spec(attestation={"mode": "all"}, rounds={"planned": 2})
    twins = Twins(tmp_path, spec)
    first, second, third = announced(twins, 1, 2, 3)
    for peer in (first, second, third):
        play(peer)

    def crash(*given: Any) -> Any:
        raise ChainUnavailable("it was killed here")

    twins.trainers[1].train = crash  # type: ignore[method-assign]
    with pytest.raises(ChainUnavailable):
        play(first)
    del twins.trainers[1].train  # type: ignore[attr-defined]
    before = twins.replay().check_attestations()
    # Two of three candidates were on the ledger when 1 and 2 attested first.
    assert {ref for peer, ref in before if peer == 1} == {UpdateRef(2, 1), UpdateRef(3, 1)}
    again = twins.peer(1)
    play(again)
    assert twins.replay().check_attestations() == before
    twins.replay().check()


def test_an_attestation_that_the_log_does_not_show_yet_is_no_trouble(tmp_path: Path) -> None:
    spec = small_spec(attestation={"mode": "all"}, rounds={"planned": 2, "depth": 0})
    twins = Twins(tmp_path, spec, size=2)
    first, second = announced(twins, 1, 2)
    play(second)
    attest = first.ledger.attest

    def twice(evidence: bytes, items: Any) -> Any:
        attest(evidence, items)
        return attest(evidence, items)  # as if the first one were not in the log as seen

    first.ledger.attest = twice  # type: ignore[method-assign]
    play(first)
    assert set(twins.replay().check_attestations()) == {(1, UpdateRef(2, 1))}


def lying(twins: Twins, number: int, in_round: int) -> Callable[[], None]:
    """From now on this peer records, in one round, another base than it trained from; what ends that."""
    ledger = twins.ledgers[number]
    publish = ledger.publish

    def lie(update: Any, parents: Any) -> Any:
        return publish(replace(update, base=b"x" * 32) if update.round == in_round else update, parents)

    ledger.publish = lie  # type: ignore[method-assign]
    return lambda: delattr(ledger, "publish")


def lose(twins: Twins, number: int, ref: UpdateRef) -> None:
    """Take an update's bytes away from a peer's store."""
    store = twins.stores[number]
    lost = twins.replay().full.update(ref)
    (cid,) = {pin.cid for pin in store.pins() if pin.cid.digest == lost.content}
    for label in ("own", "fetched"):
        store.unpin(cid, label)
    store.gc()


@pytest.mark.parametrize("scores", ["attested", "claimed"])
def test_a_base_that_does_not_follow_is_objected_to(
    tmp_path: Path, scores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(merging={"scores": scores}, attestation={"mode": "all"}, rounds={"mode": "sync", "planned": 3})
    twins = Twins(tmp_path, spec)
    peers = announced(twins, 1, 2, 3)
    honest = lying(twins, 3, 2)
    in_turn(peers, 2)
    honest()
    in_turn(peers, 1)
    replay = twins.replay()
    words = [entry.body for entry in replay.entries if isinstance(entry.body, UpdateObjected)]
    assert all(ref != UpdateRef(3, 2) for _, ref in replay.check_attestations())
    merged = {tuple(parent.peer for parent in update.parents) for update in replay.check([1, 2]) if update.round == 3}
    if scores == "attested":
        told = {(word.peer, word.target, word.reason) for word in words}
        assert told == {(peer, UpdateRef(3, 2), Reason.DIGEST_MISMATCH) for peer in (1, 2)}
        assert merged == {(1, 2)}
    else:
        # It was merged before anybody looked at its base; that is told, and a reader of the ledger finds it too.
        assert not words and merged == {(1, 2, 3)}
        assert all("base-differs" in twins.kinds[number] for number in (1, 2))


def in_turn(peers: list[Peer], rounds: int) -> None:
    """Round after round in lock-step; where attesting comes first, everybody's before anybody's round."""
    from fl_node.merging.attested import attests_first
    from fl_node.round import attest_first

    for _ in range(rounds):
        goals = [next_goal(peer) for peer in peers]
        for peer, goal in zip(peers, goals, strict=True):
            assert goal is not None
            if attests_first(peer.spec):
                attest_first(peer, goal)
        for peer, goal in zip(peers, goals, strict=True):
            assert goal is not None
            play_round(peer, goal)


def test_a_base_whose_parents_are_gone_is_not_attested(tmp_path: Path) -> None:
    spec = small_spec(attestation={"mode": "all"}, rounds={"planned": 4})
    twins = Twins(tmp_path, spec, size=2)
    first, second = announced(twins, 1, 2)
    play(second, 2)
    lose(twins, 2, UpdateRef(2, 1))
    play(first)
    assert "not-attested" in twins.kinds[1]
    assert not twins.replay().check_attestations()
    assert not any(isinstance(entry.body, UpdateObjected) for entry in twins.replay().entries)
    assert [parent.peer for parent in twins.replay().full.updates(1)[0].parents] == [2]


def test_bases_that_are_known_need_not_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec(attestation={"mode": "all"}, rounds={"planned": 3})
    twins = Twins(tmp_path, spec)
    peers = announced(twins, 1, 2, 3)
    shared: dict[bytes, Any] = {}
    for peer in peers:
        peer.known_bases = shared
    monkeypatch.setattr("fl_node.rebasing.gather_quietly", None)  # nobody asks for a parent's bytes
    for _ in range(3):
        for peer in peers:
            play(peer)
    assert len(check_scores(twins, 10_000)) > 6
    assert {update.update.base for update in twins.replay().check()} <= set(shared)


def test_coarsened_scores_are_multiples_and_never_above_the_whole() -> None:
    assert [coarsened(score, 300_000) for score in (0, 149_999, 150_000, 999_999, PPM)] == [
        0,
        0,
        300_000,
        900_000,
        900_000,
    ]
    assert coarsened(PPM, 10_000) == PPM and coarsened(123_456, 1) == 123_456


@pytest.mark.parametrize("why", ["a false base", "a parent that is gone"])
def test_an_own_objection_that_the_log_does_not_show_yet_binds_all_the_same(tmp_path: Path, why: str) -> None:
    """Two blocks must lie on an entry before it counts as seen; a reader of the finished log sees the objection that
    was made for this round, and holds the base against it."""
    spec = small_spec(
        merging={"scores": "attested", "unattested": "zero", "aggregation": "uniform"},
        attestation={"mode": "all"},
        rounds={"planned": 4, "depth": 2},
    )
    twins = Twins(tmp_path, spec)
    first, second, _ = announced(twins, 1, 2, 3)
    twins.chain.mine(2)
    if why == "a false base":
        lying(twins, 2, 1)
        play(second)
    else:
        play(second)
        twins.chain.mine(2)
        play(second)
        lose(twins, 2, UpdateRef(2, 1))
    twins.chain.mine(2)
    play(first)
    twins.chain.mine(2)
    words = [entry.body for entry in twins.replay().entries if isinstance(entry.body, UpdateObjected)]
    assert [(word.peer, word.target.peer) for word in words] == [(1, 2)]
    (update,) = twins.replay().check([1])
    assert update.parents == ()


@pytest.mark.parametrize("given", ["none", "an old one", "the right ones, and the genesis"])
def test_parents_that_the_policy_does_not_give_are_objected_to(tmp_path: Path, given: str) -> None:
    """One who starts from the genesis by its own word would shine by what its update improved; and one who names old
    updates would send everybody to fetch them."""
    spec = small_spec(
        merging={"selection": "best", "scores": "attested", "measure": "improvement"},
        attestation={"mode": "all"},
        rounds={"mode": "sync", "planned": 3},
    )
    twins = Twins(tmp_path, spec)
    peers = announced(twins, 1, 2, 3)
    ledger, publish = twins.ledgers[3], twins.ledgers[3].publish

    def lie(update: Any, parents: Any) -> Any:
        if update.round != 3:
            return publish(update, parents)
        base = weights.digest(twins.genesis)
        if given.startswith("the right"):
            return publish(replace(update, base=base, base_score_ppm=0), parents)
        if given == "none":
            return publish(replace(update, base=base, rule=Rule.GENESIS, base_score_ppm=0), ())
        entry = twins.replay().full.update(UpdateRef(1, 1))
        return publish(replace(update, base=b"x" * 32), [Parent(1, 1, entry.content[:4], PPM)])

    ledger.publish = lie  # type: ignore[method-assign]
    in_turn(peers, 3)
    fetched: list[Any] = []
    fetch = twins.wire.fetch_into

    def heard(store: Any, cid: Any, *rest: Any, **more: Any) -> Any:
        fetched.append(cid)
        return fetch(store, cid, *rest, **more)

    twins.wire.fetch_into = heard  # type: ignore[method-assign]
    in_turn(peers, 1)
    replay = twins.replay()
    words = [entry.body for entry in replay.entries if isinstance(entry.body, UpdateObjected)]
    assert {(word.peer, word.target, word.reason) for word in words} == {
        (peer, UpdateRef(3, 3), Reason.DIGEST_MISMATCH) for peer in (1, 2)
    }
    asked = {cid.digest for cid in fetched} - {entry.content for entry in replay.full.of_round(3)}
    assert not asked or given.startswith("the right")
    last = [update for update in replay.check([1, 2]) if update.round == 4]
    assert all(parent.peer != 3 for update in last for parent in update.parents)
