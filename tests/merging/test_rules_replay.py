"""Every rule against the second implementation of the replay rules in plain Python, to the bit: on drawn models, and
on committed vectors that fix the results for ever.

A failure here means that peers of two versions would disagree: never regenerate the vectors, unless under another spec
format.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import plain_rules
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_cases import DTYPES, POLICY, arrays, entry, key, plain, random_model, run
from test_vectors import plain_digest

from fl_node.merging import weights
from fl_node.merging.distances import inner_products, squared_distances, squared_norms
from fl_node.merging.stack import Stack
from fl_node.merging.standing import Standing

RULES = sorted(plain_rules.NUMBERS)
VECTORS, SUMS = (
    json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text("utf-8"))["cases"]
    for name in ("rules", "sums")
)


def both(policy, candidates, models, centre):
    """What the package and the second implementation say: (rule number, shares, digest of the base) each."""
    policy = {**POLICY, **policy}
    made = [entry(peer, samples, content) for peer, content, samples, _, _, _ in candidates]
    standing = {
        e.ref: Standing(staleness, score) for e, (_, _, _, score, staleness, _) in zip(made, candidates, strict=True)
    }
    row = {peer: trust for peer, _, _, _, _, trust in candidates}
    got = run(policy, models, centre, candidates=made, standing=standing, row=row)
    share = {parent.peer: parent.share_ppm for parent in got.parents}
    mine = (int(got.rule), [share[e.ref.peer] for e in made], weights.digest(got.tensors))
    told = [
        (key(e), samples, score, staleness, trust)
        for e, (_, _, samples, score, staleness, trust) in zip(made, candidates, strict=True)
    ]
    rule, shares, base = plain_rules.merged(policy, told, [plain(model) for model in models], plain(centre))
    assert {ref.peer for ref in got.rejected} == {
        e.ref.peer for e, s in zip(made, shares, strict=True) if not s and rule in (7, 8)
    }
    return mine, (rule, shares, weights.digest(arrays(base)))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_second_implementation_agrees_to_the_bit(rule, data):
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count = data.draw(st.integers(1, 9))
    scales = data.draw(st.lists(st.sampled_from([1e-30, 1e-3, 1.0, 1.0, 1.0, 1e6]), min_size=count, max_size=count))
    models = [random_model(draw, scale) for scale in scales]
    if data.draw(st.booleans()):
        models[-1] = models[0]
    policy = {
        "aggregation": rule,
        "byzantine": data.draw(st.integers(0, 3).filter(lambda f: f > 0)),
        "keep": data.draw(st.integers(0, 4)),
        "iterations": data.draw(st.sampled_from([1, 2, 8])),
        "clip": data.draw(st.sampled_from(["none", "fixed", "median"])),
        "clip_norm": data.draw(st.sampled_from([0.5, 20.0, 1e5])),
        "staleness_discount": data.draw(st.booleans()),
        "sample_cap": data.draw(st.sampled_from([0, 150])),
        "floor_ppm": data.draw(st.sampled_from([0, 10_000, 500_000])),
    }
    candidates = [
        (peer, draw.bytes(32), int(draw.integers(0, 300)), int(draw.integers(-10**5, 10**6)), int(draw.integers(0, 4)),
         int(draw.integers(0, 10**6)))
        for peer in range(1, count + 1)
    ]  # fmt: skip
    mine, second = both(policy, candidates, models, models[data.draw(st.integers(0, count - 1))])
    assert mine == second


def written_out(model, shapes):
    """A model of doubles that any program can write out, by what sums.json says about them."""
    return {
        name: ("F64", [count], list(drawn(model, tensor, count))) for tensor, (name, count) in enumerate(shapes.items())
    }


def drawn(model, tensor, count):
    blocks = (hashlib.sha256(struct.pack(">3I", model, tensor, block)).digest() for block in range(-(-count // 8)))
    stream = b"".join(blocks)[: 4 * count]
    return ((number - 2**31) / 2**31 for number in struct.unpack(f"<{count}I", stream))


@pytest.mark.parametrize("case", SUMS, ids=lambda case: case["name"])
@pytest.mark.parametrize("threads", [1, 3])
def test_sums_over_a_model(case, threads, monkeypatch):
    """Over tensors of several leaves, their boundaries inside and at the ends: package, second implementation, file."""
    monkeypatch.setattr("fl_node.merging.stack.PIECE", 40_000)
    told = [written_out(salt, case["shapes"]) for salt in range(4)]
    stack = Stack([arrays(model) for model in told], [b"a", b"b", b"c", b"d"], threads=threads)
    centre = arrays(told[3])

    def point(reader):
        return lambda leaf: centre[leaf.name][leaf.start : leaf.end]

    def plain_sum(i, j, k):
        return plain_rules.over_model(*(plain_rules.away_from(told[m], told[n]) for m, n in ((i, k), (j, k))))

    distances, products = squared_distances(stack), inner_products(stack, point)
    pairs = [(i, j) for i in range(3) for j in range(i + 1, 4)]
    assert [float.hex(distances[i][j]) for i, j in pairs] == case["distances"]
    assert [float.hex(plain_sum(i, i, j)) for i, j in pairs] == case["distances"]
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    assert [float.hex(products[i][j]) for i, j in pairs] == case["products"]
    assert [float.hex(plain_sum(i, j, 3)) for i, j in pairs] == case["products"]
    assert squared_norms(stack, point) == [products[k][k] for k in range(4)]


@pytest.mark.parametrize("rule", ["geometric-median", "centred-clipping"])
def test_rules_over_several_leaves_agree_to_the_bit(rule):
    draw = np.random.default_rng(3)
    models = [
        {"a": draw.standard_normal(32_769) * (k + 1), "b": draw.standard_normal(9).astype(np.float32)} for k in range(3)
    ]
    candidates = [(peer, draw.bytes(32), 1, 0, 0, 0) for peer in range(1, 4)]
    mine, second = both({"aggregation": rule, "clip": "median", "clip_norm": 90.0}, candidates, models, models[1])
    assert mine == second


@pytest.mark.parametrize("rule", ["krum", "multi-krum", "geometric-median", "centred-clipping", "uniform"])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["none", "fixed", "median"]))
def test_doubles_whose_squares_are_infinite_agree_to_the_bit(rule, seed, clip):
    draw = np.random.default_rng(seed)
    scales = 2.0 ** draw.choice([0, 500, 520, 900, 990], 7)
    models = [{"v": draw.standard_normal(5) * scale, "w": np.zeros(2, np.float32)} for scale in scales]
    candidates = [(peer, draw.bytes(32), 1, 0, 0, 0) for peer in range(1, 8)]
    policy = {"aggregation": rule, "clip": clip, "byzantine": 2, "clip_norm": float(10.0 ** draw.integers(0, 12))}
    mine, second = both(policy, candidates, models, models[int(draw.integers(0, 7))])
    assert mine == second


def read(model):
    return {
        name: np.frombuffer(bytes.fromhex(item["data"]), np.dtype(DTYPES[item["dtype"]])).reshape(item["shape"])
        for name, item in model.items()
    }


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_committed_vectors(case):
    candidates = [
        (c["peer"], bytes.fromhex(c["content"]), c["samples"], c["score_ppm"], c["staleness"], c["trust_ppm"])
        for c in case["candidates"]
    ]
    mine, second = both(case["policy"], candidates, [read(m) for m in case["models"]], read(case["centre"]))
    assert mine == second
    assert mine == (case["rule"], case["shares_ppm"], bytes.fromhex(case["base_digest"]))
    assert plain_digest(case["base"]).hex() == case["base_digest"]
