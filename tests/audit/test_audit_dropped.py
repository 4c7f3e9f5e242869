"""What an earlier audit saw is not forgotten: entries that the chain dropped since."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from worlds import World, an_update, memory_world

from fl_node.audit.checkpoints import checkpoints
from fl_node.audit.means import Means
from fl_node.audit.memory import MemoryTransactions, StoreBlobs
from fl_node.audit.open_means import folded
from fl_node.audit.verdicts import Finding, Result
from fl_node.ledger.index import LedgerIndex
from fl_node.records import Role


@pytest.fixture
def world() -> World:
    made = memory_world((Role.ALL, Role.ALL))
    for ledger in made.members:
        ledger.publish(an_update(ledger.head(), 1, 1), ())
    return made


@pytest.fixture
def log(world: World) -> Iterator[LedgerIndex]:
    with LedgerIndex(":memory:", world.owner) as index:
        index.sync()
        yield index


def lost(world: World, log: LedgerIndex) -> list[Finding]:
    log.sync()
    entries = log.entries()
    means = Means(
        identity=world.owner.identity,
        federation=None,
        log=log,
        prefix=folded(entries),
        entries=entries,
        breaches={},
        transactions=MemoryTransactions({}),
        blocks=None,
        blobs=StoreBlobs({}),
        checkpoints=(),
        depth=0,
    )
    return [finding for finding in checkpoints(means) if "dropped" in finding.data]


def test_entries_that_are_gone_are_told(world: World, log: LedgerIndex) -> None:
    assert lost(world, log) == []
    size = log.size
    world.chain.reorganise(2)
    (found,) = lost(world, log)
    assert found.data["dropped"] == [size - 2, size - 1]
    assert found.result is Result.UNKNOWN and found.asked and "the chain dropped 2 entries" in found.detail
    # The other log grows; what is gone stays gone.
    world.members[0].publish(an_update(world.members[0].head(), 1, 1), ())
    assert lost(world, log) == [found]


def test_those_that_came_back_are_not(world: World, log: LedgerIndex) -> None:
    world.chain.reorganise(2, keep=True)
    assert lost(world, log) == [] and len(log.orphans()) == 2
