"""Properties of every rule: what must not matter, what must come back unchanged, how far hostile models can pull."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_cases import POLICY, RULES, entries, entry, flat_models, key, known, policy_spec, random_model, run

from fl_node.errors import MalformedWeights
from fl_node.merging import weights
from fl_node.merging.aggregation import aggregate, order_key
from fl_node.merging.clipping import clipped, median_of, pulls, scales_of
from fl_node.merging.geometric import weiszfeld
from fl_node.merging.krum import choose
from fl_node.merging.network import selecting, sort
from fl_node.merging.stack import Reader, Stack
from fl_node.records import Rule

ROBUST = ["median", "trimmed-mean", "krum", "multi-krum"]


def digest(merge):
    return weights.digest(merge.tensors)


def singles(model):
    """The model's float32 and integer tensors: those that equal models give back unchanged under every rule."""
    return {name: array for name, array in model.items() if array.dtype != np.float64}


# ---- what must not matter ----


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", ["none", "median"])
def test_order_of_candidates_and_threads_do_not_matter(rule, clip, monkeypatch):
    monkeypatch.setattr("fl_node.merging.stack.PIECE", 200)
    draw = np.random.default_rng(1)
    candidates, models = entries(7), [random_model(draw) for _ in range(7)]
    policy = {"aggregation": rule, "clip": clip, "byzantine": 2}
    want = run(policy, models, models[2], candidates=candidates, **known(candidates))
    for threads in (1, 3):
        order = draw.permutation(7)
        got = run(
            policy, [models[k] for k in order], models[2], candidates=[candidates[k] for k in order], threads=threads,
            **known(candidates),
        )  # fmt: skip
        assert digest(got) == digest(want)
        assert (got.parents, got.rejected) == (want.parents, want.rejected)


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from rule_cases import RULES, entries, known, random_model, run
from fl_node.merging import weights
draw = np.random.default_rng(5)
models = [random_model(draw) for _ in range(7)]
models[0]["long"] = models[0]["long"] * np.float32(1e4)
for rule in RULES:
    merge = run({"aggregation": rule, "clip": "median"}, models, models[3], threads=2, **known(entries(7)))
    print(weights.digest(merge.tensors).hex())
"""


def test_another_process_without_wide_vector_loops_agrees():
    """NPY_DISABLE_CPU_FEATURES takes numpy's wide vector loops away, as an older processor would."""
    outputs = []
    for features in ("", "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_ICL", "AVX512F AVX512CD AVX512_SKX AVX512_ICL"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(Path(__file__).parent)],
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": features}, capture_output=True, text=True,
        )  # fmt: skip
        # numpy built with another baseline refuses to disable what it cannot do without, and names it.
        assert done.returncode == 0 or (features and "NPY_DISABLE_CPU_FEATURES" in done.stderr), done.stderr
        if done.returncode == 0:
            outputs.append(done.stdout)
    assert len(outputs) >= 2 and len(set(outputs)) == 1 and outputs[0].count("\n") == len(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_memory_layout_does_not_matter(rule):
    draw = np.random.default_rng(2)
    models = [{"w": draw.standard_normal((30, 40)).astype(np.float32)} for _ in range(5)]
    turned = [{"w": np.asfortranarray(model["w"])} for model in models]
    know = known(entries(5))
    assert digest(run({"aggregation": rule}, turned, **know)) == digest(run({"aggregation": rule}, models, **know))


@pytest.mark.parametrize("rule", RULES)
def test_models_are_not_written_to(rule):
    draw = np.random.default_rng(3)
    models = [random_model(draw) for _ in range(5)]
    for model in models:
        for array in model.values():
            array.flags.writeable = False
    before = [weights.digest(model) for model in models]
    merge = run({"aggregation": rule, "clip": "median"}, models, models[0], **known(entries(5)))
    assert [weights.digest(model) for model in models] == before
    assert all(array.flags.writeable for array in merge.tensors.values())


# ---- what comes back unchanged ----


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", ["none", "fixed", "median"])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_equal_float32_models_come_back_to_the_bit(rule, clip, count):
    """And a single one. Clipping and centred clipping where the own latest model is that model too."""
    model = singles(random_model(np.random.default_rng(count)))
    merge = run({"aggregation": rule, "clip": clip}, [model] * count, model, **known(entries(count)))
    assert digest(merge) == weights.digest(model)


def test_the_median_gives_back_equal_float64_models_too():
    model = random_model(np.random.default_rng(0))
    for count in (1, 2, 3, 4):
        assert digest(run({"aggregation": "median"}, [model] * count)) == weights.digest(model)


def test_no_candidates_give_the_genesis():
    genesis = {"w": np.ones(3, np.float32)}
    for rule in RULES:
        merge = aggregate(policy_spec({**POLICY, "aggregation": rule}), [], [], lambda: genesis)
        assert (merge.tensors["w"].tolist(), merge.parents, merge.rule) == ([1, 1, 1], (), Rule.GENESIS)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "centred-clipping"])
