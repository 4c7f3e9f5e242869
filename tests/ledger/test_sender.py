"""Writing over JSON-RPC when things go wrong: crashes, reorganisations, stuck and lost transactions, two processes."""

from __future__ import annotations

import itertools
import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay import Relay
from worlds import ETHER, QUICK, SPEC, World, an_update, chain_world, dev_signer, funded_signer, shared

from fl_node import keys
from fl_node.chains import DevChain, call, set_balance
from fl_node.errors import (
    AlreadyRecorded,
    ChainUnavailable,
    EntryRejected,
    InsufficientFunds,
    KeyInUse,
    KeystoreError,
    LedgerError,
    NotAMember,
)
from fl_node.ledger import gas
from fl_node.ledger.fees import Quote, first_offer, higher_offer
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.outbox import Outbox
from fl_node.ledger.rpc import RpcLedger
from fl_node.ledger.sender import Patience
from fl_node.ledger.transport import Rpc
from fl_node.records import Attestation, Reason, Role, UpdatePublished, UpdateRef

ONE, TWO = (Role.ALL,), (Role.ALL, Role.ALL)
WRITER = str(Path(__file__).with_name("doomed_writer.py"))


@pytest.fixture
def world(anvil: DevChain, tmp_path: Path) -> Iterator[World]:
    made = chain_world(anvil, TWO, state=tmp_path)
    yield made
    made.close()


def at(world: World, url: str, member: int = 0, state: Path | None = None, patience: Patience = QUICK) -> RpcLedger:
    """Another ledger for a member, by another URL."""
    world.members[member].close()  # type: ignore[attr-defined]
    assert world.deployed is not None
    return RpcLedger(world.deployed.deployment, SPEC, world.signers[member], state, Rpc(url), patience)


def updates_on(world: World) -> list[int]:
    index = LedgerIndex(":memory:", world.owner)
    index.sync()
    return [entry.index for entry in index.updates()]


def doomed(world: World, state: Path, method: str, **options: Any) -> subprocess.Popen[str]:
    assert world.deployed is not None and isinstance(world.chain, DevChain)
    told = {
        "url": world.chain.rpc_url,
        "deployment": world.deployed.deployment.model_dump(),
        "key": world.signers[0]._account.key.hex(),
        "state": str(state),
        "method": method,
    }
    command = [sys.executable, WRITER, json.dumps(told)]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
def test_a_kill_between_storing_and_the_receipt_publishes_once(world: World, tmp_path: Path, method: str) -> None:
    """Killed before sending, and after sending before the receipt was read."""
    world.members[0].close()  # type: ignore[attr-defined]
    process = doomed(world, tmp_path / "peer", method)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(updates_on(world)) == (0 if method == "eth_sendRawTransaction" else 1)
    ledger = at(world, world.chain.rpc_url, state=tmp_path / "peer")  # type: ignore[union-attr]
    (settled,) = ledger.recover()
    assert (settled.label, settled.outcome) == ("publish sequence 1", "recorded")
    assert settled.receipt is not None and updates_on(world) == [settled.receipt.index]
    assert ledger.recover() == []
    with pytest.raises(AlreadyRecorded):
        ledger.publish(an_update(ledger.head(), 1, 1), ())
    ledger.publish(an_update(ledger.head(), 2, 2), ())
    ledger.close()


def test_what_a_crash_left_is_sent_before_anything_new(world: World, tmp_path: Path) -> None:
    world.members[0].close()  # type: ignore[attr-defined]
    assert doomed(world, tmp_path / "peer", "eth_sendRawTransaction").wait(timeout=60) == -signal.SIGKILL
    ledger = at(world, world.chain.rpc_url, state=tmp_path / "peer")  # type: ignore[union-attr]
    receipt = ledger.announce(1, bytes(32), bytes(32), "http://x")
    assert [*updates_on(world), receipt.index] == [3, 4]
    ledger.close()


