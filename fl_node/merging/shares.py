"""Integer shares from weights: exact arithmetic only, so that every machine gets the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

from fl_node.records import PPM

Weight: TypeAlias = int | Fraction


def largest_remainder(weights: Sequence[Weight], order_keys: Sequence[bytes], total: int = PPM) -> list[int]:
    """Whole numbers in proportion to weights that sum to ``total``: Hamilton's method of the largest remainder.

        quota_k = total * weight_k / sum(weights);  share_k = floor(quota_k), plus 1 for the largest remainders

    Ties go to the smaller order key. Weights that are all zero count as equal.

    Args:
        weights: K weights >= 0, integers or fractions; at least one.
        order_keys: K distinct byte strings (:func:`aggregation.order_key`).

    Raises:
        ValueError: no weights, a negative one, other lengths, or equal keys.

    >>> largest_remainder([1, 1, 1], [b"c", b"a", b"b"])
    [333333, 333334, 333333]
    """
    if not weights or len(weights) != len(order_keys) or len(set(order_keys)) != len(order_keys):
        raise ValueError(f"got {len(weights)} weights and {len(set(order_keys))} distinct order keys, expected as many")
    if min(weights) < 0:
        raise ValueError(f"got a negative weight in {list(weights)}")
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact, Fraction(0))
    if not whole:
        exact, whole = [Fraction(1)] * len(exact), Fraction(len(exact))
    quotas = [weight * total / whole for weight in exact]
    shares = [quota.numerator // quota.denominator for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda k: (shares[k] - quotas[k], order_keys[k]))
    for k in by_remainder[: total - sum(shares)]:
        shares[k] += 1
    return shares


def capped(samples: int, cap: int) -> int:
    """Samples that count for one peer: at most ``cap``; 0 is no cap."""
    return min(samples, cap) if cap else samples


def discounted(weight: Weight, staleness: int) -> Fraction:
    """A weight divided by 1 + staleness (own updates since the entry): rational, never a power or an exponential."""
    return Fraction(weight) / (1 + staleness)


def floored(row: Sequence[int], floor: int, order_keys: Sequence[bytes], total: int = PPM) -> list[int]:
    """Shares that sum to ``total`` from whole numbers of another sum, none below ``floor``.

        f = min(floor, total // K);  share_k = f + largest remainder of max(0, row_k - f), summing to total - K f

    A row that sums to ``total`` with none below ``floor`` comes out unchanged, so doing it twice changes nothing.

    Args:
        row: K whole numbers >= 0, such as a peer's trust in those of its candidates that could be fetched.
        order_keys: K distinct byte strings.

    Raises:
        ValueError: see :func:`largest_remainder`; a number below 0.

    >>> floored([970_000, 25_000, 0], 10_000, [b"a", b"b", b"c"])
    [965077, 24923, 10000]
    """
    if row and min(row) < 0:
        raise ValueError(f"got a negative share in {list(row)}")
    least = min(floor, total // max(1, len(row)))
    excess = [max(0, share - least) for share in row]
    return [least + share for share in largest_remainder(excess, order_keys, total - least * len(row))]
