"""Committed payloads and what they decode to, checked against the package and against plain Python.

A failure here means that peers of two versions would disagree: never regenerate, unless under another spec format.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import plain_encodings
import pytest

from fl_node.merging import weights
from fl_node.merging.encodings import decode

CASES = json.loads((Path(__file__).parent / "vectors" / "encodings.json").read_text("utf-8"))["cases"]
DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "BOOL": "?"}


def number(value):
    return struct.pack("<Q", value)


def plain_digest(tensors):
    total = hashlib.sha256()
    for name in sorted(tensors, key=lambda name: name.encode()):
        dtype, shape, values = tensors[name]
        for text in (name, dtype):
            total.update(number(len(text.encode())) + text.encode())
        total.update(number(len(shape)) + b"".join(map(number, shape)))
        values = [value + 0.0 if isinstance(value, float) else value for value in values]
        total.update(struct.pack(f"<{len(values)}{plain_encodings.FORMATS[dtype]}", *values))
    return total.hexdigest()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector(case):
    reference = {
        name: np.frombuffer(bytes.fromhex(item["data"]), DTYPES[item["dtype"]]).reshape(item["shape"])
        for name, item in case["reference"].items()
    }
    raw = bytes.fromhex(case["payload"])
    read = decode(raw, case["encoding"], weights.schema_of(reference), lambda: reference)
    assert weights.digest(read).hex() == case["digest"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector_in_plain_python(case):
    reference = {}
    for name, item in case["reference"].items():
        count = math.prod(item["shape"])
        form = f"<{count}{plain_encodings.FORMATS[item['dtype']]}"
        reference[name] = (item["dtype"], item["shape"], list(struct.unpack(form, bytes.fromhex(item["data"]))))
    schema = {name: (dtype, shape) for name, (dtype, shape, _) in reference.items()}
    read = plain_encodings.read(bytes.fromhex(case["payload"]), case["encoding"], schema, reference)
    assert plain_digest(read) == case["digest"]


def test_every_form_is_there():
    """Whole and changed, every kind, gaps of two widths, a bitmap, zstd."""
    kinds = {case["encoding"] & 127 for case in CASES}
    text = b"".join(bytes.fromhex(case["payload"]) for case in CASES)
    assert kinds == {0, 1, 2, 3} and any(case["encoding"] & 128 for case in CASES)
    assert b":bitmap" in text and b'"U8"' in text and b'"U16"' in text and b'"F16"' in text
