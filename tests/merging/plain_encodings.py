"""A second reader of encoded updates: docs/encodings.md in plain Python, without numpy and without this package.

Tensors are lists: ``{name: (dtype, shape, values)}``.
"""

from __future__ import annotations

import json
import math
import struct

import zstandard

FORMATS = {
    "F64": "d", "F32": "f", "F16": "e", "U64": "Q", "I64": "q", "U32": "I", "I32": "i", "U16": "H", "I16": "h",
    "U8": "B", "I8": "b", "BOOL": "B",
}  # fmt: skip
KEYS = {":changed", ":block", ":codes", ":scales", ":gaps", ":bitmap"}


def read(payload, encoding, schema, reference):
    """What a payload means. ``schema``: name -> (dtype, shape); ``reference``: tensors."""
    kind = encoding & 0x7F
    if encoding & 0x80:
        payload = zstandard.ZstdDecompressor().decompress(payload)
    parts = container(payload)
    result = {}
    changed = changes(schema, {key: parts[key] for key in parts if key in KEYS}) if kind >= 2 else {}
    for name, (dtype, shape) in schema.items():
        if name in parts:
            _, _, values = parts[name]
            result[name] = (dtype, shape, [narrow(dtype, value) for value in values])
        elif name in changed:
            values = list(reference[name][2])
            for place, change in changed[name]:
                values[place] = narrow(dtype, values[place] + change)
            result[name] = (dtype, shape, values)
        else:
            result[name] = reference[name]
    return result


def container(raw):
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        count = math.prod(entry["shape"])
        values = list(struct.unpack(f"<{count}{FORMATS[entry['dtype']]}", data[start:end]))
        found[name] = (entry["dtype"], entry["shape"], values)
    return found


def changes(schema, parts):
    """name -> [(place, change)]"""
    if not parts:
        return {}
    floats = sorted(
        (name for name, (dtype, shape) in schema.items() if dtype in ("F32", "F64") and math.prod(shape)),
        key=lambda name: name.encode(),
    )
    marked = [name for number, name in enumerate(floats) if parts[":changed"][2][number // 8] >> number % 8 & 1]
    total = sum(math.prod(schema[name][1]) for name in marked)
    block = parts[":block"][2][0]
    places = iter(places_of(parts, total))
    codes, scales = iter(parts[":codes"][2]), iter(parts[":scales"][2])
    found, start, place = {}, 0, next(places, None)
    for name in marked:
        end = start + math.prod(schema[name][1])
        mine = []
        while place is not None and place < end:
            if len(mine) % block == 0:
                scale = next(scales)
            mine.append((place - start, next(codes) * scale))
            place = next(places, None)
        found[name] = mine
        start = end
    assert next(codes, None) is None and next(scales, None) is None
    return found


def places_of(parts, total):
    if ":bitmap" in parts:
        return [place for place in range(total) if parts[":bitmap"][2][place // 8] >> place % 8 & 1]
    if ":gaps" not in parts:
        return list(range(total))
    dtype, _, words = parts[":gaps"]
    pass_over = {"U8": 255, "U16": 65535, "U32": 4294967295}[dtype]
    found, at = [], 0
    for word in words:
        at += word
        if word != pass_over:
            found.append(at)
            at += 1
    return found


def narrow(dtype, value):
    """A Python float as the nearest value of a dtype, ties to even, no negative zero."""
    if dtype not in ("F32", "F64"):
        return value
    (near,) = struct.unpack("<" + FORMATS[dtype], struct.pack("<" + FORMATS[dtype], value))
    return near if near else 0.0