def test_a_stored_entry_that_became_wrong_is_reported(world: World, tmp_path: Path) -> None:
    world.members[0].close()  # type: ignore[attr-defined]
    assert doomed(world, tmp_path / "peer", "eth_sendRawTransaction").wait(timeout=60) == -signal.SIGKILL
    world.owner.retire(world.signers[0].address, "stolen", 3)
    ledger = at(world, world.chain.rpc_url, state=tmp_path / "peer")  # type: ignore[union-attr]
    (settled,) = ledger.recover()
    assert settled.outcome == "rejected" and isinstance(settled.error, NotAMember)
    assert ledger.recover() == [] and updates_on(world) == []
    ledger.close()


def test_a_stored_transaction_whose_nonce_another_used_is_reported(world: World, tmp_path: Path) -> None:
    world.members[0].close()  # type: ignore[attr-defined]
    assert doomed(world, tmp_path / "peer", "eth_sendRawTransaction").wait(timeout=60) == -signal.SIGKILL
    elsewhere = at(world, world.chain.rpc_url, state=tmp_path / "other machine")  # type: ignore[union-attr]
    elsewhere.publish(an_update(elsewhere.head(), 1, 1), ())
    elsewhere.close()
    ledger = at(world, world.chain.rpc_url, state=tmp_path / "peer")  # type: ignore[union-attr]
    assert [settled.outcome for settled in ledger.recover()] == ["superseded"]
    assert updates_on(world) == [3]
    ledger.close()


def test_two_processes_cannot_have_one_key(world: World, tmp_path: Path) -> None:
    world.members[0].close()  # type: ignore[attr-defined]
    process = doomed(world, tmp_path / "first", "")
    assert process.stdout is not None and process.stdout.readline() == "holding\n"
    for state in (tmp_path / "first", tmp_path / "second", None):
        with pytest.raises(KeyInUse, match=f"pid {process.pid}"):
            at(world, world.chain.rpc_url, state=state)  # type: ignore[union-attr]
    process.send_signal(signal.SIGKILL)
    process.wait()
    at(world, world.chain.rpc_url, state=tmp_path / "second").close()  # type: ignore[union-attr]


def test_a_reorganisation_that_drops_an_entry_is_repaired(lone_anvil: DevChain, tmp_path: Path) -> None:
    world = chain_world(lone_anvil, TWO, state=tmp_path)
    world.members[0].publish(an_update(world.owner.head(), 1, 1), ())
    first = world.members[1].publish(an_update(world.owner.head(), 1, 1), ())
    index = LedgerIndex(":memory:", world.owner)
    index.sync()
    call(lone_anvil.rpc_url, "anvil_reorg", 1, [])
    assert [entry.index for entry in index.sync().orphaned] == [first.index]
    assert world.members[0].recover() == []
    (settled,) = world.members[1].recover()
    assert settled.outcome == "recorded" and settled.receipt is not None
    assert (settled.receipt.index, settled.receipt.tx_hash) == (first.index, first.tx_hash)
    assert settled.receipt.block_hash != first.block_hash
    assert index.sync().added == 1
    assert world.members[1].recover() == []
    world.members[1].publish(an_update(world.owner.head(), 2, 2), ())
    world.close()


def test_after_a_reorganisation_an_entry_may_be_refused(lone_anvil: DevChain) -> None:
    """It names parents that are gone; the peer has to make another one, with the same nonce."""
    world = chain_world(lone_anvil, TWO)
    update = an_update(world.owner.head(), 1, 1)
    world.members[0].publish(update, ())
    world.members[1].publish(an_update(world.owner.head(), 1, 2), shared([UpdatePublished(1, update, ())]))
    call(lone_anvil.rpc_url, "anvil_reorg", 2, [])
    (settled,) = world.members[1].recover()
    assert settled.outcome == "rejected" and isinstance(settled.error, EntryRejected)
    assert settled.error.name in ("RoundOutOfRange", "SeenOutOfRange", "UnknownUpdate")
    world.members[1].publish(an_update(world.owner.head(), 1, 1), ())
    assert [settled.outcome for settled in world.members[0].recover()] == ["recorded"]
    assert len(updates_on(world)) == 2
    world.close()