def test_scaling_by_a_power_of_two_is_exact(rule):
    draw = np.random.default_rng(7)
    models = [singles(random_model(draw)) for _ in range(7)]
    larger = [{n: a * a.dtype.type(1024) if a.dtype.kind == "f" else a for n, a in m.items()} for m in models]
    merge = run({"aggregation": rule}, models, **known(entries(7)))
    other = run({"aggregation": rule}, larger, **known(entries(7)))
    assert merge.parents == other.parents
    for name, array in merge.tensors.items():
        factor = 1024 if array.dtype.kind == "f" else 1
        assert (array * array.dtype.type(factor)).tobytes() == other.tensors[name].tobytes()


@pytest.mark.parametrize("rule", ["median", "krum"])
def test_moving_whole_numbers_is_exact(rule):
    draw = np.random.default_rng(8)
    models = [{"w": draw.integers(-100, 100, 50).astype(np.float32)} for _ in range(7)]
    moved = [{"w": model["w"] + np.float32(12_345)} for model in models]
    near, far = run({"aggregation": rule}, models), run({"aggregation": rule}, moved)
    assert (near.tensors["w"] + np.float32(12_345)).tobytes() == far.tensors["w"].tobytes()


# ---- how far hostile models can pull ----


@pytest.mark.parametrize("rule", ROBUST)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(7, 2), (10, 3), (5, 1), (6, 1), (9, 3)]))
def test_hostile_models_do_not_move_a_coordinate_out_of_the_honest_range(rule, seed, shape):
    count, hostile = shape
    draw = np.random.default_rng(seed)
    models = [singles(random_model(draw)) for _ in range(count - hostile)]
    honest = {name: np.stack([model[name] for model in models]) for name in models[0]}
    models += [singles(random_model(draw, 1e6)) for _ in range(hostile)]
    order = draw.permutation(count)
    merge = run({"aggregation": rule, "byzantine": hostile}, [models[k] for k in order])
    assert merge.rule == Rule[rule.upper().replace("-", "_")]
    for name, stacked in honest.items():
        if stacked.size:
            assert (stacked.min(0) <= merge.tensors[name]).all() and (merge.tensors[name] <= stacked.max(0)).all()
    if merge.rejected:
        bad = {int(np.where(order == count - 1 - k)[0][0]) + 1 for k in range(hostile)}
        assert bad <= {ref.peer for ref in merge.rejected}


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e12])
def test_the_geometric_median_stays_near_the_honest_ones(scale):
    """Of any points, one where the sum of distances is least lies within 2 (1 - e) / (1 - 2 e) of the honest ones'
    spread, e the hostile fraction (Minsker 2015); eight steps from the coordinate median reach that."""
    draw = np.random.default_rng(9)
    honest = [draw.standard_normal(500).astype(np.float32) for _ in range(7)]
    hostile = [(draw.standard_normal(500) + 3) * scale for _ in range(3)]
    models = [{"w": np.asarray(w, np.float32)} for w in honest + hostile]
    got = run({"aggregation": "geometric-median"}, models).tensors["w"].astype(np.float64)
    middle = np.mean(honest, axis=0)
    spread = max(np.linalg.norm(w - middle) for w in honest)
    assert np.linalg.norm(got - middle) <= 2 * 0.7 / 0.4 * spread


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from([1, 3, 8]))
def test_centred_clipping_goes_no_further_than_its_steps(seed, count, limit, steps):
    draw = np.random.default_rng(seed)
    centre = random_model(draw)
    models = [random_model(draw, 10.0**k) for k in range(count)]
    policy = {"aggregation": "centred-clipping", "clip_norm": limit, "iterations": steps}
    got = run(policy, models, centre).tensors
    moved = sum(float(((got[n].astype(float) - centre[n]) ** 2).sum()) for n in got if got[n].dtype.kind == "f") ** 0.5
    assert moved <= limit * steps * (1 + 1e-9) + 1e-5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([0.01, 1.0, 30.0]))
def test_clipped_models_keep_within_the_limit(seed, count, limit):
    draw = np.random.default_rng(seed)
    centre = random_model(draw)
    stack = Stack([random_model(draw, 10.0 ** (k - 2)) for k in range(count)], [bytes([k]) for k in range(count)])
    bounded = clipped(stack, centre, limit)
    squares = np.zeros(count)
    reader = Reader(bounded, 1 << 15)
    for leaf in bounded.leaves():
        away = reader.doubles(leaf) - centre[leaf.name].reshape(-1)[leaf.start : leaf.end]
        squares += (away**2).sum(1)
    assert (np.sqrt(squares) <= limit * (1 + 1e-6) + 1e-5).all()
    assert run({"clip": "fixed", "clip_norm": limit}, [centre], centre).tensors["long"].tobytes() == (
        centre["long"].tobytes()
    )


def test_a_model_within_the_limit_is_not_touched():
    draw = np.random.default_rng(4)
    models = [random_model(draw) for _ in range(3)]
    plain, bounded = run({}, models), run({"clip": "fixed", "clip_norm": 1e9}, models, random_model(draw))
    assert digest(plain) == digest(bounded)


