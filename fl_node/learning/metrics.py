"""Scores of predictions: what a peer claims on the ledger and what its report says.

Everything but the AUC follows from the confusion matrix, so numpy is enough; the tests hold each number against
scikit-learn, whose import would cost every peer most of a second of start-up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fl_node.records import PPM

LIMIT = 1e30
Metric = Literal["accuracy", "macro-f1", "auc", "dice"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model does on labelled samples. Of masks, what is counted is pixels, but for ``samples`` and ``dice``.

    Fractions are from 0 to 1. ``macro_f1``, ``precision`` and ``recall`` are unweighted means over the classes that
    occur among labels or predictions; a quotient 0/0 counts as 0. ``auc`` is None where it is undefined (fewer than
    two classes among the labels) or was not asked for. ``confusion[i][j]``: samples of class i predicted as class j.
    ``loss`` is the mean cross-entropy in nats. ``dice``: of masks, see :func:`dice_of_each`; else None.
    """

    score_ppm: int
    samples: int
    correct: int
    accuracy: float
    macro_f1: float
    precision: float
    recall: float
    auc: float | None
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    dice: float | None = None

    @property
    def quality(self) -> float:
        """What people compare models by, from 0 to 1: Dice of masks, else the accuracy."""
        return self.accuracy if self.dice is None else self.dice


def measure(scores: NDArray[Any], labels: NDArray[np.int64], metric: Metric, full: bool = False) -> Evaluation:
    """Score logits against labels.

    Args:
        scores: logits [n, classes], or [n, classes, H, W] of masks; n > 0. Of equal logits the lower class wins. They
            are clipped to +-1e30, and NaN counts as the least, so that a diverged model gets a bad score instead of an
            error.
        labels: int64 [n], or [n, H, W] of masks.
        metric: which number becomes ``score_ppm``. For accuracy that is floor(correct * 1,000,000 / n), in integers;
            for others floor of the float64 value times 1,000,000. An undefined AUC scores 500,000, that of guessing.
        full: also compute the AUC where the metric does not need it; it sorts every column. Never of masks.
    """
    if labels.ndim > 1:
        return measure_masks([(scores, labels)])
    scores = _finite(scores)
    count, classes = scores.shape
    predicted = scores.argmax(axis=1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    correct = int(np.trace(confusion))
    precision, recall, f1 = _per_class(confusion)
    auc = None
    if full or metric == "auc":
        auc = area_under_curve(scores, labels)
    if metric == "accuracy":
        score_ppm = correct * PPM // count
    elif metric == "macro-f1":
        score_ppm = int(f1 * PPM)
    else:
        score_ppm = PPM // 2 if auc is None else int(auc * PPM)
    return Evaluation(
        score_ppm=score_ppm,
        samples=count,
        correct=correct,
        accuracy=correct / count,
        macro_f1=f1,
        precision=precision,
        recall=recall,
        auc=auc,
        loss=float(cross_entropies(scores, labels).mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def measure_masks(parts: Iterable[tuple[NDArray[Any], NDArray[np.int64]]]) -> Evaluation:
    """Score logits [n, classes, H, W] against masks [n, H, W], part by part, so that no more than one is in memory.

    ``score_ppm`` is the mean of :func:`dice_of_each` over all samples, times 1,000,000, rounded down. What overflowed
    is treated as in :func:`measure`. There must be at least one sample.
    """
    confusion: NDArray[np.int64] | int = 0
    dice, loss = [], 0.0
    for scores, labels in parts:
        finite = _finite(scores)
        classes = finite.shape[1]
        predicted = finite.argmax(axis=1)
        pairs = np.bincount((labels * classes + predicted).ravel(), minlength=classes * classes)
        confusion = confusion + pairs.reshape(classes, classes)
        dice.append(dice_of_each(predicted, labels, classes))
        flat = np.moveaxis(finite, 1, -1).reshape(-1, classes)
        loss += float(cross_entropies(flat, labels.ravel()).sum())
    assert not isinstance(confusion, int)
    each = np.concatenate(dice)
    mean, pixels, correct = float(each.mean()), int(confusion.sum()), int(np.trace(confusion))
    precision, recall, f1 = _per_class(confusion)
    return Evaluation(
        score_ppm=int(mean * PPM),
        samples=len(each),
        correct=correct,
        accuracy=correct / pixels,
        macro_f1=f1,
        precision=precision,
        recall=recall,
        auc=None,
        loss=loss / pixels,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        dice=mean,
    )


def dice_of_each(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Dice's coefficient of each sample, float64 [n] from 0 to 1, from classes of pixels [n, H, W].

    2 |P and T| / (|P| + |T|) of the pixels predicted (P) and truly (T) of a class; the mean over the classes other than
    0, the background, that the sample has in P or T. A sample that has none in either is right: 1. (Dice 1945,
    https://doi.org/10.2307/1932409.)
    """
    count = len(labels)
    start = np.arange(count).reshape(-1, 1) * classes
    truth, found = labels.reshape(count, -1), predicted.reshape(count, -1)

    def counts(places: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(places.ravel(), minlength=count * classes).reshape(count, classes)[:, 1:]

    both = counts((truth + start)[truth == found])
    sizes = counts(truth + start) + counts(found + start)
    there = sizes > 0
    quotients = 2 * both / np.maximum(sizes, 1)
    mean: NDArray[np.float64] = quotients.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.where(there.any(axis=1), mean, 1.0)


def area_under_curve(scores: NDArray[Any], labels: NDArray[np.int64]) -> float | None:
    """Area under the ROC curve; for more than two classes the mean of one against the rest.

    With two classes the ranking is by the difference of the two logits; with more, by each class's probability
    (softmax). A class that does not occur, or is the only one, has no curve and is left out of the mean; None if no
    class is left. Formula: Mann and Whitney's U divided by the number of pairs, ties counting one half (Hanley,
    McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).
    """
    classes = scores.shape[1]
    if classes == 2:
        wide = scores.astype(np.float64)
        return _binary_auc(wide[:, 1] - wide[:, 0], labels == 1)
    probabilities = np.exp(_log_softmax(scores))
    areas = [_binary_auc(probabilities[:, number], labels == number) for number in range(classes)]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None


def cross_entropies(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log softmax(scores)[label] of each sample, float64 [n], in nats."""
    result: NDArray[np.float64] = -_log_softmax(scores)[np.arange(len(labels)), labels]
    return result


def _finite(scores: NDArray[Any]) -> NDArray[np.float64]:
    """As float64 from -LIMIT to LIMIT."""
    wide = scores.astype(np.float64)
    return np.clip(np.nan_to_num(wide, copy=False, nan=-LIMIT, posinf=LIMIT, neginf=-LIMIT), -LIMIT, LIMIT, out=wide)


def _log_softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _per_class(confusion: NDArray[np.int64]) -> tuple[float, float, float]:
    """Means of precision, recall and F1 over the classes that occur."""
    hits = np.diagonal(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    there = (predicted + actual) > 0
    hits, predicted, actual = hits[there], predicted[there], actual[there]
    return (
        float((hits / np.maximum(predicted, 1)).mean()),
        float((hits / np.maximum(actual, 1)).mean()),
        float((2 * hits / (predicted + actual)).mean()),
    )


def _binary_auc(ranking: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(ranking, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    midranks = last - (counts - 1) / 2  # ties share the mean of the ranks, from 1, that they fill
    return float((midranks[place][positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