def test_a_stuck_transaction_is_offered_more_with_the_same_nonce(lone_anvil: DevChain, tmp_path: Path) -> None:
    world = chain_world(lone_anvil, ONE)
    ledger = at(
        world, lone_anvil.rpc_url, state=tmp_path, patience=Patience(bump_s=0.3, deadline_s=30, poll_most_s=0.05)
    )
    call(lone_anvil.rpc_url, "evm_setAutomine", False)
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(ledger.publish(an_update(world.owner.head(), 1, 1), ())))
    thread.start()
    fees: dict[int, set[int]] = {}
    deadline = time.monotonic() + 20
    while sum(map(len, fees.values())) < 3 and time.monotonic() < deadline:
        pool = call(lone_anvil.rpc_url, "txpool_content")["pending"]
        for nonce, sent in {n: tx for txs in pool.values() for n, tx in txs.items()}.items():
            fees.setdefault(int(nonce), set()).add(int(sent["maxFeePerGas"], 16))
        time.sleep(0.05)
    call(lone_anvil.rpc_url, "evm_mine")
    thread.join(20)
    assert len(fees) == 1 and len(done) == 1 and updates_on(world) == [done[0].index]
    offers = sorted(next(iter(fees.values())))
    assert len(offers) >= 3
    assert all(8 * later >= 9 * earlier for earlier, later in itertools.pairwise(offers))
    call(lone_anvil.rpc_url, "evm_setAutomine", True)
    ledger.publish(an_update(world.owner.head(), 2, 2), ())
    ledger.close()
    world.close()


def test_a_deadline_leaves_the_transaction_stored(lone_anvil: DevChain, tmp_path: Path) -> None:
    world = chain_world(lone_anvil, ONE)
    ledger = at(world, lone_anvil.rpc_url, state=tmp_path, patience=Patience(deadline_s=0.3, poll_most_s=0.05))
    call(lone_anvil.rpc_url, "evm_setAutomine", False)
    with pytest.raises(ChainUnavailable, match="in no block after"):
        ledger.publish(an_update(world.owner.head(), 1, 1), ())
    call(lone_anvil.rpc_url, "evm_setAutomine", True)
    call(lone_anvil.rpc_url, "evm_mine")
    assert [settled.outcome for settled in ledger.recover()] == ["recorded"]
    assert len(updates_on(world)) == 1
    ledger.close()
    world.close()


def test_the_endpoint_may_go_away_in_the_middle_of_a_write(world: World) -> None:
    with Relay(world.chain.rpc_url) as relay:  # type: ignore[union-attr]
        ledger = at(world, relay.url)

        def cut(method: str, params: list[Any], result: Any) -> Any:
            if method == "eth_sendRawTransaction":
                relay.down, relay.tamper = True, lambda method, params, result: result
                threading.Timer(0.5, lambda: setattr(relay, "down", False)).start()
            return result

        relay.tamper = cut
        receipt = ledger.publish(an_update(world.owner.head(), 1, 1), ())
        assert updates_on(world) == [receipt.index]
        relay.down = True
        with pytest.raises(ChainUnavailable, match="does not answer"):
            ledger.head()
        relay.down = False
        assert ledger.head() == world.owner.head()
        ledger.close()


def test_a_transaction_that_a_node_forgot_is_sent_again(world: World) -> None:
    with Relay(world.chain.rpc_url) as relay:  # type: ignore[union-attr]
        ledger = at(world, relay.url)
        lost: list[str] = []

        def lose_first(method: str, params: list[Any]) -> dict[str, Any] | None:
            if method == "eth_sendRawTransaction" and not lost:
                lost.append(params[0])
                return {"result": "0x" + "00" * 32}
            return None

        relay.refuse = lose_first
        receipt = ledger.publish(an_update(world.owner.head(), 1, 1), ())
        assert updates_on(world) == [receipt.index]
        assert relay.seen["eth_sendRawTransaction"] == 2
        ledger.close()


