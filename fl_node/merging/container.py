"""The safetensors container: its header, its data, and the numbers in it, read as a stranger's.

Two kinds of files use it: weights (:mod:`fl_node.merging.weights`), whose tensors are the model's own, and the payloads
of encodings (:mod:`fl_node.merging.encodings`), which may hold half precision and have longer names. What both have in
common: compact sorted header, little-endian data without gaps, finite numbers, no negative zeros.
"""

from __future__ import annotations

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
    "F16": np.dtype("<f2"),
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
    2: (np.dtype("<u2"), 1 << 15),
    4: (np.dtype("<u4"), 1 << 31),
    8: (np.dtype("<u8"), 1 << 63),
}
_LIMITS: Final = {2: float(np.finfo(np.float16).max), 4: float(np.finfo(np.float32).max), 8: MAGNITUDE_LIMIT}
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

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.count * _DTYPES[self.dtype].itemsize


Schema: TypeAlias = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of file may hold: dtypes as safetensors writes them, and UTF-8 bytes of a name at most."""

    dtypes: frozenset[str]
    longest_name: int


#: A model: half precision is a way to write bytes, not a type that anybody merges.
MODEL: Final = Profile(frozenset(_DTYPES) - {"F16"}, 1024)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file whose header was read. ``specs`` are what it claims; :meth:`tensors` looks at the data."""

    specs: dict[str, TensorSpec]
    metadata: str
    _data: memoryview
    _offsets: dict[str, tuple[int, int]]

    def tensors(self) -> dict[str, Array]:
        """The tensors in name order: read-only views of the file, unless they hold a negative zero or lie unaligned.

        Raises:
            MalformedWeights: offsets do not tile the data, or a value is not finite.
        """
        _check_tiling(self._offsets, len(self._data))
        tensors: dict[str, Array] = {}
        for name in sorted(self.specs):
            spec = self.specs[name]
            dtype = _DTYPES[spec.dtype]
            # count 0: frombuffer refuses an empty rest of the file
            flat = (
                np.frombuffer(self._data, dtype, spec.count, self._offsets[name][0])
                if spec.count
                else np.empty(0, dtype)
            )
            if not flat.flags.aligned:
                flat = flat.copy()
            array = normalised(name, flat).reshape(spec.shape)
            array.flags.writeable = False
            tensors[name] = array
        return tensors


