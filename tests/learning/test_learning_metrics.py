"""Every number is held against scikit-learn."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from fl_node.learning.metrics import Evaluation, measure


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    classes, rows = draw(st.integers(2, 6)), draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = random.normal(0, 2, (rows, classes))
    if draw(st.booleans()):
        scores = scores.round()  # ties
    return scores.astype(np.float32), random.integers(0, classes, rows)


@settings(max_examples=150)
@given(predictions())
def test_equal_to_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = drawn
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    found = measure(scores, labels, "accuracy", full=True)
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    assert found.accuracy == oracle.accuracy_score(labels, predicted)
    assert np.allclose((found.precision, found.recall, found.macro_f1), (precision, recall, f1), atol=1e-12)
    matrix = oracle.confusion_matrix(labels, predicted, labels=range(classes))
    assert np.array_equal(found.confusion, matrix)
    wide = scores.astype(np.float64)
    probabilities = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    loss = oracle.log_loss(labels, probabilities, labels=range(classes))
    assert math.isclose(found.loss, loss, rel_tol=1e-9, abs_tol=1e-9)
    if len(np.unique(labels)) < 2:
        assert found.auc is None
    elif classes == 2:
        assert found.auc is not None
        assert math.isclose(found.auc, oracle.roc_auc_score(labels, wide[:, 1] - wide[:, 0]), abs_tol=1e-12)
    else:
        # scikit-learn's own mean of one against the rest, over the classes that have a curve
        present = [number for number in range(classes) if (labels == number).any()]
        shifted = wide - wide.max(axis=1, keepdims=True)
        ranking = np.exp(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
        areas = [oracle.roc_auc_score(labels == number, ranking[:, number]) for number in present]
        assert found.auc is not None and math.isclose(found.auc, float(np.mean(areas)), abs_tol=1e-12)


def test_macro_auc_is_scikit_learn_s_ovr() -> None:
    random = np.random.default_rng(5)
    scores, labels = random.normal(0, 1, (400, 5)), np.arange(400) % 5
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = oracle.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert math.isclose(measure(scores, labels, "auc").auc or 0, expected, abs_tol=1e-12)


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_accuracy_is_exact_in_integers(rows: int, correct: int) -> None:
    correct = min(correct, rows)
    labels = np.zeros(rows, np.int64)
    scores = np.tile([1.0, 0.0], (rows, 1))
    scores[correct:] = [0.0, 1.0]
    found = measure(scores, labels, "accuracy")
    assert found.score_ppm == correct * 1_000_000 // rows and found.correct == correct and found.samples == rows


def test_the_metric_decides_the_score() -> None:
    scores = np.array([[2.0, 0], [0.5, 0], [0, 1.0], [0.2, 0.1]])
    labels = np.array([0, 0, 1, 1])
    full = measure(scores, labels, "accuracy", full=True)
    assert full.score_ppm == 750_000
    assert measure(scores, labels, "macro-f1").score_ppm == int(full.macro_f1 * 1_000_000) == 733_333
    assert full.auc == 1.0 and measure(scores, labels, "auc").score_ppm == 1_000_000
    assert measure(scores, labels, "accuracy").auc is None
    assert measure(scores[:2], labels[:2], "auc").score_ppm == 500_000, "no curve: as good as guessing"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("error")
def test_logits_that_overflowed_score_badly_but_give_finite_numbers(bad: float) -> None:
    scores = np.full((4, 3), bad, dtype=np.float32)
    found = measure(scores, np.array([0, 1, 2, 1]), "accuracy", full=True)
    assert found.score_ppm == 250_000
    json.dumps(asdict(found), allow_nan=False)


def test_a_record_of_plain_numbers() -> None:
    found = measure(np.eye(3), np.arange(3), "accuracy", full=True)
    assert found == Evaluation(1_000_000, 3, 3, 1.0, 1.0, 1.0, 1.0, 1.0, found.loss, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    assert type(found.confusion[0][0]) is int
