"""The attacks of benchmarks/privacy find what is there, and nothing where nothing is: else their tables say nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks.privacy import membership_cases
from benchmarks.privacy.inversion import by_division, by_search, difference
from benchmarks.privacy.likeness import compare, matched, psnr, squared_errors, ssim
from benchmarks.privacy.membership import (
    auc,
    calibrated,
    cross_entropy,
    loss_threshold,
    most_auc,
    most_true_positives,
    true_positives,
)
from benchmarks.privacy.worlds import Rows, Setting, answers, mean, play, trainer
from fl_node.learning.dataset import Dataset
from fl_node.learning.models import Weights, build, genesis
from fl_node.spec import Spec
from fl_node.tables import ModelSpec, PrivacySpec, RoundsSpec, TaskSpec, TrainingSpec

SIDE = 8


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def drawn(count: int, seed: int) -> Dataset:
    """Noisy pictures of four classes; three labels in ten are drawn anew: something to learn by heart."""
    draw = np.random.default_rng(seed)
    classes = np.random.default_rng(99).random((4, 1, SIDE, SIDE))
    labels = draw.integers(0, 4, count)
    features = np.clip(classes[labels] + draw.normal(0, 0.35, (count, 1, SIDE, SIDE)), 0, 1).astype(np.float32)
    wrong = draw.random(count) < 0.3
    return Dataset(features, np.where(wrong, draw.integers(0, 4, count), labels).astype(np.int64))


def spec(model: str = "mlp", epochs: int = 60, rounds: int = 1, batch_size: int = 16, rate: float = 0.2) -> Spec:
    return Spec(
        task=TaskSpec(input_shape=(1, SIDE, SIDE), classes=4, validation=0.0),
        model=ModelSpec(name=model, hidden=(64,) if model == "mlp" else (8,)),
        training=TrainingSpec(epochs=epochs, batch_size=batch_size, learning_rate=rate),
        rounds=RoundsSpec(planned=rounds),
    )


def losses(of: Spec, weights: Weights, rows: Dataset) -> np.ndarray:
    return cross_entropy(answers(of, weights, rows), rows.labels)


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """Balle, Wang 2018, theorem 8, for a sensitivity of one."""
    a, b = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
    return float(stats.norm.cdf(a) - math.exp(epsilon) * stats.norm.cdf(b))


class TestMembership:
    def test_a_model_that_learned_its_rows_by_heart_gives_them_away(self) -> None:
        rows, strangers, attackers = drawn(120, 1), drawn(120, 2), drawn(120, 3)
        target = play(spec(), [rows]).updates[0]
        reference = play(spec(), [attackers]).updates[0]
        told = {
            "loss": [loss_threshold(losses(spec(), target, some)) for some in (rows, strangers)],
            "calibrated": [
                calibrated(losses(spec(), target, some), [losses(spec(), reference, some)])
                for some in (rows, strangers)
            ],
        }
        assert auc(*told["loss"]) > 0.65
        assert auc(*told["calibrated"]) > 0.65
        assert true_positives(*told["calibrated"], 0.1) > 0.2

    def test_a_model_of_other_rows_tells_nothing(self) -> None:
        rows, strangers, others, attackers = (drawn(1500, seed) for seed in (1, 2, 3, 4))
        target, reference = (play(spec(epochs=5), [some]).updates[0] for some in (others, attackers))
        members, rest = (losses(spec(), target, some) for some in (rows, strangers))
        references = [[losses(spec(), reference, some)] for some in (rows, strangers)]
        # Three standard errors of the area under chance, (m + n + 1) / (12 m n), are 0.032.
        assert abs(auc(loss_threshold(members), loss_threshold(rest)) - 0.5) < 0.032
        assert abs(auc(calibrated(members, references[0]), calibrated(rest, references[1])) - 0.5) < 0.032

    def test_the_merged_model_of_many_peers_tells_less_than_the_update(self) -> None:
        shards, strangers = [drawn(60, seed) for seed in range(10, 16)], drawn(360, 2)
        played = play(spec(rounds=2), shards)
        own = auc(
            loss_threshold(losses(spec(), played.updates[0], shards[0])),
            loss_threshold(losses(spec(), played.updates[0], strangers)),
        )
        merged = auc(
            loss_threshold(losses(spec(), played.merged, shards[0])),
            loss_threshold(losses(spec(), played.merged, strangers)),
        )
        assert own > merged + 0.03

    def test_the_attacker_does_not_know_the_noise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the peers' numbers its federation would draw their noise, and calibration would take it off."""
        rows = [drawn(30, seed) for seed in (1, 2)]
        setting = Setting("mnist", "logistic", 30, peers=2, rounds=1)
        monkeypatch.setattr(Setting, "spec", lambda *_: private)
        private = spec("logistic", epochs=1, batch_size=30).model_copy(
            update={"privacy": PrivacySpec(mechanism="example", epsilon=1.0, delta=1e-3)}
        )
        monkeypatch.setattr(membership_cases, "deal", lambda *_: Rows(rows, rows, rows, rows[0]))
        theirs = play(private, rows).updates
        again = play(private, rows).updates
        own = membership_cases.shadows(setting, (), 1.0, 0, Path()).updates
        for mine, before, same in zip(own, theirs, again, strict=True):
            assert (before["linear.weight"] == same["linear.weight"]).all()
            assert (before["linear.weight"] != mine["linear.weight"]).mean() > 0.99

    def test_area_is_that_of_others(self) -> None:
        draw = np.random.default_rng(0)
        for shift in (-1.0, 0.0, 0.3):
            left, right = draw.integers(0, 9, 70) + shift, draw.integers(0, 9, 50).astype(float)
            labels = np.repeat([1, 0], [70, 50])
            assert auc(left, right) == pytest.approx(roc_auc_score(labels, np.concatenate([left, right])))

    def test_true_positives_at_few_false_ones(self) -> None:
        strangers = np.arange(1000.0)
        members = np.array([998.5, 989.5, 989.0, 10.0])
        assert true_positives(members, strangers, 0.01) == 0.5  # 990 to 999 may pass; equal to 989 may not
        assert true_positives(members, strangers, 0.001) == 0.25
        assert true_positives(members, strangers, 0.0) == 0.0
        assert true_positives(members, strangers, 1.0) == 1.0

    def test_nobody_to_compare_with_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="at least one of each"):
            auc(np.zeros(0), np.zeros(3))
        with pytest.raises(ValueError, match="no reference"):
            calibrated(np.zeros(3), [])

    def test_what_differential_privacy_leaves_to_any_attack(self) -> None:
        assert most_auc(0.0, 0.0) == pytest.approx(0.5)
        assert most_auc(2.0, 0.0) == pytest.approx(math.exp(2) / (1 + math.exp(2)))
        grid = np.linspace(0, 1, 20_001)
        for epsilon, delta in ((1.0, 1e-5), (3.0, 1e-2), (8.0, 1e-5)):
            curve = [most_true_positives(epsilon, delta, float(at)) for at in grid]
            assert np.trapezoid(curve, grid) == pytest.approx(most_auc(epsilon, delta), abs=1e-4)
        # The best attack on a Gaussian mechanism is a threshold on it; its curve stays below the bound.
        sigma, delta = 1.0, 1e-2
        epsilon = next(found for found in np.arange(0.0, 10.0, 0.001) if gaussian_delta(found, sigma) <= delta)
        best = stats.norm.cdf(stats.norm.ppf(grid) + 1 / sigma)
        allowed = np.array([most_true_positives(float(epsilon), delta, float(at)) for at in grid])
        assert (best <= allowed + 1e-9).all()
        assert (allowed - best).min() < 1e-3


