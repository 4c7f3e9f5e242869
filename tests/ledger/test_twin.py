"""The in-memory ledger against the contract: the same moves, the same outcomes, the same bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from worlds import World, an_update, chain_world, memory_world, shared

from fl_node.chains import DevChain
from fl_node.errors import EntryRejected, LedgerError
from fl_node.ledger import codec, tree
from fl_node.ledger.abi import address_bytes, selector_of
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.ledger.protocol import Ledger
from fl_node.ledger.rpc import RpcLedger
from fl_node.records import (
    Attestation,
    Flag,
    Member,
    OwnerChanged,
    Parent,
    Reason,
    Role,
    Update,
    UpdatePublished,
    UpdateRef,
)

ROLES = (Role.ALL, Role.ALL, Role.PUBLISH, Role.ATTEST)
Move = Callable[[World], object]


def twin_of(world: World) -> World:
    """A ledger in memory with the same accounts."""
    members = [
        Member(signer.address, f"site-{n + 1}", role)
        for n, (signer, role) in enumerate(zip(world.signers, ROLES, strict=True))
    ]
    identity = world.owner.identity
    chain = MemoryChain(
        members,
        owner=world.owner.account,
        spec_digest=identity.spec_digest,
        genesis_content=identity.genesis_content,
        genesis_weights=identity.genesis_weights,
        genesis_flags=identity.genesis_flags,
    )
    ledgers: list[Ledger] = [chain.ledger(member.account) for member in members]
    return World("memory", chain.ledger(), ledgers, chain.ledger(world.outsider.account), chain)


class Script:
    """Random moves, mostly nearly right, so that every rule is met from both sides."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.contents: dict[UpdateRef, bytes] = {}
        self.size = 1 + len(ROLES)

    def near(self, value: int) -> int:
        return max(0, value + self.random.choice([0, 0, 0, 0, 0, 0, -1, 1]))

    def ref(self) -> UpdateRef:
        if self.contents and self.random.random() < 0.9:
            return self.random.choice(sorted(self.contents))
        return UpdateRef(self.random.randrange(5), self.random.randrange(4))

    def who(self, world: World, number: int) -> Ledger:
        return [world.outsider, *world.members][number]

    def publish(self, world: World) -> Move:
        number = self.random.choice([1, 1, 2, 2, 3, 4, 0])
        state = self.who(world, number).peer_of(self.who(world, number).account)
        sequence, last_round = (state.sequence, state.round) if state else (0, 0)
        refs = sorted({self.ref() for _ in range(self.random.randrange(4))})
        shares = [1_000_000 // max(1, len(refs))] * len(refs)
        if shares:
            shares[0] += self.near(1_000_000 - sum(shares))
        parents = [
            Parent(ref.peer, ref.sequence, self.contents.get(ref, b"none")[:4], share)
            for ref, share in zip(refs, shares, strict=True)
        ]
        if parents and self.random.random() < 0.1:
            self.random.shuffle(parents)
            parents[0] = replace(parents[0], tag=b"zzzz")
        update = Update(
            content=bytes(32) if self.random.random() < 0.03 else self.random.randbytes(32),
            flags=Flag(self.random.randrange(8)),
            weights=self.random.randbytes(32),
            base=self.random.randbytes(32),
            report=self.random.randbytes(32),
            seen=self.near(self.size),
            seen_root=self.random.randbytes(32),
            sequence=self.near(sequence + 1),
            round=self.near(last_round + 1),
            score_ppm=self.random.choice([0, 1_000_000, 1_000_001]) if self.random.random() < 0.1 else 5,
            base_score_ppm=7,
            train_samples=8,
            test_samples=9,
            rule=self.random.randrange(3),
            sealed_at=self.near(0),
            extra=self.random.randbytes(self.random.choice([0, 0, 31, 256, 257])),
        )
        return lambda target: self.who(target, number).publish(update, parents)

    def attest(self, world: World) -> Move:
        number = self.random.randrange(5)
        items = [
            Attestation(ref.peer, ref.sequence, self.near(1_000_000), 3)
            for ref in (self.ref() for _ in range(self.random.randrange(4)))
        ]
        return lambda target: self.who(target, number).attest(bytes(32), items)

    def object(self, world: World) -> Move:
        number, ref = self.random.randrange(5), self.ref()
        reason = Reason.WITHDRAWN if ref.peer == number else self.random.choice(list(Reason))
        return lambda target: self.who(target, number).object(ref, reason)

    def announce(self, world: World) -> Move:
        number = self.random.randrange(5)
        state = self.who(world, number).peer_of(self.who(world, number).account)
        epoch = self.near((state.epoch if state else 0) + 1)
        endpoint = "é" * self.random.choice([0, 5, 128, 129])
        return lambda target: self.who(target, number).announce(epoch, bytes(32), bytes(32), endpoint)

    def govern(self, world: World) -> Move:
        number, account = self.random.randrange(3), memory_account(self.random.randrange(4))
        if self.random.random() < 0.7:
            role = Role(self.random.randrange(9))
            return lambda target: [target.owner, *target.members][number].admit(account, "ñ", role)
        last = self.near(self.size)
        return lambda target: [target.owner, *target.members][number].retire(account, "x" * 256, last)

    def next(self, world: World) -> Move:
        kinds = [self.publish, self.publish, self.publish, self.attest, self.object, self.announce, self.govern]
        return self.random.choice(kinds)(world)


def outcome(move: Move, world: World) -> tuple[str, str, dict[str, object]]:
    try:
        move(world)
    except LedgerError as error:
        arguments = error.arguments if isinstance(error, EntryRejected) else {}
        return type(error).__name__, str(error), arguments
    return "recorded", "", {}


@pytest.mark.parametrize("seed", [1, 2])
def test_random_moves_have_equal_outcomes_and_equal_bytes(anvil: DevChain, seed: int) -> None:
    real = chain_world(anvil, ROLES)
    twin = twin_of(real)
    script = Script(seed)
    seen: dict[str, int] = {}
    for _ in range(200):
        move = script.next(twin)
        got, expected = outcome(move, twin), outcome(move, real)
        assert got == expected
        seen[got[0]] = seen.get(got[0], 0) + 1
        log = list(twin.owner.logs(0, twin.owner.head().block_number))[-1]
        body = codec.decode(log.topics, log.data)[2]
        script.size = twin.owner.head().size
        if hasattr(body, "update"):
            script.contents[body.ref] = body.update.content  # type: ignore[union-attr]
    assert seen["recorded"] > 40 and seen["EntryRejected"] > 40
    first = real.owner.identity.first_block
    theirs = list(real.owner.logs(first, real.owner.head().block_number))
    ours = list(twin.owner.logs(0, twin.owner.head().block_number))
    assert len(ours) == len(theirs) == script.size
    for position, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        # Block times differ, and entry 0 has the contract's address.
        if position:
            assert (one.topics, one.data[32:]) == (other.topics, other.data[32:])
    assert list(twin.owner.peers()) == list(real.owner.peers())
    real.close()


def test_the_same_entries_have_the_same_root_everywhere(anvil: DevChain) -> None:
    """With the chain's own times and address, the twin's tree is the contract's."""
    real = chain_world(anvil, (Role.ALL,))
    index = LedgerIndex(":memory:", real.owner)
    index.sync()
    logs = [codec.encode(entry.index, entry.time_s, entry.body) for entry in index.entries()]
    assert tree.root([tree.entry_leaf(*log) for log in logs]) == real.owner.head().root
    assert hashlib.sha256(b"").digest() == tree.EMPTY_ROOT
    real.close()


def test_the_ownership_changes_hands_in_two_steps(anvil: DevChain) -> None:
    real = chain_world(anvil, ROLES)
    twin = twin_of(real)
    heir = real.members[0]
    assert isinstance(real.owner, RpcLedger) and isinstance(heir, RpcLedger) and isinstance(twin.chain, MemoryChain)
    address, owner = real.owner.identity.address, real.owner.account
    offer = selector_of("transferOwnership(address)") + bytes(12) + address_bytes(heir.account)
    real.owner._sender.send(address, offer, 200_000, "offer")
    heir._sender.send(address, selector_of("acceptOwnership()"), 200_000, "accept")
    twin.chain.write(lambda state, now: state.transfer_ownership(owner, heir.account))
    twin.chain.write(lambda state, now: state.accept_ownership(heir.account))
    for world in (real, twin):
        index = LedgerIndex(":memory:", world.owner)
        index.sync()
        assert index.entries(5)[0].body == OwnerChanged(owner, heir.account)
        assert index.size == 6
        with pytest.raises(EntryRejected, match="OwnableUnauthorizedAccount"):
            world.owner.admit(memory_account(1), "x")
        world.members[0].admit(memory_account(1), "x")
    with pytest.raises(EntryRejected, match="OwnableUnauthorizedAccount"):
        twin.chain.write(lambda state, now: state.accept_ownership(owner))
    real.close()


def test_memory_sends_again_what_a_reorganisation_dropped() -> None:
    world = memory_world((Role.ALL, Role.ALL))
    assert isinstance(world.chain, MemoryChain)
    one, two = world.members
    update = an_update(one.head(), 1, 1)
    one.publish(update, ())
    two.publish(an_update(two.head(), 1, 2), shared([UpdatePublished(1, update, ())]))
    world.chain.reorganise(2)
    assert [(done.outcome, type(done.error).__name__) for done in two.recover()] == [("rejected", "EntryRejected")]
    assert [(done.label, done.outcome) for done in one.recover()] == [("publish sequence 1", "recorded")]
    assert one.recover() == two.recover() == []
    assert one.update(UpdateRef(1, 1)).content == update.content
    with pytest.raises(ValueError, match="above the deployment"):
        world.chain.reorganise(100)
