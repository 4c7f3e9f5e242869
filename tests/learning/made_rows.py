"""Rows that tests make up."""

from __future__ import annotations

import numpy as np

from fl_node.learning.dataset import Dataset


def blobs(rows: int = 120, width: int = 6, classes: int = 3, seed: int = 0) -> Dataset:
    """Rows around one centre per class."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = random.normal(0.0, 2.0, (classes, width))
    features = centres[labels] + random.normal(0.0, 1.0, (rows, width))
    return Dataset(features.astype(np.float32), labels.astype(np.int64))