def test_a_minority_does_not_choose_integers():
    """By shares or by content digests it could; by the middle value it cannot."""
    honest, hostile = (
        {"n": np.array([5]), "mask": np.array([True])},
        {"n": np.array([10**9]), "mask": np.array([False])},
    )
    for rule in ("median", "trimmed-mean", "geometric-median", "centred-clipping"):
        candidates = [entry(peer, content=bytes([peer]) * 32) for peer in range(1, 6)]
        merge = run({"aggregation": rule, "byzantine": 2}, [hostile] * 2 + [honest] * 3, candidates=candidates)
        assert (merge.tensors["n"].tolist(), merge.tensors["mask"].tolist()) == ([5], [True])


# ---- corners ----


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", ["none", "fixed", "median"])
def test_the_greatest_doubles_give_no_nan(rule, clip):
    most = weights.MAGNITUDE_LIMIT
    values = [1.0, 2.0, 3.0, most, -most, most, 4.0]
    models = [{"v": np.array([value, -value]), "w": np.array([value % 9], np.float32)} for value in values]
    merge = run({"aggregation": rule, "clip": clip, "byzantine": 2}, models, models[0], **known(entries(7)))
    assert np.isfinite(merge.tensors["v"]).all() and np.isfinite(merge.tensors["w"]).all()


@pytest.mark.parametrize("rule", RULES)
def test_no_negative_zero_comes_out(rule):
    tiny = -(2.0**-149)
    models = [{"w": np.array([-0.0, 0.0, tiny, value], np.float32)} for value in (-0.0, 0.0, -0.0, tiny, 0.0)]
    merge = run({"aggregation": rule, "clip": "median"}, models, models[0], **known(entries(5)))
    assert not (merge.tensors["w"].view(np.uint32) == 1 << 31).any()


def test_infinite_distances_come_last_and_ties_go_to_the_smaller_key():
    far = float("inf")
    table = [
        [0, 1, 1, far, 1],
        [1, 0, 1, far, 1],
        [1, 1, 0, far, 1],
        [far, far, far, 0, float("nan")],
        [1, 1, 1, far, 0],
    ]
    choice = choose(table, [b"c", b"b", b"a", b"0", b"d"], 1, 0)
    assert choice.ranking == (2, 1, 0, 4, 3) and choice.chosen == {0, 1, 2, 4}
    assert choose(table, [b"c", b"b", b"a", b"0", b"d"], 1, 99).kept == 4
    with pytest.raises(ValueError, match="at least 7"):
        choose(table, [b"c", b"b", b"a", b"0", b"d"], 2, 0)
    assert weiszfeld([[far, far], [far, far]], 8) == [1.0, 1.0]
    assert all(way == way for way in pulls([[far, -far], [-far, far]], 1.0, 3))
    assert scales_of([0.0, 2.0, far], 0.0) == [1.0, 0.0, 0.0] and scales_of([far], far) == [1.0]
    assert median_of([far, far]) == far and median_of([3.0, 1.0]) == 2.0


@pytest.mark.parametrize("count", [*range(1, 20), 33, 63, 64])
def test_networks_give_the_order_statistics(count):
    draw = np.random.default_rng(count)
    rows = [draw.integers(0, 5, 300).astype(np.float32) for _ in range(count)]
    want = np.sort(np.stack(rows), axis=0)
    before = [row.copy() for row in rows]
    for first, last in {(0, count - 1), ((count - 1) // 2, count // 2), (0, 0), (count - 1, count - 1)}:
        network = selecting(count, first, last)
        got = sort(rows, network, [np.empty(300, np.float32) for _ in range(network.buffers)])
        np.testing.assert_array_equal(np.stack(got), want[first : last + 1])
    assert all((row == kept).all() for row, kept in zip(rows, before, strict=True))


def test_impossible_networks_are_refused():
    for first, last in ((1, 0), (0, 3), (-1, 1)):
        with pytest.raises(ValueError, match="expected 0 <= first"):
            selecting(3, first, last)


def test_a_centre_of_another_schema_is_refused():
    models = flat_models(3, 5)
    for policy in ({"clip": "fixed"}, {"aggregation": "centred-clipping"}):
        with pytest.raises(MalformedWeights, match="different names, dtypes or shapes"):
            run(policy, models, {"w": np.zeros(6, np.float32)})


@pytest.mark.parametrize("rule", ["uniform", "krum", "geometric-median"])
def test_memory_does_not_grow_with_the_models(rule):
    models = flat_models(8, 3_000_000)
    tracemalloc.start()
    run({"aggregation": rule, "clip": "median"}, models, models[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The result is 12 MB and the models 96 MB; the zeros for a genesis that nobody asks for are another 12 MB.
    assert peak < 45e6


def test_mapped_memory_is_given_back_by_every_pass():
    models = flat_models(5, (1 << 20) + 1)
    times = []
    policy = policy_spec({**POLICY, "aggregation": "multi-krum", "clip": "fixed"})
    aggregate(policy, entries(5), models, lambda: models[0], forget=lambda: times.append(1))
    assert len(times) == 3, "distances to the centre, distances between the models, the mean"


def test_order_keys_of_the_test_cases_are_those_of_the_package():
    assert all(key(e) == order_key(e) for e in entries(3))
