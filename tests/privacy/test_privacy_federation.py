"""Federations under differential privacy: what is published of scores, the end of a budget, crashes, simulation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twins import Twins, small_spec

from fl_node.audit.reports import _facts, _metrics
from fl_node.audit.score import impossible
from fl_node.budget import Account
from fl_node.content.cid import Cid
from fl_node.errors import UsageError
from fl_node.learning.training import Trainer
from fl_node.merging import weights
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.released import attested_step, coarsened, released
from fl_node.simulation import Settings, simulate
from fl_node.tables import AttestationSpec, PrivacySpec

PRIVATE = {"mechanism": "example", "epsilon": 8.0, "delta": 1e-4, "noise_multiplier": 1.2}
SOON_SPENT = {"mechanism": "example", "epsilon": 4.0, "delta": 1e-4, "noise_multiplier": 1.0}


def entries_of(twins: Twins) -> tuple[Prefix, list[UpdateEntry]]:
    prefix = Prefix(twins.replay().entries)
    return prefix, [entry for number in twins.stores for entry in prefix.updates(number)]


def report_of(twins: Twins, entry: UpdateEntry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(twins.read(Cid("raw", entry.update.report)))
    return found


def test_scores_are_rounded_and_all_else_about_rows_is_withheld(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(privacy=PRIVATE, attestation={"mode": "all", "coarsen_ppm": 1000}))
    assert set(twins.run().values()) == {None}
    prefix, entries = entries_of(twins)
    assert len(entries) == 12
    for entry in entries:
        table, update = report_of(twins, entry), entry.update
        assert update.score_ppm % 10_000 == 0 and update.base_score_ppm % 10_000 == 0
        assert table["metrics"] == {"samples": update.test_samples, "withheld": True}
        assert table["training"] is None or table["training"]["loss"] is None
        said = table["privacy"]
        assert said["mechanism"] == "example" and said["scores"] == "coarse" and said["budget_epsilon"] == 8.0
        assert 0.0 < said["epsilon"] <= 8.0 and said["trainings"] == min(3, entry.ref.sequence)
        assert impossible(twins.spec, prefix, entry) is None
        assert _facts(table, entry) is None and _metrics(table, entry, twins.spec) is None
        sharp = replace(entry, update=replace(update, score_ppm=update.score_ppm + 1))
        assert "multiple of 10,000" in str(impossible(twins.spec, prefix, sharp))
        for word in prefix.attestations(entry.ref):
            assert word.score_ppm % 10_000 == 0 and word.base_score_ppm % 10_000 == 0
    spent = [report_of(twins, entry)["privacy"]["epsilon"] for entry in prefix.updates(1)]
    assert spent == sorted(spent) and spent[2] == spent[3]
    assert not [event for _, event in twins.events if "loss" in event.detail]


def test_withheld_scores_are_zero(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(privacy=PRIVATE | {"scores": "withheld"}, rounds={"planned": 1}), size=2)
    assert set(twins.run().values()) == {None}
    prefix, entries = entries_of(twins)
    for entry in entries:
        assert entry.update.score_ppm == entry.update.base_score_ppm == 0
        assert report_of(twins, entry)["score_ppm"] == 0
        assert impossible(twins.spec, prefix, entry) is None


def test_a_peer_whose_budget_is_spent_goes_on_merging_and_publishes_that(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(privacy=SOON_SPENT, rounds={"planned": 5}), size=2)
    lasts = {number: trainer.privacy.left() for number, trainer in twins.trainers.items() if trainer.privacy}
    assert all(0 < left < 5 for left in lasts.values()), lasts
    assert set(twins.run().values()) == {None}
    prefix, _ = entries_of(twins)
    for number, left in lasts.items():
        own = prefix.updates(number)
        assert len(own) == 6 and own[-1].final
        reports = [report_of(twins, entry) for entry in own[:-1]]
        untrained = [bool(table["training"].get("untrained")) for table in reports]
        assert untrained == [False] * left + [True] * (5 - left)
        last = reports[-1]["training"]
        assert last["why"] == "privacy budget spent" and last["from"] == "base" and last["steps"] == 0
        assert twins.kinds[number].count("budget-spent") == 5 - left
        for entry, table in zip(own, reports, strict=False):
            same = entry.update.weights == weights.commitment(
                prefix.opened.chain_id, prefix.opened.ledger, number, entry.ref.sequence, entry.update.base
            )
            assert same == bool(table["training"].get("untrained"))
    twins.replay().check()


def test_a_crash_after_training_trains_and_spends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_node import round as playing

    twins = Twins(tmp_path, small_spec(privacy=PRIVATE, rounds={"planned": 2}), size=2)
    own = twins.trainers[1].privacy
    assert own is not None

    def gone(*given: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(playing, "evaluate", gone)
        peer = twins.peer(1)
        with pytest.raises(KeyboardInterrupt):
            playing.play_round(peer, playing.Goal(1, 1, False))
        peer.index.close()
    assert len(own.account.spent) == 1
    assert set(twins.run().values()) == {None}
    assert [(one.sequence, one.attempt) for one in own.account.spent] == [(1, 1), (2, 1)]


def test_what_was_spent_outlives_the_process_and_a_lost_account_does_not_pass(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(privacy=PRIVATE, rounds={"planned": 2}), size=2)
    for number in twins.stores:
        account = Account(tmp_path / f"account-{number}", "twins")
        privacy = twins.trainers[number].privacy
        assert privacy is not None
        privacy.account = account
    first = twins.trainers[1].privacy
    assert first is not None
    left = first.left(100)
    assert set(twins.run().values()) == {None}
    prefix, _ = entries_of(twins)
    published = [entry.ref.sequence for entry in prefix.updates(1) if not entry.final]
    again = Account(tmp_path / "account-1", "twins")
    again.check(published)
    trainer = Trainer(twins.spec, twins.splits[0], 1, "cpu", account=again)
    assert trainer.privacy is not None and trainer.privacy.left(100) == left - 2 >= 0
    text, numbers = trainer.privacy.summary()
    assert "differential privacy of each row: epsilon" in text and numbers["trainings_left"] == min(2, left - 2)


# ---- simulation ------------------------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {
    "peers": (3,),
    "rounds": 2,
    "epochs": 1,
    "overrides": {"privacy.mechanism": "example", "privacy.delta": 1e-4, "privacy.encrypt": False},
}


def results(settings: Settings) -> list[Any]:
    (run,) = simulate(settings).runs
    assert not run.failures
    return [(row.peer, row.round, row.score_ppm, row.own, row.train_loss) for row in run.rows]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_simulation_can_be_repeated_and_knows_what_is_withheld(threads: int) -> None:
    one, other = (results(Settings(**QUICK, threads=threads)) for _ in range(2))
    assert one == other
    assert all(score % 10_000 == 0 and loss is None for _, _, score, _, loss in one)
    assert any(own.score_ppm % 10_000 for _, _, _, own, _ in one)
    assert results(Settings(**QUICK, threads=threads, seed=1)) != one


@pytest.mark.parametrize("threads", [1, 2])
def test_a_simulation_goes_on_when_budgets_are_spent(threads: int) -> None:
    overrides = QUICK["overrides"] | {"privacy.noise_multiplier": 0.7, "privacy.epsilon": 8.0}
    settings = Settings(**QUICK | {"rounds": 6, "overrides": overrides}, threads=threads, baselines=False)
    (run,) = simulate(settings).runs
    assert not run.failures and len(run.finals()) == 3


def test_a_simulation_of_whole_updates_with_baselines() -> None:
    overrides = QUICK["overrides"] | {"privacy.mechanism": "update", "privacy.epsilon": 1000.0}
    settings = Settings(**QUICK | {"overrides": overrides}, baselines=True, threads=1)
    one, other = (simulate(settings).runs[0] for _ in range(2))
    assert one.pooled == other.pooled and one.pooled is not None and one.alone == other.alone


def test_peers_are_not_stacked_under_a_mechanism() -> None:
    with pytest.raises(UsageError, match="differential privacy"):
        simulate(Settings(**QUICK, batch="always"))


# ---- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ppm", [0, 4_999, 5_000, 123_456, 994_999, 1_000_000])
def test_what_is_released_of_a_score(ppm: int) -> None:
    assert released(PrivacySpec(), ppm) == ppm
    for mechanism in ("example", "update"):
        coarse = PrivacySpec(mechanism=mechanism, score_step_ppm=30_000)  # type: ignore[arg-type]
        assert released(coarse, ppm) == coarsened(ppm, 30_000) and released(coarse, ppm) % 30_000 == 0
        assert released(coarse, released(coarse, ppm)) == released(coarse, ppm)
        assert released(coarse.model_copy(update={"scores": "withheld"}), ppm) == 0


def test_attested_scores_are_as_coarse_as_the_coarser_of_the_two() -> None:
    said = AttestationSpec(coarsen_ppm=5_000)
    assert attested_step(said, PrivacySpec()) == 5_000
    assert attested_step(said, PrivacySpec(mechanism="example")) == 10_000
    assert attested_step(said, PrivacySpec(mechanism="example", score_step_ppm=1)) == 5_000


def test_noise_is_no_function_of_public_facts(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        twins = Twins(tmp_path / name, small_spec(privacy=PRIVATE, rounds={"planned": 1}), size=2)
        twins.run()
        _, entries = entries_of(twins)
        found.append(entries[0].update.content)
    assert found[0] != found[1]
