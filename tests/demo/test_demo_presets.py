"""Every preset in real processes: it ends well, its ledger replays bit for bit, and the ledger shows that scheme."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from demos import replay_of, run
from replay import Replay

from fl_node.cli.choices import in_words
from fl_node.completeness.choices import candidates_of
from fl_node.prefix import UpdateEntry
from fl_node.presets import PRESETS, preset
from fl_node.records import Rule, UpdatePublished

PEERS, ROUNDS = 4, 2


def updates_of(replay: Replay) -> list[UpdateEntry]:
    return [replay.full.update(entry.body.ref) for entry in replay.entries if isinstance(entry.body, UpdatePublished)]


def by_round(replay: Replay) -> dict[int, list[UpdateEntry]]:
    """Updates that merged something, by round."""
    found = defaultdict(list)
    for update in updates_of(replay):
        if update.parents:
            found[update.round].append(update)
    return found


def everybody_is_merged(replay: Replay) -> None:
    for round_number, updates in by_round(replay).items():
        assert len(updates) == PEERS and round_number > 1
        assert {update.update.base for update in updates} == {updates[0].update.base}
        assert all(len(update.parents) == PEERS and update.update.rule == Rule.FEDAVG for update in updates)


def only_news_is_merged(replay: Replay) -> None:
    merged = set()
    for update in updates_of(replay):
        for parent in update.parents:
            if parent.peer != update.ref.peer:
                assert (update.ref.peer, parent.ref) not in merged
                merged.add((update.ref.peer, parent.ref))
    assert len(merged) >= PEERS


def one_model_goes_round(replay: Replay) -> None:
    trained = [update for update in updates_of(replay) if not update.final]
    assert [update.ref.peer for update in trained] == [1, 2, 3, 4] * ROUNDS
    for before, after in pairwise(trained):
        assert [(parent.ref, parent.share_ppm) for parent in after.parents] == [(before.ref, 1_000_000)]
    closing = [update for update in updates_of(replay) if update.final]
    assert {parent.ref for update in closing for parent in update.parents} == {trained[-1].ref}


def the_bridge_joins_two_rings(replay: Replay) -> None:
    (bridge,) = set.intersection(*map(set, replay.spec.merging.rings))
    partners = defaultdict(set)
    for update in updates_of(replay):
        partners[update.ref.peer] |= {parent.peer for parent in update.parents if parent.peer != update.ref.peer}
        assert len(update.parents) <= (2 if update.ref.peer == bridge else 1)
    for ring in replay.spec.merging.rings:
        for peer in set(ring) - {bridge}:
            assert partners[peer] <= set(ring)
    assert all(partners[bridge] & set(ring) for ring in replay.spec.merging.rings)


def shares_are_learned(replay: Replay) -> None:
    rules = [update.update.rule for update in updates_of(replay) if update.parents]
    assert set(rules) == {Rule.TRUST}
    shares = {parent.share_ppm for update in updates_of(replay) for parent in update.parents}
    assert len(shares) > 8, "the shares differ and move"


def all_go_on_from_the_best_attested(replay: Replay) -> None:
    said = defaultdict(list)
    for (_, ref), (score_ppm, base_score_ppm) in replay.check_attestations().items():
        said[ref].append(score_ppm - base_score_ppm)
    for updates in by_round(replay).values():
        (chosen,) = {parent.ref for update in updates for parent in update.parents}
        rivals = {ref: sorted(scores)[(len(scores) - 1) // 2] for ref, scores in said.items()}
        rivals = {ref: score for ref, score in rivals.items() if replay.full.update(ref).round == chosen_round(updates)}
        assert len(rivals) == PEERS and rivals[chosen] == max(rivals.values())


def all_go_on_from_the_best_claimed(replay: Replay) -> None:
    assert not replay.check_attestations()
    for updates in by_round(replay).values():
        (chosen,) = {parent.ref for update in updates for parent in update.parents}
        rivals = [u.update.score_ppm for u in updates_of(replay) if u.round == chosen_round(updates) and not u.final]
        assert replay.full.update(chosen).update.score_ppm == max(rivals)


def chosen_round(updates: list[UpdateEntry]) -> int:
    return updates[0].round - 1


def partners_are_drawn(replay: Replay) -> None:
    k = replay.spec.merging.k
    counts = [len([p for p in u.parents if p.peer != u.ref.peer]) for u in updates_of(replay)]
    assert max(counts) == k < PEERS - 1
    assert {update.update.rule for update in updates_of(replay)} == {Rule.UNIFORM, Rule.GENESIS}


def the_worst_is_left_out_and_the_rest_trimmed(replay: Replay) -> None:
    assert len(replay.check_attestations()) == PEERS * (PEERS - 1) * ROUNDS
    for updates in by_round(replay).values():
        for update in updates:
            assert len(update.parents) == PEERS - 1 and update.ref.peer in {parent.peer for parent in update.parents}
            assert update.update.rule == Rule.TRIMMED_MEAN
            told = candidates_of(replay.spec, replay.full, update)
            assert told is not None and [item["outcome"] for item in told].count("merged") == PEERS - 1
            (left,) = in_words(told)
            assert "outscored (attested score" in left


SHOWS: dict[str, Callable[[Replay], None]] = {
    "fedavg": everybody_is_merged,
    "braintorrent": only_news_is_merged,
    "ring": one_model_goes_round,
    "hybrid-rings": the_bridge_joins_two_rings,
    "trust": shares_are_learned,
    "best-of": all_go_on_from_the_best_attested,
    "best-of-claimed": all_go_on_from_the_best_claimed,
    "gossip": partners_are_drawn,
    "robust": the_worst_is_left_out_and_the_rest_trimmed,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_in_real_processes(start: Any, tmp_path: Path, name: str) -> None:
    asked = ("--preset", name, "--peers", PEERS, "--rounds", ROUNDS, "--state", tmp_path / "kept", "--no-baselines")
    result = run(start, *asked)
    assert result["preset"] == name and result["failures"] == []
    assert min(result["accuracy"]["federated"]) > 0.8
    replay = replay_of(tmp_path / "kept", result)
    assert (replay.spec.rounds.mode == "sync") == (preset(name).overrides(PEERS)["rounds"]["mode"] == "sync")
    SHOWS[name](replay)


def test_a_preset_that_does_not_fit_is_refused_before_a_chain_is_started(start: Any) -> None:
    demo = start("--preset", "hybrid-rings", "--mode", "sync")
    code, _, err = demo.ends()
    assert code == 3 and "merging.selection = 'ring' with rounds.mode = 'sync'" in err
    assert len(err.splitlines()) == 1
    demo.leaves_nothing()
