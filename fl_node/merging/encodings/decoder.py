"""Read an encoded update, a stranger's. The exact rules, for a second program: docs/encodings.md."""

from __future__ import annotations

from collections.abc import Callable

from fl_node.errors import MalformedWeights
from fl_node.merging import container
from fl_node.merging.arithmetic import self_test
from fl_node.merging.container import Array, Buffer, Schema, Tensors, TensorSpec, normalised
from fl_node.merging.encodings import changes
from fl_node.merging.encodings.frames import inflated
from fl_node.merging.encodings.kinds import KEYS, PAYLOAD, check_names, is_delta, kind_of, most_bytes
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
    for key, spec in parsed.specs.items():
        _check_key(kind, key, spec, schema)
    found = parsed.tensors()
    whole = {key: widened(array, schema[key]) for key, array in found.items() if key in schema}
    may_skip = kind is Encoding.TOP_K_DELTA
    changed = changes.unpack(schema, {key: found[key] for key in found.keys() - whole.keys()}, may_skip=may_skip)
    if twice := sorted(whole.keys() & changed.keys()):
        raise MalformedWeights(f"tensor {twice[0]!r} is there whole and as a change, expected one of the two")
    if changed:
        self_test()
    before = reference() if len(whole) < len(schema) else {}
    decoded: dict[str, Array] = {}
    for name in sorted(schema):
        if name in whole:
            decoded[name] = whole[name]
            continue
        earlier = _of_reference(before, name, schema[name])
        result = changed[name].added_to(name, earlier) if name in changed else normalised(name, earlier)
        decoded[name] = result.view()
        decoded[name].flags.writeable = False
    return decoded


def widened(array: Array, spec: TensorSpec) -> Array:
    """A tensor that is there whole, in the model's dtype: half precision fits it exactly."""
    if array.dtype == container.dtype_of(spec):
        return array
    wide = array.astype(container.dtype_of(spec))
    wide.flags.writeable = False
    return wide


def _check_key(kind: Encoding, key: str, got: TensorSpec, schema: Schema) -> None:
    expected = schema.get(key)
    if expected is None:
        if key in KEYS and is_delta(kind):
            return
        raise MalformedWeights(f"the payload holds {key[:80]!r}, expected tensors of this model only")
    half = kind is Encoding.F16 and expected.dtype in ("F32", "F64") and got.dtype == "F16"
    if got.shape != expected.shape or not (half or got.dtype == expected.dtype):
        raise MalformedWeights(f"tensor {key!r} is {got}, expected {expected}" + " or F16" * (kind is Encoding.F16))


def _of_reference(before: Tensors, name: str, spec: TensorSpec) -> Array:
    """Ours to get right: the reference was verified when it was decoded."""
    array = before[name]
    if array.shape != spec.shape or array.dtype != container.dtype_of(spec):
        raise ValueError(f"the reference's {name!r} is {array.dtype}{list(array.shape)}, expected {spec}")
    return array
