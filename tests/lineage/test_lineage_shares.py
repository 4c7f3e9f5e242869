"""Effective shares against all ways counted one by one, and what goes with them."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

import pytest
from federations import alike, in_step, one_by_one, ruled, shared
from logs import Log, content
from random_logs import random_log

from fl_node.errors import InconsistentLog
from fl_node.lineage import ancestors, descendants, graph, trace, trace_site
from fl_node.prefix import Prefix
from fl_node.records import PPM, Parent, Reason, Rule, UpdatePublished, UpdateRef


def ways(prefix: Prefix, ref: UpdateRef) -> list[tuple[UpdateRef, ...]]:
    """Every way from an update back to one of its ancestors, as the updates on it; recursive and exponential."""
    found = []
    for parent in prefix.update(ref).parents:
        if parent.share_ppm:
            found.append((ref, parent.ref))
            found += [(ref, *way) for way in ways(prefix, parent.ref)]
    return found


def weight(prefix: Prefix, way: tuple[UpdateRef, ...]) -> Fraction:
    """Shares multiplied along a way."""
    product = Fraction(1)
    for child, parent in pairwise(way):
        product *= next(Fraction(p.share_ppm, PPM) for p in prefix.update(child).parents if p.ref == parent)
    return product


def everybody(prefix: Prefix) -> list[UpdateRef]:
    return [fact.body.ref for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]


@pytest.mark.parametrize("seed", (1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 19, 20, 21, 22, 23))
def test_effective_shares_are_those_of_all_ways(seed: int) -> None:
    dice = random.Random(seed)
    prefix = random_log(dice, 5, 70).prefix
    refs = everybody(prefix)
    by_pair: dict[tuple[UpdateRef, UpdateRef], list[tuple[UpdateRef, ...]]] = defaultdict(list)
    for ref in refs:
        for way in ways(prefix, ref):
            by_pair[ref, way[-1]].append(way)
    assert max(map(len, by_pair.values())) > 1, "a log without two ways to one update tells little: choose another seed"
    for ref in refs:
        above, below = ancestors(prefix, ref), descendants(prefix, [ref])
        assert above.exact and below.exact
        expected = {early: found for (late, early), found in by_pair.items() if late == ref}
        assert {one.ref: one.share.fraction for one in above.updates} == {
            early: sum(weight(prefix, way) for way in found) for early, found in expected.items()
        }
        assert {one.ref: one.steps for one in above.updates} == {
            early: min(map(len, found)) - 1 for early, found in expected.items()
        }
        assert {one.ref: one.share.fraction for one in below.updates} == {
            late: sum(weight(prefix, way) for way in found) for (late, early), found in by_pair.items() if early == ref
        }


@pytest.mark.parametrize("seed", range(15))
def test_the_share_of_a_whole_site_counts_each_way_once(seed: int) -> None:
    dice = random.Random(seed)
    prefix = in_step(4, 4, dice, ["a", "b", "a", "c"]).prefix

    def through(ref: UpdateRef) -> Fraction:
        if prefix.peer(ref.peer).site == "a":
            return Fraction(1)
        return sum((Fraction(p.share_ppm, PPM) * through(p.ref) for p in prefix.update(ref).parents), Fraction(0))

    found = trace_site(prefix, "a")
    assert found.descendants is not None and {entry.ref.peer for entry in found.roots} == {1, 3}
    shares = {one.ref: one.share.fraction for one in found.descendants.updates}
    others = [ref for ref in everybody(prefix) if ref.peer in (2, 4)]
    assert shares == {ref: through(ref) for ref in others if through(ref)}
    assert all(0 < share <= 1 for share in shares.values())
    assert {item.site for item in found.descendants.sites} == {"b", "c"}


@pytest.mark.parametrize("seed", range(5))
def test_each_generation_sums_to_one(seed: int) -> None:
    prefix = in_step(5, 6, random.Random(seed)).prefix
    found = ancestors(prefix, UpdateRef(2, 6))
    assert found.genesis is not None and found.genesis.fraction == 1 and found.genesis_steps == 6
    sums: dict[int, Fraction] = defaultdict(Fraction)
    for one in found.updates:
        assert one.steps == 6 - one.entry.round
        sums[one.steps] += one.share.fraction
    assert sums == dict.fromkeys(range(1, 6), Fraction(1))


def test_what_starts_at_the_genesis_is_missing_from_the_generations_before() -> None:
    log = Log(3)
    first = log.publish(1, 1)
    late = log.publish(2, 2)  # a newcomer that merged nothing
    second = log.publish(1, 2, parents=alike([first]))
    last = log.publish(3, 3, parents=shared({second: 3, late: 1}))
    found = ancestors(log.prefix, last)
    assert {one.ref: float(one.share) for one in found.updates} == {second: 0.75, late: 0.25, first: 0.75}
    assert found.genesis is not None and (float(found.genesis), found.genesis_steps) == (1.0, 2)
    alone = ancestors(log.prefix, first)
    assert alone.updates == () and alone.genesis is not None
    assert (float(alone.genesis), alone.genesis_steps) == (1.0, 1)


def test_considered_and_not_merged_is_no_parent() -> None:
    log = Log(2)
    one, two = log.publish(1, 1), log.publish(2, 1)
    tag = content(2, 1)[:4]
    child = log.publish(1, 2, parents=(*alike([one]), Parent(two.peer, two.sequence, tag, 0)))
    assert [relative.ref for relative in ancestors(log.prefix, child).updates] == [one]
    assert descendants(log.prefix, [two]).updates == ()
    lineage = trace(log.prefix, child)
    assert [(edge.child, edge.parent) for edge in lineage.edges()] == [(one, None), (child, one)]


@pytest.mark.parametrize("rule", [Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.GEOMETRIC_MEDIAN, Rule.CENTRED_CLIPPING, 99])
def test_shares_through_median_like_rules_are_nominal(rule: int) -> None:
    log = Log(2)
    first, other = log.publish(1, 1), log.publish(2, 1)
    second = log.publish(1, 2, parents=alike([first, other]))
    ruled(log, rule)
    third = log.publish(1, 3, parents=alike([second]))
    log.publish(2, 3, parents=alike([other]))
    above = {one.ref: one.nominal for one in ancestors(log.prefix, third).updates}
    assert above == {second: False, first: True, other: True}
    below = {one.ref: one.nominal for one in descendants(log.prefix, [other]).updates}
    assert below == {second: True, third: True, UpdateRef(2, 2): False}
    sites = {item.site: item.nominal for item in ancestors(log.prefix, third).sites}
    assert sites == {"site-1": True, "site-2": True}
    assert [edge.nominal for edge in trace(log.prefix, third, "ancestors").edges()] == [False, False, True, True, False]


def test_krum_gives_real_shares() -> None:
    prefix = in_step(2, 3, random.Random(0), rule=Rule.KRUM).prefix
    assert not any(one.nominal for one in ancestors(prefix, UpdateRef(1, 3)).updates)


def test_what_a_site_has_to_do_with_a_model() -> None:
    log = Log()
    for site in ("x", "y", "x", "z"):
        log.admit(site)
    one, two, three = log.publish(1, 1), log.publish(2, 1), log.publish(3, 1)
    four = log.publish(4, 2, parents=shared({one: 1, three: 1, two: 2}))
    five = log.publish(2, 3, parents=shared({four: 1, two: 3}))
    found = {item.site: item for item in ancestors(log.prefix, four).sites}
    assert (found["x"].direct_ppm, found["x"].updates, float(found["x"].largest)) == (500_000, 2, 0.25)
    assert (found["y"].direct_ppm, found["y"].first_round, found["y"].last_round) == (500_000, 1, 1)
    assert found["x"].latest is None
    deeper = {item.site: item for item in ancestors(log.prefix, five).sites}
    assert deeper["x"].direct_ppm == 0 and float(deeper["x"].largest) == 0.0625
    assert float(deeper["y"].largest) == 0.75 + 0.25 * 0.5
    below = {item.site: item for item in descendants(log.prefix, [one]).sites}
    assert below["z"].direct_ppm == 250_000 and below["z"].latest is not None and float(below["z"].latest) == 0.25
    assert below["y"].direct_ppm == 0 and below["y"].latest is not None and float(below["y"].latest) == 0.0625
    log.publish(4, 3)  # goes on without
    assert {i.site: i.latest is None for i in descendants(log.prefix, [one]).sites} == {"y": False, "z": True}


def test_what_a_reader_should_know_of_a_relative() -> None:
    log = Log(3)
    one, two = log.publish(1, 1), log.publish(2, 1)
    last = log.publish(3, 2, parents=alike([one, two]))
    log.object(1, one, Reason.WITHDRAWN)
    log.object(3, two, Reason.UNAVAILABLE)
    log.retire(2, from_index=2)
    found = {relative.ref: relative for relative in ancestors(log.prefix, last).updates}
    assert found[one].withdrawn and found[one].counts
    assert not found[two].withdrawn and not found[two].counts


def test_levels_bound_what_is_listed_and_change_no_share() -> None:
    prefix = in_step(3, 6, random.Random(1)).prefix
    ref = UpdateRef(1, 4)
    every, near = trace(prefix, ref), trace(prefix, ref, levels=1)
    assert near.ancestors is not None and every.ancestors is not None
    assert near.descendants is not None and every.descendants is not None
    for some, everything in ((near.ancestors, every.ancestors), (near.descendants, every.descendants)):
        assert some.updates == tuple(one for one in everything.updates if one.steps == 1)
        assert some.sites == everything.sites
        assert some.farther == len(everything.updates) - 3 and everything.farther == 0
    edges = list(near.edges())
    assert len(edges) == 6 and {edge.child for edge in edges} == {ref, *(UpdateRef(peer, 5) for peer in (1, 2, 3))}
    assert trace(prefix, ref, "ancestors").descendants is None
    assert trace(prefix, ref, "descendants").ancestors is None


def test_the_graph_ends_where_the_log_does() -> None:
    prefix = in_step(3, 4, random.Random(2)).prefix
    view = prefix.upto(prefix.update(UpdateRef(1, 3)).index + 1)
    assert {one.ref for one in descendants(view, [UpdateRef(2, 2)]).updates} == {UpdateRef(1, 3)}
    with pytest.raises(LookupError):
        trace(view, UpdateRef(2, 3))


def test_sites_without_an_update_or_a_member() -> None:
    log = Log(1)
    log.publish(1, 1)
    log.admit("silent")
    with pytest.raises(LookupError, match="nowhere"):
        trace_site(log.prefix, "nowhere")
    with pytest.raises(LookupError, match="silent"):
        trace_site(log.prefix, "silent")


@pytest.mark.parametrize("parent", [UpdateRef(2, 1), UpdateRef(1, 1), UpdateRef(2, 9), UpdateRef(9, 1)])
def test_a_log_that_goes_in_circles_is_refused(parent: UpdateRef) -> None:
    log = Log(3)
    begin = log.publish(3, 1)
    bad = Parent(parent.peer, parent.sequence, bytes(4), PPM // 2)
    first = log.publish(1, 1, parents=(bad, Parent(begin.peer, begin.sequence, bytes(4), PPM // 2)))
    second = log.publish(2, 1, parents=alike([first]))
    for question in (lambda: ancestors(log.prefix, second), lambda: descendants(log.prefix, [begin])):
        with pytest.raises(InconsistentLog, match=str(parent)):
            question()


def test_beyond_what_can_be_exact_shares_are_hardly_less(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = in_step(5, 8, random.Random(3)).prefix
    ref = UpdateRef(3, 5)
    exact = trace(prefix, ref)
    monkeypatch.setattr(graph, "_MOST_BIT_WORK", 0)
    coarse = trace(prefix, ref)
    for fine, rough in ((exact.ancestors, coarse.ancestors), (exact.descendants, coarse.descendants)):
        assert fine is not None and rough is not None and fine.exact and not rough.exact
        for one, other in zip(fine.updates, rough.updates, strict=True):
            assert one.ref == other.ref
            assert 0 <= one.share.fraction - other.share.fraction < Fraction(1, 2**200)


def test_large_graphs_take_no_recursion_and_little_time() -> None:
    chain = one_by_one(1, 5_000, 1).prefix
    assert len(ancestors(chain, UpdateRef(1, 5_000)).updates) == 4_999
    wide = in_step(50, 40, random.Random(4)).prefix
    began = time.monotonic()
    above = ancestors(wide, UpdateRef(7, 40))
    below = descendants(wide, [UpdateRef(7, 1)])
    assert len(above.updates) == 39 * 50 and len(below.updates) == 39 * 50 and above.exact and below.exact
    # 200,000 merges altogether, in well under a second on an idle core.
    assert time.monotonic() - began < 10
