"""Scores of many perceptrons: those that are judged on the same rows answer in one product.

Shapes: G models, N rows, I inputs and O outputs of a layer, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fl_node.learning.dataset import Dataset
from fl_node.learning.metrics import Evaluation, Metric, measure
from fl_node.learning.training import _tensor

#: Models answering at once, and values of their widest layer in one block of rows: some megabytes.
MODELS = 32
VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Question:
    """Models, by their keys, and the rows that all of them are scored on."""

    models: tuple[int, ...]
    rows: Dataset


def questions(rows: Mapping[int, Dataset]) -> Iterator[Question]:
    """Put those that are scored on the same rows, the very same object, together."""
    together: dict[int, list[int]] = {}
    for key, data in rows.items():
        together.setdefault(id(data), []).append(key)
    for keys in together.values():
        for at in range(0, len(keys), MODELS):
            yield Question(tuple(keys[at : at + MODELS]), rows[keys[0]])


def answers(parameters: Sequence[torch.Tensor], data: Dataset, metric: Metric, full: bool) -> list[Evaluation]:
    """Score every model on the rows.

    Args:
        parameters: weight [G, O, I] and bias [G, O, 1] of each layer from below, alternating.
        data: N rows, at least one.
        metric, full: as of ``metrics.measure``.
    """
    widest = max(weight.shape[0] * weight.shape[1] for weight in parameters[::2])
    features_NI = _tensor(data.features).flatten(1)
    blocks = torch.split(features_NI, max(1, VALUES // widest))
    logits_GCN = torch.cat([_logits(parameters, block.to(parameters[0].device)).cpu() for block in blocks], 2)
    return [measure(logits_CN.T.numpy(), data.labels, metric, full) for logits_CN in logits_GCN]


def _logits(parameters: Sequence[torch.Tensor], rows_NI: torch.Tensor) -> torch.Tensor:
    """[G, C, N]. The first layers of all models are one matrix to the rows that they share."""
    weight, bias = parameters[:2]
    values = torch.mm(weight.flatten(0, 1), rows_NI.T).view(*weight.shape[:2], len(rows_NI)).add_(bias)
    for upper, its_bias in zip(parameters[2::2], parameters[3::2], strict=True):
        values = torch.baddbmm(its_bias, upper, values.relu_())
    return values