def schema_of(tensors: Tensors, profile: Profile = MODEL) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes of tensors.

    Raises:
        MalformedWeights: a dtype that this kind of file does not hold.
    """
    return {name: TensorSpec(_code(name, array, profile), tuple(array.shape)) for name, array in tensors.items()}


def dtype_of(spec: TensorSpec) -> np.dtype[Any]:
    """As numpy has it, little-endian."""
    return _DTYPES[spec.dtype]


def write(tensors: Tensors, metadata: str, profile: Profile = MODEL) -> list[Buffer]:
    """The canonical file as a list of buffers to be written one after the other.

    The header is compact JSON: ``__metadata__`` with the one key ``fl-node`` (absent if ``metadata`` is empty), then
    the tensors in the order of their data (alignment, then name), padded with spaces to 8 bytes.

    Raises:
        MalformedWeights: an unpublishable dtype or name, or a value that is not finite.
    """
    schema = schema_of(tensors, profile)
    arrays = (canonical(name, tensors[name], schema[name]) for name in _order(schema))
    data = [bytes_of(array) for array in arrays if array.nbytes]
    return [header_of(schema, metadata, profile), *data]


def header_of(schema: Schema, metadata: str, profile: Profile = MODEL) -> bytes:
    """What stands before the data in the canonical file of such tensors, its length included.

    Raises:
        MalformedWeights: a name that cannot be, or more names than a header holds.
    """
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: metadata}} if metadata else {}
    offset = 0
    for name in _order(schema):
        check_name(name, profile)
        spec = schema[name]
        end = offset + spec.nbytes
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise MalformedWeights(f"the weights need a header of {len(text)} bytes, expected at most {HEADER_LIMIT}")
    return len(text).to_bytes(8, "little") + text


def parse(data: Buffer, profile: Profile = MODEL) -> Parsed:
    """Read the header of a stranger's file. No memory is taken for what it merely claims.

    Raises:
        MalformedWeights: it is no header of such a file.
    """
    view = memoryview(data).cast("B").toreadonly()
    header, start = _header(view)
    metadata = _metadata(header.pop("__metadata__", {}))
    found = {name: _tensor_header(name, value, profile) for name, value in header.items()}
    specs = {name: spec for name, (spec, _, _) in found.items()}
    return Parsed(specs, metadata, view[start:], {name: (begin, end) for name, (_, begin, end) in found.items()})


# ---- values ----------------------------------------------------------------------------------------------------


def canonical(name: str, array: Array, spec: TensorSpec) -> Array:
    """The array contiguous, little-endian, finite and without negative zeros: itself where it is so already.

    Raises:
        MalformedWeights: a value that is not finite.
    """
    return normalised(name, np.ascontiguousarray(array, dtype=_DTYPES[spec.dtype]).reshape(spec.shape))


def normalised(name: str, array: Array) -> Array:
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
    limit = _LIMITS[array.dtype.itemsize]
    negative_zeros = False
    for block in _blocks(flat):
        if not _within(block, limit):
            _refuse_values(name, block, limit)
        negative_zeros = negative_zeros or bool((block.view(bits_dtype) == scalar).any())
    if not negative_zeros:
        return array
    clean = flat.copy()
    bits = clean.view(bits_dtype)
    for block in _blocks(bits):
        block[block == scalar] = 0
    return clean.reshape(array.shape)


def _code(name: str, array: Array, profile: Profile) -> str:
    code = _CODES.get((array.dtype.kind, array.dtype.itemsize))
    if code not in profile.dtypes:
        raise MalformedWeights(f"tensor {name!r} has dtype {array.dtype}, {_allowed(str(array.dtype), profile)}")
    assert code is not None
    return code


def _allowed(got: str, profile: Profile) -> str:
    if "F16" not in profile.dtypes and (got in _HALF or got in ("float16", "bfloat16")):
        return "expected F32 or F64: half precision is an encoding of published bytes, not a type of a model"
    return f"expected one of {', '.join(sorted(profile.dtypes))}"


def _refuse_values(name: str, block: Array, limit: float) -> None:
    bad = block[~(np.abs(block) <= limit)][0]
    what = f"{bad:g}, above 2^1000 in magnitude" if np.isfinite(bad) else f"{bad}"
    raise MalformedWeights(f"tensor {name!r} holds {what}; expected finite values only (did the training diverge?)")


def _within(block: Array, limit: float) -> bool:
    if block.dtype.itemsize == 2:  # numpy compares halves slowly; all but infinities and NaN are within the limit
        return not bool(((block.view(np.uint16) & 0x7C00) == 0x7C00).any())
    # A NaN makes both comparisons false.
    return -limit <= float(block.min()) and float(block.max()) <= limit


def _blocks(flat: Array) -> Iterator[Array]:
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def bytes_of(array: Array) -> memoryview:
    """The elements of a contiguous array as bytes, not copied."""
    return array.reshape(-1).view(np.uint8).data.toreadonly()


def _order(schema: Schema) -> list[str]:
    return sorted(schema, key=lambda name: (_RANK[schema[name].dtype], name))


# ---- header ----------------------------------------------------------------------------------------------------


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


def _tensor_header(name: str, value: Any, profile: Profile) -> tuple[TensorSpec, int, int]:
    check_name(name, profile)
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise MalformedWeights(f"tensor {name!r}: expected exactly the keys dtype, shape, data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in profile.dtypes:
        raise MalformedWeights(f"tensor {name!r} has dtype {str(code)[:40]!r}, {_allowed(str(code), profile)}")
    if not _naturals(shape) or len(shape) > 32:
        raise MalformedWeights(f"tensor {name!r}: the shape is not a list of at most 32 whole numbers")
    if not _naturals(offsets) or len(offsets) != 2:
        raise MalformedWeights(f"tensor {name!r}: data_offsets are not two whole numbers")
    spec = TensorSpec(code, tuple(shape))
    if offsets[1] - offsets[0] != spec.nbytes:
        got = offsets[1] - offsets[0]
        raise MalformedWeights(f"tensor {name!r}: data_offsets span {got} bytes, expected {spec.nbytes} for {spec}")
    return spec, offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def check_name(name: str, profile: Profile = MODEL) -> None:
    """Refuse what cannot be a tensor's name.

    Raises:
        MalformedWeights: not Unicode, empty, too long, or reserved.
    """
    try:
        raw = name.encode()
    except UnicodeEncodeError as cause:
        raise MalformedWeights(f"tensor name {name!r} is not valid Unicode") from cause
    if not 1 <= len(raw) <= profile.longest_name or name == "__metadata__":
        raise MalformedWeights(
            f"tensor name {name[:80]!r}: expected 1 to {profile.longest_name} bytes of UTF-8 and not '__metadata__'"
        )


def _check_tiling(offsets: Mapping[str, tuple[int, int]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in sorted((begin, end, name) for name, (begin, end) in offsets.items()):
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
