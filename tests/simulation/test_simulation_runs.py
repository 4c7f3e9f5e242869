"""Whole simulated federations: every preset, every fault, held against the rules by a replay of their logs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from replay import Replay

from fl_node.content.names import cid_of_update
from fl_node.errors import FlNodeError, TrainingFailed
from fl_node.learning.shifts import parse_shift
from fl_node.merging import weights
from fl_node.presets import PRESETS
from fl_node.simulation import Faults, Run, Settings, simulate
from fl_node.simulation.batches import Batcher
from fl_node.simulation.deal import Source, deal
from fl_node.simulation.faults import cast
from fl_node.simulation.federation import World, in_memory
from fl_node.simulation.rows import Row
from fl_node.simulation.ticks import Ticks
from fl_node.simulation.trainers import SimulatedTrainer
from fl_node.supply import tensors_of

QUICK: dict[str, Any] = {"epochs": 1, "threads": 1}


def settings(**given: Any) -> Settings:
    return Settings(**{**QUICK, "peers": (5,), "rounds": 2, **given})


def played(chosen: Settings) -> tuple[World, list[Row], dict[int, str]]:
    """The one run of these settings, with its world."""
    (peers,) = chosen.peers
    federation = chosen.federation(peers, chosen.seed)
    spec = federation.spec
    parts = cast(chosen.faults, peers, spec.rounds.planned, chosen.seed)
    source = Source.load(spec.task, None)
    dealt = deal(source, spec.task, peers, chosen.partition, chosen.seed, test_rows="own", shift=parse_shift("none"))
    batcher = Batcher(spec, dealt.splits, chosen.batch, 1)
    world = in_memory(federation, replace(dealt, splits=batcher.splits), parts)
    ticks = Ticks(world, batcher, False)
    rows = [row for some in ticks.run() for row in some]
    return world, rows, ticks.failures


def replayed(world: World) -> Replay:
    spec = world.federation.spec
    read = lambda cid: bytes(world.store.get(cid, 1 << 30))  # noqa: E731
    return Replay(spec, world.index.entries(), world.genesis, read)


def shown(run: Run) -> list[dict[str, Any]]:
    """All that is the same each time."""
    return [{key: value for key, value in row.as_json().items() if key != "seconds"} for row in run.rows]


@pytest.mark.parametrize("kind", ["int8-delta", "top-k-delta"])
def test_what_a_delta_could_not_carry_is_added_to_the_next_one(kind: str) -> None:
    """As in processes of their own: the first updates are the same either way, the next ones are not."""
    found = []
    for feedback in (True, False):
        overrides = {"encoding.kind": kind, "encoding.error_feedback": feedback, "privacy.encrypt": False}
        world, _, failures = played(settings(preset="fedavg", mode="sync", batch="never", overrides=overrides))
        assert not failures
        replayed(world).check()
        mine = [(peer, world.prefix.updates(number)) for number, peer in sorted(world.peers.items())]
        found.append([[weights.digest(tensors_of(peer, entry)) for entry in entries] for peer, entries in mine])
    for with_it, without in zip(*found, strict=True):
        assert [one == other for one, other in zip(with_it, without, strict=True)] == [True, False, False]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_plays_by_the_rules_to_the_bit(preset: str) -> None:
    world, rows, failures = played(settings(preset=preset))
    assert not failures
    assert {row.peer for row in rows if row.final} == {1, 2, 3, 4, 5}
    checked = replayed(world).check()
    assert len(checked) == len(rows)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(dropout=0.4),
        Faults(stragglers=2, straggle=3),
        Faults(churn=2),
        Faults(dropout=0.3, stragglers=1, churn=2, malicious=1),
    ],
    ids=["dropout", "stragglers", "churn", "all"],
)
@pytest.mark.parametrize("preset", ["fedavg", "gossip", "ring", "best-of"])
def test_every_fault_leaves_a_log_that_replays(preset: str, faults: Faults) -> None:
    chosen = settings(preset=preset, rounds=3, faults=faults, overrides={"merging.k": 2} if preset == "gossip" else {})
    world, rows, failures = played(chosen)
    assert not failures
    parts = world.cast
    stayed = set(range(1, 6)) - parts.leaves.keys()
    assert stayed <= {row.peer for row in rows if row.final}
    assert len(rows) == len(replayed(world).check())
    for number, last in parts.leaves.items():
        assert all(row.round <= last for row in rows if row.peer == number)
        assert not world.prefix.peer(number).active or not any(row.peer == number for row in rows)


def test_a_missed_round_is_missing() -> None:
    _, rows, _ = played(settings(preset="fedavg", peers=(6,), rounds=4, faults=Faults(dropout=0.5), seed=2))
    parts = cast(Faults(dropout=0.5), 6, 4, 2)
    there = {(row.peer, row.round) for row in rows if not row.final}
    missed = {(p, r) for p in range(1, 7) for r in range(1, 5) if parts.misses(p, r)}
    assert missed and not missed & there
    _, rows, _ = played(settings(preset="gossip", peers=(6,), rounds=4, faults=Faults(dropout=0.5), seed=2))
    by_peer = {p: [row.round for row in rows if row.peer == p and not row.final] for p in range(1, 7)}
    assert all(len(rounds) < 4 for p, rounds in by_peer.items() if any(parts.misses(p, r) for r in range(1, 5)))


def test_a_straggler_takes_longer() -> None:
    _, rows, _ = played(settings(preset="gossip", rounds=3, faults=Faults(stragglers=1, straggle=3)))
    (slow,) = cast(Faults(stragglers=1, straggle=3), 5, 3, 0).slow
    ticks = {peer: [row.tick for row in rows if row.peer == peer] for peer in range(1, 6)}
    assert max(ticks[slow]) > max(tick for peer, some in ticks.items() if peer != slow for tick in some)
    assert min(b - a for a, b in zip(ticks[slow], ticks[slow][1:], strict=False)) >= 1


def test_the_same_seed_gives_the_same_rows_and_the_same_root() -> None:
    chosen = settings(preset="trust", faults=Faults(malicious=1, dropout=0.2, attack="gaussian"), rounds=3)
    first, again = (simulate(chosen).runs[0] for _ in range(2))
    assert shown(first) == shown(again) and first.root == again.root
    other = simulate(replace(chosen, seed=1)).runs[0]
    assert other.root != first.root


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_batched_training_is_what_each_peer_trains(model: str) -> None:
    chosen = settings(preset="trust", rounds=3, model=model, partition="unequal")
    together, apart = (simulate(replace(chosen, batch=how)).runs[0] for how in ("always", "never"))
    assert len(together.rows) == len(apart.rows)
    for one, other in zip(together.rows, apart.rows, strict=True):
        assert (one.peer, one.round, one.final) == (other.peer, other.round, other.final)
        assert abs(one.own.loss - other.own.loss) < 1e-4
        assert abs(one.own.correct - other.own.correct) <= 1


def test_threads_change_nothing_for_other_models() -> None:
    chosen = settings(preset="fedavg", model="cnn", peers=(3,), rounds=1, overrides={"model.hidden": (4,)})
    alone, threaded = (simulate(replace(chosen, threads=threads)).runs[0] for threads in (1, 2))
    assert shown(alone) == shown(threaded)


ATTACKED = {"peers": (7,), "rounds": 4, "dataset": "digits", "epochs": 3}


def accuracy(preset: str, attack: str | None, **given: Any) -> float:
    faults = Faults(malicious=2, attack=attack) if attack else Faults()
    found = simulate(Settings(**{**QUICK, **ATTACKED, **given}, preset=preset, faults=faults)).summary("accuracy").mean
    assert found is not None
    return found


@pytest.mark.parametrize("attack", ["scaled-sign-flip", "gaussian"])
def test_strong_attacks_ruin_a_plain_mean_and_not_the_robust_one(attack: str) -> None:
    assert accuracy("fedavg", attack) < 0.5
    assert accuracy("robust", attack) > 0.85


@pytest.mark.parametrize("attack", ["sign-flip", "label-flip", "copycat", "stale-replay", "inflated-claim"])
def test_robust_stands_the_other_attacks_too(attack: str) -> None:
    assert accuracy("robust", attack) > 0.85


def test_a_false_claimant_wins_where_claims_are_believed_and_only_there() -> None:
    faults = Faults(malicious=2, attack="inflated-claim")
    believed, attested = (
        simulate(Settings(**{**QUICK, **ATTACKED, "epochs": 1}, preset=name, faults=faults)).runs[0]
        for name in ("best-of-claimed", "best-of")
    )
    liars = {row.peer for row in believed.rows if not row.honest}
    assert len(liars) == 2
    assert {row.score_ppm for row in believed.rows if not row.honest and not row.final} == {1_000_000}
    assert all(set(row.shares) <= liars for row in believed.rows if row.round > 1)
    # From the first training everybody honest comes out better than the genesis. Later an untrained base may be the
    # best there is, on few rows and by chance; its claim is not why.
    assert not any(set(row.shares) & liars for row in attested.rows if row.honest and row.round == 2)
    believed_mean, attested_mean = (
        np.mean([one.accuracy for one in run.common if one is not None]) for run in (believed, attested)
    )
    assert believed_mean < 0.3 and attested_mean > 0.8
    assert all(found is None for number, found in enumerate(believed.common, 1) if number in liars)


def test_a_peer_that_cannot_go_on_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SimulatedTrainer.train

    def failing(self: SimulatedTrainer, weights: Any, sequence: int) -> Any:
        if self.peer == 2 and sequence == 2:
            raise TrainingFailed("the disk is on fire")
        return plain(self, weights, sequence)

    monkeypatch.setattr(SimulatedTrainer, "train", failing)
    run = simulate(settings(preset="fedavg", rounds=3)).runs[0]
    assert run.failures == {2: "the disk is on fire"}
    assert {row.peer for row in run.rows if row.final} == {1, 3, 4, 5}
    assert run.common[1] is None and all(run.common[n] is not None for n in (0, 2, 3, 4))


def test_waiting_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ticks, "_its_turn", lambda self, peer, goal: None)
    with pytest.raises(FlNodeError, match="wait for ever"):
        simulate(settings(preset="fedavg"))


def test_bytes_that_nobody_merges_any_more_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_node.simulation.federation.KEPT_BYTES", 0)
    chosen = settings(preset="gossip", rounds=8, overrides={"merging.k": 2}, faults=Faults(stragglers=1, straggle=4))
    world, rows, failures = played(chosen)
    assert not failures and {row.peer for row in rows if row.final} == {1, 2, 3, 4, 5}
    kept = [world.store.has(cid_of_update(world.prefix.updates(row.peer)[0].update)) for row in rows if row.round == 1]
    assert not any(kept)
    assert not [event for _, event in world.events if event.kind == "left-out"]


def test_baselines_train_on_the_same_rows_for_as_long() -> None:
    chosen = settings(preset="fedavg", rounds=3, baselines=True, partition="label-skew", faults=Faults(malicious=1))
    run = simulate(chosen).runs[0]
    assert run.pooled is not None and len(run.alone) == len(run.alone_own) == 5
    hostile = {row.peer for row in run.rows if not row.honest}
    assert {n for n, one in enumerate(run.alone, 1) if one is None} == hostile
    common, own = (np.mean([one.accuracy for one in some if one]) for some in (run.alone, run.alone_own))
    assert run.pooled.accuracy > common and own > common


def test_scores_on_common_rows_use_every_training_row() -> None:
    run = simulate(settings(preset="fedavg", test_rows="common", overrides={"task.validation": 0.0})).runs[0]
    trained = {row.peer: row.train_samples for row in run.rows if not row.final}
    assert sum(trained.values()) == 1438
    assert sum(one.samples for one in run.own if one) == 359


def test_many_more_peers_than_a_constructor_takes() -> None:
    run = simulate(Settings(**QUICK, preset="gossip", peers=(300,), rounds=1)).runs[0]
    assert len(run.finals()) == 300 and run.entries == 1 + 300 + 600


def test_segmentation(tmp_path: Any) -> None:
    chosen = Settings(
        peers=(2,), rounds=1, epochs=1, dataset="digits-canvas", threads=1, overrides={"model.hidden": (2, 4)}
    )
    run = simulate(chosen).runs[0]
    assert all(one is not None and one.dice is not None for one in run.common)


def test_summaries() -> None:
    found = simulate(settings(preset="gossip", seeds=3, peers=(4, 5)))
    assert len(found.runs) == 6 and {run.seed for run in found.of(5)} == {0, 1, 2}
    four = found.summary("accuracy", peers=4)
    assert len(four.per_peer) == 4 and len(four.per_run) == 3
    assert four.mean == pytest.approx(np.mean([value for value in four.per_run if value is not None]))
    assert found.summary("accuracy", "own", 5).mean is not None
