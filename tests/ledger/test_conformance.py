"""What every ledger does alike: in memory, on Anvil, on Ganache, on Hardhat's node."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import MakeWorld
from worlds import CONTENT, SPEC, WEIGHTS, World, an_update, shared

from fl_node.errors import AlreadyRecorded, EntryRejected, LedgerError, NotAMember
from fl_node.ledger import codec, tree
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import memory_account
from fl_node.ledger.protocol import Ledger, Receipt
from fl_node.records import (
    Attestation,
    Flag,
    LedgerOpened,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)


def index_of(ledger: Ledger) -> LedgerIndex:
    index = LedgerIndex(":memory:", ledger)
    index.sync()
    return index


def publish(
    ledger: Ledger, sequence: int, round_: int, parents: tuple[Parent, ...] = (), **changes: object
) -> UpdatePublished:
    update = an_update(ledger.head(), sequence, round_, **changes)
    ledger.publish(update, parents)
    peer = ledger.peer_of(ledger.account)
    assert peer is not None
    return UpdatePublished(peer.number, update, parents)


def test_the_ledger_conforms_to_the_protocol(world: World) -> None:
    assert isinstance(world.owner, Ledger)


def test_a_fresh_ledger_tells_what_it_was_opened_with(world: World) -> None:
    identity = world.owner.identity
    assert (identity.chain_id, identity.spec_digest) == (31337, SPEC)
    assert (identity.genesis_content, identity.genesis_weights) == (CONTENT, WEIGHTS)
    assert (identity.genesis_flags, identity.min_interval_s) == (Flag.DAG_PB, 0)
    opened, *admitted = [entry.body for entry in index_of(world.owner).entries()]
    assert opened == LedgerOpened(
        *(31337, identity.address, SPEC, CONTENT, WEIGHTS, Flag.DAG_PB, 0, world.owner.account)
    )
    assert admitted == [
        PeerAdmitted(n + 1, member.account, f"site-{n + 1}", Role.ALL) for n, member in enumerate(world.members)
    ]
    assert world.owner.head().size == 4
    assert world.owner.head().block_number >= identity.first_block


def test_every_kind_of_entry_comes_back_as_it_was_written(world: World) -> None:
    one, two, three = world.members
    first = publish(one, 1, 1, extra=b"\x00\xff" * 20, refers_to=2**40 + 1, sealed_at=2, encoding=3)
    second = publish(two, 1, 1)
    third = publish(three, 1, 2, shared([first, second]))
    items = (Attestation(1, 1, 800_000, 1_000_000), Attestation(2, 1, 0, 5))
    evidence, key, pin = os.urandom(32), os.urandom(32), os.urandom(32)
    receipts = [
        three.attest(evidence, items),
        one.object(UpdateRef(2, 1), Reason.MALFORMED, evidence),
        one.object(UpdateRef(1, 1), Reason.WITHDRAWN),
        two.announce(1, key, pin, "https://zürich.example:4000/"),
        world.owner.admit(memory_account(7), "Spital Zürich", Role.ATTEST),
        two.retire(two.account, "moved on", 5),
    ]
    entries = index_of(world.owner).entries(4)
    assert [entry.body for entry in entries] == [
        first,
        second,
        third,
        UpdatesAttested(3, evidence, items),
        UpdateObjected(1, UpdateRef(2, 1), Reason.MALFORMED, evidence),
        UpdateObjected(1, UpdateRef(1, 1), Reason.WITHDRAWN, bytes(32)),
        PeerAnnounced(2, 1, key, pin, "https://zürich.example:4000/"),
        PeerAdmitted(4, memory_account(7), "Spital Zürich", Role.ATTEST),
        PeerRetired(2, 5, "moved on"),
    ]
    for entry, receipt in zip(entries[3:], receipts, strict=True):
        assert (entry.index, entry.tx_hash) == (receipt.index, receipt.tx_hash)
        assert (entry.block_number, entry.block_hash) == (receipt.block_number, receipt.block_hash)


def test_logs_are_the_codec_s_bytes_and_the_leaves_of_the_root(world: World) -> None:
    first = publish(world.members[0], 1, 1, extra=b"x" * 33)
    publish(world.members[1], 1, 2, shared([first]))
    head = world.owner.head()
    logs = list(world.owner.logs(world.owner.identity.first_block, head.block_number))
    for position, log in enumerate(logs):
        index, time_s, body = codec.decode(log.topics, log.data)
        assert index == position
        assert codec.encode(index, time_s, body) == (log.topics, log.data)
    assert tree.root([tree.entry_leaf(log.topics, log.data) for log in logs]) == head.root


def test_views_agree_with_the_log(world: World) -> None:
    first = publish(world.members[0], 1, 1)
    receipt_at = world.owner.head().size
    world.members[1].announce(1, bytes(32), bytes(32), "http://127.0.0.1:1")
    world.owner.retire(world.members[2].account, "gone", 2)
    folded = {number: replace(peer, endpoint="") for number, peer in index_of(world.owner).peers().items()}
    assert list(folded.values()) == list(world.owner.peers())
    assert folded[1] == world.owner.peer(1) == world.owner.peer_of(world.members[0].account)
    assert folded[3].retired_from == 2
    seen = world.owner.update(UpdateRef(1, 1))
    assert (seen.ref, seen.content, seen.index) == (UpdateRef(1, 1), first.update.content, receipt_at - 1)
    assert (seen.round, seen.score_ppm, seen.flags, seen.encoding) == (1, 912_345, Flag.DAG_PB, 0)
    assert (seen.train_samples, seen.test_samples) == (1200, 300)
    assert index_of(world.owner).entry(seen.index).time_s == seen.time_s
    assert world.owner.peer_of(memory_account(55)) is None
    assert world.owner.balance(world.members[0].account) > 0
    for missing in (lambda: world.owner.peer(9), lambda: world.owner.update(UpdateRef(1, 9))):
        with pytest.raises(LookupError):
            missing()


def test_heads_reach_back_and_stop_at_the_deployment(world: World) -> None:
    before = world.owner.head()
    publish(world.members[0], 1, 1)
    now = world.owner.head()
    assert (now.size, now.highest_round) == (before.size + 1, 1)
    back = world.owner.head(now.block_number - before.block_number)
    assert back == before
    assert world.owner.head(10**6).block_number == world.owner.identity.first_block
    assert world.owner.block_hash(now.block_number) == now.block_hash
    assert world.owner.block_hash(now.block_number + 100) is None
    world.mine()
    later = world.owner.head()
    assert (later.size, later.root) == (now.size, now.root)
    assert later.block_hash != now.block_hash


def test_news_go_on_from_a_known_block(world: World) -> None:
    old = world.owner.head()
    known = (old.block_number, old.block_hash)
    assert world.owner.news(known) is None
    publish(world.members[0], 1, 1)
    publish(world.members[1], 1, 1)
    now, back = world.owner.head(), world.owner.head(1)
    for depth, head in ((0, now), (1, back)):
        news = world.owner.news(known, depth)
        assert news is not None and (news.head, news.follows) == (head, True)
        assert list(news.logs) == list(world.owner.logs(old.block_number + 1, head.block_number))
        assert world.owner.news((head.block_number, head.block_hash), depth) is None
    whole = world.owner.news(None)
    assert whole is not None and whole.follows and len(list(whole.logs)) == now.size
    for stranger in ((old.block_number, bytes(32)), (now.block_number + 100, bytes(32))):
        other = world.owner.news(stranger)
        assert other is not None and (other.head, other.follows) == (now, False)


Attempt = Callable[[World, UpdatePublished], Receipt]


def sent(
    member: int, sequence: int = 2, round_: int = 2, parents: tuple[Parent, ...] = (), **changes: object
) -> Attempt:
    return lambda world, _: world.members[member].publish(
        an_update(world.owner.head(), sequence, round_, **changes), parents
    )


ONE = Parent(1, 1, b"....", 1_000_000)
REFUSALS: dict[str, tuple[Attempt, dict[str, object]]] = {
    "SequenceNotNext": (sent(0, sequence=3), {"got": 3, "expected": 2}),
    "RoundOutOfRange": (sent(0, round_=3), {"got": 3, "least": 2, "most": 2}),
    "SeenOutOfRange": (sent(0, seen=4), {"got": 4, "least": 5, "most": 5}),
    "BeyondLog": (sent(0, sealed_at=6), {"got": 6, "most": 5}),
    "ContentZero": (sent(0, content=bytes(32)), {"sequence": 2}),
    "ScoreTooHigh": (sent(0, base_score_ppm=1_000_001), {"got": 1_000_001, "most": 1_000_000}),
    "LengthOutOfRange": (sent(0, extra=bytes(257)), {"got": 257, "least": 0, "most": 256}),
    "UnknownUpdate": (sent(0, parents=(Parent(2, 9, b"....", 1_000_000),)), {"peer": 2, "sequence": 9}),
    "ParentsNotAscending": (
        lambda world, first: world.members[1].publish(
            an_update(world.owner.head(), 1, 2), (replace(ONE, tag=first.update.content[:4]),) * 2
        ),
        {"position": 1, "got": 2**32 + 1, "previous": 2**32 + 1},
    ),
    "SharesNotWhole": (
        lambda world, first: world.members[1].publish(
            an_update(world.owner.head(), 1, 2), (replace(ONE, tag=first.update.content[:4], share_ppm=999_999),)
        ),
        {"got": 999_999, "expected": 1_000_000},
    ),
    "OwnUpdate": (
        lambda world, _: world.members[0].attest(bytes(32), (Attestation(1, 1, 0, 0),)),
        {"peer": 1, "sequence": 1},
    ),
    "ReasonOutOfRange": (
        lambda world, _: world.members[0].object(UpdateRef(1, 1), Reason.UNAVAILABLE),
        {"got": 1, "least": 4, "most": 4},
    ),
    "EpochNotNext": (
        lambda world, _: world.members[0].announce(2, bytes(32), bytes(32), ""),
        {"got": 2, "expected": 1},
    ),
    "RolesOutOfRange": (
        lambda world, _: world.owner.admit(memory_account(8), "x", Role(0)),
        {"got": 0, "least": 1, "most": 7},
    ),
    "AccountZero": (
        lambda world, _: world.owner.admit("0x" + "00" * 20, "x"),
        {"account": "0x" + "00" * 20},
    ),
}


def test_refusals_carry_the_contract_s_name_and_arguments(world: World) -> None:
    first = publish(world.members[0], 1, 1)
    head = world.owner.head()
    for name, (attempt, arguments) in REFUSALS.items():
        with pytest.raises(EntryRejected) as caught:
            attempt(world, first)
        assert (caught.value.name, caught.value.arguments) == (name, arguments)
        assert name in str(caught.value)
    with pytest.raises(EntryRejected) as caught:
        world.members[1].publish(an_update(head, 1, 2), (ONE,))
    tag = first.update.content[:4]
    assert caught.value.arguments == {"peer": 1, "sequence": 1, "got": b"....", "expected": tag}
    with pytest.raises(EntryRejected) as caught:
        world.members[0].admit(memory_account(8), "x")
    assert caught.value.arguments == {"account": world.members[0].account}
    assert caught.value.name == "OwnableUnauthorizedAccount"
    with pytest.raises(EntryRejected) as caught:
        world.owner.admit(world.members[1].account, "x")
    assert (caught.value.name, caught.value.arguments["peer"]) == ("AccountKnown", 2)
    with pytest.raises(EntryRejected) as caught:
        world.members[0].retire(world.members[1].account, "mean", 0)
    assert caught.value.name == "NotOwnerNorSelf"
    assert world.owner.head().size == head.size


def test_doubles_are_told_apart_from_other_refusals(world: World) -> None:
    publish(world.members[0], 1, 1)
    world.members[1].attest(bytes(32), (Attestation(1, 1, 1, 1),))
    world.members[1].object(UpdateRef(1, 1), Reason.UNAVAILABLE)
    for double in (
        lambda: publish(world.members[0], 1, 1),
        lambda: world.members[1].attest(os.urandom(32), (Attestation(1, 1, 2, 2),)),
        lambda: world.members[1].object(UpdateRef(1, 1), Reason.MALFORMED),
    ):
        with pytest.raises(AlreadyRecorded):
            double()


def test_who_is_no_member_is_told_so(make_world: MakeWorld) -> None:
    world = make_world((Role.ALL, Role.ATTEST, Role.PUBLISH))
    head = world.owner.head()
    with pytest.raises(NotAMember, match="never admitted"):
        world.outsider.publish(an_update(head, 1, 1), ())
    with pytest.raises(NotAMember, match=r"RoleMissing.*got=2, expected=1"):
        world.members[1].publish(an_update(head, 1, 1), ())
    publish(world.members[0], 1, 1)
    with pytest.raises(NotAMember, match=r"RoleMissing.*got=1, expected=2"):
        world.members[2].attest(bytes(32), (Attestation(1, 1, 0, 0),))
    world.owner.retire(world.members[0].account, "stolen key", 4)
    with pytest.raises(NotAMember, match=r"PeerIsRetired.*fromIndex=4"):
        publish(world.members[0], 2, 2)
    world.owner.admit(world.outsider.account, "site-1")
    publish(world.outsider, 1, 1)
    assert world.owner.peer_of(world.outsider.account).site == "site-1"  # type: ignore[union-attr]


def test_a_peer_cannot_publish_again_at_once_where_the_spec_says_so(make_world: MakeWorld) -> None:
    world = make_world((Role.ALL,), min_interval_s=3600)
    publish(world.members[0], 1, 1)
    with pytest.raises(EntryRejected) as caught:
        publish(world.members[0], 2, 2)
    got, expected = caught.value.arguments["got"], caught.value.arguments["expected"]
    assert caught.value.name == "TooSoon"
    assert isinstance(got, int) and isinstance(expected, int) and 3590 <= expected - got <= 3600


def test_what_the_contract_s_types_cannot_hold_is_refused_before_sending(world: World) -> None:
    head, one = world.owner.head(), world.members[0]
    for attempt in (
        lambda: one.publish(an_update(head, 1, 1, content=b"short"), ()),
        lambda: one.publish(an_update(head, 1, 1, train_samples=2**32), ()),
        lambda: one.publish(an_update(head, 1, 1), (replace(ONE, tag=b"abc"),)),
        lambda: world.owner.admit("0x12", "x"),
        lambda: world.owner.admit(memory_account(8), "s" * 33),
        lambda: one.announce(1, b"", bytes(32), ""),
    ):
        with pytest.raises(LedgerError, match="does not fit"):
            attempt()
    publish(one, 1, 1)


def test_peers_write_at_the_same_time(world: World) -> None:
    """Every write lands although others land first: gas limits have room for a deeper append."""
    failures: list[Exception] = []

    def work(ledger: Ledger) -> None:
        try:
            for sequence in range(1, 5):
                publish(ledger, sequence, sequence)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(ledger,)) for ledger in world.members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    index = index_of(world.owner)
    assert len(index.updates()) == 12
    for number in (1, 2, 3):
        assert [entry.body.ref.sequence for entry in index.updates(number)] == [1, 2, 3, 4]  # type: ignore[union-attr]


def test_nothing_to_recover(world: World) -> None:
    publish(world.members[0], 1, 1)
    assert list(world.members[0].recover()) == []
