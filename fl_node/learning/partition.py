"""How a demonstration or simulation deals one data set out to peers. One grammar for all:

iid                 shuffled, equal parts
unequal             shuffled, parts in proportion 1 : 2 : ... : peers
label-skew[:K]      K classes per peer (default 2, or as many as it takes for every class to have a peer)
dirichlet:ALPHA     each class dealt by shares drawn from Dirichlet(ALPHA); the smaller, the more skewed
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError, UsageError

Indices = NDArray[np.int64]
GRAMMAR = "iid, unequal, label-skew, label-skew:K or dirichlet:ALPHA"


@dataclass(frozen=True, slots=True)
class Partition:
    """A parsed partition. ``classes`` is of label-skew (0: the default), ``alpha`` of dirichlet; else 0."""

    kind: Literal["iid", "unequal", "label-skew", "dirichlet"]
    classes: int = 0
    alpha: float = 0.0

    def __str__(self) -> str:
        if self.kind == "label-skew" and self.classes:
            return f"label-skew:{self.classes}"
        return f"dirichlet:{self.alpha:g}" if self.kind == "dirichlet" else self.kind


def parse_partition(text: str) -> Partition:
    """Parse the grammar above. Raises UsageError that names the text and what is allowed."""
    kind, colon, argument = text.strip().partition(":")
    if kind in ("iid", "unequal") and not colon:
        return Partition("iid" if kind == "iid" else "unequal")
    if kind == "label-skew" and not colon:
        return Partition("label-skew")
    if kind == "label-skew" and argument.isascii() and argument.isdigit() and int(argument) >= 1:
        return Partition("label-skew", classes=int(argument))
    if kind == "dirichlet" and colon:
        try:
            alpha = float(argument)
        except ValueError:
            alpha = math.nan
        if 0.001 <= alpha <= 1e6:
            return Partition("dirichlet", alpha=alpha)
    raise UsageError(
        f"partition {text!r}: expected {GRAMMAR}, with K a whole number from 1 and ALPHA a number from 0.001 to 1000000"
    )


def partition(labels: Indices, peers: int, how: Partition | str, seed: int) -> list[Indices]:
    """Deal rows out: one ascending array of row indices per peer. Every row goes to exactly one peer.

    ``iid`` parts differ by one row at most, the first peers having the larger. ``unequal`` and ``dirichlet`` shares are
    rounded by largest remainder. The same arguments give the same parts with the same numpy.

    Args:
        labels: int64 [n].
        peers: number of parts, at least 1.
        how: a partition, or its text.
        seed: any number from 0.

    Raises:
        DataError: a peer would get no row.
        UsageError: the text is wrong, there are fewer than 1 peers, or label-skew has fewer places for classes
            (peers * K) than classes or K above their number.
    """
    if peers < 1:
        raise UsageError(f"{peers} peers: expected at least 1")
    chosen = parse_partition(how) if isinstance(how, str) else how
    generator = np.random.Generator(np.random.PCG64(seed))
    if chosen.kind == "iid":
        owners = _shuffled(np.ones(peers), len(labels), generator)
    elif chosen.kind == "unequal":
        owners = _shuffled(np.arange(1.0, peers + 1.0), len(labels), generator)
    elif chosen.kind == "label-skew":
        count = len(np.unique(labels))
        owners = _label_skew(labels, peers, chosen.classes or min(count, max(2, math.ceil(count / peers))), generator)
    else:
        owners = _dirichlet(labels, peers, chosen.alpha, generator)
    parts = [np.flatnonzero(owners == number) for number in range(peers)]
    empty = [str(number + 1) for number, part in enumerate(parts) if not len(part)]
    if empty:
        raise DataError(
            f"partition {chosen} of {len(labels)} rows leaves peer {', '.join(empty)} of {peers} without rows; use "
            "fewer peers, another seed, or a milder partition"
        )
    return parts


def _shuffled(weights: NDArray[np.float64], count: int, generator: np.random.Generator) -> Indices:
    """The owner of each of ``count`` rows, int64 [count]: sizes by weights, places by chance."""
    owners = np.repeat(np.arange(len(weights)), _sizes(weights, count))
    found: Indices = generator.permutation(owners)
    return found


def _sizes(weights: NDArray[np.float64], count: int) -> Indices:
    """Whole numbers in proportion to the weights that sum to ``count``: largest remainder, ties to the first."""
    exact = weights / weights.sum() * count
    sizes: Indices = np.floor(exact).astype(np.int64)
    order = np.argsort(sizes - exact, kind="stable")
    sizes[order[: count - int(sizes.sum())]] += 1
    return sizes


def _label_skew(labels: Indices, peers: int, wanted: int, generator: np.random.Generator) -> Indices:
    """Peer p holds the classes at places p*K .. p*K + K-1 of an endless repetition of the shuffled classes; a class's
    rows are shared equally among its holders."""
    classes = generator.permutation(np.unique(labels))
    if wanted > len(classes) or peers * wanted < len(classes):
        least = math.ceil(len(classes) / peers)
        raise UsageError(
            f"partition label-skew:{wanted} of {len(classes)} classes to {peers} peers: expected K from {least} to "
            f"{len(classes)}, so that every class has a peer"
        )
    holders: dict[int, list[int]] = {place: [] for place in range(len(classes))}
    for place in range(peers * wanted):
        holders[place % len(classes)].append(place // wanted)
    owners = np.empty(len(labels), dtype=np.int64)
    for place, number in enumerate(classes):
        rows = np.flatnonzero(labels == number)
        who = _shuffled(np.ones(len(holders[place])), len(rows), generator)
        owners[rows] = np.array(holders[place])[who]
    return owners


def _dirichlet(labels: Indices, peers: int, alpha: float, generator: np.random.Generator) -> Indices:
    """Hsu, Qi, Brown 2019, https://arxiv.org/abs/1909.06335. Of up to 100 draws the first without an empty peer."""
    owners = np.empty(len(labels), dtype=np.int64)
    for _ in range(100):
        for number in np.unique(labels):
            rows = np.flatnonzero(labels == number)
            shares = generator.dirichlet(np.full(peers, alpha))
            owners[rows] = _shuffled(shares, len(rows), generator)
        if len(np.unique(owners)) == peers:
            break
    return owners