class TestInversion:
    def test_one_row_through_a_linear_layer_is_read_off(self) -> None:
        of, row = spec("logistic", epochs=1, batch_size=1), drawn(1, 5)
        base = genesis(of)
        change = difference(base, trainer(of, row, 1).train(base, 1)[0])
        made = by_division(change["linear.weight"], change["linear.bias"], 1)
        assert np.abs(made.reshape(row.features.shape) - row.features).max() < 1e-4

    def test_many_rows_are_not(self) -> None:
        of, rows = spec("logistic", epochs=1, batch_size=64), drawn(64, 5)
        base = genesis(of)
        change = difference(base, trainer(of, rows, 1).train(base, 1)[0])
        made = by_division(change["linear.weight"], change["linear.bias"], 4).reshape(-1, SIDE, SIDE)
        assert compare(made, rows.features[:, 0], drawn(300, 6).features[:, 0]).psnr < 20

    def test_one_row_in_a_merge_of_ten_is_not_read_off(self) -> None:
        of = spec("logistic", epochs=1, batch_size=1)
        base, rows = genesis(of), [drawn(1, seed) for seed in range(10)]
        merged = mean([trainer(of, one, peer).train(base, 1)[0] for peer, one in enumerate(rows, 1)], [1] * 10)
        change = difference(base, merged)
        made = by_division(change["linear.weight"], change["linear.bias"], 4)
        errors = squared_errors(made, np.concatenate([one.features.reshape(1, -1) for one in rows]))
        assert errors.min() > 1e-3

    def test_an_update_that_changes_nothing_gives_no_picture(self) -> None:
        of = spec("cnn", epochs=1)
        base = genesis(of)
        change = difference(base, base)
        assert (by_division(change["linear.weight"], change["linear.bias"], 3) == 0).all()
        made = by_search(build(of), base, change, np.array([0, 1]), (1, SIDE, SIDE), steps=3)
        assert made.shape == (2, 1, SIDE, SIDE) and (made == 0.5).all()

    def test_search_comes_nearer_to_the_row_than_what_it_began_with(self) -> None:
        of, row = spec("cnn", epochs=1, batch_size=1), drawn(1, 5)
        base = genesis(of)
        change = difference(base, trainer(of, row, 1).train(base, 1)[0])
        truth = row.features[:, 0]
        begun, ended = (
            by_search(build(of), base, change, row.labels, (1, SIDE, SIDE), steps=steps, rate=0.1, smoothness=0.01)
            for steps in (1, 200)
        )
        assert squared_errors(ended[:, 0], truth)[0, 0] < 0.6 * squared_errors(begun[:, 0], truth)[0, 0]


