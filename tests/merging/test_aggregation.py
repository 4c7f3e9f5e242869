"""Shares, rules and fallbacks: what is recorded of a merge, from the log alone."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import POLICY, entries, entry, policy_spec, run

from fl_node.merging.aggregation import needs_bytes, order_key, rule_of, same_parents, shares_of
from fl_node.merging.shares import floored, largest_remainder
from fl_node.merging.standing import Standing
from fl_node.records import PPM, Rule, UpdateRef


def shares(policy, candidates, **known):
    parents, rule = shares_of(policy_spec({**POLICY, **policy}), candidates, **known)
    assert [parent.ref for parent in parents] == sorted(entry.ref for entry in candidates)
    return [parent.share_ppm for parent in parents], rule


def standing(*pairs):
    return {UpdateRef(peer, 1): Standing(*pair) for peer, pair in enumerate(pairs, start=1)}


def test_samples_weigh_up_to_the_cap():
    candidates = [entry(1, 100), entry(2, 300), entry(3, 10**9)]
    assert shares({"aggregation": "fedavg", "sample_cap": 400}, candidates) == (
        [125_000, 375_000, 500_000], Rule.FEDAVG,
    )  # fmt: skip


def test_scores_weigh_and_those_below_zero_do_not():
    known = {"standing": standing((0, 300_000), (0, -200_000), (0, 100_000))}
    assert shares({"aggregation": "score"}, entries(3), **known) == ([750_000, 0, 250_000], Rule.SCORE)


def test_no_score_above_zero_means_equal_shares():
    known = {"standing": standing((0, -1), (0, 0))}
    assert shares({"aggregation": "score"}, entries(2), **known) == ([500_000, 500_000], Rule.SCORE)


@pytest.mark.parametrize(
    ("rule", "want"),
    [
        ("uniform", [Fraction(1), Fraction(1, 2), Fraction(1, 4)]),
        ("fedavg", [Fraction(100), Fraction(100, 2), Fraction(100, 4)]),
        ("score", [Fraction(40), Fraction(50, 2), Fraction(60, 4)]),
        ("median", [1, 1, 1]),
    ],
)
def test_staleness_discounts(rule, want):
    known = {"standing": standing((0, 40), (1, 50), (3, 60))}
    keys = [order_key(candidate) for candidate in entries(3)]
    got, _ = shares({"aggregation": rule, "staleness_discount": True}, entries(3), **known)
    assert got == largest_remainder(want, keys)


def test_a_row_of_trust_is_recorded_as_it_is():
    row = {1: 700_000, 2: 290_000, 3: 10_000}
    assert shares({"aggregation": "trust"}, entries(3), row=row) == (list(row.values()), Rule.TRUST)


def test_a_row_is_restricted_to_those_who_could_be_fetched_and_keeps_the_floor():
    row = {1: 700_000, 2: 100_000, 3: 0, 9: 200_000}
    got, _ = shares({"aggregation": "trust"}, entries(4), row=row)
    assert sum(got) == PPM and got[2:] == [10_000, 10_000] and got[0] > 7 * got[1]


def test_what_a_rule_needs_is_asked_for():
    for policy in ({"aggregation": "score"}, {"aggregation": "uniform", "staleness_discount": True}):
        with pytest.raises(ValueError, match="needs the standing of 1#1"):
            shares(policy, entries(2))
    with pytest.raises(ValueError, match="needs the peer's row"):
        shares({"aggregation": "trust"}, entries(2))
    with pytest.raises(ValueError, match="bytes"):
        shares({"aggregation": "krum"}, entries(5))
    with pytest.raises(ValueError, match="got 1 models for 2 candidates"):
        run({}, [{"w": np.ones(1, np.float32)}], candidates=entries(2))


@pytest.mark.parametrize(
    ("rule", "least"), [("krum", 7), ("multi-krum", 7), ("trimmed-mean", 5), ("geometric-median", 1), ("uniform", 1)]
)
def test_too_few_candidates_give_the_median(rule, least):
    spec = policy_spec({**POLICY, "aggregation": rule, "byzantine": 2})
    own = Rule[rule.upper().replace("-", "_")]
    assert [rule_of(spec, count) for count in range(9)] == [
        Rule.GENESIS if not count else own if count >= least else Rule.MEDIAN for count in range(9)
    ]
    assert [needs_bytes(spec, count) for count in (least - 1, least)] == [False, rule.endswith("krum")]
    models = [{"w": np.array([k * k], np.float32)} for k in range(least)]
    merge = run({"aggregation": rule, "byzantine": 2}, models)
    assert merge.rule is own
    if least > 1:
        fewer = run({"aggregation": rule, "byzantine": 2}, models[1:])
        assert (fewer.rule, fewer.rejected) == (Rule.MEDIAN, {})
        assert fewer.tensors["w"] == np.median([model["w"] for model in models[1:]])


def test_rejected_ones_stay_among_the_parents_with_share_zero():
    models = [{"w": np.array([k], np.float32)} for k in (1, 2, 3, 4, 1000)]
    merge = run({"aggregation": "multi-krum"}, models)
    assert [parent.share_ppm for parent in merge.parents] == [250_000] * 4 + [0]
    assert list(merge.rejected) == [UpdateRef(5, 1)] and merge.tensors["w"].tolist() == [2.5]
    assert merge.rejected[UpdateRef(5, 1)].startswith("krum score 1.98602e+06 over the 2 nearest ranks 5 of 5")


def test_same_parents_are_recognised_with_and_without_bytes():
    candidates = entries(5)
    for rule in ("uniform", "krum"):
        spec = policy_spec({**POLICY, "aggregation": rule})
        models = [{"w": np.array([k], np.float32)} for k in range(5)]
        parents = run({"aggregation": rule}, models).parents
        assert same_parents(spec, candidates[::-1], parents)
        assert not same_parents(spec, candidates[:4], parents)
        assert not same_parents(spec, [*candidates[:4], entry(5, content=b"x" * 32)], parents)


rows = st.lists(st.integers(0, PPM), min_size=1, max_size=64)


@given(rows, st.integers(0, 500_000))
def test_floored_rows_are_whole_and_above_the_floor(row, floor):
    keys = [bytes([k]) for k in range(len(row))]
    got = floored(row, floor, keys)
    assert sum(got) == PPM and min(got) >= min(floor, PPM // len(row))
    assert floored(got, floor, keys) == got
    ranked = sorted(range(len(row)), key=lambda k: row[k])
    assert all(got[a] <= got[b] + 1 for a, b in pairwise(ranked))


def test_floored_refuses_what_is_no_row():
    with pytest.raises(ValueError, match="negative"):
        floored([-1, 5], 0, [b"a", b"b"])
