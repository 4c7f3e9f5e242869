"""Weights as bytes: the canonical safetensors file, its strict reader, the digest of tensors, the commitment to it.

The exact rules, so that an outsider can write a second program, are in docs/replay-rules.md. In short: names are sorted
by their UTF-8 bytes, numbers are little-endian, and a negative zero does not exist: :func:`encode`, :func:`decode` and
:func:`digest` all read ``-0.0`` as ``+0.0``, by its bits, so that nobody's arithmetic mode can make a difference.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import MalformedWeights

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]
Buffer: TypeAlias = bytes | bytearray | memoryview

METADATA_KEY: Final = "fl-node"
COMMITMENT_DOMAIN: Final = b"fl-node weights commitment 1"
#: No float64 may exceed this, so that a sum of ``x * share`` cannot overflow. Every finite float32 does.
MAGNITUDE_LIMIT: Final = 2.0**1000
#: Longest header that is read: 16 MiB hold some 100,000 tensors.
HEADER_LIMIT: Final = 1 << 24

# Largest alignment first, then name: every tensor lies aligned, and the order is that of the safetensors library.
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_CODES: Final = {(dtype.kind, dtype.itemsize): code for code, dtype in _DTYPES.items()}
_RANK: Final = {code: rank for rank, code in enumerate(_DTYPES)}
_HALF: Final = frozenset({"F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"})
_NEGATIVE_ZERO: Final[dict[int, tuple[np.dtype[Any], int]]] = {
    4: (np.dtype("<u4"), 1 << 31),
    8: (np.dtype("<u8"), 1 << 63),
}
_BLOCK: Final = 1 << 16
#: A header is an object of objects with lists.
_DEEPEST: Final = 3
# A string that never ends matches to the end of the text, so that each byte is looked at once.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_OPENING: Final = (b"[", b"{")
_CLOSING: Final = (b"]", b"}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What one tensor must be: ``dtype`` as safetensors writes it (``F32``), ``shape`` outermost first."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Schema: TypeAlias = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A decoded file. ``tensors`` are read-only, most of them views of the file's bytes. ``metadata`` is the value of
    the key ``fl-node``, empty where there is none."""

    tensors: dict[str, Array]
    metadata: str


def schema_of(tensors: Tensors) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes of tensors.

    Raises:
        MalformedWeights: a dtype that cannot be published, half precision among them.
    """
    return {name: TensorSpec(_code(name, array), tuple(array.shape)) for name, array in tensors.items()}


def origin(chain_id: int, contract: str, peer: int, sequence: int) -> str:
    """The metadata value of an update's file: ``31337:0x5fbd…:3#12``, the address in lower case."""
    return f"{chain_id}:{contract.lower()}:{peer}#{sequence}"