class TestLikeness:
    def test_equal_images(self) -> None:
        image = drawn(3, 0).features[:, 0]
        found = compare(image, image, drawn(20, 1).features[:, 0])
        assert (found.mse, found.psnr, found.named, found.pairs) == (pytest.approx(0, abs=1e-9), 100, 1.0, 3)
        assert found.ssim == pytest.approx(1.0)

    def test_pairs_are_the_best_ones(self) -> None:
        images = drawn(5, 0).features[:, 0]
        assert matched(images[[3, 1]], images) == [(0, 3), (1, 1)]

    def test_ssim_of_flat_images_is_that_of_their_brightness(self) -> None:
        left, right = np.full((9, 9), 0.2), np.full((9, 9), 0.6)
        c1 = 0.01**2
        assert ssim(left, right) == pytest.approx((2 * 0.12 + c1) / (0.04 + 0.36 + c1))
        draw = np.random.default_rng(0)
        assert abs(ssim(draw.random((28, 28)), draw.random((28, 28)))) < 0.1

    def test_decibels(self) -> None:
        assert psnr(0.01) == pytest.approx(20.0)
        assert psnr(0.0) == 100.0

    def test_a_picture_that_says_nothing_names_nobody(self) -> None:
        grey = np.full((1, SIDE, SIDE), 0.5)
        named = [
            compare(grey, drawn(1, seed).features[:, 0], drawn(500, 1000 + seed).features[:, 0]).named
            for seed in range(30)
        ]
        assert np.mean(named) < 0.1
