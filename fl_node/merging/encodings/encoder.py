"""Write an update in fewer bytes. What comes out is what every reader will decode, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_node.errors import MalformedWeights
from fl_node.merging import container
from fl_node.merging.arithmetic import self_test
from fl_node.merging.container import Array, Buffer, Tensors, canonical
from fl_node.merging.encodings import blocks, sparse
from fl_node.merging.encodings.decoder import changed, widened
from fl_node.merging.encodings.frames import shrunk
from fl_node.merging.encodings.kinds import CODES, PAYLOAD, SCALES, check_names, is_delta, kind_for
from fl_node.records import ZSTD, Encoding
from fl_node.tables import EncodingSpec


@dataclass(frozen=True, slots=True)
class Encoded:
    """An update's payload.

    ``buffers``: what is sealed or stored. ``encoding``: for ``Update.encoding``, the kind and the bit for zstd.
    ``decoded``: what every reader will hold; the publisher goes on from these. ``residual``: float tensors by name
    that could not be carried; ``None`` where there is nothing, or error feedback is off. ``plain_bytes``: bytes of the
    same tensors in a plain file.
    """

    buffers: list[Buffer]
    encoding: int
    decoded: Tensors
    residual: Tensors | None
    plain_bytes: int


def encode(
    spec: EncodingSpec,
    tensors: Tensors,
    origin: str,
    *,
    reference: Tensors,
    delta: bool,
    residual: Tensors | None = None,
) -> Encoded:
    """Encode a model's published part.

    Args:
        origin: for the file's metadata, see :func:`fl_node.merging.weights.origin`.
        reference: decoded tensors of the update that this one refers to. Of a full one the genesis: tensors that equal
            it bit for bit are left out, but never all of them.
        delta: whether changes of ``reference`` may be sent; else a delta kind writes a full update (``spec.full``).
        residual: what the own update before could not carry.

    Raises:
        MalformedWeights: tensors that cannot be published: dtypes, names, values that are not finite.
    """
    kind = kind_for(spec, delta=delta)
    schema = container.schema_of(tensors)
    check_names(kind, schema)
    if is_delta(kind):
        self_test()
    parts: dict[str, Array] = {}
    decoded: dict[str, Array] = {}
    left: dict[str, Array] = {}
    plain: dict[str, Array] = {}
    for name in sorted(tensors):
        tensor = canonical(name, tensors[name], schema[name])
        before = canonical(name, reference[name], schema[name])
        goal = tensor if residual is None or name not in residual else _added(name, tensor, residual[name])
        plain[name] = goal
        own, decoded[name] = _one(kind, spec, name, goal, before)
        parts |= own
        if spec.error_feedback and is_delta(kind) and goal.dtype.kind == "f":
            rest = goal - decoded[name]
            if rest.any():
                left[name] = rest
    if not parts:
        name = min(plain, key=lambda name: (plain[name].nbytes, name))
        parts[name] = decoded[name]
    for array in decoded.values():
        array.flags.writeable = False
    buffers = container.write(parts, origin, PAYLOAD)
    # Plain values hardly shrink, and as they are, any tool reads them.
    frame = shrunk(buffers) if spec.compress == "auto" and kind is not Encoding.SAFETENSORS else None
    plain_bytes = len(container.header_of(schema, origin)) + sum(one.nbytes for one in schema.values())
    return Encoded(
        buffers if frame is None else [frame],
        int(kind) | (0 if frame is None else ZSTD),
        decoded,
        left or None,
        plain_bytes,
    )


def _one(kind: Encoding, spec: EncodingSpec, name: str, goal: Array, before: Array) -> tuple[dict[str, Array], Array]:
    """A tensor's parts in the payload, by key, and what it is decoded to."""
    if goal.tobytes() == before.tobytes():
        return {}, before
    if goal.dtype.kind != "f" or kind is Encoding.SAFETENSORS:
        return {name: goal}, goal
    if kind is Encoding.F16:
        with np.errstate(over="ignore", under="ignore"):
            half = goal.astype("<f2")
        if not np.isfinite(half).all():
            return {name: goal}, goal
        half = container.normalised(name, half)
        return {name: half}, widened(name, half, container.TensorSpec("F32" if goal.itemsize == 4 else "F64", ()))
    coded = _change(kind, spec, goal, before)
    if coded is None:
        return {name: goal}, goal
    if not coded:
        return {}, before
    try:
        result = changed(name, before, coded)
    except MalformedWeights:
        return {name: goal}, goal
    return {name + suffix: array for suffix, array in coded.items()}, result


def _change(kind: Encoding, spec: EncodingSpec, goal: Array, before: Array) -> dict[str, Array] | None:
    """A change by suffix; empty where nothing of it can be told, ``None`` where it is beyond the codes."""
    change = goal.reshape(-1).astype(np.float64)
    change -= before.reshape(-1)
    form: dict[str, Array] = {}
    if kind is Encoding.TOP_K_DELTA:
        places = sparse.largest(change, spec.density)
        if not places.size:
            return {}
        change = change[places]
        suffix, array = sparse.written(places, goal.size)
        form[suffix] = array
    coded = blocks.quantised(change, spec.block)
    if coded is None:
        return None
    codes, scales = coded
    return {**form, CODES: codes, SCALES: scales} if codes.any() else {}


def _added(name: str, tensor: Array, residual: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        goal = (tensor.astype(np.float64) + residual).astype(tensor.dtype)
    return container.normalised(name, goal)
