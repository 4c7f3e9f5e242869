"""Learned trust, personal layers, rounds without training, and rings: with crashes in between, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twins import Twins, small_spec

from fl_node.errors import ChainUnavailable
from fl_node.journal import Journal
from fl_node.merging import weights
from fl_node.merging.personal import kept, published
from fl_node.node import next_goal
from fl_node.own_layers import OwnLayers
from fl_node.peer import Peer, Stopped
from fl_node.records import PPM, Rule
from fl_node.round import Goal, play_round
from fl_node.turns import await_token

PERSONAL = {
    "model": {"name": "mlp", "hidden": (16,)},
    "merging": {"aggregation": "trust", "personal": ("linear.*",)},
}


def play(peer: Peer, rounds: int = 1) -> None:
    for _ in range(rounds):
        goal = next_goal(peer)
        assert goal is not None
        play_round(peer, goal)


def announced(twins: Twins) -> list[Peer]:
    peers = [twins.peer(number) for number in sorted(twins.stores)]
    for peer in peers:
        peer.ledger.announce(1, bytes(32), bytes(32), f"memory://{peer.number}")
    return peers


def told(twins: Twins, peer: int) -> list[tuple[Any, ...]]:
    """What a peer recorded, less what names the contract."""
    found = []
    for entry in twins.replay().check([peer]):
        update = entry.update
        row = tuple((parent.ref, parent.share_ppm) for parent in entry.parents)
        found.append((update.base, update.score_ppm, update.base_score_ppm, update.rule, row))
    return found


def shares(twins: Twins, peer: int) -> list[dict[int, int]]:
    updates = twins.replay().full.updates(peer)
    return [{parent.peer: parent.share_ppm for parent in update.parents} for update in updates]


# ---- learned trust


@pytest.mark.parametrize("steps", [1, 3])
def test_trust_leaves_the_mislabelled(tmp_path: Path, steps: int) -> None:
    trust = {"learning_rate": 4.0, "prior_pull": 0.2, "floor_ppm": 5000, "steps": steps}
    spec = small_spec(merging={"aggregation": "trust"}, rounds={"mode": "sync", "planned": 7}, trust=trust)
    twins = Twins(tmp_path, spec, size=6)
    for number in (5, 6):
        train = twins.trainers[number].splits.train
        object.__setattr__(train, "labels", (train.labels + 1) % 10)
    assert set(twins.run().values()) == {None}
    assert all(update.update.rule == Rule.TRUST for update in twins.replay().check() if update.round > 1)
    for honest in (1, 2, 3, 4):
        last = shares(twins, honest)[-1]
        # Half of an equal part of two, though they have more than half of all rows: the prior is on their side.
        assert last[5] + last[6] < PPM // 6
        assert min(last.values()) >= 5000


def test_a_model_without_a_finite_gradient_leaves_trust_as_it_was(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(merging={"aggregation": "trust", "max_magnitude": 1e38}), size=2)
    peers = announced(twins)
    generator = np.random.Generator(np.random.PCG64(0))

    def huge(tensors: Any) -> Any:
        """Finite, yet logits overflow."""
        return {
            name: generator.choice([-3e37, 3e37], array.shape).astype(array.dtype) for name, array in tensors.items()
        }

    twins.trainers[1].spoil = huge
    for peer in peers:
        play(peer)
    twins.trainers[2].spoil = twins.trainers[1].spoil
    play(peers[1])
    assert "trust-stays" in twins.kinds[2]
    assert shares(twins, 2)[1] == {1: PPM // 2, 2: PPM // 2}


# ---- personal layers


def test_personal_tensors_are_nowhere_but_with_their_peer(tmp_path: Path) -> None:
    spec = small_spec(**PERSONAL, rounds={"mode": "sync", "planned": 3}, attestation={"mode": "all"})
    twins = Twins(tmp_path, spec)
    assert set(twins.run().values()) == {None}
    replay = twins.replay()
    updates = replay.check()
    assert len(updates) == 12 and replay.check_attestations()
    names = set(published(spec, twins.genesis))
    assert names == {"hidden1.weight", "hidden1.bias"}
    assert all(set(replay.tensors(update)) == names for update in updates)
    own = []
    for number in (1, 2, 3):
        layers = OwnLayers(spec, lambda: twins.genesis, tmp_path / f"peer-{number}", "twins")
        assert layers.newest(99) == 4  # the closing update has them as they stood
        final = replay.full.updates(number)[-1]
        whole = layers.join(replay.tensors(final), 4)
        own.append(kept(spec, whole))
        # The claim is that of the whole model, with this peer's own tensors.
        assert twins.trainers[number].evaluate(whole).score_ppm == final.update.score_ppm
        assert set(whole) == set(twins.genesis)
    assert len({weights.digest(tensors) for tensors in own}) == 3


def test_personal_tensors_that_are_lost_start_from_the_genesis_again(tmp_path: Path) -> None:
    spec = small_spec(**PERSONAL)
    twins = Twins(tmp_path, spec, size=1)
    peer = twins.peer(1)
    play(peer)
    (file,) = (tmp_path / "peer-1" / "personal").glob("*.safetensors")
    # Plain weights that were trained on the rows here, and are nobody else's.
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    layers = OwnLayers(spec, lambda: twins.genesis, tmp_path / "peer-1", "twins")
    shared = published(spec, twins.genesis)
    assert weights.digest(layers.join(shared, 1)) != weights.digest(twins.genesis)
    assert OwnLayers(spec, lambda: twins.genesis, tmp_path / "peer-1", "another").newest(1) == 0
    for damage in (b"", b"damaged", None):
        file.write_bytes(damage) if damage is not None else file.unlink()
        assert weights.digest(layers.join(shared, 1)) == weights.digest(twins.genesis)
    play(peer)
    assert len(twins.replay().check()) == 2


def test_only_the_last_personal_tensors_are_kept(tmp_path: Path) -> None:
    spec = small_spec(**PERSONAL)
    twins = Twins(tmp_path / "twins", spec, size=1)
    for folder, first in ((tmp_path, 12), (None, 18)):  # no chain is reorganised in memory
        layers = OwnLayers(spec, lambda: twins.genesis, folder, "twins")
        for sequence in range(1, 20):
            layers.keep(sequence, twins.genesis)
        assert layers.has(19) and layers.has(first) and not layers.has(first - 1) and layers.newest(18) == 18
        layers.keep(first, twins.genesis)  # a reorganised chain has it made again
        assert layers.newest(99) == first


# ---- crashes


STEPS = ["saved-1", "trained", "kept", "saved-2", "saved-3", "published", "finished"]
CRASHING = {**PERSONAL, "rounds": {"planned": 4}, "attestation": {"mode": "all"}}


def lived(folder: Path, step: str, patch: pytest.MonkeyPatch) -> list[list[tuple[Any, ...]]]:
    """What three peers recorded in five rounds of which the first peer dies once in the fourth (step: not at all)."""
    twins = Twins(folder, small_spec(**CRASHING), size=3)
    peers = announced(twins)
    for _ in range(3):
        for peer in peers:
            play(peer)
    if step:
        with patch.context() as faults:
            deadly(faults, peers[0], step)
            with pytest.raises(ChainUnavailable):
                play(peers[0])
        peers[0] = twins.peer(1)
    for peer in peers:
        if twins.replay().full.sequence(peer.number) < 4:
            play(peer)
    for peer in peers:
        play(peer)
    twins.replay().check_attestations()  # none of them twice
    return [told(twins, number) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[Any, ...]]]:
    return lived(tmp_path_factory.mktemp("undisturbed"), "", pytest.MonkeyPatch())


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_changes_no_bit_of_trust_and_personal_layers(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch, undisturbed: list[list[tuple[Any, ...]]]
) -> None:
    assert lived(tmp_path, step, monkeypatch) == undisturbed


def deadly(patch: pytest.MonkeyPatch, peer: Peer, step: str) -> None:
    """The peer dies just after (or, of what it publishes, just before or after) a step."""

    def after(owner: Any, name: str, count: int = 1) -> None:
        original, left = getattr(owner, name), [count]

        def dies(*given: Any, **more: Any) -> Any:
            found = original(*given, **more)
            left[0] -= 1
            if not left[0]:
                raise ChainUnavailable("killed")
            return found

        patch.setattr(owner, name, dies)

    if step.startswith("saved"):
        after(Journal, "save", int(step[-1]))
    elif step == "trained":
        after(peer.trainer, "train")
    elif step == "kept":
        after(OwnLayers, "keep")
    elif step == "published":
        after(peer.ledger, "publish")
    else:
        after(Journal, "finish")


# ---- training in every k-th round


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_rounds_between_publish_what_they_merged(tmp_path: Path, mode: str) -> None:
    spec = small_spec(training={"every": 2}, rounds={"mode": mode, "planned": 4})
    twins = Twins(tmp_path, spec, size=2)
    assert set(twins.run().values()) == {None}
    updates = twins.replay().check()
    for number in (1, 2):
        assert twins.trainers[number].trained == [1, 3]
        mine = [update for update in updates if update.ref.peer == number]
        rows = len(twins.trainers[number].splits.train)
        assert [update.update.train_samples for update in mine] == [rows, rows, rows, rows, 0]
        assert [update.update.score_ppm == update.update.base_score_ppm for update in mine][1::2] == [True, True]


# ---- rings


def test_a_ring_passes_one_model_on(tmp_path: Path) -> None:
    spec = small_spec(
        merging={"selection": "ring", "aggregation": "uniform", "initiator": 2, "silent_s": 600.0},
        rounds={"planned": 2},
    )
    twins = Twins(tmp_path, spec, size=3)
    assert set(twins.run().values()) == {None}
    updates = [update for update in twins.replay().check() if not update.final]
    assert [update.ref.peer for update in updates] == [2, 3, 1, 2, 3, 1]
    assert [update.parents[0].peer for update in updates[1:]] == [2, 3, 1, 2, 3]
    finals = [update for update in twins.replay().check() if update.final]
    assert len(finals) == 3 and {update.parents[0].peer for update in finals} == {1}
    waits = {(number, event.detail["peer"]) for number, event in twins.events if event.kind == "waiting"}
    assert waits <= {(1, 2), (1, 3), (3, 2), (3, 1), (2, 3), (2, 1), *((n, None) for n in (1, 2, 3))}
    assert all("skipped" not in kinds for kinds in twins.kinds.values())


def test_a_silent_member_of_a_ring_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_node.peer.CLOCK_MARGIN_S", 0)
    spec = small_spec(
        merging={"selection": "ring", "aggregation": "uniform", "silent_s": 1.0}, rounds={"planned": 1, "linger_s": 0.0}
    )
    twins = Twins(tmp_path, spec, size=3)
    play(announced(twins)[0])
    assert twins.run(1, 3) == {1: None, 3: None}
    updates = twins.replay().check()
    assert [update.ref.peer for update in updates if not update.final] == [1, 3]
    assert [event.detail["peer"] for number, event in twins.events if event.kind == "skipped"] == [2]


def test_rings_with_a_bridge_pass_models_on_in_both(tmp_path: Path) -> None:
    rings = ((1, 2, 3), (4, 3, 5))
    merging = {"selection": "ring", "aggregation": "uniform", "rings": rings, "silent_s": 600.0}
    twins = Twins(tmp_path, small_spec(merging=merging, rounds={"planned": 2}), size=5)
    assert set(twins.run().values()) == {None}
    updates = twins.replay().check()
    assert {update.ref.peer for update in updates if update.final} == {1, 2, 3, 4, 5}
    bridged = {parent.peer for update in updates if update.ref.peer == 3 for parent in update.parents}
    assert {2, 4} <= bridged
    assert all("skipped" not in kinds for kinds in twins.kinds.values())


def test_who_waits_for_a_model_that_goes_round_can_be_stopped(tmp_path: Path) -> None:
    spec = small_spec(merging={"selection": "ring", "silent_s": 600.0})
    twins = Twins(tmp_path, spec)
    peer = twins.peer(2)
    peer.stop.set()
    with pytest.raises(Stopped):
        await_token(peer, Goal(1, 1, False), 0.01)
    assert twins.kinds[2] == ["waiting"]
