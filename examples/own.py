"""Your own data, model and training loop, by name. Named in own.toml as own:rows, own:network and own:train."""

import numpy as np
import torch
from sklearn.datasets import load_digits


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 64] and labels [n] of this site; never leave it. A real one reads your database or files."""
    digits = load_digits()
    return digits.data / 16.0, digits.target


def network(input_shape: tuple[int, ...], classes: int, width: int) -> torch.nn.Module:
    """The model that everybody trains: any module from [batch, *input_shape] to logits [batch, classes]."""
    return torch.nn.Sequential(
        torch.nn.Linear(input_shape[0], width),
        torch.nn.LayerNorm(width),
        torch.nn.GELU(),
        torch.nn.Linear(width, classes),
    )


def train(model, features, labels, spec, seed) -> None:
    """One round, in place, from the merged weights. Libraries that wrap a torch training loop fit in here."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.training.learning_rate)
    for _ in range(spec.training.epochs):
        for batch in torch.randperm(len(labels), generator=order).split(spec.training.batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(features[batch]), labels[batch]).backward()
            optimizer.step()
