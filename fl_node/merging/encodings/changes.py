"""Changes of many tensors, fused into a few arrays: a small model's payload is not to be all header.

The float tensors of a model that are not empty, in name order, are its *fused* tensors. A payload says which of them
have changed; the values of those, one tensor after the other, are numbered from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fl_node.errors import MalformedWeights
from fl_node.merging.container import Array, Schema, normalised
from fl_node.merging.encodings import blocks, sparse
from fl_node.merging.encodings.kinds import BITMAP, BLOCK, CHANGED, CODES, GAPS, SCALES


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be added to one tensor. ``places``: ascending, those of the values that change; ``None``: all.
    ``codes``: int8, one for each; ``scales``: float32, one for each ``block`` of codes."""

    places: Array | None
    codes: Array
    scales: Array
    block: int

    def added_to(self, name: str, before: Array) -> Array:
        """In float64 element by element, rounded once to the dtype of ``before``.

        Raises:
            MalformedWeights: a sum that is not finite.
        """
        if not self.codes.size:
            return normalised(name, before)
        flat = before.reshape(-1)
        with np.errstate(over="ignore", under="ignore"):
            sums = blocks.restored(self.codes, self.scales, self.block)
            sums += flat if self.places is None else flat[self.places]
            result = sums.astype(before.dtype)
        if self.places is not None:
            some, result = result, flat.copy()
            result[self.places] = some
        return normalised(name, result.reshape(before.shape))


def fused(schema: Schema) -> list[str]:
    """Names of the tensors whose changes may be sent."""
    return [name for name in sorted(schema) if schema[name].dtype in ("F32", "F64") and schema[name].count]


def pack(schema: Schema, found: Mapping[str, Change]) -> dict[str, Array]:
    """A payload's arrays by key; empty where nothing changes. Either all changes have places or none has, and all have
    the same block."""
    if not found:
        return {}
    names = fused(schema)
    changed = [name for name in names if name in found]
    arrays = {
        CHANGED: np.packbits([name in found for name in names], bitorder="little"),
        BLOCK: np.array([found[changed[0]].block], "<u4"),
        CODES: np.concatenate([found[name].codes for name in changed]),
        SCALES: np.concatenate([found[name].scales for name in changed]),
    }
    placed, start = [], 0
    for name in changed:
        places = found[name].places
        if places is not None:
            placed.append(places + start)
        start += schema[name].count
    if placed:
        key, array = sparse.written(np.concatenate(placed), start)
        arrays[key] = array
    return arrays


def unpack(schema: Schema, arrays: Mapping[str, Array], *, may_skip: bool) -> dict[str, Change]:
    """A stranger's changes by tensor.

    Args:
        arrays: what a payload holds under the keys of this room.
        may_skip: whether gaps or a bitmap may say which values change.

    Raises:
        MalformedWeights: arrays that do not fit each other or the model.
    """
    if not arrays:
        return {}
    keys = {CHANGED, BLOCK, CODES, SCALES}
    allowed = [keys, keys | {GAPS}, keys | {BITMAP}] if may_skip else [keys]
    if set(arrays) not in allowed:
        raise MalformedWeights(
            f"the payload has the keys {', '.join(sorted(arrays))}; expected {', '.join(sorted(keys))}"
            + f", and {GAPS} or {BITMAP} or neither" * may_skip
        )
    changed = _changed(arrays[CHANGED], fused(schema))
    ends = np.cumsum([schema[name].count for name in changed], dtype=np.int64)
    places = _places(arrays, int(ends[-1]))
    cuts = [0, *(ends if places is None else np.searchsorted(places, ends)).tolist()]
    block = _block(arrays[BLOCK])
    counts = [end - start for start, end in pairwise(cuts)]
    codes, scales = _codes(arrays[CODES], cuts[-1]), _scales(arrays[SCALES], sum(_blocks(counts, block)))
    found, first = {}, 0
    for number, (name, used) in enumerate(zip(changed, _blocks(counts, block), strict=True)):
        inside = slice(cuts[number], cuts[number + 1])
        own = None if places is None else places[inside] - (int(ends[number]) - schema[name].count)
        found[name] = Change(own, codes[inside], scales[first : first + used], block)
        first += used
    return found


def _changed(bits: Array, names: list[str]) -> list[str]:
    if bits.dtype != np.uint8 or bits.shape != (-(-len(names) // 8),):
        raise MalformedWeights(_got(CHANGED, bits, f"U8 of [{-(-len(names) // 8)}], a bit for each float tensor"))
    marked = np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()
    if not marked or marked[-1] >= len(names):
        raise MalformedWeights(f"{CHANGED} marks {len(marked)} of {len(names)} tensors, or one behind them")
    return [names[number] for number in marked]


def _places(arrays: Mapping[str, Array], count: int) -> Array | None:
    if GAPS in arrays:
        return sparse.read_gaps(arrays[GAPS], count)
    return sparse.read_bitmap(arrays[BITMAP], count) if BITMAP in arrays else None


def _block(array: Array) -> int:
    if array.dtype != np.uint32 or array.shape != (1,) or not array[0]:
        raise MalformedWeights(_got(BLOCK, array, "one U32 above 0"))
    return int(array[0])


def _codes(codes: Array, count: int) -> Array:
    if codes.dtype != np.int8 or codes.shape != (count,):
        raise MalformedWeights(_got(CODES, codes, f"I8 of [{count}]"))
    if int(codes.min()) < -blocks.TOP:
        raise MalformedWeights(f"{CODES} holds {int(codes.min())}, expected -{blocks.TOP} to {blocks.TOP}")
    return codes


def _scales(scales: Array, count: int) -> Array:
    if scales.dtype != np.float32 or scales.shape != (count,):
        raise MalformedWeights(_got(SCALES, scales, f"F32 of [{count}], one for each block of each tensor"))
    if float(scales.min()) < 0:
        raise MalformedWeights(f"{SCALES} holds {float(scales.min()):g}, expected 0 or above")
    return scales


def _blocks(counts: Iterable[int], block: int) -> list[int]:
    return [-(-count // block) for count in counts]


def _got(key: str, array: Array, expected: str) -> str:
    return f"{key} is {array.dtype} of {list(array.shape)}, expected {expected}"
