"""What a publisher says everybody will hold is what everybody decodes, to the bit, also in a second program."""

from __future__ import annotations

import math

import numpy as np
import plain_encodings
import pytest
from encoding_models import KINDS, pairs, specs
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.merging import encodings, weights
from fl_node.merging.encodings import decode, encode, is_delta, kind_of, most_bytes, name_of
from fl_node.merging.encodings.feedback import damping
from fl_node.records import ZSTD, Encoding
from fl_node.tables import EncodingSpec

ORIGIN = "31337:0x" + "ab" * 20 + ":3#12"


def payload(encoded):
    return b"".join(encoded.buffers)


def plain(tensors):
    schema = weights.schema_of(tensors)
    return {
        name: (schema[name].dtype, list(schema[name].shape), array.ravel().tolist()) for name, array in tensors.items()
    }


def never():
    raise AssertionError("the reference is not needed")


def model(seed=0, shape=(64, 100), step=0.01):
    random = np.random.default_rng(seed)
    before = {
        "w": random.normal(size=shape).astype(np.float32),
        "b": random.normal(size=10).astype(np.float32),
        "n": np.array(7),
    }
    after = {
        name: (array + step * random.standard_t(3, array.shape)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in before.items()
    }
    return before, after


@settings(max_examples=300, deadline=None)
@given(pairs(), specs, st.booleans(), st.booleans())
def test_decoded_is_what_the_publisher_says_here_and_in_plain_python(pair, spec, delta, with_rest):
    reference, target = pair
    reference = weights.decode(b"".join(weights.encode(reference))).tensors
    schema = weights.schema_of(target)
    rest = {name: array * 0.5 for name, array in reference.items() if array.dtype.kind == "f"} if with_rest else None
    try:
        made = encode(spec, target, ORIGIN, reference=reference, delta=delta, residual=rest)
    except weights.MalformedWeights as error:
        assert with_rest and "finite" in str(error)  # the sum overflows
        return
    raw = payload(made)
    assert len(raw) <= most_bytes(schema)
    read = decode(raw, made.encoding, schema, lambda: reference)
    assert list(read) == sorted(target)
    for name, array in read.items():
        assert array.dtype == target[name].dtype and array.shape == target[name].shape
        assert array.tobytes() == np.ascontiguousarray(made.decoded[name]).tobytes(), name
        assert not array.flags.writeable
        assert array.dtype.kind != "f" or not np.signbit(array[array == 0]).any()
    assert weights.digest(read) == weights.digest(made.decoded)
    assert made.plain_bytes == sum(len(buffer) for buffer in weights.encode(target, ORIGIN))
    second = plain_encodings.read(
        raw, made.encoding, {name: (one.dtype, list(one.shape)) for name, one in schema.items()}, plain(reference)
    )
    assert second == plain(read)
    if kind_of(made.encoding) is Encoding.SAFETENSORS and not with_rest:
        assert weights.digest(read) == weights.digest(target)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_as_small_as_the_encoding_promises(kind):
    before, after = model()
    spec = EncodingSpec(kind=kind, block=64, density=0.1, full="f16")
    made = encode(spec, after, ORIGIN, reference=before, delta=True)
    error = np.abs(made.decoded["w"].astype(np.float64) - after["w"])
    change = np.abs(after["w"].astype(np.float64) - before["w"])
    if kind == "f32":
        assert not error.any()
    if kind == "f16":
        assert (error <= np.abs(after["w"]) * 2.0**-11).all()
    if kind == "int8-delta":
        largest = np.repeat(change.ravel().reshape(-1, 64).max(axis=1), 64).reshape(change.shape)
        assert (error <= largest / 254 + 1e-7).all()
    if kind == "top-k-delta":
        sent = made.decoded["w"] != before["w"]
        assert np.count_nonzero(sent) == math.ceil(0.1 * 6400)
        assert change[sent].min() >= change[~sent].max()
        step = change[sent].min() / 0.6
        assert np.square(error[sent]).mean() < 0.2 * step**2


def test_ties_go_to_the_first_values():
    before = {"w": np.zeros(100, np.float32)}
    after = {"w": np.tile(np.array([1, -1], np.float32), 50)}
    after["w"][60] = 2
    made = encode(EncodingSpec(kind="top-k-delta", density=0.05), after, ORIGIN, reference=before, delta=True)
    assert np.flatnonzero(made.decoded["w"]).tolist() == [0, 1, 2, 3, 60]


@pytest.mark.parametrize("kind", ["int8-delta", "top-k-delta"])
def test_residual_is_what_was_not_carried_damped_by_how_much_that_is(kind):
    before, after = model()
    spec = EncodingSpec(kind=kind, density=0.2)
    made = encode(spec, after, ORIGIN, reference=before, delta=True)
    assert made.residual is not None and set(made.residual) <= {"w", "b"}
    dropped = sum(float(((after[name] - made.decoded[name]) ** 2).sum()) for name in ("w", "b"))
    whole = sum(float(((after[name] - before[name]) ** 2).sum()) for name in ("w", "b"))
    beta = damping(dropped, whole)
    assert beta == 1 if kind == "int8-delta" else 0.3 < beta < 1
    for name, rest in made.residual.items():
        assert rest.dtype == after[name].dtype
        assert np.allclose(rest, beta * (after[name] - made.decoded[name]), rtol=1e-5)
    without = EncodingSpec(kind=kind, error_feedback=False)
    assert encode(without, after, ORIGIN, reference=before, delta=True).residual is None
    assert encode(EncodingSpec(kind="f16"), after, ORIGIN, reference=before, delta=True).residual is None


def test_damping():
    assert damping(0.0, 1.0) == damping(0.0, 0.0) == damping(1e-4, 1.0) == 1
    assert damping(1.0, 1.0) == damping(0.81, 1.0) == damping(1.0, 0.0) == 0
    for kappa in (0.35, 0.5, 0.7):
        assert kappa * (1 + 2 * damping(kappa**2, 1.0)) == pytest.approx(0.9)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.35])
