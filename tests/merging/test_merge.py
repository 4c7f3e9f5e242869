"""The merge against its definition in exact arithmetic, and against everything that must not matter."""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.errors import FlNodeError, MalformedWeights
from fl_node.merging import weights
from fl_node.merging.arithmetic import self_test
from fl_node.merging.halving import halving_sum
from fl_node.merging.merge import merge

PPM = 1_000_000


def rounded_double(exact: Fraction) -> float:
    """The double nearest to an exact number, ties to even, by integers alone."""
    return exact.numerator / exact.denominator  # int / int is correctly rounded in Python


def rounded_single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def by_definition(columns: list[list[float]], shares: list[int], keys: list[bytes], single: bool) -> list[float]:
    """docs/replay-rules.md in plain Python: every operation exact, then rounded once to a double."""
    order = sorted((k for k in range(len(shares)) if shares[k]), key=lambda k: keys[k])
    result = []
    for position in range(len(columns[0])):
        acc = 0.0
        for k in order:
            product = rounded_double(Fraction(columns[k][position]) * shares[k])
            acc = rounded_double(Fraction(acc) + Fraction(product))
        mean = rounded_double(Fraction(acc) / PPM)
        result.append((rounded_single(mean) if single else mean) + 0.0)
    return result


def shares_for(count: int, draw: np.random.Generator) -> list[int]:
    cuts = np.sort(draw.integers(0, PPM + 1, count - 1))
    return [int(share) for share in np.diff([0, *cuts, PPM])]


def random_models(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    return [
        {
            "conv.weight": draw.standard_normal((7, 11, 3), dtype=np.float32),
            "conv.bias": draw.standard_normal(7) * 1e-3,
            "batches": np.array(draw.integers(0, 100), np.int64),
            "long": draw.standard_normal(70_001, dtype=np.float32) * np.float32(1e-30),
        }
        for _ in range(count)
    ]


def keys_for(count: int) -> list[bytes]:
    return [hashlib.sha256(bytes([k])).digest() for k in range(count)]


finite32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
finite64 = st.floats(allow_nan=False, allow_infinity=False, max_value=1e300, min_value=-1e300)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 12), st.booleans(), st.integers(0, 2**32))
def test_equals_the_definition_bit_for_bit(data, count, size, single, seed):
    values = finite32 if single else finite64
    columns = [data.draw(st.lists(values, min_size=size, max_size=size)) for _ in range(count)]
    shares, keys = shares_for(count, np.random.default_rng(seed)), keys_for(count)
    models = [{"w": np.array(column, np.float32 if single else np.float64)} for column in columns]
    got = merge(models, shares, keys, block=5)["w"]
    want = np.array(by_definition(columns, shares, keys, single), got.dtype)
    assert got.tobytes() == want.tobytes()
    assert np.isfinite(got).all()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 1000))
def test_order_of_arguments_does_not_matter(order, seed):
    models, keys = random_models(4, seed), keys_for(4)
    shares = shares_for(4, np.random.default_rng(seed))
    want = weights.digest(merge(models, shares, keys))
    assert (
        weights.digest(merge([models[k] for k in order], [shares[k] for k in order], [keys[k] for k in order])) == want
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("block", [1, 1000, 4096, 1 << 16, 1 << 22])
def test_blocks_and_threads_do_not_matter(threads, block, monkeypatch):
    monkeypatch.setattr("fl_node.merging.stack.PIECE", 9_999)
    models, keys = random_models(3, 5), keys_for(3)
    if block == 1:
        for model in models:
            del model["long"]
    got = merge(models, [200_001, 300_000, 499_999], keys, threads=threads, block=block)
    want = merge(models, [200_001, 300_000, 499_999], keys)
    assert weights.digest(got) == weights.digest(want)


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[2])
from test_merge import keys_for, random_models
from fl_node.merging import merge as module, stack, weights
stack.PIECE = 12_345
print(weights.digest(module.merge(random_models(5, 9), [200_000] * 5, keys_for(5), threads=int(sys.argv[1]))).hex())
"""


def test_another_process_with_other_threads_and_simd_agrees():
    """NPY_DISABLE_CPU_FEATURES takes numpy's wide vector loops away, as an older processor would."""
    here = str(Path(__file__).parent)
    digests = set()
    for threads, features in ((1, ""), (3, ""), (2, "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_ICL")):
        env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features}
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(threads), here], env=env, capture_output=True, text=True
        )
        if run.returncode and features:  # numpy 2.x built with another baseline names the features it cannot disable
            env["NPY_DISABLE_CPU_FEATURES"] = "AVX512F AVX512CD AVX512_SKX AVX512_ICL"
            run = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", SCRIPT, str(threads), here],
                env=env,
                capture_output=True,
                text=True,
            )
        assert run.returncode == 0, run.stderr
        digests.add(run.stdout.strip())
    assert digests == {weights.digest(merge(random_models(5, 9), [200_000] * 5, keys_for(5))).hex()}


