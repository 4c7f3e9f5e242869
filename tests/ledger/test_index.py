"""The index: following, checking, reorganisations, questions."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from relay import Relay
from worlds import World, an_update, chain_world, memory_world, shared

from fl_node.chains import DevChain, call
from fl_node.errors import InconsistentLog, LedgerError, WrongLedger
from fl_node.ledger import tree
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain
from fl_node.ledger.protocol import News
from fl_node.ledger.rpc import RpcLedger, RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.ledger.views import state_call
from fl_node.records import (
    Attestation,
    Reason,
    Role,
    UnknownEntry,
    UpdatePublished,
    UpdateRef,
)

THREE = (Role.ALL, Role.ALL, Role.ALL)


def play(world: World, rounds: int, first: int = 1) -> None:
    """Everybody publishes once a round and merges what all published before."""
    latest: list[UpdatePublished] = []
    if first > 1:
        latest = [entry.body for entry in synced(world).latest_updates() if isinstance(entry.body, UpdatePublished)]
    for number in range(first, first + rounds):
        fresh = []
        for peer, ledger in enumerate(world.members, start=1):
            update = an_update(ledger.head(), number, number)
            parents = shared(latest) if latest else ()
            ledger.publish(update, parents)
            fresh.append(UpdatePublished(peer, update, parents))
        latest = fresh


def synced(world: World, path: Path | str = ":memory:") -> LedgerIndex:
    index = LedgerIndex(path, world.owner)
    index.sync()
    return index


@pytest.fixture
def world() -> World:
    return memory_world(THREE)


def test_it_follows_and_answers(world: World, tmp_path: Path) -> None:
    index = synced(world, tmp_path / "index.db")
    assert (index.size, index.sync().added) == (4, 0)
    play(world, 3)
    world.members[0].attest(bytes(32), (Attestation(2, 1, 5, 6), Attestation(3, 3, 7, 8)))
    receipt = world.members[0].object(UpdateRef(2, 1), Reason.UNAVAILABLE)
    outcome = index.sync()
    assert (outcome.added, index.size, outcome.head) == (11, 15, world.owner.head())
    assert index.head == outcome.head and index.root() == outcome.head.root
    assert [entry.index for entry in index.entries()] == list(range(15))
    assert [entry.kind for entry in index.entries(4, 7)] == ["UpdatePublished"] * 3
    assert [entry.index for entry in index.entries(kinds=("UpdateObjected", "LedgerOpened"))] == [0, 14]
    assert [entry.index for entry in index.updates(2)] == [5, 8, 11]
    assert [entry.index for entry in index.updates(stop=6)] == [4, 5]
    assert [entry.index for entry in index.latest_updates()] == [10, 11, 12]
    assert [entry.index for entry in index.latest_updates(9)] == [6, 7, 8]
    assert index.update(UpdateRef(3, 2)).index == 9
    assert [entry.index for entry in index.mentions(UpdateRef(2, 1))] == [7, 8, 9, 13, 14]
    assert [entry.index for entry in index.transaction(receipt.tx_hash)] == [14]
    assert index.peers()[2].sequence == 3 and index.peers(9)[2].sequence == 2
    for missing in (lambda: index.entry(15), lambda: index.update(UpdateRef(1, 4)), lambda: index.root(16)):
        with pytest.raises(LookupError):
            missing()


def test_roots_and_proofs_at_every_size(world: World) -> None:
    index = synced(world)
    heads = {index.size: index.root()}
    for number in range(1, 5):
        play(world, 1, number)
        index.sync()
        heads[index.size] = index.root()
    for size, root in heads.items():
        assert index.root(size) == root
        for position in range(size):
            leaf = tree.entry_leaf(index.entry(position).topics, index.entry(position).data)
            assert tree.verify_inclusion(leaf, position, size, index.inclusion_proof(position, size), root)
        proof = index.consistency_proof(size)
        assert tree.verify_consistency(size, index.size, root, index.root(), proof)
    assert index.root(0) == tree.EMPTY_ROOT


@pytest.mark.parametrize("keep", [False, True])
def test_a_reorganisation_keeps_what_it_drops_as_orphans(world: World, tmp_path: Path, keep: bool) -> None:
    assert isinstance(world.chain, MemoryChain)
    play(world, 2)
    index = synced(world, tmp_path / "index.db")
    before = index.entries()
    world.chain.reorganise(4, keep=keep)
    outcome = index.sync()
    assert [entry.index for entry in outcome.orphaned] == [6, 7, 8, 9]
    assert outcome.orphaned == tuple(before[6:])
    assert [orphan.entry for orphan in index.orphans()] == before[6:]
    assert index.size == world.owner.head().size == (10 if keep else 6)
    assert index.root() == world.owner.head().root
    assert [entry.body for entry in index.entries()] == [entry.body for entry in before[: index.size]]
    assert index.mentions(UpdateRef(1, 1)) == index.entries(7)
    assert index.update(UpdateRef(1, 1)) == before[4]
    assert index.sync().orphaned == ()
    assert index.root(6) == tree.root([tree.entry_leaf(entry.topics, entry.data) for entry in before[:6]])


def test_depth_hides_the_newest_blocks_and_what_comes_and_goes_there(world: World) -> None:
    assert isinstance(world.chain, MemoryChain)
    index = LedgerIndex(":memory:", world.owner, depth=3)
    play(world, 2)
    assert index.sync().head.size == index.size == 7
    with LedgerIndex(":memory:", world.owner) as whole:
        whole.sync()
        assert index.ahead() == tuple(whole.entries(7)) != ()
        assert whole.ahead() == ()
    world.chain.reorganise(3)
    assert index.ahead() == ()
    assert index.sync().orphaned == ()
    world.chain.mine(3)
    assert index.sync().head.size == 7


def test_an_endpoint_that_is_behind_takes_nothing_away(world: World) -> None:
    class Behind:
        """Answers from some blocks ago, as one of several machines behind one URL may."""

        blocks = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(world.owner, name)

        def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
            return world.owner.news(known, depth + self.blocks)

    play(world, 1)
    reader = Behind()
    index = LedgerIndex(":memory:", reader)  # type: ignore[arg-type]
    index.sync()
    reader.blocks = 2
    assert (index.sync().orphaned, index.size) == ((), 7)


def test_a_file_is_of_one_ledger_and_survives_being_closed(world: World, tmp_path: Path) -> None:
    play(world, 1)
    with synced(world, tmp_path / "index.db") as index:
        entries = index.entries()
    play(world, 1, 2)
    with LedgerIndex(tmp_path / "index.db", world.owner) as index:
        assert index.entries() == entries
        assert index.sync().added == 3
    with pytest.raises(WrongLedger, match="delete the file"):
        LedgerIndex(tmp_path / "index.db", memory_world(THREE).owner)
    with pytest.raises(LedgerError, match="no index"):
        LedgerIndex(tmp_path / "nothing.db")
    (tmp_path / "noise.db").write_bytes(b"this is no database, however long one makes it" * 100)
    with pytest.raises(LedgerError, match=r"noise\.db"):
        LedgerIndex(tmp_path / "noise.db", world.owner)


def _count(path: str, wanted: int, answers: Any) -> None:
    with LedgerIndex(path) as index:
        while index.size < wanted:
            size = index.size
            assert len(index.entries(0, size)) == size
        answers.put((index.size, index.root()))


def test_other_processes_read_while_one_writes(world: World, tmp_path: Path) -> None:
    index = synced(world, tmp_path / "index.db")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    reader = context.Process(target=_count, args=(str(tmp_path / "index.db"), 34, answers))
    reader.start()
    for number in range(1, 11):
        play(world, 1, number)
        index.sync()
    assert answers.get(timeout=60) == (34, index.root())
    reader.join()
    with LedgerIndex(tmp_path / "index.db") as other, pytest.raises(LedgerError, match="reading only"):
        other.sync()


def test_an_unknown_kind_is_a_leaf_like_any_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_node.ledger import codec
    from fl_node.ledger.abi import TOPICS

    monkeypatch.delitem(codec._READERS, TOPICS["PeerAnnounced"])
    world.members[0].announce(1, bytes(32), bytes(32), "http://x")
    index = synced(world)
    assert index.entry(4).body == UnknownEntry(TOPICS["PeerAnnounced"])
    assert index.root() == world.owner.head().root


# ---- over JSON-RPC, through an endpoint that lies --------------------------------------------------------------


def flip(text: str) -> str:
    """Another hexadecimal digit near the end."""
    return text[:-70] + ("0" if text[-70] != "0" else "1") + text[-69:]


def altered(method: str, params: list[Any], result: Any) -> Any:
    if method == "eth_getLogs" and result:
        result[-1]["data"] = flip(result[-1]["data"])
    return result


def omitted(method: str, params: list[Any], result: Any) -> Any:
    return result[:-1] if method == "eth_getLogs" else result


def swapped(method: str, params: list[Any], result: Any) -> Any:
    return [*result[:-2], result[-1], result[-2]] if method == "eth_getLogs" else result


def invented(method: str, params: list[Any], result: Any) -> Any:
    if method == "eth_getLogs" and result:
        size = int(result[-1]["topics"][1], 16) + 1
        result.append({**result[-1], "topics": [result[-1]["topics"][0], f"0x{size:064x}", *result[-1]["topics"][2:]]})
    return result


@pytest.mark.parametrize("lie", [altered, omitted, swapped, invented])
def test_a_lying_endpoint_is_found_out_and_nothing_is_kept(anvil: DevChain, lie: Any) -> None:
    world = chain_world(anvil, THREE)
    play(world, 2)
    assert world.deployed is not None
    with Relay(anvil.rpc_url) as relay:
        index = LedgerIndex(":memory:", RpcReader(world.deployed.deployment, None, Rpc(relay.url)))
        relay.tamper = lie
        with pytest.raises(InconsistentLog, match="use another one"):
            index.sync()
        assert (index.size, index.entries()) == (0, [])
        relay.tamper = lambda method, params, result: result
        assert index.sync().head.size == 10
        play(world, 1, 3)
        relay.tamper = lie
        with pytest.raises(InconsistentLog):
            index.sync()
        assert index.size == 10
        relay.tamper = lambda method, params, result: result
        assert index.sync().added == 3
    world.close()


def test_an_answer_that_ran_ahead_of_its_block_is_asked_for_again(anvil: DevChain) -> None:
    """Development nodes may answer for a block with the state of the next one while they make it."""
    world = chain_world(anvil, THREE)
    play(world, 1)
    assert world.deployed is not None
    with Relay(anvil.rpc_url) as relay:
        reader = RpcReader(world.deployed.deployment, None, Rpc(relay.url))
        ahead = call(
            anvil.rpc_url, "eth_call", {"to": reader.identity.address, "data": "0x" + state_call().hex()}, "latest"
        )
        ahead = ahead[:2] + f"{8:064x}" + ahead[66:]
        answers = [{"result": ahead}]
        relay.refuse = lambda method, params: answers.pop() if method == "eth_call" and answers else None
        index = LedgerIndex(":memory:", reader)
        assert index.sync().head == world.owner.head()
        assert answers == [] and index.size == 7
    world.close()


@pytest.mark.parametrize("status", [200, 400])
def test_a_provider_that_caps_ranges_is_asked_for_less(lone_anvil: DevChain, status: int) -> None:
    """Some say so with an HTTP error."""
    world = chain_world(lone_anvil, THREE)
    call(lone_anvil.rpc_url, "anvil_mine", hex(300))
    play(world, 2)
    assert world.deployed is not None

    def capped(method: str, params: list[Any]) -> dict[str, Any] | None:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= 50:
            return {"code": -32005, "message": "query returned more than 50 blocks"}
        return None

    with Relay(lone_anvil.rpc_url) as relay:
        relay.refuse, relay.error_status = capped, status
        index = LedgerIndex(":memory:", RpcReader(world.deployed.deployment, None, Rpc(relay.url)))
        assert index.sync().head.size == 10
        relay.refuse = lambda method, params: (
            {"code": -32000, "message": "logs are switched off"} if method == "eth_getLogs" else None
        )
        play(world, 1, 3)
        with pytest.raises(LedgerError, match="gives no logs"):
            index.sync()
    world.close()


def test_an_idle_poll_is_one_request(anvil: DevChain) -> None:
    world = chain_world(anvil, THREE)
    play(world, 1)
    index = synced(world)
    assert isinstance(world.owner, RpcLedger)
    before = world.owner.rpc.requests_sent
    assert index.sync().added == 0
    assert world.owner.rpc.requests_sent - before == 1
    world.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_news_are_two_requests_and_more_only_where_batches_are_refused(anvil: DevChain, depth: int) -> None:
    world = chain_world(anvil, THREE)
    play(world, 1)
    assert world.deployed is not None
    with Relay(anvil.rpc_url) as relay:
        batching, single = (RpcReader(world.deployed.deployment, None, Rpc(relay.url)) for _ in range(2))
        relay.batches = False
        assert single.rpc.batch([("eth_chainId", [])]) == ["0x7a69"]
        indexes = [LedgerIndex(":memory:", reader, depth=depth) for reader in (batching, single)]
        for rounds in range(2, 4):
            for reader, index, most in zip((batching, single), indexes, (2, 5), strict=True):
                relay.batches = reader is batching
                before = reader.rpc.requests_sent
                assert index.sync().head == world.owner.head(depth)
                assert reader.rpc.requests_sent - before <= most
                assert index.size == 4 + 3 * (rounds - 1) - depth
                relay.seen.clear()
                assert index.sync().added == 0
                assert relay.seen == {"eth_getBlockByNumber": 1}
                assert [entry.index for entry in index.ahead()] == [index.size + at for at in range(depth)]
            play(world, 1, rounds)
    world.close()


def test_a_reorganisation_of_the_same_height_is_seen_at_a_depth(lone_anvil: DevChain) -> None:
    world = chain_world(lone_anvil, THREE)
    play(world, 2)
    index = LedgerIndex(":memory:", world.owner, depth=1)
    before = (index.sync(), index.entries())[1]
    assert len(before) == 9
    call(lone_anvil.rpc_url, "anvil_reorg", 4, [])
    play_again = an_update(world.owner.head(), 1, 1)
    assert world.owner.head().size == 6
    world.members[2].publish(play_again, ())
    call(lone_anvil.rpc_url, "evm_mine")
    outcome = index.sync()
    assert outcome.orphaned == tuple(before[6:]) and outcome.added == 1
    assert index.root() == world.owner.head().root and index.size == 7
    world.close()


def test_two_that_write_one_file_agree(world: World, tmp_path: Path) -> None:
    class Slow:
        """Another process writes the file between this one's question and its answer."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.owner, name)

        def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
            answer = world.owner.news(known, depth)
            other.sync()
            return answer

    play(world, 1)
    other = LedgerIndex(tmp_path / "index.db", world.owner)
    index = LedgerIndex(tmp_path / "index.db", Slow())  # type: ignore[arg-type]
    assert index.sync().head == world.owner.head()
    play(world, 1, 2)
    assert index.sync().head == world.owner.head()
    assert [entry.index for entry in index.entries()] == list(range(10))
    assert index.orphans() == []


def test_anvil_s_reorganisation_is_seen(lone_anvil: DevChain, tmp_path: Path) -> None:
    world = chain_world(lone_anvil, THREE)
    play(world, 2)
    index = synced(world, tmp_path / "index.db")
    before = index.entries()
    call(lone_anvil.rpc_url, "anvil_reorg", 2, [])
    outcome = index.sync()
    assert outcome.orphaned == tuple(before[8:])
    assert index.size == 8 and index.root() == world.owner.head().root
    assert [orphan.entry.index for orphan in index.orphans()] == [8, 9]
    world.close()


def test_a_damaged_file_is_told_apart_from_a_lying_endpoint(world: World, tmp_path: Path) -> None:
    play(world, 2)
    index = synced(world, tmp_path / "index.db")
    index.close()
    with sqlite3.connect(tmp_path / "index.db") as database:
        database.execute("DELETE FROM nodes")
    with LedgerIndex(tmp_path / "index.db", world.owner) as index, pytest.raises(LedgerError, match="damaged"):
        index.root()