def test_peers_that_stop_training_come_together_whatever_is_dropped(density):
    """Ten peers far apart, who only merge: distances shrink, and what is remembered does not keep them swinging."""
    random = np.random.default_rng(1)
    spec = EncodingSpec(kind="top-k-delta", density=density)
    held = [{"w": random.normal(size=1000).astype(np.float32)} for _ in range(10)]
    rest = [None] * 10
    apart = []
    for _ in range(12):
        merge = {"w": np.mean([one["w"] for one in held], axis=0, dtype=np.float64).astype(np.float32)}
        apart.append(max(float(np.linalg.norm(one["w"] - merge["w"])) for one in held))
        made = [
            encode(spec, merge, ORIGIN, reference=one, delta=True, residual=left)
            for one, left in zip(held, rest, strict=True)
        ]
        held, rest = [one.decoded for one in made], [one.residual for one in made]
    assert apart[-1] < apart[0] * {0.01: 0.9, 0.1: 0.5, 0.35: 0.02}[density]


def test_what_is_remembered_arrives():
    """Of a change that is told once, memory sends more later; without it, the rest is lost."""
    before, after = model()
    short = {}
    for on in (True, False):
        spec = EncodingSpec(kind="top-k-delta", error_feedback=on, density=0.5)
        made = encode(spec, after, ORIGIN, reference=before, delta=True)
        for _ in range(6):
            held = made.decoded
            made = encode(spec, held, ORIGIN, reference=held, delta=True, residual=made.residual)
        short[on] = float(np.linalg.norm(made.decoded["w"] - after["w"]))
    assert short[True] < 0.8 * short[False]


def test_frozen_tensors_are_left_out_but_never_all():
    before, after = model()
    frozen = {**after, "w": before["w"]}
    made = encode(EncodingSpec(compress="never"), frozen, ORIGIN, reference=before, delta=False)
    assert len(payload(made)) < 400 < made.plain_bytes
    read = decode(payload(made), made.encoding, weights.schema_of(after), lambda: before)
    assert np.array_equal(read["w"], before["w"]) and np.array_equal(read["b"], after["b"])
    for kind in KINDS:
        made = encode(EncodingSpec(kind=kind, compress="never"), before, ORIGIN, reference=before, delta=True)
        assert list(weights.decode(payload(made)).tensors) == ["n"]
        assert weights.digest(decode(payload(made), made.encoding, weights.schema_of(before), lambda: before)) == (
            weights.digest(before)
        )


