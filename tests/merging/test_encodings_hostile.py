"""Payloads of strangers: refused with a reason, in bounded memory, and nothing else ever comes out of the reader."""

from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.errors import MalformedWeights
from fl_node.merging import container, weights
from fl_node.merging.encodings import decode, encode, most_bytes
from fl_node.merging.encodings.kinds import PAYLOAD
from fl_node.records import ZSTD
from fl_node.tables import EncodingSpec

REFERENCE = {
    "a": np.linspace(-1, 1, 40, dtype=np.float32).reshape(8, 5),
    "b": np.arange(3, dtype=np.float32),
    "c": np.arange(4),
    "d": np.full(6, 1e38, np.float64),
    "e": np.full(2, 3e38, np.float32),
}
SCHEMA = weights.schema_of(REFERENCE)
F32, F16, INT8, TOP_K = range(4)
#: Changes of a and b only: fused tensors are a, b, d, e.
AB = np.array([0b0011], np.uint8)


def dense(**other):
    parts = {
        "changed": AB,
        "block": np.array([16], np.uint32),
        "codes": np.arange(43, dtype=np.int8),
        "scales": np.ones(4, np.float32),
    }
    return {":" + key: array for key, array in {**parts, **other}.items() if array is not None}


def sparse(**other):
    parts = {
        "block": np.array([2], np.uint32),
        "codes": np.array([1, 2, 3, 4], np.int8),
        "scales": np.array([1, 2, 3], np.float32),  # 3 values of a, 1 of b
        "gaps": np.array([0, 4, 33, 2], np.uint8),  # a[0], a[5], a[39], b[2]
    }
    return dense(**{**parts, **other})


def bits(*places, count=43):
    found = np.zeros(count, np.bool_)
    found[list(places)] = True
    return np.packbits(found, bitorder="little")


def raw(parts):
    return b"".join(container.write(parts, "x", PAYLOAD))


def read(parts, encoding):
    return decode(parts if isinstance(parts, bytes) else raw(parts), encoding, SCHEMA, lambda: REFERENCE)


def test_the_good_ones_of_the_table_are_good():
    got = read(dense(), INT8)
    assert got["a"].ravel()[5] == np.float32(np.float64(REFERENCE["a"].ravel()[5]) + 5) and got["b"][2] == 2 + 42
    assert got["d"].tolist() == REFERENCE["d"].tolist()
    got = read(sparse(), TOP_K)
    assert got["a"].ravel()[[0, 5, 39]].tolist() == [0, np.float32(REFERENCE["a"].ravel()[5] + np.float64(2)), 7]
    assert got["b"].tolist() == [0, 1, 2 + 12]
    again = read(sparse(gaps=None, bitmap=bits(0, 5, 39, 42)), TOP_K)
    assert weights.digest(again) == weights.digest(got)
    for word in (np.uint16, np.uint32):
        again = read(sparse(gaps=np.array([0, 4, 33, 2], word)), TOP_K)
        assert weights.digest(again) == weights.digest(got)
    read(dense(), TOP_K)  # every value of some tensors
    read({"a": np.ones((8, 5), np.float16)}, F16)
    read({**dense(), "c": np.arange(4) + 1, "e": np.ones(2, np.float32)}, INT8)


