"""Every robust rule against the formula of its paper, written down with numpy's own sums and sorts."""

from __future__ import annotations

import numpy as np
import pytest
from rule_cases import entries, flat_models, run

from fl_node.merging.distances import inner_products, squared_distances
from fl_node.merging.geometric import NU
from fl_node.merging.robust import trimmed_mean
from fl_node.merging.stack import Stack


def test_median_and_trimmed_mean_against_numpy():
    for count in range(1, 12):
        models = flat_models(count, 1_000, count)
        stacked = np.stack([model["w"] for model in models]).astype(np.float64)
        got = run({"aggregation": "median"}, models).tensors["w"]
        np.testing.assert_array_equal(got, np.median(stacked, axis=0).astype(np.float32))
        for trim in range((count + 1) // 2):
            kept = np.sort(stacked, axis=0)[trim : count - trim]
            got = trimmed_mean(Stack(models, [bytes([k]) for k in range(count)]), trim)["w"]
            np.testing.assert_allclose(got, kept.mean(0), rtol=1e-6, atol=1e-7)


def test_distances_and_inner_products_against_numpy():
    models = flat_models(4, 100_000)
    stack = Stack(models, [bytes([k]) for k in range(4)])
    stacked = np.stack([model["w"] for model in models]).astype(np.float64)
    want = ((stacked[:, None] - stacked[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(stack), want, rtol=1e-12)
    products = inner_products(stack, lambda reader: lambda leaf: stacked[2][leaf.start : leaf.end])
    np.testing.assert_allclose(products, (stacked - stacked[2]) @ (stacked - stacked[2]).T, rtol=1e-10, atol=1e-9)


def test_krum_against_its_definition():
    models = flat_models(9, 400)
    models[4]["w"] = models[4]["w"] * 0
    candidates = entries(9)
    stacked = np.stack([model["w"] for model in models]).astype(np.float64)
    squares = ((stacked[:, None] - stacked[None]) ** 2).sum(-1)
    scores = [np.sort(np.delete(squares[i], i))[: 9 - 2 - 2].sum() for i in range(9)]
    merge = run({"aggregation": "krum", "byzantine": 2}, models, candidates=candidates)
    best = int(np.argmin(scores))
    assert [parent.share_ppm for parent in merge.parents] == [1_000_000 if k == best else 0 for k in range(9)]
    averaged = run({"aggregation": "multi-krum", "byzantine": 2, "keep": 4}, models)
    kept = set(np.argsort(scores)[:4] + 1)
    assert {parent.peer for parent in averaged.parents if parent.share_ppm} == kept
    worst = candidates[int(np.argmax(scores))].ref
    assert "ranks 9 of 9; the 4 lowest are merged" in averaged.rejected[worst]
    assert f"krum score {max(scores):.6g} over the 5 nearest" in averaged.rejected[worst]


@pytest.mark.parametrize("hostile", [0, 2])
def test_geometric_median_against_plain_weiszfeld(hostile):
    models = flat_models(7, 300)
    for k in range(hostile):
        models[k]["w"] = models[k]["w"] * np.float32(1e4)
    stacked = np.stack([model["w"] for model in models]).astype(np.float64)
    point = np.median(stacked, axis=0)
    for _ in range(5):
        part = 1 / np.maximum(NU, np.linalg.norm(stacked - point, axis=1))
        point = (part[:, None] * stacked).sum(0) / part.sum()
    got = run({"aggregation": "geometric-median", "iterations": 5}, models).tensors["w"]
    np.testing.assert_allclose(got, point, rtol=1e-5, atol=1e-6)
    # At the minimum the unit vectors towards the models sum to nothing.
    last = run({"aggregation": "geometric-median", "iterations": 300}, models).tensors["w"].astype(np.float64)
    ways = stacked - last
    assert np.linalg.norm((ways / np.linalg.norm(ways, axis=1)[:, None]).sum(0)) < 1e-4


def test_centred_clipping_against_its_definition():
    models, centre = flat_models(6, 300), flat_models(1, 300, 99)[0]
    models[0]["w"] = models[0]["w"] * np.float32(1e5)
    stacked = np.stack([model["w"] for model in models]).astype(np.float64)
    point = centre["w"].astype(np.float64)
    for _ in range(4):
        ways = stacked - point
        point = point + (ways * np.minimum(1, 7.0 / np.linalg.norm(ways, axis=1))[:, None]).mean(0)
    got = run({"aggregation": "centred-clipping", "clip_norm": 7.0, "iterations": 4}, models, centre).tensors["w"]
    np.testing.assert_allclose(got, point, rtol=1e-6, atol=1e-6)
