"""Graphs over peers: symmetric, of the degree asked for, connected where they can be, the same for everybody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, spec

from fl_node.merging.graphs import build, components, neighbours_of, usable_degree
from fl_node.tables import MergingSpec

DIGEST = b"d" * 32
NAMED = ["ring", "line", "star", "full", "grid", "random-regular", "small-world"]


def made(name, members, digest=DIGEST, **more):
    return build(MergingSpec(selection="graph", graph=name, **more), members, digest)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NAMED),
    st.lists(st.integers(1, 500), min_size=1, max_size=40, unique=True).map(sorted),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.binary(min_size=32, max_size=32),
)
def test_every_graph_is_symmetric_without_loops_and_connected(name, members, degree, rewire, digest):
    graph = made(name, members, digest, degree=degree, rewire=rewire)
    assert sorted(graph) == members
    for peer, near in graph.items():
        assert peer not in near
        assert all(peer in graph[other] for other in near)
    if name != "random-regular" or usable_degree(len(members), degree) >= 2:
        assert len(components(graph)) == 1
    assert graph == made(name, members, digest, degree=degree, rewire=rewire)


def edges_of(graph):
    return {(a, b) for a, near in graph.items() for b in near if a < b}


def test_the_named_shapes():
    members = [2, 3, 5, 8, 9]
    assert edges_of(made("line", members)) == {(2, 3), (3, 5), (5, 8), (8, 9)}
    assert edges_of(made("ring", members)) == {(2, 3), (3, 5), (5, 8), (8, 9), (2, 9)}
    assert edges_of(made("star", members)) == {(2, 3), (2, 5), (2, 8), (2, 9)}
    assert len(edges_of(made("full", members))) == 10
    assert edges_of(made("grid", members)) == {(2, 3), (3, 5), (8, 9), (2, 8), (3, 9)}, "2 3 5 over 8 9"
    assert edges_of(made("grid", range(1, 10))) == {
        (1, 2), (2, 3), (4, 5), (5, 6), (7, 8), (8, 9), (1, 4), (4, 7), (2, 5), (5, 8), (3, 6), (6, 9),
    }  # fmt: skip


@pytest.mark.parametrize("name", [*NAMED, "edges"])
@pytest.mark.parametrize("members", [[], [4], [4, 7]])
def test_hardly_anybody(name, members):
    pairs = {"edges": ((4, 7),)} if name == "edges" else {}
    graph = made(name, members, **pairs)
    assert graph == ({} if not members else {4: frozenset()} if len(members) == 1 else {4: {7}, 7: {4}})


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(1, 9), st.binary(min_size=32, max_size=32))
def test_random_regular_has_the_degree(nodes, degree, digest):
    graph = made("random-regular", range(1, nodes + 1), digest, degree=degree)
    assert {len(near) for near in graph.values()} == {usable_degree(nodes, degree)}
    if degree < nodes and nodes * degree % 2 == 0:
        assert usable_degree(nodes, degree) == degree


def test_random_graphs_differ_with_the_spec_and_are_no_lattice():
    members = range(1, 41)
    for name in ("random-regular", "small-world"):
        one, two = (made(name, members, bytes([n]) * 32, degree=4, rewire=0.3) for n in (1, 2))
        plain = made("small-world", members, degree=4, rewire=0.0)
        assert one != two and plain not in (one, two)
    assert made("small-world", members, degree=4, rewire=0.0) == {
        peer: frozenset((peer - 1 + step) % 40 + 1 for step in (-2, -1, 1, 2)) for peer in members
    }


def test_small_world_keeps_the_number_of_edges():
    graph = made("small-world", range(1, 31), degree=6, rewire=0.5)
    assert len(edges_of(graph)) == 30 * 3
    assert min(len(near) for near in graph.values()) >= 3, "a peer's own edges move at their far end only"


def test_a_listed_graph_loses_who_is_not_there():
    graph = made("edges", [1, 2, 4], edges=((1, 2), (2, 3), (3, 4), (2, 1)))
    assert graph == {1: {2}, 2: {1}, 4: frozenset()}
    assert components(graph) == [(1, 2), (4,)]


def test_the_graph_is_built_once_for_the_same_members():
    log, policy = Log(6), spec(merging={"selection": "graph", "graph": "random-regular"})
    first = neighbours_of(policy, log.prefix)
    whole = log.prefix
    one = neighbours_of(policy, whole)
    log.publish(1, 1)
    assert neighbours_of(policy, whole.extend(log.entries[-1:])) is one
    assert one == first
    log.retire(2)
    assert 2 not in neighbours_of(policy, log.prefix)