BAD = {
    "int8 kind with gaps": (sparse(), INT8, "keys"),
    "f16 kind with changes": (dense(), F16, "tensors of this model only"),
    "f32 kind with half precision": ({"a": np.ones((8, 5), np.float16)}, F32, "F16.*expected F32"),
    "delta with half precision": ({"a": np.ones((8, 5), np.float16)}, INT8, "F16.*expected F32"),
    "half precision of whole numbers": ({"c": np.ones(4, np.float16)}, F16, "expected I64"),
    "other shape": ({"a": np.ones((5, 8), np.float32)}, F32, r"expected F32\[8, 5\]"),
    "other dtype": ({"a": np.ones((8, 5))}, F32, "F64"),
    "strange tensor": ({"z": np.ones(3, np.float32)}, F32, "'z'"),
    "strange key": ({**dense(), ":more": AB}, INT8, "':more'"),
    "half infinite": ({"a": np.full((8, 5), np.inf, np.float16)}, F16, "finite"),
    "no codes": (dense(codes=None), INT8, "keys"),
    "no scales": (dense(scales=None), INT8, "keys"),
    "no block": (dense(block=None), INT8, "keys"),
    "no tensors": (dense(changed=None), INT8, "keys"),
    "gaps and bitmap": (sparse(bitmap=bits(0, 5, 39, 42)), TOP_K, "keys"),
    "only gaps": ({":gaps": np.zeros(1, np.uint8)}, TOP_K, "keys"),
    "few codes": (dense(codes=np.zeros(42, np.int8)), INT8, r"expected I8 of \[43\]"),
    "many codes": (dense(codes=np.zeros(44, np.int8)), INT8, r"expected I8 of \[43\]"),
    "codes in two dimensions": (dense(codes=np.zeros((43, 1), np.int8)), INT8, "expected I8"),
    "codes of another dtype": (dense(codes=np.zeros(43, np.uint8)), INT8, "expected I8"),
    "code -128": (dense(codes=np.full(43, -128, np.int8)), INT8, "-128"),
    "few scales": (dense(scales=np.ones(3, np.float32)), INT8, r"expected F32 of \[4\]"),
    "scales over the border of tensors": (dense(scales=np.ones(-(-43 // 16), np.float32)), INT8, r"\[4\]"),
    "many scales": (dense(scales=np.ones(5, np.float32)), INT8, r"\[4\]"),
    "scales in double": (dense(scales=np.ones(4)), INT8, "expected F32"),
    "negative scale": (dense(scales=np.array([1, -1, 1, 1], np.float32)), INT8, "-1"),
    "block 0": (dense(block=np.zeros(1, np.uint32)), INT8, "above 0"),
    "two blocks": (dense(block=np.full(2, 16, np.uint32)), INT8, "one U32"),
    "signed block": (dense(block=np.full(1, 16, np.int32)), INT8, "one U32"),
    "longest block": (dense(block=np.full(1, 2**32 - 1, np.uint32)), INT8, r"expected F32 of \[2\]"),
    "no tensor marked": (dense(changed=np.zeros(1, np.uint8)), INT8, "marks 0"),
    "a tensor behind the last": (dense(changed=np.array([0b10011], np.uint8)), INT8, "behind"),
    "marks too long": (dense(changed=np.zeros(2, np.uint8)), INT8, "a bit for each"),
    "marks of another dtype": (dense(changed=np.array([3], np.int8)), INT8, "expected U8"),
    "sum overflows": (
        dense(changed=np.array([8], np.uint8), codes=np.full(2, 127, np.int8), scales=np.full(1, 1e38, np.float32)),
        INT8,
        "finite",
    ),
    "whole and changed": ({**dense(), "a": REFERENCE["a"]}, INT8, "'a' is there whole and as a change"),
    "gap beyond the end": (sparse(gaps=np.array([0, 4, 33, 3], np.uint8)), TOP_K, "reach value 43"),
    "gaps that wrap": (sparse(gaps=np.full(4, 2**32 - 2, np.uint32)), TOP_K, "reach"),
    "gap with nothing behind it": (sparse(gaps=np.array([0, 4, 33, 2, 255], np.uint8)), TOP_K, "no value behind"),
    "few gaps": (sparse(gaps=np.array([0, 4, 33], np.uint8)), TOP_K, "expected"),
    "no gaps": (sparse(gaps=np.zeros(0, np.uint8)), TOP_K, "0 gaps"),
    "more gaps than values": (sparse(gaps=np.zeros(44, np.uint8)), TOP_K, "44 gaps"),
    "signed gaps": (sparse(gaps=np.zeros(4, np.int8)), TOP_K, "gaps of dtype int8"),
    "wide gaps": (sparse(gaps=np.zeros(4, np.uint64)), TOP_K, "gaps of dtype uint64"),
    "gaps in two dimensions": (sparse(gaps=np.zeros((2, 2), np.uint8)), TOP_K, "shape"),
    "empty bitmap": (sparse(gaps=None, bitmap=bits()), TOP_K, "no bit set"),
    "bit behind the values": (sparse(gaps=None, bitmap=bits(0, 5, 39, 43, count=44)), TOP_K, "behind"),
    "short bitmap": (sparse(gaps=None, bitmap=bits(0, 5, 39, 42)[:5]), TOP_K, "bitmap of dtype"),
    "few bits": (sparse(gaps=None, bitmap=bits(0, 5, 39)), TOP_K, "expected"),
    "unknown kind": ({}, 4, "encoding 4"),
    "unknown kind in zstd": ({}, 127 | ZSTD, "encoding 255"),
    "no file": (b"", F32, "0 bytes"),
    "noise": (b"\x00" * 100, INT8, "JSON"),
    "file too large": (b"\x00" * 100_000, INT8, "at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_hostile_payload(name):
    parts, encoding, words = BAD[name]
    if isinstance(parts, dict) and name == "half infinite":
        good = raw({"a": np.zeros((8, 5), np.float16)})
        parts = good[: -len(parts["a"].tobytes())] + parts["a"].tobytes()
    with pytest.raises(MalformedWeights, match=words):
        read(parts, encoding)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite(value):
    good = raw(dense())
    at = good.index(np.ones(4, np.float32).tobytes())
    with pytest.raises(MalformedWeights, match="finite"):
        read(good[:at] + np.float32(value).tobytes() + good[at + 4 :], INT8)


def frame(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


def with_dictionary(data):
    """The descriptor's lowest bit says that one byte names a dictionary; it stands before the size."""
    made = bytearray(frame(data))
    made[4] |= 1
    made[5:5] = b"\x07"
    return bytes(made)


def without_size(data):
    chunks = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return chunks.compress(data) + chunks.flush()


GOOD = raw(dense())
BOMB = 40_000_000
FRAMES = {
    "bomb": (lambda: frame(bytes(BOMB)), f"holds {BOMB} bytes"),
    "bomb without a size": (lambda: without_size(bytes(BOMB)), "does not say"),
    "no size": (lambda: without_size(GOOD), "does not say"),
    "two frames": (lambda: frame(GOOD) * 2, "one zstd frame"),
    "bytes behind it": (lambda: frame(GOOD) + b"x", "one zstd frame"),
    "skippable frame first": (lambda: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + frame(GOOD), "zstd frame"),
    "skippable frame behind it": (lambda: frame(GOOD) + b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "one zstd frame"),
    "cut short": (lambda: frame(GOOD)[:-3], "one zstd frame"),
    "header only": (lambda: frame(GOOD)[:5], "zstd frame"),
    "no frame": (lambda: GOOD, "one zstd frame"),
    "nothing": (lambda: b"", "zstd frame"),
    "empty": (lambda: frame(b""), "0 bytes"),
    "a dictionary": (lambda: with_dictionary(GOOD), "needs a dictionary"),
    "checksum wrong": (lambda: frame(GOOD, write_checksum=True)[:-1] + b"\0", "one zstd frame"),
}


def lying(size):
    """A good frame whose header says another size. Of one segment, the size stands behind magic and descriptor."""
    data = bytearray(frame(GOOD))
    assert data[4] & 0x20 and data[4] >> 6 == 1
    data[5:7] = (size - 256).to_bytes(2, "little")
    return bytes(data)


@pytest.mark.parametrize("name", FRAMES)
def test_hostile_frame(name):
    make, words = FRAMES[name]
    data = make()
    tracemalloc.start()
    try:
        with pytest.raises(MalformedWeights, match=words):
            read(data, INT8 | ZSTD)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [len(GOOD) - 1, len(GOOD) + 1, len(GOOD) + 900])
def test_frame_that_lies_about_its_size(size):
    assert size < most_bytes(SCHEMA)
    with pytest.raises(MalformedWeights, match="zstd frame"):
        read(lying(size), INT8 | ZSTD)
    assert read(lying(len(GOOD)), INT8 | ZSTD)


@pytest.mark.parametrize(("descriptor", "words"), [(0x70, "window of 16777216 bytes"), (0xF8, "too much memory")])
def test_frame_of_an_enormous_window(descriptor, words):
    """16 MiB, and 2 TiB; the size is an honest one."""
    data = b"\x28\xb5\x2f\xfd" + bytes([0b01000000, descriptor]) + (len(GOOD) - 256).to_bytes(2, "little")
    data += (len(GOOD) << 3 | 1).to_bytes(3, "little") + GOOD
    with pytest.raises(MalformedWeights, match=words):
        read(data, INT8 | ZSTD)


def test_a_bomb_of_raw_kinds_too():
    for kind in (F32, F16, TOP_K):
        with pytest.raises(MalformedWeights, match="holds"):
            read(frame(bytes(BOMB // 4)), kind | ZSTD)


def test_memory_of_a_process_stays_small():
    """The longest block, all gaps, everything at its limit, in a process that may not take more."""
    code = """
import resource, numpy as np
from fl_node.errors import MalformedWeights
from fl_node.merging import container, weights
from fl_node.merging.encodings import decode
from fl_node.merging.encodings.kinds import PAYLOAD
n = 2_000_000
reference = {"w": np.zeros(n, np.float32)}
schema = weights.schema_of(reference)
parts = {":changed": np.ones(1, np.uint8), ":block": np.full(1, 2**32 - 1, np.uint32), ":codes": np.ones(n, np.int8),
         ":scales": np.ones(1, np.float32), ":gaps": np.zeros(n, np.uint8)}
data = b"".join(container.write(parts, "x", PAYLOAD))
soft = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 40 * n + (32 << 20)
resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
assert decode(data, 3, schema, lambda: reference)["w"].all()
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


def payloads():
    random = np.random.default_rng(5)
    later = {
        name: (array + 0.1 * random.normal(size=array.shape)).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in REFERENCE.items()
    }
    for kind in ("f32", "f16", "int8-delta", "top-k-delta"):
        for compress in ("auto", "never"):
            spec = EncodingSpec(kind=kind, compress=compress, density=0.2, block=8)
            made = encode(spec, later, "x", reference=REFERENCE, delta=True)
            yield b"".join(made.buffers), made.encoding


SEEDS = list(payloads())


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutations_never_raise_anything_else(data):
    payload, encoding = data.draw(st.sampled_from(SEEDS))
    mutated = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        how = data.draw(st.sampled_from(["set", "set", "cut", "insert"]))
        if how == "set":
            mutated[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del mutated[at : at + data.draw(st.integers(1, 9))]
        else:
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        if not mutated:
            break
    encoding = data.draw(st.sampled_from([encoding, encoding, encoding ^ ZSTD, *range(5)]))
    try:
        read = decode(bytes(mutated), encoding, SCHEMA, lambda: REFERENCE)
    except MalformedWeights:
        return
    assert weights.schema_of(read) == SCHEMA
    weights.digest(read)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "e", ":changed", ":block", ":codes", ":scales", ":gaps", ":bitmap"]),
        st.tuples(
            st.sampled_from(["u1", "i1", "<u2", "<u4", "<f4", "<f2", "<i8"]),
            st.sampled_from([(), (0,), (1,), (2,), (3,), (4,), (6,), (43,), (8, 5)]),
            st.integers(0, 255),
        ),
    ),
    st.integers(0, 3),
)
def test_invented_parts_never_raise_anything_else(parts, kind):
    made = {
        name: np.full(shape, value, dtype)
        for name, (dtype, shape, value) in parts.items()
        if value < 128 or dtype != "i1"
    }
    try:
        decode(raw(made), kind, SCHEMA, lambda: REFERENCE)
    except MalformedWeights:
        return


def test_errors_of_the_reference_are_the_callers():
    def missing():
        raise KeyError("not here")

    with pytest.raises(KeyError, match="not here"):
        decode(raw(dense()), INT8, SCHEMA, missing)
