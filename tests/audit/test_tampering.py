"""Every tampering is found by the check that is to find it, and nobody else is blamed for it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import lies_in_bytes
import lies_in_logs
import lies_in_packs
import lies_in_sealing
import lies_of_publishers
import pytest
from given import Given, given
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from playing import Play
from tampering import ALL, CASES, Case, at_pace, bad, begun, honest, looked_at, shown

from fl_node.audit.verdicts import Result
from fl_node.ledger import index
from fl_node.merging.aggregation import aggregate_recorded
from fl_node.merging.weights import digest

TABLE = Path(__file__).parents[2] / "docs" / "tampering.md"
#: Groups that are tried in synchronous federations, too, and the cases in them that speak of who came when.
ALSO_SYNC = {lies_of_publishers.MERGES, lies_of_publishers.SCORES}
NOT_SYNC = {lies_of_publishers.unlisted_merged, lies_of_publishers.older_merged}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that does not fit is asked for again, in case the chain moved. Here it never does."""
    monkeypatch.setattr(index, "_FIRST_PAUSE_S", 0.0)


def in_sync(case: Case) -> bool:
    return case.group in ALSO_SYNC and case.make not in NOT_SYNC


def judge(case: Case) -> None:
    made = case.make()
    found = looked_at(made) if isinstance(made, Given) else made
    mine = [finding for where, finding in found if (where, finding.check) == (case.on, case.check)]
    assert any(one.result is case.result and case.words in one.detail for one in mine), mine
    collateral = [(where, one) for where, one in bad(found) if not case.excused(where, one.check)]
    assert not collateral
    if case.on and isinstance(made, Given):  # asked for alone, the check says the same
        alone = looked_at(made, checks=frozenset([case.check]))
        assert [one for where, one in alone if where == case.on] == mine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_tampering_is_found(case: Case) -> None:
    judge(case)


@pytest.mark.parametrize("case", list(filter(in_sync, CASES)), ids=lambda case: case.title)
def test_it_is_found_in_a_synchronous_federation(case: Case) -> None:
    with at_pace("sync"):
        judge(case)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_honest_histories_hold(mode: str) -> None:
    found = looked_at(shown(mode))
    assert len(found) > 18 * 13
    unknown = {(where, one.check) for where, one in found if one.result is not Result.OK}
    # Nobody measures closing updates, and nobody signed a checkpoint.
    assert unknown == {(f"{peer}#4", "score") for peer in (1, 2, 3, 4)} | {(ALL, "consistent")}


def test_nobody_is_blamed_for_a_spec_that_was_changed() -> None:
    found = looked_at(lies_in_logs.spec_changed())
    assert {one.result for where, one in found if where != ALL} == {Result.OK, Result.UNKNOWN}


def test_any_order_of_parents_and_any_number_of_threads_pass() -> None:
    """What must pass: the order of a merge follows from its parents, not from who hands them over."""
    play = begun(2)
    update = play.update("4#2")
    entries = [play.update(str(parent.ref)) for parent in update.parents]
    assert len(entries) == 4
    for order in itertools.permutations(entries):
        models = [play.models[entry.ref] for entry in order]
        merged = aggregate_recorded(play.spec, order, models, dict, update.parents, update.update.rule)
        assert digest(merged.tensors) == update.update.base
    one = given(play)
    one.blobs = dict(reversed(one.blobs.items()))
    assert looked_at(one, jobs=1) == looked_at(one, jobs=4)
    assert not bad(looked_at(one))


def test_the_table_has_every_case() -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not re.match(r"\| (what is done|-)", row)]
    assert sorted(rows) == sorted(case.row for case in CASES)
    for module in (lies_in_bytes, lies_of_publishers, lies_in_logs, lies_in_packs, lies_in_sealing):
        assert any(case.make.__module__ == module.__name__ for case in CASES)


# ---- single bits ---------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@examples(st.data())
def test_no_bit_of_a_blob_can_be_changed_unseen(data: st.DataObject) -> None:
    one = shown()
    cid = data.draw(st.sampled_from(sorted(one.blobs, key=str)))
    if cid.digest == one.federation.digest:
        return  # the spec is at hand as a file
    blob = bytearray(one.blobs[cid])
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    one.blobs[cid] = bytes(blob)
    assert any(finding.result is Result.FAILED for _, finding in looked_at(one))


@settings(max_examples=40)
@examples(st.data())
def test_no_bit_of_an_entry_can_be_changed_unseen(data: st.DataObject) -> None:
    """Not even by one who makes up a root that fits."""
    one = shown()
    index = data.draw(st.integers(0, len(one.logs) - 1))
    log = one.logs[index]
    raw = bytearray(b"".join(log.topics) + log.data)
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    cut = 32 * len(log.topics)
    topics = tuple(bytes(raw[at : at + 32]) for at in range(0, cut, 32))
    one.logs[index] = type(log)(log.block_number, log.block_hash, log.tx_hash, topics, bytes(raw[cut:]))
    assert any(finding.result is Result.FAILED for _, finding in looked_at(one))


def test_play_is_the_same_in_every_run() -> None:
    assert Play().whole().ledger.root(46) == honest().ledger.root(46)
