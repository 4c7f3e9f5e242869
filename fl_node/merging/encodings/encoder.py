"""Write an update in fewer bytes. What comes out is what every reader will decode, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fl_node.errors import MalformedWeights
from fl_node.merging import container
from fl_node.merging.arithmetic import self_test
from fl_node.merging.container import Array, Buffer, Tensors, canonical
from fl_node.merging.encodings import blocks, changes, sparse
from fl_node.merging.encodings.changes import Change
from fl_node.merging.encodings.feedback import Memory
from fl_node.merging.encodings.frames import shrunk
from fl_node.merging.encodings.kinds import PAYLOAD, check_names, is_delta, kind_for
from fl_node.records import ZSTD, Encoding
from fl_node.tables import EncodingSpec

#: Largest code of top-k-delta's full updates: they need not be much better than what stands between them.
FULL_LEVELS: Final = 15
#: Of top-k-delta each tensor has one scale.
_ONE_BLOCK: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Encoded:
    """An update's payload.

    ``buffers``: what is sealed or stored. ``encoding``: for ``Update.encoding``, the kind and the bit for zstd.
    ``decoded``: what every reader will hold; the publisher goes on from these. ``residual``: float tensors by name
    that could not be carried, damped (:mod:`fl_node.merging.encodings.feedback`); ``None`` where there is nothing, or
    error feedback is off. ``plain_bytes``: bytes of the
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
    whole: dict[str, Array] = {}
    found: dict[str, Change] = {}
    decoded: dict[str, Array] = {}
    memory = Memory()
    for name in sorted(tensors):
        tensor = canonical(name, tensors[name], schema[name])
        before = canonical(name, reference[name], schema[name])
        goal = tensor if residual is None or name not in residual else _added(name, tensor, residual[name])
        sent, decoded[name] = _one(kind, spec, name, goal, before)
        if isinstance(sent, Change):
            found[name] = sent
        elif sent is not None:
            whole[name] = sent
        if spec.error_feedback and is_delta(kind) and goal.dtype.kind == "f":
            memory.note(name, goal, before, decoded[name])
    if not whole and not found:
        name = min(decoded, key=lambda name: (decoded[name].nbytes, name))
        whole[name] = decoded[name]
    for array in decoded.values():
        array.flags.writeable = False
    buffers = container.write({**whole, **changes.pack(schema, found)}, origin, PAYLOAD)
    # Plain values hardly shrink, and as they are, any tool reads them.
    frame = shrunk(buffers) if spec.compress == "auto" and kind is not Encoding.SAFETENSORS else None
    plain_bytes = len(container.header_of(schema, origin)) + sum(one.nbytes for one in schema.values())
    return Encoded(
        buffers if frame is None else [frame],
        int(kind) | (0 if frame is None else ZSTD),
        decoded,
        memory.residual(),
        plain_bytes,
    )


def _one(
    kind: Encoding, spec: EncodingSpec, name: str, goal: Array, before: Array
) -> tuple[Array | Change | None, Array]:
    """What of a tensor is sent (whole, a change, or nothing), and what it is decoded to."""
    if goal.tobytes() == before.tobytes():
        return None, before
    if goal.dtype.kind != "f" or kind is Encoding.SAFETENSORS:
        return goal, goal
    if kind is Encoding.F16:
        with np.errstate(over="ignore", under="ignore"):
            half = goal.astype("<f2")
        if not np.isfinite(half).all():
            return goal, goal
        half = container.normalised(name, half)
        return half, half.astype(goal.dtype)
    change = _change(kind, spec, goal, before)
    if change is None:
        return goal, goal
    if not (change.codes.any() and change.scales.any()):
        return None, before
    try:
        return change, change.added_to(name, before)
    except MalformedWeights:
        return goal, goal


def _change(kind: Encoding, spec: EncodingSpec, goal: Array, before: Array) -> Change | None:
    """``None`` where the change is beyond float32 scales."""
    values = goal.reshape(-1).astype(np.float64)
    values -= before.reshape(-1)
    if kind is not Encoding.TOP_K_DELTA:
        top = FULL_LEVELS if spec.kind == "top-k-delta" else blocks.TOP
        coded = blocks.quantised(values, spec.block, top)
        return None if coded is None else Change(None, *coded, spec.block)
    places = sparse.largest(values, spec.density)
    coded = sparse.coarse(values[places])
    return None if coded is None else Change(places, *coded, _ONE_BLOCK)


def _added(name: str, tensor: Array, residual: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        goal = np.asarray(tensor.astype(np.float64) + residual).astype(tensor.dtype)
    return container.normalised(name, goal)
