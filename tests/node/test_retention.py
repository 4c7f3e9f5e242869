"""What is deleted after a while, and what is not."""

from __future__ import annotations

import pytest

from fl_node.content.cid import Cid
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.errors import ContentUnavailable
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.models import stored_or_fetched
from fl_node.pacing import common_round
from fl_node.prefix import Prefix
from fl_node.records import Flag, Member, Update, UpdateRef
from fl_node.retention import collect, oldest_kept, past_retention
from fl_node.spec import Spec
from fl_node.tables import ContentSpec

SPEC = Spec(content=ContentSpec(retention_rounds=3))


def update(cid: Cid, sequence: int, round_number: int, seen: int, refers_to: int = 0) -> Update:
    return Update(
        content=cid.digest, flags=Flag(0), weights=bytes(32), base=bytes(32), report=bytes(32), seen=seen,
        seen_root=bytes(32), sequence=sequence, round=round_number, score_ppm=0, base_score_ppm=0, train_samples=1,
        test_samples=1, rule=0, refers_to=refers_to,
    )  # fmt: skip


@pytest.fixture
def federation() -> tuple[Prefix, MemoryStore, dict[str, Cid]]:
    """Two fast peers at round 9, a slow one still at round 1, and one fast peer's content of every round."""
    members = [Member(memory_account(number), f"site-{number}") for number in (1, 2, 3)]
    chain, store, cids = MemoryChain(members), MemoryStore(), {}
    fast, slow, other = (chain.ledger(member.account) for member in members)
    for number in range(1, 10):
        cids[f"fast {number}"] = store.add(f"fast {number}".encode(), label="own", round=number)
        fast.publish(update(cids[f"fast {number}"], number, number, fast.head().size), ())
        other.publish(update(Cid("raw", bytes([number]) * 32), number, number, other.head().size), ())
        if number == 1:
            cids["slow 1"] = store.add(b"slow 1", label="fetched", round=1)
            slow.publish(update(cids["slow 1"], 1, 1, slow.head().size), ())
    cids["genesis"] = store.add(b"genesis", label="genesis")
    index = LedgerIndex(":memory:", fast)
    index.sync()
    return Prefix(index.entries()), store, cids


def test_rounds_beyond_retention_go_and_what_can_still_be_merged_stays(
    federation: tuple[Prefix, MemoryStore, dict[str, Cid]],
) -> None:
    prefix, store, cids = federation
    assert oldest_kept(SPEC, prefix) == 7
    gone = collect(SPEC, prefix, store)
    assert set(gone.cids) == {cids[f"fast {number}"] for number in range(1, 7)}
    for kept in ("fast 7", "fast 8", "fast 9", "slow 1", "genesis"):
        assert store.has(cids[kept]), kept
    assert collect(SPEC, prefix, store).cids == ()


def test_nothing_goes_while_all_rounds_are_kept(federation: tuple[Prefix, MemoryStore, dict[str, Cid]]) -> None:
    prefix, store, cids = federation
    assert collect(Spec(), prefix, store).cids == ()
    assert all(store.has(cid) for cid in cids.values())


def test_what_a_kept_update_refers_to_is_kept_though_the_latest_is_a_full_one() -> None:
    """Deltas 4 to 8 build on 3; 9 is full. Whoever replays, attests or audits round 7 needs 3 to 6."""
    members = [Member(memory_account(number), f"site-{number}") for number in (1, 2)]
    chain, store, cids = MemoryChain(members), MemoryStore(), {}
    one, other = (chain.ledger(member.account) for member in members)
    for number in range(1, 10):
        cids[number] = store.add(b"%d" % number, label="own", round=number)
        before = UpdateRef(1, number - 1).packed() if 3 < number < 9 else 0
        one.publish(update(cids[number], number, number, one.head().size, before), ())
        other.publish(update(Cid("raw", bytes([number]) * 32), number, number, other.head().size), ())
    index = LedgerIndex(":memory:", one)
    index.sync()
    prefix = Prefix(index.entries())
    assert set(collect(SPEC, prefix, store).cids) == {cids[1], cids[2]}
    other_spec = Spec(content=ContentSpec(retention_rounds=1))
    assert set(collect(other_spec, prefix, store).cids) == {cids[number] for number in range(3, 9)}


def test_one_member_that_runs_ahead_decides_nothing() -> None:
    members = [Member(memory_account(number), f"site-{number}") for number in (1, 2, 3)]
    chain = MemoryChain(members)
    hasty, *others = (chain.ledger(member.account) for member in members)
    for ledger in others:
        ledger.publish(update(Cid("raw", bytes(31) + b"x"), 1, 1, ledger.head().size), ())
    for number in range(1, 31):
        hasty.publish(update(Cid("raw", bytes([number]) * 32), number, number, hasty.head().size), ())
    index = LedgerIndex(":memory:", hasty)
    index.sync()
    prefix = Prefix(index.entries())
    assert (prefix.highest_round, common_round(prefix), oldest_kept(SPEC, prefix)) == (30, 1, 0)


@pytest.mark.parametrize("served", [True, False])
def test_what_is_past_retention_is_not_asked_for_again(served: bool) -> None:
    """Whether some gateway answers without having it, or nobody serves anything."""
    members = [Member(memory_account(number), f"site-{number}") for number in (1, 2)]
    chain = MemoryChain(members)
    ledgers = [chain.ledger(member.account) for member in members]
    with Gateway(MemoryStore()) as empty, Fetcher(("127.0.0.0/8",), timeout_s=5.0) as fetcher:
        if served:
            ledgers[0].announce(1, bytes(32), bytes(32), empty.endpoint)
        for number in range(1, 10):
            for ledger in ledgers:
                ledger.publish(update(Cid("raw", bytes([number]) * 32), number, number, ledger.head().size), ())
        index = LedgerIndex(":memory:", ledgers[0])
        index.sync()
        prefix = Prefix(index.entries())
        for number in (1, 6):
            entry = prefix.update(UpdateRef(2, number))
            assert past_retention(SPEC, prefix, entry)
            with pytest.raises(ContentUnavailable) as caught:
                stored_or_fetched(entry, prefix, (), fetcher, 100, SPEC)
            told = str(caught.value)
            assert told.startswith(f"2#{number} ") and f"round {number}, past content.retention_rounds = 3" in told
            assert "from round 7 on" in told and "archive = true" in told and "later, or" not in told
            assert ("has not got" in told) is served
        recent = prefix.update(UpdateRef(2, 7))
        assert past_retention(SPEC, prefix, recent) == ""
        with pytest.raises(ContentUnavailable, match=r"(?i)try again"):
            stored_or_fetched(recent, prefix, (), fetcher, 100, SPEC)
