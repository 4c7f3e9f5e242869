"""Committed vectors that fix selections, graphs and rings for ever, checked against the package and the plain rules.

A failure here means that peers of two versions would choose differently: never regenerate, unless under another spec
format.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from logs import spec
from plain_selection import Plain, chain, graph, plain_log, rings_of, second_cut

from fl_node.merging import graphs, tokens
from fl_node.merging.attested import attested_prefix, attests_first
from fl_node.merging.selection import select
from fl_node.merging.sync import sync_prefix
from fl_node.prefix import Prefix
from fl_node.records import (
    Attestation,
    Entry,
    Flag,
    LedgerOpened,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)

FOLDER = Path(__file__).parent / "vectors"
ZERO = bytes(32)


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["cases"]


def case_id(case):
    return case["name"]


def body_of(item):
    peer = item.get("peer", 0)
    match item["kind"]:
        case "open":
            digest = bytes.fromhex(item["spec_digest"])
            return LedgerOpened(31337, "0x" + "63" * 20, digest, ZERO, ZERO, Flag(0), 0, "0x" + "62" * 20)
        case "admit":
            return PeerAdmitted(peer, "0x" + item["account"], item["site"], Role(item["roles"]))
        case "retire":
            return PeerRetired(peer, item["from"], "left")
        case "announce":
            return PeerAnnounced(peer, 1, bytes.fromhex(item.get("key", ZERO.hex())), ZERO, "http://x")
        case "attest":
            return UpdatesAttested(peer, ZERO, tuple(Attestation(*said) for said in item["items"]))
        case "object":
            return UpdateObjected(peer, UpdateRef(*item["target"]), Reason(item["reason"]), ZERO)
    parents = tuple(Parent(p, s, b"tag.", share) for p, s, share in item["parents"])
    flags = (Flag.FINAL if item["final"] else Flag(0)) | (Flag.ENCRYPTED if item.get("encrypted") else Flag(0))
    update = Update(
        bytes.fromhex(item["content"]), flags, ZERO, ZERO, ZERO, item["seen"], ZERO, item["sequence"], item["round"],
        item["score"], item["base_score"], item["samples"], 10, 1, 0,
        UpdateRef(*item.get("refers_to", (0, 0))).packed(), item.get("sealed_at", 0),
    )  # fmt: skip
    return UpdatePublished(peer, update, parents)


def prefix_of(log):
    return Prefix(Entry(at, item["time"], at, ZERO, ZERO, (ZERO,), b"", body_of(item)) for at, item in enumerate(log))


def test_the_plain_form_tells_all_that_selection_looks_at():
    for name in ("selection", "sealed"):
        log = load(name)[0]["log"]
        entries = [Entry(at, e["time"], at, ZERO, ZERO, (ZERO,), b"", body_of(e)) for at, e in enumerate(log)]
        assert plain_log(entries) == [{**entry, "index": at} for at, entry in enumerate(log)]


@pytest.mark.parametrize("case", [*load("selection"), *load("sealed")], ids=case_id)
def test_selection(case):
    policy, log = spec(**tables(case["spec"])), [{**e, "index": at} for at, e in enumerate(case["log"])]
    prefix, own, now_s = prefix_of(case["log"]), case["own"], case["now"]
    chosen = select(policy, prefix, own, case["round"], seen=case["seen"], now_s=now_s)
    cut, view, words = None, case["seen"], None
    if case["cut"] is not None:
        cut, view = case["cut"], case["cut"]["size"]
        found = sync_prefix(policy, prefix, case["round"], now_s)
        assert (found.size, found.previous, list(found.missing)) == (view, cut["previous"], cut["missing"])
        assert [[ref.peer, ref.sequence] for ref in found.present] == cut["present"]
        if attests_first(policy):
            words = attested_prefix(policy, prefix, case["round"], now_s).size
            assert (
                words
                == case["attested"]
                == second_cut(policy.model_dump(), log, prefix.size, case["round"], cut, now_s)
            )
    plain = Plain(policy.model_dump(), log, own, prefix.size, view, words, cut)
    assert {str(peer): outcome for peer, outcome in plain.outcomes.items()} == case["outcomes"]
    assert {str(item.peer): item.outcome.value for item in chosen.considered} == case["outcomes"]
    told = [[e.ref.peer, e.ref.sequence, chosen.standing[e.ref].score_ppm] for e in chosen.candidates]
    assert told == case["candidates"]
    assert [[u["peer"], u["sequence"], plain.score(u)] for u in plain.chosen] == case["candidates"]


@pytest.mark.parametrize("case", load("graph"), ids=case_id)
def test_graph(case):
    rules = spec(merging={"selection": "graph", **tables(case["merging"])}).merging
    want = {peer: set(near) for peer, near in case["neighbours"]}
    assert graphs.build(rules, case["peers"], bytes.fromhex(case["spec_digest"])) == want
    opened = [{"spec_digest": case["spec_digest"]}]
    assert graph({"merging": rules.model_dump()}, opened, case["peers"]) == want


@pytest.mark.parametrize("case", load("tokens"), ids=case_id)
def test_tokens(case):
    policy, log = spec(merging=tables(case["merging"])), [{**e, "index": at} for at, e in enumerate(case["log"])]
    prefix = prefix_of(case["log"])
    for ring, want in zip(tokens.rings_of(policy), case["tokens"], strict=True):
        found = tokens.tokens_of(policy, prefix, ring)
        assert [[token.entry.ref.peer, token.entry.ref.sequence, token.lap] for token in found] == want
    for ring, want in zip(rings_of(policy.merging.model_dump()), case["tokens"], strict=True):
        found = chain(policy.model_dump(), log, ring, len(log))
        assert [[update["peer"], update["sequence"], lap] for update, lap in found] == want


def tables(value):
    """JSON's lists as the tuples that a spec has."""
    if isinstance(value, dict):
        return {key: tables(item) for key, item in value.items()}
    return tuple(tables(item) for item in value) if isinstance(value, list) else value
