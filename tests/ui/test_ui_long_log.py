"""The long log that the explorer is measured with is what it says, and every page of it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from ui_logs import SOON_S, Explored, explored, until

from benchmarks.explorer_addresses import addresses
from benchmarks.explorer_log import GrowingChain
from fl_node.ledger.index import LedgerIndex
from fl_node.merging.selection import other_parents, selection_behind
from fl_node.prefix import Prefix
from fl_node.records import UnknownEntry, UpdatePublished
from fl_node.spec import parse_federation


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    """Some twenty rounds."""
    return GrowingChain(peers=12, sites=9, updates=240)


@pytest.fixture(scope="module")
def log(chain: GrowingChain) -> LedgerIndex:
    index = LedgerIndex(":memory:", chain)
    while chain.grow(100):
        index.sync()
    return index


def test_its_parents_follow_from_its_spec(chain: GrowingChain, log: LedgerIndex) -> None:
    spec, prefix = parse_federation(chain.spec_bytes).spec, Prefix(log.entries())
    updates = [prefix.update(fact.body.ref) for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]
    assert len(updates) == 240 and any(update.final for update in updates)
    for update in updates:
        assert other_parents(selection_behind(spec, prefix, update), update) is None
        assert not update.parents or sum(parent.share_ppm for parent in update.parents) == 1_000_000


def test_it_is_read_as_a_contracts(chain: GrowingChain, log: LedgerIndex) -> None:
    assert log.size == chain.size and log.root() == chain.head().root
    assert not [entry for entry in log.entries() if isinstance(entry.body, UnknownEntry)]
    assert {entry.kind for entry in log.entries()} >= {"UpdatesAttested", "PeerAnnounced", "PeerAdmitted"}


def test_it_is_the_same_each_time(chain: GrowingChain) -> None:
    again = GrowingChain(peers=12, sites=9, updates=240)
    while again.grow(7):
        pass
    assert again.head() == chain.head()


@pytest.fixture(scope="module")
def shown(chain: GrowingChain, log: LedgerIndex, tmp_path_factory: pytest.TempPathFactory) -> Explored:
    told = GrowingChain(peers=12, sites=9, updates=240)
    while told.grow(1000):
        pass
    assert told.head() == chain.head()
    return explored(tmp_path_factory.mktemp("long"), told, told.spec_bytes)


def test_every_address_that_is_measured_answers(shown: Explored) -> None:
    with shown.shown.store.reading() as db:
        wanted = addresses(shown.shown.slug, db, shown.shown.deployment.contract)
    asked = [address for several in wanted.values() for address in several]
    assert len(asked) > 100 and len(set(asked)) > 100
    found = {address: shown.client.get(address).status_code for address in asked}
    assert {address: status for address, status in found.items() if status not in (200, 302)} == {}


def test_it_is_followed_while_it_grows(tmp_path: Path) -> None:
    told = GrowingChain(peers=12, sites=9, updates=240)
    told.grow(1)
    one = explored(tmp_path, told, told.spec_bytes, look=False, poll_s=0.01, verify=False)
    one.shown.follower.start()
    try:
        while told.grow(60):
            pass
        until(lambda: one.shown.follower.now.folded == told.size, SOON_S)
        assert one.json("/updates.json")["paging"]["total"] == 240
    finally:
        one.stop()
