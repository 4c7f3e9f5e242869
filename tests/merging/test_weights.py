"""The container, its hostile readers' cases, the digest and the commitment."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.errors import MalformedWeights
from fl_node.merging.weights import (
    HEADER_LIMIT,
    TensorSpec,
    check_magnitude,
    commitment,
    decode,
    digest,
    encode,
    encoded_size,
    origin,
    schema_of,
)

DTYPES = ["<f4", "<f8", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?"]
ORIGIN = origin(31337, "0x" + "Ab" * 20, 3, 12)


def joined(tensors, metadata=ORIGIN):
    return b"".join(encode(tensors, metadata))


def file_of(header, data=b"", *, length=None, text=None):
    raw = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def one(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


names = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def models(draw):
    model = {}
    for name in draw(st.lists(names, max_size=6, unique=True)):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        values = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 2 if dtype == "?" else 100, shape)
        model[name] = np.asarray(values).astype(dtype)
    return model


@settings(max_examples=200, deadline=None)
@given(models())
def test_round_trip_and_byte_for_byte_the_librarys_file(model):
    """An implementation that is not ours writes the same bytes and reads them back."""
    raw = joined(model)
    assert raw == safetensors.numpy.save(model, {"fl-node": ORIGIN})
    assert (8 + int.from_bytes(raw[:8], "little")) % 8 == 0
    read = decode(raw, schema_of(model))
    theirs = safetensors.numpy.load(raw)
    assert read.metadata == ORIGIN
    assert sorted(read.tensors) == sorted(theirs) == sorted(model)
    for name, array in model.items():
        assert read.tensors[name].dtype == array.dtype and read.tensors[name].shape == array.shape
        assert read.tensors[name].tobytes() == array.tobytes() == theirs[name].tobytes()
    assert digest(read.tensors) == digest(model)
    assert len(raw) <= encoded_size(schema_of(model))


def test_tensors_are_views_and_read_only():
    array = np.arange(1_000_000, dtype=np.float32)
    buffers = encode({"w": array})
    assert np.shares_memory(np.frombuffer(buffers[1], np.float32), array)
    raw = b"".join(buffers)
    read = decode(raw).tensors["w"]
    assert np.shares_memory(read, np.frombuffer(raw, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1
    assert decode(bytearray(raw)).tensors["w"].flags.writeable is False


def test_checking_values_takes_bounded_memory():
    raw = b"".join(encode({"w": np.ones(4_000_000, np.float32)}))
    tracemalloc.start()
    decode(raw)
    digest({"w": np.ones(1, np.float32)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_negative_zero_is_zero_everywhere():
    dirty = {"w": np.array([-0.0, 1.0, -1.0], np.float32), "v": np.array([-0.0, 5e-324])}
    clean = {"w": np.array([0.0, 1.0, -1.0], np.float32), "v": np.array([0.0, 5e-324])}
    assert digest(dirty) == digest(clean)
    assert joined(dirty) == joined(clean)
    foreign = safetensors.numpy.save(dirty)
    read = decode(foreign).tensors
    assert read["w"].tobytes() == clean["w"].tobytes() and read["v"].tobytes() == clean["v"].tobytes()
    assert not read["w"].flags.writeable
    assert np.signbit(dirty["w"][0]), "the caller's array stays as it was"


def test_digest_does_not_depend_on_container_or_order_or_layout():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.int64)
    want = digest({"a": a, "b": b})
    assert digest({"b": b, "a": np.asfortranarray(a)}) == want
    assert digest({"a": a.astype(">f4"), "b": b}) == want
    text = json.dumps({"b": one("I64", (2,), (24, 40)), "a": one("F32", (2, 3), (0, 24))}, indent=3).encode()
    assert digest(decode(file_of(None, a.tobytes() + b.tobytes(), text=text)).tensors) == want


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.zeros((3, 2), np.float32)},
        {"a": np.zeros(6, np.float32)},
        {"A": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((2, 3), np.int32)},
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros(0, np.float32)},
        {},
    ],
)
def test_digest_tells_names_shapes_and_dtypes_apart(other):
    assert digest(other) != digest({"a": np.zeros((2, 3), np.float32)})


def test_digest_by_hand():
    """Written out as docs/replay-rules.md says, without this package."""

    def number(value):
        return struct.pack("<Q", value)

    raw = number(1) + b"a" + number(3) + b"F64" + number(0) + struct.pack("<d", 2.5)
    raw += number(2) + "é".encode() + number(3) + b"F32" + number(2) + number(1) + number(2) + struct.pack("<2f", 0, -1)
    got = digest({"é": np.array([[-0.0, -1.0]], np.float32), "a": np.array(2.5)})
    assert got == hashlib.sha256(raw).digest()


def test_commitment_by_hand_and_separates_publishers():
    contract, inner = "0x" + "Ab" * 20, bytes(range(32))
    raw = b"fl-node weights commitment 1" + (31337).to_bytes(32, "big") + bytes.fromhex("ab" * 20)
    raw += struct.pack(">II", 3, 12) + inner
    assert commitment(31337, contract, 3, 12, inner) == hashlib.sha256(raw).digest()
    others = {
        commitment(chain, address, peer, sequence, inner)
        for chain, address, peer, sequence in [
            (31337, contract, 3, 12),
            (1, contract, 3, 12),
            (31337, "0x" + "ac" * 20, 3, 12),
            (31337, contract, 4, 12),
            (31337, contract, 3, 13),
        ]
    }
    assert len(others) == 5
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        commitment(1, contract, 1, 1, bytes(31))
    with pytest.raises(ValueError, match="20 bytes, got 2"):
        commitment(1, "0xabcd", 1, 1, inner)


WANT = {"w": TensorSpec("F32", (2,))}
GOOD = struct.pack("<2f", 1, 2)

HOSTILE = {
    "empty": (b"", "got 0 bytes"),
    "short": (b"1234567", "got 7 bytes"),
    "ten gigabytes of header": (struct.pack("<Q", 10 << 30) + b"{}", "claims 10737418240 bytes, expected at most 2"),
    "largest header claim": (b"\xff" * 8 + b"{}", "claims 18446744073709551615"),
    "header one byte too long": (file_of({}, length=3), "claims 3 bytes"),
    "not JSON": (file_of(None, text=b"{'w'"), "not the JSON"),
    "not UTF-8": (file_of(None, text=b'{"\xff":1}'), "not the JSON"),
    "a list": (file_of([]), "a JSON list, expected an object"),
    "NaN in JSON": (file_of(None, text=b'{"w":NaN}'), "NaN is not JSON"),
    "deep nesting": (file_of(None, text=b"[" * 200_000), "nested more than 3 deep"),
    "deep nesting between strings": (file_of(None, text=b'{"a\\"]":[{"b":' * 5), "nested more than 3 deep"),
    "huge integer": (file_of(None, text=b'{"w":' + b"9" * 10_000 + b"}"), "not the JSON"),
    "duplicate tensor": (
        file_of(None, GOOD, text=f'{{"w":{json.dumps(one())},"w":{json.dumps(one())}}}'.encode()),
        "twice",
    ),
    "duplicate inner key": (
        file_of(None, GOOD, text=b'{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "twice",
    ),
    "two metadata keys": (file_of({"__metadata__": {"a": "1", "b": "2"}, "w": one()}, GOOD), "2 keys"),
    "metadata not text": (file_of({"__metadata__": {"a": 1}, "w": one()}, GOOD), "one name to one string"),
    "metadata a list": (file_of({"__metadata__": [], "w": one()}, GOOD), "one name to one string"),
    "tensor a number": (file_of({"w": 5}, GOOD), "expected exactly the keys"),
    "an extra key": (file_of({"w": one(more=1)}, GOOD), "expected exactly the keys"),
    "unknown dtype": (file_of({"w": one("F33")}, GOOD), "dtype 'F33', expected one of"),
    "half precision": (file_of({"w": one("BF16", offsets=(0, 4))}, GOOD[:4]), "half precision is an encoding"),
    "dtype not text": (file_of({"w": one(7)}, GOOD), "has dtype '7'"),
    "negative dimension": (file_of({"w": one(shape=(-2,))}, GOOD), "whole numbers"),
    "float dimension": (file_of({"w": one(shape=(2.0,))}, GOOD), "whole numbers"),
    "boolean dimension": (file_of({"w": one(shape=(True,))}, GOOD), "whole numbers"),
    "33 dimensions": (file_of({"w": one(shape=(1,) * 33)}, GOOD), "at most 32"),
    "overflowing shape": (file_of({"w": one(shape=(2**62, 2**62))}, GOOD), "span 8 bytes"),
    "three offsets": (file_of({"w": one(offsets=(0, 8, 8))}, GOOD), "two whole numbers"),
    "backward offsets": (file_of({"w": one(offsets=(8, 0))}, GOOD), "span -8 bytes"),
    "offsets against shape": (file_of({"w": one(offsets=(0, 4))}, GOOD), "span 4 bytes, expected 8"),
    "offsets outside": (file_of({"w": one(offsets=(8, 16))}, GOOD), "leaves a gap"),
    "truncated data": (file_of({"w": one()}, GOOD[:7]), "holds 7 bytes of data, expected 8"),
    "trailing byte": (file_of({"w": one()}, GOOD + b"x"), "holds 9 bytes of data, expected 8"),
    "missing tensor": (file_of({}), "got 0 tensors, expected 1: missing 'w'"),
    "unexpected tensor": (
        file_of({"w": one(), "x": one(offsets=(8, 16))}, GOOD * 2),
        "got 2 tensors, expected 1: unexpected 'x'",
    ),
    "other name": (file_of({"x": one()}, GOOD), "missing 'w'; unexpected 'x'"),
    "other shape": (file_of({"w": one(shape=(2, 1))}, GOOD), r"'w' is F32\[2, 1\], expected F32\[2\]"),
    "other dtype": (file_of({"w": one("I32")}, GOOD), r"'w' is I32\[2\], expected F32\[2\]"),
    "NaN": (file_of({"w": one()}, struct.pack("<2f", 1, float("nan"))), "'w' holds nan"),
    "infinity": (file_of({"w": one()}, struct.pack("<2f", 1, float("-inf"))), "'w' holds -inf"),
}


def test_weights_beyond_the_specs_magnitude_are_malformed():
    fine = {"w": np.array([[-10.0, 3.0]], "f4"), "n": np.array([10**9]), "none": np.empty((0, 3))}
    check_magnitude(fine, 10.0)
    for bad in (-10.5, 1e38):
        with pytest.raises(MalformedWeights, match=r"'w' holds .* at most 10 .*max_magnitude"):
            check_magnitude({**fine, "w": np.array([bad], "f4")}, 10.0)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file(name):
    raw, words = HOSTILE[name]
    tracemalloc.start()
    with pytest.raises(MalformedWeights, match=words):
        decode(raw, WANT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(raw) + 2_000_000


def test_good_file_of_the_table_is_good():
    """So that the cases above fail for what they name and nothing else."""
    assert decode(file_of({"w": one()}, GOOD), WANT).tensors["w"].tolist() == [1, 2]
    assert decode(file_of({"__metadata__": {"format": "pt"}, "w": one()}, GOOD), WANT).metadata == ""


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": one(), "b": one(offsets=(4, 12))}, "'b' begins at byte 4 .* overlaps"),
        ({"a": one(), "b": one(offsets=(0, 8))}, "overlaps"),
        ({"a": one(), "b": one(offsets=(12, 20))}, "leaves a gap"),
        ({"\ud800": one()}, "not valid Unicode"),
        ({"": one()}, "1 to 1024 bytes"),
        ({"n" * 1025: one()}, "1 to 1024 bytes"),
        ({"w": one("F64", (1,))}, "'w' holds .*above 2"),
        ({"w": one("BOOL", (8,))}, "byte other than 0 and 1"),
    ],
)
def test_hostile_without_schema(header, words):
    with pytest.raises(MalformedWeights, match=words):
        decode(file_of(header, struct.pack("<d", 2.0**1001) + bytes(12 if len(header) > 1 else 0)))


def test_many_empty_tensors_at_one_offset():
    model = {f"e{k}": np.zeros(0, np.float32) for k in range(5)} | {"w": np.ones(2, np.float32)}
    assert sorted(decode(joined(model)).tensors) == sorted(model)


def test_header_limit_holds_for_writers_too():
    model = {f"{k}" + "n" * 1000: np.zeros(0, np.float32) for k in range(HEADER_LIMIT // 1050)}
    with pytest.raises(MalformedWeights, match="header of"):
        encode(model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 65_535, 65_536, 99_999])
def test_training_that_diverged_is_not_published(value, position):
    array = np.zeros(100_000, np.float32)
    array[position] = value
    for function in (encode, digest):
        with pytest.raises(MalformedWeights, match=r"did the training diverge\?"):
            function({"w": array})


def test_half_precision_is_refused_with_a_reason():
    with pytest.raises(MalformedWeights, match="float16, expected F32 or F64: half precision is an encoding"):
        encode({"w": np.ones(2, np.float16)})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutations_of_a_good_file_never_raise_anything_else(data):
    model = {"a": np.ones((2, 2), np.float32), "b": np.arange(3, dtype=np.int64)}
    raw = bytearray(joined(model))
    for _ in range(data.draw(st.integers(1, 4))):
        kind, at = data.draw(st.sampled_from("scdi")), data.draw(st.integers(0, len(raw) - 1))
        if kind == "s":
            raw[at] = data.draw(st.integers(0, 255))
        elif kind == "c":
            del raw[at:]
        elif kind == "d":
            del raw[at : at + data.draw(st.integers(1, 9))]
        else:
            raw[at:at] = data.draw(st.binary(max_size=9))
        if not raw:
            break
    for expected in (None, schema_of(model)):
        try:
            read = decode(bytes(raw), expected)
        except MalformedWeights:
            continue
        for array in read.tensors.values():
            assert array.dtype.kind != "f" or np.isfinite(array).all()
        digest(read.tensors)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I8", "BOOL", "F16"]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=6), entries | json_values, max_size=3), st.binary(max_size=40))
def test_invented_headers_never_raise_anything_else(header, data):
    try:
        decode(file_of(header, data))
    except MalformedWeights:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_raises_anything_else(raw):
    with pytest.raises(MalformedWeights):
        decode(raw, WANT)