@pytest.mark.parametrize("kind", ["anvil", "ganache", "hardhat"])
def test_a_refusal_met_only_in_the_block_has_its_reason(chains: Any, kind: str) -> None:
    """Somebody else's entry landed between the check and the block; the transaction failed there."""
    chain = chains(kind)
    world = chain_world(chain, TWO)
    world.members[0].publish(an_update(world.owner.head(), 1, 1), ())
    with Relay(chain.rpc_url) as relay:
        ledger = at(world, relay.url)
        excused: list[str] = []

        def excuse_first(method: str, params: list[Any]) -> dict[str, Any] | None:
            if method == "eth_call" and not excused:
                excused.append(method)
                return {"result": "0x"}
            return None

        ledger.head()
        relay.refuse = excuse_first
        with pytest.raises(AlreadyRecorded) as caught:
            ledger.publish(an_update(world.owner.head(), 1, 1), ())
        assert (caught.value.name, caught.value.arguments) == ("SequenceNotNext", {"got": 1, "expected": 2})
        ledger.publish(an_update(world.owner.head(), 2, 2), ())
        ledger.close()
    world.close()


@pytest.mark.parametrize("kind", ["anvil", "ganache", "hardhat"])
def test_no_funds_is_said_so_and_mended_by_funds(chains: Any, kind: str) -> None:
    chain = chains(kind)
    world = chain_world(chain, ONE)
    set_balance(chain.rpc_url, chain.kind, world.signers[0].address, 1000)
    with pytest.raises(InsufficientFunds, match="send it some"):
        world.members[0].publish(an_update(world.owner.head(), 1, 1), ())
    set_balance(chain.rpc_url, chain.kind, world.signers[0].address, ETHER)
    world.members[0].publish(an_update(world.owner.head(), 1, 1), ())
    world.close()


def test_an_endpoint_without_batches_and_tips_or_base_fees_will_do(world: World) -> None:
    with Relay(world.chain.rpc_url) as relay:  # type: ignore[union-attr]
        relay.batches = False
        relay.refuse = lambda method, params: (
            {"code": -32601, "message": "method not found"} if method == "eth_maxPriorityFeePerGas" else None
        )
        ledger = at(world, relay.url)
        receipt = ledger.publish(an_update(world.owner.head(), 1, 1), ())
        sent = call(world.chain.rpc_url, "eth_getTransactionByHash", "0x" + receipt.tx_hash.hex())  # type: ignore[union-attr]
        assert int(sent["type"], 16) == 2
        relay.tamper = lambda method, params, result: (
            {key: value for key, value in result.items() if key != "baseFeePerGas"}
            if method == "eth_getBlockByNumber" and result
            else result
        )
        receipt = ledger.publish(an_update(world.owner.head(), 2, 2), ())
        sent = call(world.chain.rpc_url, "eth_getTransactionByHash", "0x" + receipt.tx_hash.hex())  # type: ignore[union-attr]
        assert int(sent["type"], 16) == 0
        ledger.close()


def test_a_write_takes_three_round_trips_at_best(world: World) -> None:
    ledger = world.members[0]
    assert isinstance(ledger, RpcLedger)
    ledger.publish(an_update(ledger.head(), 1, 1), ())
    update = an_update(ledger.head(), 2, 2)
    with Relay(world.chain.rpc_url) as relay:  # type: ignore[union-attr]
        other = at(world, relay.url)
        other.head()
        before = other.rpc.requests_sent
        other.publish(update, ())
        polls = relay.seen["eth_getTransactionReceipt"]
        assert other.rpc.requests_sent - before == 2 + polls
        assert relay.seen["eth_sendRawTransaction"] == 1
        other.close()


