"""A log that somebody kept: checked and questioned like a chain's, whatever was done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from worlds import World, an_update, memory_world

from fl_node.errors import InconsistentLog, MalformedEvidence
from fl_node.ledger import tree
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.kept_log import KeptLog
from fl_node.ledger.memory import MemoryChain
from fl_node.ledger.protocol import LedgerReader, RawLog
from fl_node.records import LedgerHead, Reason, Role, UnknownEntry, UpdateRef


def lived(world: World) -> World:
    """A few entries of several kinds."""
    first, second = world.members[:2]
    first.announce(1, bytes(32), bytes(32), "http://127.0.0.1:1")
    for number, ledger in enumerate((first, second), start=1):
        ledger.publish(an_update(ledger.head(), 1, 1, extra=b"x" * number), ())
    second.object(UpdateRef(1, 1), Reason.UNAVAILABLE)
    world.owner.retire(world.members[2].account, "gone", world.owner.head().size)
    return world


@pytest.fixture
def world() -> World:
    return lived(memory_world((Role.ALL, Role.ALL, Role.ALL)))


def raw_logs(world: World, blocks: bool = True) -> list[RawLog]:
    assert isinstance(world.chain, MemoryChain)
    logs = list(world.owner.logs(0, world.chain.tip().number))  # type: ignore[attr-defined]
    return logs if blocks else [RawLog(0, bytes(32), bytes(32), log.topics, log.data) for log in logs]


@pytest.mark.parametrize("blocks", [True, False], ids=["with blocks", "as tiles give it"])
def test_an_index_over_it_equals_one_over_the_chain(world: World, blocks: bool) -> None:
    kept = KeptLog(world.owner.identity, world.owner.head(), raw_logs(world, blocks))
    assert isinstance(kept, LedgerReader)
    with LedgerIndex(":memory:", kept) as ours, LedgerIndex(":memory:", world.owner) as theirs:
        ours.sync()
        theirs.sync()
        assert ours.head == theirs.head
        assert [entry.body for entry in ours.entries()] == [entry.body for entry in theirs.entries()]
        assert ours.inclusion_proof(3) == theirs.inclusion_proof(3)
        assert ours.sync().added == 0 and kept.news((ours.head.block_number, ours.head.block_hash)) is None


def test_it_answers_as_the_contract_does(world: World) -> None:
    kept = KeptLog(world.owner.identity, world.owner.head(), raw_logs(world, blocks=False))
    assert kept.peers() == world.owner.peers()
    assert kept.peer(2) == world.owner.peer(2)
    assert kept.peer_of(world.members[1].account) == world.owner.peer(2)
    assert kept.peer_of(world.outsider.account) is None
    assert kept.update(UpdateRef(2, 1)) == world.owner.update(UpdateRef(2, 1))
    assert kept.head(5) == world.owner.head() and kept.balance(world.owner.account) == 0
    assert kept.block_hash(world.owner.head().block_number) == world.owner.head().block_hash
    for missing in (lambda: kept.peer(9), lambda: kept.update(UpdateRef(1, 2))):
        with pytest.raises(LookupError):
            missing()


@pytest.mark.parametrize("blocks", [True, False])
def test_an_index_that_knew_another_block_starts_over(world: World, blocks: bool, tmp_path: object) -> None:
    path = f"{tmp_path}/index.sqlite"
    logs, head = raw_logs(world, blocks), world.owner.head()
    with LedgerIndex(path, KeptLog(world.owner.identity, head, logs)) as index:
        index.sync()
    world.members[0].publish(an_update(world.owner.head(), 2, 2), ())
    longer = KeptLog(world.owner.identity, world.owner.head(), raw_logs(world, blocks))
    with LedgerIndex(path, longer) as index:
        index.sync()
        assert index.head == world.owner.head()


def _short(log: RawLog) -> RawLog:
    return replace(log, topics=log.topics[:1])


@pytest.mark.parametrize(
    "spoil",
    [
        _short,
        lambda log: replace(log, topics=(*log.topics, *log.topics, *log.topics)),
        lambda log: replace(log, topics=(log.topics[0][:31], *log.topics[1:])),
        lambda log: replace(log, block_number=2**64),
        lambda log: replace(log, block_number=-1),
        lambda log: replace(log, tx_hash=b""),
    ],
)
def test_what_is_no_event_log_is_refused(world: World, spoil: Callable[[RawLog], RawLog]) -> None:
    logs = raw_logs(world)
    logs[2] = spoil(logs[2])
    with pytest.raises(MalformedEvidence, match="entry 2 of the kept log"):
        KeptLog(world.owner.identity, world.owner.head(), logs)


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: logs[:-1],
        lambda logs: [*logs, logs[-1]],
        lambda logs: [logs[0], logs[2], logs[1], *logs[3:]],
        lambda logs: [replace(logs[0], data=bytes([logs[0].data[0] ^ 1]) + logs[0].data[1:]), *logs[1:]],
    ],
    ids=["one left out", "one more", "two swapped", "a bit flipped"],
)
def test_what_does_not_have_the_root_is_never_believed(
    world: World, change: Callable[[list[RawLog]], list[RawLog]]
) -> None:
    kept = KeptLog(world.owner.identity, world.owner.head(), change(raw_logs(world)))
    with LedgerIndex(":memory:", kept) as index, pytest.raises(InconsistentLog):
        index.sync()


def test_numbers_that_no_contract_of_ours_logs_make_an_unknown_entry(world: World) -> None:
    """The root may be right: whoever makes up a log computes it."""
    logs = raw_logs(world)
    admitted = logs[1]
    logs[1] = replace(admitted, topics=(*admitted.topics[:2], (2**200).to_bytes(32, "big")))
    root = tree.root([tree.entry_leaf(log.topics, log.data) for log in logs])
    head = world.owner.head()
    made_up = LedgerHead(len(logs), root, head.block_number, head.block_hash)
    kept = KeptLog(world.owner.identity, made_up, logs)
    with LedgerIndex(":memory:", kept) as index:
        index.sync()
        assert isinstance(index.entry(1).body, UnknownEntry)
    with pytest.raises(InconsistentLog, match="before it admits"):
        kept.peers()
