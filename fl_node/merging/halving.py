"""Sums that every machine computes to the same bit: a fixed halving tree of elementwise additions.

    while n > 1:  h = ceil(n / 2);  v[i] = v[i] + v[i + h] for i < n - h;  n = h

``numpy.sum`` will not do: how it pairs terms depends on layout, on the processor and on the version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_node.merging.weights import Array


def halving_sum(values: Array) -> NDArray[np.float64]:
    """Sum over the first axis in float64; shape ``values.shape[1:]``, and ``+0.0`` for no terms.

    Args:
        values: (n, ...) of any real dtype; not changed.
    """
    terms = np.array(values, dtype=np.float64, order="C", copy=True)
    if terms.shape[0] == 0:
        return np.zeros(terms.shape[1:])
    halve(terms)
    total: NDArray[np.float64] = terms[0] + 0.0
    return total


def halve(terms: NDArray[np.float64], until: int = 1) -> int:
    """Walk down the tree over the first axis of ``terms``, in place, until at most ``until`` partial sums are left.

    Returns:
        How many are left; they are ``terms[:left]``.
    """
    count = int(terms.shape[0])
    while count > until:
        half = (count + 1) // 2
        np.add(terms[: count - half], terms[half:count], out=terms[: count - half])
        count = half
    return count
