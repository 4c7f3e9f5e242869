"""PROV-JSON, read by the W3C vocabulary's own Python package."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from federations import HOSTILE, alike, in_step
from logs import Log, account, spec
from prov.model import (
    ProvActivity,
    ProvAgent,
    ProvAssociation,
    ProvAttribution,
    ProvDelegation,
    ProvDerivation,
    ProvDocument,
    ProvEntity,
    ProvGeneration,
    ProvUsage,
)

from fl_node.lineage import Lineage, prov_json, trace, trace_site
from fl_node.prefix import Prefix
from fl_node.records import UpdateRef
from fl_node.spec import Spec

LEDGER = f"urn:fl-node:31337:{account(99)}:"


def read(prefix: Prefix, lineage: Lineage, rules: Spec | None = None) -> ProvDocument:
    """What the package makes of the document, which must survive being written by it and read again."""
    document = ProvDocument.deserialize(content=json.dumps(prov_json(prefix, lineage, rules)), format="json")
    again = ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    assert again == document
    return document


def names(document: ProvDocument, kind: type) -> list[str]:
    return [record.identifier.uri.removeprefix(LEDGER) for record in document.get_records(kind)]


def ends(document: ProvDocument, kind: type) -> list[tuple[str, ...]]:
    """The things that relations of a kind relate."""
    return [
        tuple(value.uri.removeprefix(LEDGER) for _, value in record.formal_attributes if value is not None)
        for record in document.get_records(kind)
    ]


def extra(record: Any) -> dict[str, Any]:
    return {name.localpart: value for name, value in record.extra_attributes}


def test_one_merge_in_full() -> None:
    log = Log()
    for site in ("a", "b"):
        log.admit(site)
    one, two = log.publish(1, 1), log.publish(2, 1)
    last = log.publish(1, 2, parents=alike([one, two]), score=910_000)
    document = read(log.prefix, trace(log.prefix, last))
    assert sorted(names(document, ProvEntity)) == [
        *("base-1-1", "base-1-2", "base-2-1", "genesis", "model-1-1", "model-1-2", "model-2-1"),
    ]
    assert sorted(names(document, ProvActivity)) == [
        *("merge-1-1", "merge-1-2", "merge-2-1", "training-1-1", "training-1-2", "training-2-1"),
    ]
    assert sorted(names(document, ProvAgent)) == ["peer-1", "peer-2", "site-a", "site-b"]
    assert set(ends(document, ProvUsage)) == {
        ("merge-1-1", "genesis"),
        ("merge-2-1", "genesis"),
        ("merge-1-2", "model-1-1"),
        ("merge-1-2", "model-2-1"),
        ("training-1-1", "base-1-1"),
        ("training-2-1", "base-2-1"),
        ("training-1-2", "base-1-2"),
    }
    assert set(ends(document, ProvGeneration)) == {
        (f"{made}-{ref}", f"{how}-{ref}")
        for ref in ("1-1", "2-1", "1-2")
        for made, how in (("base", "merge"), ("model", "training"))
    }
    assert set(ends(document, ProvDelegation)) == {("peer-1", "site-a"), ("peer-2", "site-b")}
    assert ("model-1-2", "peer-1") in ends(document, ProvAttribution)
    assert ("training-2-1", "peer-2") in ends(document, ProvAssociation)
    derived = ends(document, ProvDerivation)
    assert ("base-1-2", "model-2-1", "merge-1-2") in derived and ("base-1-1", "genesis") in derived
    effective = {
        ends: extra(record)["effectiveShare"]
        for record, ends in zip(document.get_records(ProvDerivation), derived, strict=True)
        if "effectiveShare" in extra(record)
    }
    assert effective == {("model-1-2", "model-1-1"): 0.5, ("model-1-2", "model-2-1"): 0.5}
    (model,) = document.get_record(f"{LEDGER}model-1-2")
    told = extra(model)
    assert told["claimedScorePpm"] == 910_000 and told["round"] == 2 and told["type"].localpart == "Model"
    assert str(told["location"].uri if hasattr(told["location"], "uri") else told["location"]).startswith("ipfs://b")
    shares = [extra(record) for record in document.get_records(ProvUsage) if "sharePpm" in extra(record)]
    assert [(told["sharePpm"], told["nominal"]) for told in shares] == [(500_000, False)] * 2


@pytest.mark.parametrize("direction", ["ancestors", "descendants", "both"])
def test_every_name_that_is_used_is_told_of(direction: Any) -> None:
    prefix = in_step(len(HOSTILE), 4, random.Random(0), HOSTILE).prefix
    for levels in (0, 1):
        document = read(prefix, trace(prefix, UpdateRef(1, 3), direction, levels))
        known = {*names(document, ProvEntity), *names(document, ProvActivity), *names(document, ProvAgent)}
        kinds = (ProvUsage, ProvGeneration, ProvDerivation, ProvAssociation, ProvAttribution, ProvDelegation)
        related = {name for kind in kinds for end in ends(document, kind) for name in end}
        assert related <= known and len(related) > 10
        assert known - related == set()
    sites = [record for record in document.get_records(ProvAgent) if extra(record)["type"].localpart == "Organization"]
    assert Counter(extra(record)["label"] for record in sites) == Counter(HOSTILE)


def test_what_was_not_trained_has_no_training() -> None:
    prefix = in_step(2, 5, random.Random(1)).prefix  # round 5 is closing
    lineage = trace(prefix, UpdateRef(1, 5), "ancestors")
    trained = {f"training-{peer}-{number}" for peer in (1, 2) for number in range(1, 5)}
    assert {name for name in names(read(prefix, lineage), ProvActivity) if "training" in name} == trained
    rules = spec(training={"every": 2})
    found = {name for name in names(read(prefix, lineage, rules), ProvActivity) if "training" in name}
    assert found == {name for name in trained if name[-1] in "13"}
    derived = ends(read(prefix, lineage, rules), ProvDerivation)
    assert ("model-1-5", "base-1-5") in derived and ("model-1-2", "base-1-2") in derived


def test_a_whole_site() -> None:
    prefix = in_step(3, 3, random.Random(2)).prefix
    document = read(prefix, trace_site(prefix, "site-2"))
    assert {"model-2-1", "model-2-2", "model-2-3", "model-1-3"} <= set(names(document, ProvEntity))


def test_times_beyond_any_calendar() -> None:
    log = Log(1, time_s=2**62)
    ref = log.publish(1, 1)
    (model,) = read(log.prefix, trace(log.prefix, ref)).get_record(f"{LEDGER}model-1-1")
    assert extra(model)["recordedAtSeconds"] == str(2**62)