def test_single_float32_model_is_itself():
    model = random_models(1, 1)[0]
    del model["conv.bias"]
    assert weights.digest(merge([model], [PPM], [b"k"])) == weights.digest(model)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_equal_float32_models_are_a_fixed_point(count, seed):
    """24 bits of value and 20 of share fit into 53, so every sum is exact."""
    model = random_models(1, seed)[0]
    shares = shares_for(count, np.random.default_rng(seed))
    merged = merge([model] * count, shares, keys_for(count))
    assert merged["long"].tobytes() == (model["long"] + np.float32(0)).tobytes(), "but for negative zeros"
    np.testing.assert_allclose(merged["conv.bias"], model["conv.bias"], rtol=(count + 2) * 2.0**-53, atol=0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_mean_lies_between_least_and_greatest(count, seed):
    models = random_models(count, seed)
    merged = merge(models, shares_for(count, np.random.default_rng(seed)), keys_for(count))["long"]
    stack = np.stack([model["long"] for model in models])
    assert (stack.min(0) <= merged).all() and (merged <= stack.max(0)).all()


def test_extreme_values_neither_overflow_nor_vanish():
    most, least = np.finfo(np.float32).max, np.float32(2.0**-149)
    models = [{"w": np.array([most, -most, least], np.float32)} for _ in range(3)]
    merged = merge(models, [333_333, 333_333, 333_334], keys_for(3))["w"]
    assert merged.tolist() == [most, -most, least]
    near = weights.MAGNITUDE_LIMIT
    assert np.isfinite(merge([{"w": np.array([near])}] * 2, [500_000] * 2, keys_for(2))["w"]).all()


def test_no_negative_zero_comes_out():
    models = [{"w": np.array([-0.0, -(2.0**-149)], np.float32)}, {"w": np.array([-0.0, 0.0], np.float32)}]
    assert merge(models, [1, 999_999], keys_for(2))["w"].view(np.uint32).tolist() == [0, 0]


def test_integers_take_the_largest_share_and_ties_the_first_in_order():
    models = [{"n": np.array(k, np.int64), "b": np.array([k == 1])} for k in range(3)]
    assert merge(models, [200_000, 500_000, 300_000], keys_for(3))["n"] == 1
    tied = merge(models, [400_000, 200_000, 400_000], [b"z", b"a", b"b"])
    assert tied["n"] == 2 and not tied["b"][0]


def test_share_zero_takes_no_part():
    models = [{"w": np.array([1.5], np.float32)}, {"w": np.array([7.0], np.float32)}]
    assert merge(models, [PPM, 0], keys_for(2))["w"].tolist() == [1.5]


def test_results_are_new_and_inputs_unchanged():
    model = {"w": np.ones(3, np.float32), "n": np.array([1])}
    merged = merge([model], [PPM], [b"k"])
    merged["w"][:] = 5
    merged["n"][:] = 5
    assert model["w"].tolist() == [1, 1, 1] and model["n"].tolist() == [1]


def test_other_layouts_of_the_same_model_agree():
    draw = np.random.default_rng(0)
    plain = {"w": draw.standard_normal((40, 50), dtype=np.float32)}
    turned = {"w": np.asfortranarray(plain["w"])}
    other = {"w": draw.standard_normal((40, 50), dtype=np.float32)}
    want = merge([plain, other], [400_000, 600_000], keys_for(2))["w"]
    assert merge([turned, other], [400_000, 600_000], keys_for(2))["w"].tobytes() == want.tobytes()


@pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
def test_odd_shapes(shape):
    models = [{"w": np.full(shape, 2.0, np.float32)}] * 2
    assert merge(models, [500_000] * 2, keys_for(2))["w"].shape == shape


def test_models_must_agree():
    with pytest.raises(MalformedWeights, match="different names, dtypes or shapes"):
        merge([{"w": np.ones(2, np.float32)}, {"w": np.ones(3, np.float32)}], [500_000] * 2, keys_for(2))


@pytest.mark.parametrize(
    ("shares", "keys", "words"),
    [
        ([500_000, 499_999], [b"a", b"b"], "sum to 999999"),
        ([-1, 1_000_001], [b"a", b"b"], "none below 0"),
        ([500_000] * 2, [b"a", b"a"], "same order key"),
        ([PPM], [b"a"], "1 shares"),
    ],
)
def test_wrong_arguments(shares, keys, words):
    with pytest.raises(ValueError, match=words):
        merge([{"w": np.ones(1, np.float32)}] * 2, shares, keys)


def test_self_test_passes_here():
    self_test()


FLUSH = """
import sys, numpy as np, torch
from fl_node.errors import FlNodeError
from fl_node.merging.merge import merge
assert torch.set_flush_denormal(True)
try:
    merge([{"w": np.ones(3, np.float32)}], [1_000_000], [b"k"])
except FlNodeError as error:
    print(error); sys.exit(7)
"""


def test_flush_to_zero_is_refused():
    """The real thing: a user's training loop that switches it on in this process."""
    pytest.importorskip("torch")
    run = subprocess.run([sys.executable, "-c", FLUSH], capture_output=True, text=True)
    assert run.returncode == 7, run.stderr
    assert "set_flush_denormal" in run.stdout


FE_UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}


