"""The rows of many peers as one table, and the order in which one pass steps through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fl_node.learning.dataset import Dataset

_Type = TypeVar("_Type", bound=np.generic)


class StackedRows:
    """Every peer's rows behind one another: ``features`` [n, \\*input_shape], ``labels`` [n].

    Peer i (its place in ``parts``, from 0) has the ``counts[i]`` rows from ``starts[i]`` on. Parts that already lie
    behind one another in one array are not copied; ``parts[i]`` is a view, so that a caller can drop its own rows.

    Args:
        parts: the rows of each peer, at least one peer.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.counts = np.array([len(part) for part in parts], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.features: NDArray[np.float32] = _joined([part.features for part in parts])
        self.labels: NDArray[np.int64] = _joined([part.labels for part in parts])

    def part(self, place: int) -> Dataset:
        """The rows of the peer at this place, as a view."""
        at, count = self.starts[place], self.counts[place]
        return Dataset(self.features[at : at + count], self.labels[at : at + count])


def _joined(arrays: Sequence[NDArray[_Type]]) -> NDArray[_Type]:
    """The arrays behind one another: the array that they are consecutive slices of, else a copy."""
    first, base = arrays[0], arrays[0].base
    if isinstance(base, np.ndarray) and base.dtype == first.dtype and base.shape[1:] == first.shape[1:]:
        at, step = first.ctypes.data, first[:1].nbytes
        for array in arrays:
            if array.base is not base or array.ctypes.data != at:
                return np.concatenate(arrays)
            at += array.nbytes
        begin = (first.ctypes.data - base.ctypes.data) // step if step else 0
        if base.flags.c_contiguous:
            return base[begin : begin + sum(map(len, arrays))]
    return np.concatenate(arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of the first P peers, those that still have rows, with B rows each.

    Attributes:
        rows_PB: row numbers in the stack, one axis; places beyond a peer's last row hold its first one.
        targets_P1B: the labels of these rows.
        shares_P1B: the weight of each row in its peer's mean loss of this step, 0 beyond its last row:
            1 / (its rows in this step), or the row's class weight divided by the sum of those in the step.
        sizes_P: rows of each peer in this step, float32.
    """

    rows_PB: torch.Tensor
    targets_P1B: torch.Tensor
    shares_P1B: torch.Tensor
    sizes_P: torch.Tensor


def one_pass(
    rows: StackedRows,
    places: Sequence[int],
    orders: Sequence[NDArray[np.int64]],
    size: int,
    class_weights_PC: NDArray[np.float32] | None,
    device: torch.device,
) -> Iterator[Step]:
    """The steps of one pass over the rows of some peers.

    Args:
        rows: the stack.
        places: the peers' places in it, by falling row count.
        orders: for each of them a permutation of its rows, counted from 0.
        size: rows in a step; a peer's last step may hold fewer, and a peer that has no more takes no step.
        class_weights_PC: for each of them the weight of each class, or None.
        device: where the tensors are wanted.
    """
    counts = rows.counts[list(places)]
    longest = int(counts[0])
    numbers = np.repeat(rows.starts[list(places), None], longest, axis=1)
    for peer, order in enumerate(orders):
        numbers[peer, : len(order)] += order
    targets = rows.labels[numbers]
    weights = (np.arange(longest) < counts[:, None]).astype(np.float32)
    if class_weights_PC is not None:
        weights *= np.take_along_axis(class_weights_PC, targets, axis=1)
    uneven = class_weights_PC is not None or int(counts[-1]) != longest
    for at in range(0, longest, size):
        peers, columns = int(np.count_nonzero(counts > at)), slice(at, at + size)
        shares = weights[:peers, columns]
        shares = shares / (shares.sum(axis=1, keepdims=True) if uneven else np.float32(shares.shape[1]))
        yield Step(
            torch.from_numpy(numbers[:peers, columns].ravel()).to(device),
            torch.from_numpy(np.ascontiguousarray(targets[:peers, None, columns])).to(device),
            torch.from_numpy(shares[:, None]).to(device),
            torch.from_numpy(np.minimum(counts[:peers] - at, size).astype(np.float32)).to(device),
        )
