"""Read an encoded update, a stranger's. The exact rules, for a second program: docs/encodings.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fl_node.errors import MalformedWeights
from fl_node.merging import container
from fl_node.merging.arithmetic import self_test
from fl_node.merging.container import Array, Buffer, Schema, Tensors, TensorSpec, normalised
from fl_node.merging.encodings import blocks, sparse
from fl_node.merging.encodings.frames import inflated
from fl_node.merging.encodings.kinds import (
    BITMAP,
    CODES,
    GAPS,
    PAYLOAD,
    SCALES,
    SUFFIXES,
    check_names,
    is_delta,
    kind_of,
    most_bytes,
)
from fl_node.records import ZSTD, Encoding


def decode(payload: Buffer, encoding: int, schema: Schema, reference: Callable[[], Tensors]) -> Tensors:
    """The tensors that a payload means, in name order, read-only.

    Args:
        payload: what was sealed or stored, zstd and all.
        encoding: ``Update.encoding``.
        schema: names, dtypes and shapes of what is published.
        reference: gives the decoded tensors of the update that this one refers to, or the genesis; called only where
            they are needed.

    Raises:
        MalformedWeights: anything is wrong with the payload.
        Whatever ``reference`` raises.
    """
    kind = kind_of(encoding)
    check_names(kind, schema)
    most = most_bytes(schema)
    if (size := memoryview(payload).nbytes) > most:
        raise MalformedWeights(f"the payload has {size} bytes, expected at most {most} for this model")
    parsed = container.parse(inflated(payload, most) if encoding & ZSTD else payload, PAYLOAD)
    sorted_parts = _by_tensor(kind, parsed.specs, schema)
    found = parsed.tensors()
    whole = {name for name, parts in sorted_parts.items() if parts == {""}}
    before: Tensors = {}
    if len(whole) < len(schema):
        before = reference()
        _check_reference(before, schema)
        if is_delta(kind):
            self_test()
    decoded: dict[str, Array] = {}
    for name in sorted(schema):
        if name in whole:
            decoded[name] = widened(name, found[name], schema[name])
        elif name in sorted_parts:
            parts = {suffix: found[name + suffix] for suffix in sorted_parts[name]}
            decoded[name] = changed(name, before[name], parts)
        else:
            decoded[name] = normalised(name, before[name]).view()
        decoded[name].flags.writeable = False
    return decoded


def widened(name: str, array: Array, spec: TensorSpec) -> Array:
    """A tensor that is sent whole, in the model's dtype: half precision fits it exactly."""
    return array if array.dtype.itemsize != 2 or array.dtype.kind != "f" else array.astype(container.dtype_of(spec))


def changed(name: str, before: Array, parts: Mapping[str, Array]) -> Array:
    """``before`` with a change added: in float64 element by element, rounded once to its dtype.

    Args:
        parts: codes and scales, and where not every value is sent, gaps or a bitmap.

    Raises:
        MalformedWeights: parts that do not fit each other or the tensor, or a sum that is not finite.
    """
    if GAPS in parts:
        places = sparse.read_gaps(name, parts[GAPS], before.size)
    elif BITMAP in parts:
        places = sparse.read_bitmap(name, parts[BITMAP], before.size)
    else:
        places = None
    codes, scales = parts[CODES], parts[SCALES]
    blocks.check_blocks(name, codes, scales, before.size if places is None else places.size)
    flat = before.reshape(-1)
    with np.errstate(over="ignore", under="ignore"):
        sums = blocks.restored(codes, scales)
        sums += flat if places is None else flat[places]
        rounded = sums.astype(before.dtype)
    if places is not None:
        result = flat.copy()
        result[places] = rounded
        rounded = result
    return normalised(name, rounded.reshape(before.shape))


def _by_tensor(kind: Encoding, specs: Schema, schema: Schema) -> dict[str, set[str]]:
    """Which parts of which tensor a payload holds; ``""`` is the tensor whole."""
    found: dict[str, set[str]] = {}
    for key, spec in specs.items():
        name, suffix = (key, "") if key in schema else (key[:-2], key[-2:])
        if name not in schema or (suffix and (suffix not in SUFFIXES or not is_delta(kind))):
            raise MalformedWeights(f"the payload holds {key[:80]!r}, which is no tensor of this model nor part of one")
        if not suffix:
            _check_whole(kind, name, spec, schema[name])
        found.setdefault(name, set()).add(suffix)
    for name, parts in found.items():
        if parts != {""}:
            _check_parts(kind, name, parts, schema[name], specs)
    return found


def _check_whole(kind: Encoding, name: str, got: TensorSpec, expected: TensorSpec) -> None:
    half = kind is Encoding.F16 and expected.dtype in ("F32", "F64") and got.dtype == "F16"
    if got.shape != expected.shape or not (half or got.dtype == expected.dtype):
        raise MalformedWeights(f"tensor {name!r} is {got}, expected {expected}" + " or F16" * (kind is Encoding.F16))


def _check_parts(kind: Encoding, name: str, parts: set[str], expected: TensorSpec, specs: Schema) -> None:
    allowed = [{CODES, SCALES}]
    if kind is Encoding.TOP_K_DELTA:
        allowed += [{CODES, SCALES, GAPS}, {CODES, SCALES, BITMAP}]
    if parts not in allowed:
        raise MalformedWeights(
            f"tensor {name!r} has the parts {sorted(parts)}, expected one of {list(map(sorted, allowed))}"
        )
    if expected.dtype not in ("F32", "F64") or not expected.count:
        raise MalformedWeights(f"tensor {name!r} is {expected}: expected it whole, for only floats have changes")
    for suffix, dtype in ((CODES, "I8"), (SCALES, "F32")):
        if specs[name + suffix].dtype != dtype:
            raise MalformedWeights(f"{name + suffix!r} is {specs[name + suffix]}, expected {dtype}")


def _check_reference(before: Tensors, schema: Schema) -> None:
    """Ours to get right: the reference was verified when it was decoded."""
    for name, spec in schema.items():
        array = before[name]
        if array.shape != spec.shape or array.dtype != container.dtype_of(spec):
            raise ValueError(f"the reference's {name!r} is {array.dtype}{list(array.shape)}, expected {spec}")