def encode(tensors: Tensors, metadata: str = "") -> list[Buffer]:
    """The canonical safetensors file as a list of buffers to be written one after the other.

    The header is compact JSON: ``__metadata__`` with the one key ``fl-node`` (absent if ``metadata`` is empty), then
    the tensors in the order of their data (alignment, then name), padded with spaces to 8 bytes. The data are views
    of the arrays, not copies, wherever an array is contiguous, little-endian and free of negative zeros; so do not
    write to the arrays before the buffers are used.

    Raises:
        MalformedWeights: an unpublishable dtype or name, or a value that is not finite.
    """
    schema = schema_of(tensors)
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: metadata}} if metadata else {}
    buffers: list[Buffer] = []
    offset = 0
    for name in sorted(tensors, key=lambda name: (_RANK[schema[name].dtype], name)):
        _check_name(name)
        spec = schema[name]
        array = _normalised(name, np.ascontiguousarray(tensors[name], dtype=_DTYPES[spec.dtype]))
        header[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        if array.nbytes:
            buffers.append(_bytes_of(array))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise MalformedWeights(f"the weights need a header of {len(text)} bytes, expected at most {HEADER_LIMIT}")
    return [len(text).to_bytes(8, "little") + text, *buffers]


def encoded_size(schema: Schema, metadata_limit: int = 256) -> int:
    """An upper bound in bytes for a file of this schema by any writer: what a reader need accept at most."""
    names = sum(6 * len(name.encode()) + 24 * len(spec.shape) + 128 for name, spec in schema.items())
    return 8 + names + metadata_limit + 64 + sum(_data_bytes(spec) for spec in schema.values())


def check_magnitude(tensors: Tensors, limit: float) -> None:
    """Refuse weights no training gives, which would overflow in whoever merges them.

    Raises:
        MalformedWeights: an element of a float32 or float64 tensor lies beyond +-``limit``.
    """
    for name, array in tensors.items():
        if array.dtype.kind == "f" and array.size and (largest := float(max(array.max(), -array.min()))) > limit:
            raise MalformedWeights(
                f"{name!r} holds {largest:g} in size, expected at most {limit:g} (merging.max_magnitude of the spec)"
            )


def decode(data: Buffer, expected: Schema | None = None) -> WeightsFile:
    """Read a safetensors file of a stranger.

    Every tensor is checked: names, dtypes and shapes against ``expected`` (where given), offsets against the file
    (they must tile it without gap, overlap or rest), values for being finite. Negative zeros come out as zeros.
    Tensors are read-only views of ``data`` unless they hold a negative zero or lie unaligned. No memory is taken for
    what a header merely claims.

    Raises:
        MalformedWeights: anything is wrong; the message says what was got and what was expected.
    """
    view = memoryview(data).cast("B").toreadonly()
    header, start = _header(view)
    metadata = _metadata(header.pop("__metadata__", {}))
    found = {name: _tensor_header(name, value) for name, value in header.items()}
    if expected is not None:
        _check_schema({name: spec for name, (spec, _, _) in found.items()}, expected)
    _check_tiling(found, len(view) - start)
    tensors: dict[str, Array] = {}
    for name in sorted(found):
        spec, begin, _ = found[name]
        dtype = _DTYPES[spec.dtype]
        count = math.prod(spec.shape)
        # count 0: frombuffer refuses an empty rest of the file
        flat = np.frombuffer(view, dtype, count, start + begin) if count else np.empty(0, dtype)
        if not flat.flags.aligned:
            flat = flat.copy()
        array = _normalised(name, flat).reshape(spec.shape)
        array.flags.writeable = False
        tensors[name] = array
    return WeightsFile(tensors, metadata)


def digest(tensors: Tensors) -> bytes:
    """SHA-256 over decoded tensors in name order; 32 bytes. Never over a file: a safetensors header is not canonical.

    For each tensor: u64 length and UTF-8 bytes of its name, u64 length and ASCII bytes of its dtype, u64 number of
    dimensions, each dimension as u64, then its elements row by row; all little-endian, ``-0.0`` as ``+0.0``.

    Raises:
        MalformedWeights: an unpublishable dtype or name, or a value that is not finite.
    """
    total = hashlib.sha256()
    schema = schema_of(tensors)
    for name in sorted(tensors):
        _check_name(name)
        spec = schema[name]
        total.update(_prefixed(name.encode()) + _prefixed(spec.dtype.encode()))
        total.update(b"".join(_u64(number) for number in (len(spec.shape), *spec.shape)))
        array = _normalised(name, np.ascontiguousarray(tensors[name], dtype=_DTYPES[spec.dtype]))
        if array.nbytes:
            total.update(_bytes_of(array))
    return total.digest()


def commitment(chain_id: int, contract: str, peer: int, sequence: int, weights_digest: bytes) -> bytes:
    """What the ledger holds in ``weights``: binds the digest of the tensors to one update of one peer; 32 bytes.

    ``sha256(abi.encodePacked("fl-node weights commitment 1", uint256 chain, address, uint32 peer, uint32 sequence,
    bytes32 digest))``. So equal models of two peers do not look equal, and a copier cannot use another's commitment.
    """
    if len(weights_digest) != 32:
        raise ValueError(f"a digest of weights has 32 bytes, got {len(weights_digest)}")
    address = bytes.fromhex(contract.removeprefix("0x"))
    if len(address) != 20:
        raise ValueError(f"a contract address has 20 bytes, got {len(address)}: {contract}")
    place = chain_id.to_bytes(32, "big") + address + peer.to_bytes(4, "big") + sequence.to_bytes(4, "big")
    return hashlib.sha256(COMMITMENT_DOMAIN + place + weights_digest).digest()


# ---- values ----------------------------------------------------------------------------------------------------


def _code(name: str, array: Array) -> str:
    code = _CODES.get((array.dtype.kind, array.dtype.itemsize))
    if code is None:
        raise MalformedWeights(f"tensor {name!r} has dtype {array.dtype}, {_allowed(str(array.dtype))}")
    return code


def _allowed(got: str) -> str:
    if got in _HALF or got in ("float16", "bfloat16"):
        return "expected F32 or F64: half precision is an encoding of published bytes, not a type of a model"
    return f"expected one of {', '.join(sorted(_DTYPES))}"


def _normalised(name: str, array: Array) -> Array:
    """The array with zeros for negative zeros: itself if there is none. Bounded memory: blocks stay in cache.

    Raises:
        MalformedWeights: a float is NaN, infinite or beyond the limit; a boolean is neither 0 nor 1.
    """
    flat = array.reshape(-1)
    if array.dtype.kind == "b":
        if any(int(block.max()) > 1 for block in _blocks(flat.view(np.uint8))):
            raise MalformedWeights(f"tensor {name!r} is BOOL and holds a byte other than 0 and 1")
        return array
    if array.dtype.kind != "f":
        return array
    bits_dtype, negative_zero = _NEGATIVE_ZERO[array.dtype.itemsize]
    scalar = bits_dtype.type(negative_zero)
    limit = MAGNITUDE_LIMIT if array.dtype.itemsize == 8 else float(np.finfo(np.float32).max)
    negative_zeros = False
    for block in _blocks(flat):
        # A NaN makes both comparisons false.
        if not (-limit <= float(block.min()) and float(block.max()) <= limit):
            _refuse_values(name, block, limit)
        negative_zeros = negative_zeros or bool((block.view(bits_dtype) == scalar).any())
    if not negative_zeros:
        return array
    clean = flat.copy()
    bits = clean.view(bits_dtype)
    for block in _blocks(bits):
        block[block == scalar] = 0
    return clean.reshape(array.shape)


def _refuse_values(name: str, block: Array, limit: float) -> None:
    bad = block[~(np.abs(block) <= limit)][0]
    what = f"{bad:g}, above 2^1000 in magnitude" if np.isfinite(bad) else f"{bad}"
    raise MalformedWeights(f"tensor {name!r} holds {what}; expected finite values only (did the training diverge?)")


def _blocks(flat: Array) -> Iterator[Array]:
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data.toreadonly()


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _prefixed(raw: bytes) -> bytes:
    return _u64(len(raw)) + raw


def _data_bytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * _DTYPES[spec.dtype].itemsize


# ---- container -------------------------------------------------------------------------------------------------


def _header(view: memoryview) -> tuple[dict[str, Any], int]:
    """The header's JSON object and where the data start."""
    if len(view) < 8:
        raise MalformedWeights(f"got {len(view)} bytes, expected a safetensors file (8 bytes at least)")
    length = int.from_bytes(view[:8], "little")
    most = min(len(view) - 8, HEADER_LIMIT)
    if length > most:
        raise MalformedWeights(f"the header claims {length} bytes, expected at most {most} in a file of {len(view)}")
    raw = bytes(view[8 : 8 + length])
    _refuse_depth(raw)
    try:
        header = json.loads(str(raw, "utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as cause:
        raise MalformedWeights(f"the header is not the JSON of a safetensors file: {str(cause)[:200]}") from cause
    if not isinstance(header, dict):
        raise MalformedWeights(f"the header is a JSON {type(header).__name__}, expected an object")
    return header, 8 + length


def _refuse_depth(raw: bytes) -> None:
    """A recursive parser may run out of stack on deep nesting, and that ends the process: look before it parses."""
    depth = 0
    for found in _STRUCTURE.finditer(raw):
        mark = found[0]
        depth += (mark in _OPENING) - (mark in _CLOSING)
        if depth > _DEEPEST:
            raise MalformedWeights(f"the header is nested more than {_DEEPEST} deep, as no safetensors header is")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return table


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _metadata(value: Any) -> str:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise MalformedWeights("__metadata__ must map one name to one string")
    if len(value) > 1:
        raise MalformedWeights(f"__metadata__ has {len(value)} keys, expected at most one, {METADATA_KEY!r}")
    return str(value.get(METADATA_KEY, ""))


def _tensor_header(name: str, value: Any) -> tuple[TensorSpec, int, int]:
    _check_name(name)
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise MalformedWeights(f"tensor {name!r}: expected exactly the keys dtype, shape, data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise MalformedWeights(f"tensor {name!r} has dtype {str(code)[:40]!r}, {_allowed(str(code))}")
    if not _naturals(shape) or len(shape) > 32:
        raise MalformedWeights(f"tensor {name!r}: the shape is not a list of at most 32 whole numbers")
    if not _naturals(offsets) or len(offsets) != 2:
        raise MalformedWeights(f"tensor {name!r}: data_offsets are not two whole numbers")
    spec = TensorSpec(code, tuple(shape))
    if offsets[1] - offsets[0] != _data_bytes(spec):
        got = offsets[1] - offsets[0]
        raise MalformedWeights(
            f"tensor {name!r}: data_offsets span {got} bytes, expected {_data_bytes(spec)} for {spec}"
        )
    return spec, offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _check_name(name: str) -> None:
    try:
        raw = name.encode()
    except UnicodeEncodeError as cause:
        raise MalformedWeights(f"tensor name {name!r} is not valid Unicode") from cause
    if not 1 <= len(raw) <= 1024 or name == "__metadata__":
        raise MalformedWeights(f"tensor name {name[:80]!r}: expected 1 to 1024 bytes of UTF-8 and not '__metadata__'")


def _check_schema(found: Schema, expected: Schema) -> None:
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        parts = [f"missing {_few(missing)}"] * bool(missing) + [f"unexpected {_few(extra)}"] * bool(extra)
        raise MalformedWeights(f"got {len(found)} tensors, expected {len(expected)}: {'; '.join(parts)}")
    for name in sorted(expected):
        if found[name] != expected[name]:
            raise MalformedWeights(f"tensor {name!r} is {found[name]}, expected {expected[name]}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_tiling(found: Mapping[str, tuple[TensorSpec, int, int]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in sorted((begin, end, name) for name, (_, begin, end) in found.items()):
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "leaves a gap before it"
            raise MalformedWeights(
                f"tensor {name!r} begins at byte {begin} of the data and {fault}, expected {position}"
            )
        position = end
    if position != data_bytes:
        raise MalformedWeights(f"the file holds {data_bytes} bytes of data, expected {position} for its tensors")


if sys.byteorder != "little":  # pragma: no cover - nobody has such a machine to test on
    raise ImportError("fl-node's weights are little-endian; this machine is big-endian")
