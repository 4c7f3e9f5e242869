"""How a demonstration or simulation deals one data set out to peers. One grammar for all:

iid                     shuffled, equal parts
unequal                 shuffled, parts in proportion 1 : 2 : ... : peers
label-skew[:K]          K classes per peer (default 2, or as many as it takes for every class to have a peer)
shards:K                rows sorted by class and cut into peers * K equal shards, K of them by chance to each peer
dirichlet:ALPHA         each class dealt by shares drawn from Dirichlet(ALPHA); the smaller, the more skewed
dirichlet:ALPHA:equal   equal parts, each with its own mixture of classes drawn from Dirichlet(ALPHA)

What is done to the rows afterwards, such as wrong labels on some peers, is said in ``shifts``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import DataError, UsageError
from fl_node.suggest import did_you_mean

Indices = NDArray[np.int64]
KINDS: Final = ("iid", "unequal", "label-skew", "shards", "dirichlet")
GRAMMAR: Final = "iid, unequal, label-skew, label-skew:K, shards:K, dirichlet:ALPHA or dirichlet:ALPHA:equal"


@dataclass(frozen=True, slots=True)
class Partition:
    """A parsed partition. ``classes`` is of label-skew (0: the default), ``shards`` of shards, ``alpha`` and ``equal``
    of dirichlet; else they are 0 and False."""

    kind: Literal["iid", "unequal", "label-skew", "shards", "dirichlet"]
    classes: int = 0
    alpha: float = 0.0
    shards: int = 0
    equal: bool = False

    def __str__(self) -> str:
        if self.kind == "label-skew" and self.classes:
            return f"label-skew:{self.classes}"
        if self.kind == "shards":
            return f"shards:{self.shards}"
        if self.kind == "dirichlet":
            return f"dirichlet:{self.alpha:g}" + (":equal" if self.equal else "")
        return self.kind


def parse_partition(text: str) -> Partition:
    """Parse the grammar above. Raises UsageError that names the text and what is allowed."""
    kind, *arguments = text.strip().split(":")
    match kind, arguments:
        case ("iid", []):
            return Partition("iid")
        case ("unequal", []):
            return Partition("unequal")
        case ("label-skew", []):
            return Partition("label-skew")
        case ("label-skew", [number]) if _count(number):
            return Partition("label-skew", classes=_count(number))
        case ("shards", [number]) if _count(number):
            return Partition("shards", shards=_count(number))
        case ("dirichlet", [number] | [number, "equal"]) if _alpha(number):
            return Partition("dirichlet", alpha=_alpha(number), equal=len(arguments) == 2)
    hint = "" if kind in KINDS else did_you_mean(kind.lower(), KINDS)
    raise UsageError(
        f"partition {text!r}: expected {GRAMMAR}, with K a whole number from 1 and ALPHA a number from 0.001 to 1000000"
        f"{hint}"
    )


def _count(text: str) -> int:
    """A whole number from 1, else 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


def _alpha(text: str) -> float:
    """A number from 0.001 to 1,000,000, else 0."""
    try:
        alpha = float(text)
    except ValueError:
        return 0.0
    return alpha if 0.001 <= alpha <= 1e6 else 0.0


def partition(labels: Indices, peers: int, how: Partition | str, seed: int) -> list[Indices]:
    """Deal rows out: one ascending array of row indices per peer. Every row goes to exactly one peer.

    ``iid`` and ``dirichlet:ALPHA:equal`` parts, and the shards of ``shards``, differ by one row at most, the first
    having the larger. ``unequal`` and ``dirichlet`` shares are rounded by largest remainder. The same arguments give
    the same parts with the same numpy.

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
    elif chosen.kind == "shards":
        owners = _shards(labels, peers, chosen.shards, generator)
    elif chosen.equal:
        owners = _mixtures(labels, peers, chosen.alpha, generator)
    else:
        owners = _dirichlet(labels, peers, chosen.alpha, generator)
    parts = [np.flatnonzero(owners == number) for number in range(peers)]
    empty = [str(number + 1) for number, part in enumerate(parts) if not len(part)]
    if empty:
        named = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
        raise DataError(
            f"partition {chosen} of {len(labels)} rows leaves peer {named} of {peers} without rows; use "
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


def _shards(labels: Indices, peers: int, wanted: int, generator: np.random.Generator) -> Indices:
    """McMahan et al. 2017, https://arxiv.org/abs/1602.05629, section 3. Rows of one class are in random order."""
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    holders = generator.permutation(np.repeat(np.arange(peers), wanted))
    owners = np.empty(len(labels), dtype=np.int64)
    owners[order] = np.repeat(holders, _sizes(np.ones(peers * wanted), len(labels)))
    return owners


def _mixtures(labels: Indices, peers: int, alpha: float, generator: np.random.Generator) -> Indices:
    """Each peer draws a mixture of classes, and as many rows as it has places by it, without replacement; a class that
    has run out leaves its part of the mixture to the others (as in Acar et al. 2021, https://arxiv.org/abs/2111.04263).

    All places are drawn for at once; where a class is asked for more often than it has rows, chance decides who gets
    them, and the others draw again among the classes that are left.
    """
    classes, supply_C = np.unique(labels, return_counts=True)
    mixtures_PC = generator.dirichlet(np.full(len(classes), alpha), size=peers)
    places_P = _sizes(np.ones(peers), len(labels))
    dealt_PC = np.zeros((peers, len(classes)), dtype=np.int64)
    while places_P.any():
        # A mixture may have no part at all, even none that a float can hold, of the classes left: then any of them.
        left_PC = np.where(supply_C > 0, np.maximum(mixtures_PC, 1e-300), 0.0)
        drawn_PC = generator.multinomial(places_P, left_PC / left_PC.sum(axis=1, keepdims=True))
        for place in np.flatnonzero(drawn_PC.sum(axis=0) > supply_C):
            asked_P, there = drawn_PC[:, place], supply_C[place]
            drawn_PC[:, place] = generator.multivariate_hypergeometric(asked_P, there, method="marginals")
        dealt_PC += drawn_PC
        places_P = places_P - drawn_PC.sum(axis=1)
        supply_C = supply_C - drawn_PC.sum(axis=0)
    owners = np.empty(len(labels), dtype=np.int64)
    for number, dealt_P in zip(classes, dealt_PC.T, strict=True):
        owners[labels == number] = generator.permutation(np.repeat(np.arange(peers), dealt_P))
    return owners