def test_a_plain_full_update_is_the_plain_file_and_needs_no_reference():
    before, after = model()
    after["n"] = np.array(8)
    made = encode(EncodingSpec(), after, ORIGIN, reference=before, delta=False)
    assert made.encoding == Encoding.SAFETENSORS
    assert payload(made) == b"".join(weights.encode(after, ORIGIN))
    schema = weights.schema_of(after)
    assert weights.digest(decode(payload(made), 0, schema, never)) == weights.digest(after)
    half = encode(EncodingSpec(kind="f16"), after, ORIGIN, reference=before, delta=False)
    decode(payload(half), half.encoding, schema, never)
    assert kind_of(half.encoding) is Encoding.F16


def test_a_delta_kind_without_a_reference_of_its_own_is_a_full_one():
    before, after = model()
    for full, kind in (("f32", Encoding.SAFETENSORS), ("f16", Encoding.F16), ("int8", Encoding.INT8_DELTA)):
        spec = EncodingSpec(kind="top-k-delta", full=full)
        assert kind_of(encode(spec, after, ORIGIN, reference=before, delta=False).encoding) is kind


def test_what_half_precision_cannot_hold_is_written_in_full():
    before = {"w": np.zeros(3, np.float32), "v": np.zeros(2, np.float32), "d": np.zeros(2)}
    after = {
        "w": np.array([1, 65520, -3], np.float32),
        "v": np.array([65519, 1e-9], np.float32),
        "d": np.array([1e300, 1]),
    }
    made = encode(EncodingSpec(kind="f16"), after, ORIGIN, reference=before, delta=False)
    read = decode(payload(made), made.encoding, weights.schema_of(after), never)
    assert read["w"].tolist() == [1, 65520, -3] and read["d"].tolist() == [1e300, 1]
    assert read["v"].tolist() == [65504, 0]


@pytest.mark.parametrize("kind", ["int8-delta", "top-k-delta"])
def test_changes_beyond_the_scales_are_written_in_full(kind):
    before = {"d": np.zeros(20), "w": np.full(20, -3.4e38, np.float32)}
    after = {"d": np.full(20, 1e300), "w": np.full(20, 3.4e38, np.float32)}
    made = encode(EncodingSpec(kind=kind, density=0.5), after, ORIGIN, reference=before, delta=True)
    read = decode(payload(made), made.encoding, weights.schema_of(after), lambda: before)
    assert read["d"].tolist() == after["d"].tolist()
    assert np.isfinite(read["w"]).all()


@pytest.mark.parametrize("kind", ["int8-delta", "top-k-delta"])
def test_models_with_names_that_payloads_need_are_refused_by_both_sides(kind):
    tensors = {":codes": np.ones(3, np.float32)}
    with pytest.raises(weights.MalformedWeights, match=r"':codes'.*rename"):
        encode(EncodingSpec(kind=kind), tensors, ORIGIN, reference=tensors, delta=True)
    with pytest.raises(weights.MalformedWeights, match="rename"):
        decode(b"", 2, weights.schema_of(tensors), never)
    made = encode(EncodingSpec(kind="f16"), {":codes": tensors[":codes"] * 2}, ORIGIN, reference=tensors, delta=False)
    assert decode(payload(made), made.encoding, weights.schema_of(tensors), never)[":codes"].tolist() == [2, 2, 2]


def test_names_and_numbers():
    assert name_of(2 | ZSTD) == "int8-delta+zstd" and name_of(0) == "f32" and name_of(1) == "f16"
    assert name_of(9) == "unknown (9)" and not is_delta(9)
    assert [is_delta(number) for number in (0, 1, 2, 3, 2 | ZSTD)] == [False, False, True, True, True]
    with pytest.raises(weights.MalformedWeights, match=r"encoding 9.*newer version"):
        kind_of(9)


def test_callers_arrays_stay_as_they_are():
    before, after = model()
    after["w"][0, 0] = -0.0
    copies = {name: array.copy() for name, array in after.items()}
    for kind in KINDS:
        encode(EncodingSpec(kind=kind), after, ORIGIN, reference=before, delta=True)
    for name, array in after.items():
        assert array.flags.writeable and array.tobytes() == copies[name].tobytes()
    assert before["w"].flags.writeable
    assert set(encodings.__all__) >= {"encode", "decode"}