def test_the_interval_is_measured_by_the_next_block_not_the_last(anvil: DevChain) -> None:
    world = chain_world(anvil, ONE, min_interval_s=1)
    world.members[0].publish(an_update(world.owner.head(), 1, 1), ())
    with pytest.raises(EntryRejected, match="TooSoon"):
        world.members[0].publish(an_update(world.owner.head(), 2, 2), ())
    time.sleep(2.1)
    world.members[0].publish(an_update(world.owner.head(), 2, 2), ())
    world.close()


def test_an_outbox_is_of_one_account(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "chain-a")
    box.store(7, "x", {"gas": 1}, b"raw", b"h" * 32)
    box.store(7, "x", {"gas": 1}, b"raw2", b"i" * 32)
    box.store(8, "y", {"gas": 1}, b"raw3", b"j" * 32)
    box.mined(8, 100)
    box.close()
    with pytest.raises(LedgerError, match="another state folder"):
        Outbox(tmp_path, "chain-b")
    box = Outbox(tmp_path, "chain-a")
    assert [(item.nonce, item.raw, item.hashes) for item in box.pending()] == [(7, b"raw2", (b"h" * 32, b"i" * 32))]
    box.prune(101)
    assert [item.nonce for item in box.all()] == [7]
    box.close()
    with pytest.raises(LedgerError, match="check the state folder"):
        Outbox(Path("/proc/nowhere"), "chain-a")


wei = st.integers(0, 10**15)
quotes = st.builds(Quote, st.none() | wei, wei, wei)


@given(first=quotes, later=quotes)
def test_each_offer_replaces_the_one_before(first: Quote, later: Quote) -> None:
    offer = first_offer(first)
    higher = higher_offer(offer, later)
    assert set(higher) == set(offer)
    for key in set(offer) - {"type"}:
        assert 8 * higher[key] >= 9 * offer[key] and higher[key] > offer[key]
    if "maxFeePerGas" in higher:
        assert higher["maxFeePerGas"] >= higher["maxPriorityFeePerGas"]


def test_public_keys_do_not_sign_on_other_chains() -> None:
    signer = dev_signer(0)
    fields = {"nonce": 0, "gas": 21000, "gasPrice": 1, "value": 0, "data": "0x", "to": signer.address}
    signer.sign({**fields, "chainId": 31337})
    with pytest.raises(KeystoreError, match="everybody can sign"):
        signer.sign({**fields, "chainId": 1})
    keys.from_private_key(secrets.token_bytes(32)).sign({**fields, "chainId": 1})


def test_gas_limits_leave_room(anvil: DevChain) -> None:
    """What is used stays below the limit by more than the deepest append can add."""
    world = chain_world(anvil, (Role.ALL,) * 3)
    one, two, three = world.members
    bodies = []
    used = []
    for sequence in range(1, 22):
        for peer, ledger in enumerate((one, two, three), start=1):
            update = an_update(ledger.head(), sequence, sequence, extra=bytes([255]) * 256)
            parents = shared(bodies[-64:]) if bodies else ()
            size = update.seen
            used.append((gas.publish(size, update, parents), ledger.publish(update, parents).gas_used))
            bodies.append(UpdatePublished(peer, update, parents))
    size = one.head().size
    items = [Attestation(body.peer, body.update.sequence, 1, 1) for body in bodies if body.peer != 1][:32]
    used.append((gas.attest(size, items), one.attest(bytes(32), items).gas_used))
    used.append((gas.attest(size, items[:1]), two.attest(bytes(32), [Attestation(3, 1, 1, 1)]).gas_used))
    used.append((gas.small(size), one.object(UpdateRef(2, 1), Reason.MALFORMED, b"\xff" * 32).gas_used))
    text = "ü" * 128
    used.append((gas.small(size, 256), one.announce(1, b"\xff" * 32, b"\xff" * 32, text).gas_used))
    signer = funded_signer(anvil)
    used.append((gas.small(size), world.owner.admit(signer.address, "s" * 32).gas_used))
    used.append((gas.small(size, 256), world.owner.retire(signer.address, text, 3).gas_used))
    assert len(bodies[-1].parents) == 62
    for limit, gas_used in used:
        assert limit - gas_used > 60_000
    world.close()
