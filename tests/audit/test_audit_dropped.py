"""What an earlier audit saw is not forgotten: entries that the chain dropped since."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bare_means import bare
from worlds import World, an_update, memory_world

from fl_node.audit.checkpoints import checkpoints
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


def lost(log: LedgerIndex) -> list[Finding]:
    log.sync()
    return [finding for finding in checkpoints(bare(log)) if "dropped" in finding.data]


def test_entries_that_are_gone_are_told(world: World, log: LedgerIndex) -> None:
    assert lost(log) == []
    size = log.size
    world.chain.reorganise(2)
    (found,) = lost(log)
    assert found.data["dropped"] == [size - 2, size - 1]
    assert found.result is Result.UNKNOWN and found.asked and "the chain dropped 2 entries" in found.detail
    # The other log grows; what is gone stays gone.
    world.members[0].publish(an_update(world.members[0].head(), 1, 1), ())
    assert lost(log) == [found]


def test_those_that_came_back_are_not(world: World, log: LedgerIndex) -> None:
    world.chain.reorganise(2, keep=True)
    assert lost(log) == [] and len(log.orphans()) == 2
