"""Specs that do not fit the peers are refused before anything starts; what hardly works is warned of."""

from __future__ import annotations

import pytest
from logs import spec

from fl_node.errors import SpecError
from fl_node.merging.fit import check_fit
from fl_node.presets import PRESETS


def fit(peers, rounds=None, attestation=None, **merging):
    return check_fit(spec(merging=merging, rounds=rounds or {}, attestation=attestation or {}), range(1, peers + 1))


REFUSED = [
    (4, {"selection": "top-k", "k": 4}, r"k = 4: there are 3 other peers"),
    (4, {"selection": "random-k", "k": 9}, r"k = 9: there are 3 other peers"),
    (6, {"aggregation": "krum", "byzantine": 2}, r"krum.*2 over 6 models: expected at least 2 x 2 \+ 3 = 7"),
    (9, {"aggregation": "multi-krum", "selection": "random-k", "k": 5, "byzantine": 2}, r"over 6 models"),
    (7, {"aggregation": "multi-krum", "byzantine": 2, "keep": 6}, r"keeps 6: expected at most 7 - 2 = 5"),
    (4, {"aggregation": "trimmed-mean", "byzantine": 2}, r"nothing is left of 4 after 2 are cut off at either end"),
    (9, {"aggregation": "krum", "selection": "graph", "graph": "ring"}, r"krum.*over 3 models"),
    (9, {"aggregation": "krum", "selection": "best"}, r"over 1 models"),
    (9, {"aggregation": "krum", "selection": "graph", "graph": "small-world", "degree": 6}, r"over 4 models"),
    (200, {"aggregation": "trimmed-mean", "byzantine": 40}, r"over 64 models"),
    (3, {"selection": "graph", "graph": "edges", "edges": ((1, 2), (2, 7))}, r"merging.edges names 7, who are not adm"),
    (3, {"selection": "graph", "graph": "edges", "edges": ((1, 2), (3, 3))}, r"\(3, 3\): expected two different"),
    (4, {"selection": "graph", "graph": "random-regular", "degree": 4}, r"a peer has 3 others"),
    (5, {"selection": "graph", "graph": "random-regular", "degree": 3}, r"peers x degree is odd"),
    (9, {"selection": "graph", "graph": "small-world", "degree": 3}, r"expected an even degree"),
    (3, {"selection": "ring", "initiator": 4}, r"merging.initiator names 4"),
    (3, {"selection": "ring", "rings": ((1, 2), (2, 5))}, r"merging.rings names 5"),
    (3, {"selection": "ring", "rings": ((1, 2, 1),)}, r"ring 1 of merging.rings has peers 1 twice"),
    (3, {"selection": "ring", "rings": ((1, 2), ())}, r"ring 2 of merging.rings is empty"),
    (3, {"selection": "ring", "rings": ((1, 2),) * 65}, r"peer 2 stands in 65 rings: an update has at most 64 parents"),
    (3, {"scores": "attested", "attesting_sites": 3}, r"attesting_sites = 3: an update has at most 2 other peers"),
]


@pytest.mark.parametrize(("peers", "merging", "words"), REFUSED, ids=[str(case[1]) for case in REFUSED])
def test_refused(peers, merging, words):
    with pytest.raises(SpecError, match=words):
        fit(peers, **merging)


FITS = [
    (4, {"selection": "top-k", "k": 3}),
    (7, {"aggregation": "krum", "byzantine": 2}),
    (7, {"aggregation": "multi-krum", "byzantine": 2, "keep": 5}),
    (5, {"aggregation": "trimmed-mean", "byzantine": 2}),
    (5, {"selection": "graph", "graph": "random-regular", "degree": 4}),
    (9, {"selection": "graph", "graph": "small-world", "degree": 8}),
    (3, {"selection": "ring", "initiator": 3}),
    (5, {"selection": "ring", "rings": ((1, 2, 3), (4, 3, 5))}),
    (1, {}),
]


@pytest.mark.parametrize(("peers", "merging"), FITS, ids=[str(case[1]) for case in FITS])
def test_fits(peers, merging):
    assert fit(peers, **merging) == ()


def test_a_disconnected_graph_is_named_part_by_part():
    (said,) = fit(6, selection="graph", graph="edges", edges=((1, 2), (3, 4), (4, 5)))
    assert said == (
        "the graph 'edges' falls into 3 parts that never hear of each other: peers 1, 2; peers 3, 4, 5; peers 6"
    )
    (said,) = fit(4, selection="graph", graph="random-regular", degree=1)
    assert "2 parts" in said
    (said,) = fit(40, selection="graph", graph="edges", edges=((1, 2),))
    assert "39 parts" in said


def test_rings_without_a_bridge_and_peers_without_a_ring():
    assert fit(5, selection="ring", rings=((1, 2), (3, 4))) == (
        "peers 5 stand in no ring: they train nothing, and get the rings' last models",
        "no peer stands in two rings of these groups, so no model passes between them: rings 1; rings 2",
    )


def test_attestations_that_will_be_too_few():
    few = fit(9, attestation={"mode": "sample", "k": 2}, scores="attested", attesting_sites=3)
    assert len(few) == 1 and "attests 2 a round" in few[0]
    seldom = fit(9, attestation={"mode": "all", "every": 3}, scores="attested")
    assert len(seldom) == 1 and "once in 3 rounds" in seldom[0]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("peers", [1, 2, 3, 4, 6, 7, 10, 40])
def test_presets_fit(name, peers):
    preset = PRESETS[name]
    if peers >= preset.least_peers:
        assert check_fit(spec(**preset.overrides(peers)), range(1, peers + 1)) == ()