def test_other_rounding_mode_is_refused():
    libm = ctypes.CDLL(None)
    mode = FE_UPWARD.get(os.uname().machine)
    if mode is None or not hasattr(libm, "fesetround"):
        pytest.skip("no fesetround here")
    before = libm.fegetround()
    libm.fesetround(mode)
    try:
        with pytest.raises(FlNodeError, match="nearest double"):
            self_test()
    finally:
        libm.fesetround(before)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite64.filter(lambda x: abs(x) < 1e290), max_size=40))
def test_halving_sum_by_recursion(values):
    def tree(terms: list[float]) -> float:
        if len(terms) <= 1:
            return terms[0] if terms else 0.0
        half = (len(terms) + 1) // 2
        return tree([a + b for a, b in zip(terms[:half], terms[half:], strict=False)] + terms[len(terms) - half : half])

    array = np.array(values, np.float64)
    assert float(halving_sum(array)) == tree(values) + 0.0
    assert array.tolist() == values
    stacked = halving_sum(np.stack([array, array], axis=1)) if values else halving_sum(np.empty((0, 2)))
    assert stacked.tolist() == [tree(values) + 0.0] * 2


def test_memory_of_mapped_models_is_given_back_between_pieces_without_a_change_of_bits() -> None:
    draw = np.random.default_rng(1)
    models = [{"w": draw.standard_normal((1 << 21) + 3, dtype=np.float32)} for _ in range(2)]
    times = 0

    def forget() -> None:
        nonlocal times
        times += 1

    keys = [b"a", b"b"]
    plain = merge(models, [400_000, 600_000], keys)
    assert np.array_equal(merge(models, [400_000, 600_000], keys, forget=forget)["w"], plain["w"])
    assert times == 2
