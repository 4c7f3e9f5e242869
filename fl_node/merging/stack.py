"""Several models of one schema, read together and block by block, so that no rule needs more memory than a few blocks.

A *leaf* is a run of at most 32,768 consecutive elements of one float tensor. Leaves are numbered through the tensors in
name order; sums over a whole model are taken leaf by leaf (docs/replay-rules.md), so the size is part of the rules.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import MalformedWeights
from fl_node.merging.arithmetic import self_test
from fl_node.merging.weights import Array, Tensors, schema_of

Doubles: TypeAlias = NDArray[np.float64]

#: Elements of a leaf. Normative: another size gives other sums.
LEAF: Final = 1 << 15
#: Elements that a thread works through before mapped memory is given back. Only a matter of speed.
PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Leaf:
    """Elements ``start`` to ``end`` of a float tensor, flattened row by row. ``index``: which leaf of the model."""

    index: int
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far each model of a stack is pulled towards a centre: ``x -> c + (x - c) * scale``, where scale < 1.

    ``centre``: flat contiguous arrays by name. ``scales``: one of each model, in the stack's order.
    """

    centre: dict[str, Array]
    scales: tuple[float, ...]


class Stack:
    """K models in ascending order of their keys. ``order[k]`` is where the k-th stood among the arguments."""

    def __init__(
        self,
        models: Sequence[Tensors],
        order_keys: Sequence[bytes],
        *,
        threads: int = 1,
        forget: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            models: K models with the same names, dtypes and shapes; finite (see :func:`weights.decode`).
            order_keys: K distinct byte strings (:func:`aggregation.order_key`).
            threads: that work on a rule; no result depends on it.
            forget: called after each piece of 2^20 elements: gives back the memory of models mapped from disk.

        Raises:
            MalformedWeights: the models do not have the same names, dtypes and shapes.
            ValueError: no models, as many keys as models were expected, or equal keys.
        """
        if not models or len(models) != len(order_keys):
            raise ValueError(f"got {len(models)} models and {len(order_keys)} order keys, expected as many, at least 1")
        if len(set(order_keys)) != len(order_keys):
            raise ValueError("two models have the same order key, so their order is not defined")
        self.schema = schema_of(models[0])
        for model in models[1:]:
            self.check(model)
        self.order = tuple(sorted(range(len(models)), key=lambda k: order_keys[k]))
        self.keys = tuple(order_keys[k] for k in self.order)
        self.models = tuple(models[k] for k in self.order)
        self.floats = tuple(sorted(name for name, spec in self.schema.items() if spec.dtype in ("F32", "F64")))
        self.flat = {name: [flat(model[name]) for model in self.models] for name in self.floats}
        self.threads, self.forget = threads, forget
        self.bounds: Bounds | None = None

    def __len__(self) -> int:
        return len(self.models)

    def check(self, model: Tensors) -> None:
        """
        Raises:
            MalformedWeights: the model's names, dtypes or shapes are not those of the stack.
        """
        if schema_of(model) != self.schema:
            raise MalformedWeights(
                "models with different names, dtypes or shapes cannot be merged; expected equal ones"
            )

    def only(self, kept: Sequence[int]) -> Stack:
        """The models at these positions, ascending, of this stack."""
        other = copy.copy(self)
        other.order = tuple(self.order[k] for k in kept)
        other.keys = tuple(self.keys[k] for k in kept)
        other.models = tuple(self.models[k] for k in kept)
        other.flat = {name: [rows[k] for k in kept] for name, rows in self.flat.items()}
        if self.bounds is not None:
            other.bounds = Bounds(self.bounds.centre, tuple(self.bounds.scales[k] for k in kept))
        return other

    def bounded(self, centre: Tensors, scales: Sequence[float]) -> Stack:
        """The same models, each pulled towards ``centre`` by its scale; integers and booleans as they are.

        Raises:
            MalformedWeights: the centre's names, dtypes or shapes are not those of the stack.
        """
        self.check(centre)
        other = copy.copy(self)
        other.bounds = Bounds({name: flat(centre[name]) for name in self.floats}, tuple(scales))
        return other

    def leaves(self, size: int = LEAF) -> list[Leaf]:
        """All leaves, in order."""
        found: list[Leaf] = []
        for name in self.floats:
            count = self.flat[name][0].size
            found.extend(
                Leaf(index, name, start, min(start + size, count))
                for index, start in enumerate(range(0, count, size), start=len(found))
            )
        return found

    def blank(self) -> dict[str, Array]:
        """New arrays for a result: float tensors uninitialised; the others zero, for the rule to fill in."""
        made: dict[str, Array] = {}
        for name in sorted(self.schema):
            first = self.models[0][name]
            new = np.empty if name in self.flat else np.zeros
            made[name] = new(first.shape, first.dtype)
        return made


class Reader:
    """One thread's view of a stack, with its own buffers."""

    def __init__(self, stack: Stack, size: int) -> None:
        self.stack, self.size = stack, size
        self._doubles: Doubles | None = None
        self._pulled: dict[int, Doubles] = {}
        self._buffers: dict[np.dtype[Any], list[Array]] = {}

    def rows(self, leaf: Leaf) -> list[Array]:
        """K arrays of the leaf's elements in the tensor's own dtype, to be read only, until the next call."""
        found = [source[leaf.start : leaf.end] for source in self.stack.flat[leaf.name]]
        bounds = self.stack.bounds
        if bounds is None:
            return found
        centre = bounds.centre[leaf.name][leaf.start : leaf.end]
        return [
            row if scale == 1.0 else self._pull(k, row, centre, scale)
            for k, (row, scale) in enumerate(zip(found, bounds.scales, strict=True))
        ]

    def doubles(self, leaf: Leaf) -> Doubles:
        """The same as float64, shape (K, n); may be overwritten, until the next call."""
        if self._doubles is None:
            self._doubles = np.empty((len(self.stack), self.size))
        block_KN = self._doubles[:, : leaf.end - leaf.start]
        for k, row in enumerate(self.rows(leaf)):
            np.copyto(block_KN[k], row)
        return block_KN

    def buffers(self, count: int, leaf: Leaf) -> list[Array]:
        """``count`` arrays for intermediate values of the leaf's length and dtype."""
        dtype = self.stack.flat[leaf.name][0].dtype
        held = self._buffers.setdefault(dtype, [])
        held.extend(np.empty(self.size, dtype) for _ in range(count - len(held)))
        return [buffer[: leaf.end - leaf.start] for buffer in held[:count]]

    def _pull(self, k: int, row: Array, centre: Array, scale: float) -> Array:
        if k not in self._pulled:
            self._pulled[k] = np.empty(2 * self.size)
        # The second half holds the rounded row: of the tensor's dtype, which is no wider than a double.
        work = self._pulled[k][: row.size]
        rounded = self._pulled[k][self.size :].view(row.dtype)[: row.size]
        np.copyto(work, row)
        np.subtract(work, centre, out=work)
        np.multiply(work, scale, out=work)
        np.add(work, centre, out=work)
        np.copyto(rounded, work, casting="same_kind")
        return rounded


def flat(array: Array) -> Array:
    """One dimension, row by row; a copy only where memory is laid out otherwise."""
    return np.ascontiguousarray(array).reshape(-1)


def sweep(stack: Stack, make: Callable[[Reader], Callable[[Leaf], None]], *, size: int = LEAF) -> None:
    """Do something with every leaf, in any order, on the stack's threads. ``make`` is called once in each of them.

    Raises:
        FlNodeError: this machine's arithmetic is not IEEE 754.
    """
    pieces = list(_pieces(stack.leaves(size)))

    def run(part: Sequence[list[Leaf]]) -> None:
        self_test()
        # Doubles beyond 2^511 have squares beyond all doubles; what follows from that is in the rules.
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            work = make(Reader(stack, size))
            for piece in part:
                for leaf in piece:
                    work(leaf)
                if stack.forget is not None and sum(leaf.end - leaf.start for leaf in piece) >= PIECE:
                    stack.forget()

    if stack.threads <= 1 or len(pieces) < 2:
        run(pieces)
        return
    count = min(stack.threads, len(pieces))
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(run, pieces[start::count]) for start in range(count)]:
            done.result()


def _pieces(leaves: Sequence[Leaf]) -> Iterator[list[Leaf]]:
    piece: list[Leaf] = []
    held = 0
    for leaf in leaves:
        piece.append(leaf)
        held += leaf.end - leaf.start
        if held >= PIECE:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def settle(out: Array, acc: Doubles) -> None:
    """One rounding of doubles into the result's dtype; -0.0 becomes +0.0."""
    np.copyto(out, acc, casting="same_kind")
    np.add(out, out.dtype.type(0.0), out=out)
