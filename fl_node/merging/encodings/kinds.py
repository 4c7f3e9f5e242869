"""Encodings by name and by the number that the ledger holds."""

from __future__ import annotations

from typing import Final

from fl_node.errors import MalformedWeights
from fl_node.merging.container import HEADER_LIMIT, MODEL, Profile, Schema
from fl_node.records import ZSTD, Encoding
from fl_node.tables import EncodingSpec

#: Keys of a payload that are no tensors of the model: which tensors have changed, values that share a scale, codes,
#: scales, and where the codes belong.
CHANGED: Final = ":changed"
BLOCK: Final = ":block"
CODES: Final = ":codes"
SCALES: Final = ":scales"
GAPS: Final = ":gaps"
BITMAP: Final = ":bitmap"
KEYS: Final = frozenset({CHANGED, BLOCK, CODES, SCALES, GAPS, BITMAP})

#: What a payload file may hold: a model's dtypes and half precision.
PAYLOAD: Final = Profile(MODEL.dtypes | {"F16"}, MODEL.longest_name)

_NAMES: Final = {
    Encoding.SAFETENSORS: "f32",
    Encoding.F16: "f16",
    Encoding.INT8_DELTA: "int8-delta",
    Encoding.TOP_K_DELTA: "top-k-delta",
}
_KINDS: Final = {name: kind for kind, name in _NAMES.items()}
_FULL: Final = {"f32": Encoding.SAFETENSORS, "f16": Encoding.F16, "int8": Encoding.INT8_DELTA}
_DELTAS: Final = frozenset({Encoding.INT8_DELTA, Encoding.TOP_K_DELTA})


def kind_of(encoding: int) -> Encoding:
    """The kind that the low seven bits of ``Update.encoding`` name.

    Raises:
        MalformedWeights: no kind of this version.
    """
    number = encoding & ~ZSTD
    if number not in _NAMES:
        raise MalformedWeights(
            f"the update has encoding {encoding}, expected one of {', '.join(str(int(kind)) for kind in _NAMES)}, or "
            f"that with {ZSTD} added for zstd; a newer version of fl-node may be able to read it"
        )
    return Encoding(number)


def name_of(encoding: int) -> str:
    """``f16``, ``int8-delta+zstd``; of a kind that is not known ``unknown (9)``."""
    name = _NAMES.get(Encoding(encoding & ~ZSTD)) if encoding & ~ZSTD in _NAMES else None
    return f"unknown ({encoding})" if name is None else name + "+zstd" * bool(encoding & ZSTD)


def is_delta(encoding: int) -> bool:
    """Whether such an update holds changes, of earlier ones or the genesis. ``False`` for a kind that is not known."""
    return encoding & ~ZSTD in _DELTAS


def kind_for(spec: EncodingSpec, *, delta: bool) -> Encoding:
    """What an update is written as: the spec's kind, or, of a delta kind that may not be one, ``spec.full``: of which
    ``int8`` is changes of the genesis, which everybody has."""
    kind = _KINDS[spec.kind]
    return kind if delta or kind not in _DELTAS else _FULL[spec.full]


def check_names(kind: Encoding, schema: Schema) -> None:
    """Refuse models with a tensor of a name that payloads need.

    Raises:
        MalformedWeights: a tensor is named like a key of this room.
    """
    if kind in _DELTAS and (taken := sorted(KEYS & set(schema))):
        raise MalformedWeights(
            f"the model has a tensor named {taken[0]!r}, a key that the encoding {_NAMES[kind]!r} needs for itself; "
            "rename the tensor, or use encoding.kind f32 or f16"
        )


def most_bytes(schema: Schema) -> int:
    """The largest payload in bytes that any encoding of this schema may have, before zstd and after; readers refuse
    more.

    Codes, scales and places never take more than a float32 of each value would. The rest is room for the header,
    whatever writer made it.
    """
    names = sum(6 * len(name.encode()) + 24 * len(spec.shape) + 128 for name, spec in schema.items())
    return min(8 + HEADER_LIMIT, 2048 + names) + sum(spec.nbytes + 8 for spec in schema.values())
