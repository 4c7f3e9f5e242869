"""When a key is due, when an old one goes, and what is saved before it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.content.names import cid_of_update
from fl_node.errors import (
    ContentError,
    ContentUnavailable,
    KeyringError,
    MalformedWeights,
    StoreUnreachable,
    Unreadable,
)
from fl_node.key_keeping import (
    GivenKeys,
    Secrecy,
    announced_key,
    keys_to_destroy,
    overlap,
    reached_round,
    remember_superseded,
    rotation_due,
    sealed_to,
    superseded_rounds,
    tend,
    wanted,
)
from fl_node.keys import from_private_key
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.lost_keys import lost_key
from fl_node.pacing import common_round
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import ZERO32, Flag, Member, Reason, Role, Update, UpdateRef
from fl_node.sealing import age
from fl_node.sealing.age import Identity
from fl_node.spec import Spec
from fl_node.tables import PrivacySpec

SPEC = Spec(privacy=PrivacySpec(rotate_every=3, overlap_rounds=2, auditor_rounds=6))
PAYLOAD = b"payload of "
SOMEBODY = Identity.generate().public


class Members:
    """A publisher and an auditor whose keys are under test, and a second publisher; all update in every round."""

    def __init__(self, *roles: Role) -> None:
        roles = roles or (Role.ALL, Role.ALL, Role.READ)
        self.members = [Member(memory_account(n), f"site-{n}", role) for n, role in enumerate(roles, 1)]
        self.chain = MemoryChain(self.members)
        self.ledgers = [self.chain.ledger(member.account) for member in self.members]
        self.store = MemoryStore()
        self.round = 0

    def announce(self, peer: int, key: bytes, endpoint: str = "http://x") -> None:
        ledger = self.ledgers[peer - 1]
        ledger.announce(ledger.peer(peer).epoch + 1, key, ZERO32, endpoint)

    def play(self, rounds: int = 1, publishers: tuple[int, ...] = (1, 2)) -> None:
        """Rounds in which these peers publish, sealed to the keys that are announced now, and to somebody's."""
        for _ in range(rounds):
            self.round += 1
            for peer in publishers:
                ledger, prefix = self.ledgers[peer - 1], self.prefix
                keys = {announced_key(prefix, number) for number in (1, 2, 3)} - {ZERO32}
                data = age.seal(PAYLOAD + f"{peer}#{self.round}".encode(), [*keys, SOMEBODY])
                cid = self.store.add(data, label="own", round=self.round)
                update = self.update(cid, self.round, prefix.size)
                ledger.publish(replace(update, sequence=prefix.sequence(peer) + 1), ())

    def update(self, cid: Cid, number: int, size: int) -> Update:
        return Update(
            content=cid.digest, flags=Flag.ENCRYPTED, weights=bytes(32), base=bytes(32), report=bytes(32), seen=size,
            seen_root=bytes(32), sequence=number, round=number, score_ppm=0, base_score_ppm=0, train_samples=1,
            test_samples=1, rule=0, sealed_at=size,
        )  # fmt: skip

    @property
    def prefix(self) -> Prefix:
        index = LedgerIndex(":memory:", self.ledgers[0])
        index.sync()
        return Prefix(index.entries())

    def tend(self, secrecy: Secrecy, peer: int = 1, oldest: int = 0) -> object:
        return tend(secrecy, SPEC, self.prefix, peer, self.store, oldest_round=oldest)


@pytest.fixture
def members() -> Members:
    return Members()


def keys(count: int) -> list[bytes]:
    return [Identity.generate().public for _ in range(count)]


# ---- rules ----


def test_a_key_is_due_after_its_rounds_whatever_else_was_announced(members: Members) -> None:
    (one,) = keys(1)
    assert not rotation_due(SPEC, members.prefix, 1, 99)  # nothing to rotate
    members.announce(1, one)
    members.play(2)
    members.announce(1, one, "http://moved")
    assert announced_key(members.prefix, 1) == one
    for _ in range(2):
        prefix = members.prefix
        assert rotation_due(SPEC, prefix, 1, common_round(prefix)) == (common_round(prefix) >= 3)
        members.play()
    never = SPEC.model_copy(update={"privacy": PrivacySpec(rotate_every=0)})
    assert not rotation_due(never, members.prefix, 1, 99)


def test_a_key_that_came_back_counts_from_then(members: Members) -> None:
    one, two = keys(2)
    for key in (one, two, one):
        members.announce(1, key)
        members.play(2)
    prefix = members.prefix
    assert superseded_rounds(prefix, 1) == {two: 4}
    assert not rotation_due(SPEC, prefix, 1, common_round(prefix))
    assert rotation_due(SPEC, prefix, 1, common_round(prefix) + 1)


def test_the_announced_key_at_any_size(members: Members) -> None:
    one, two = keys(2)
    members.announce(1, one)
    middle = members.prefix.size
    members.announce(1, two)
    prefix = members.prefix
    assert announced_key(prefix, 1, 0) == ZERO32 == announced_key(prefix, 2) == announced_key(prefix, 9)
    assert announced_key(prefix, 1, middle) == one and announced_key(prefix, 1) == two
    assert announced_key(prefix.upto(middle), 1) == one


def test_keys_go_after_the_overlap_those_of_auditors_later(members: Members) -> None:
    first, second, other = keys(3)
    for peer in (1, 3):
        members.announce(peer, first)
    members.play(2)
    for peer in (1, 3):
        members.announce(peer, second)
    gone: dict[int, list[int]] = {1: [], 3: []}
    for now in range(2, 12):
        members.play()
        for peer in (1, 3):
            doomed = keys_to_destroy(SPEC, members.prefix, peer, [second, first, other], now)
            assert second not in doomed and other not in doomed  # current, and never announced
            if first in doomed:
                gone[peer].append(now)
    assert gone[1][0] == 2 + SPEC.privacy.overlap_rounds + 1
    assert gone[3][0] == 2 + SPEC.privacy.auditor_rounds + 1


def test_a_peer_that_was_down_keeps_its_keys_until_it_has_caught_up() -> None:
    members, secrecy = Members(Role.ALL, Role.ALL, Role.ALL), Secrecy.in_memory()
    first = secrecy.recipient()
    members.announce(1, first)
    members.play(2, (1, 2, 3))
    members.announce(1, secrecy.keys.make(2, 9).public)
    members.play(6, (2, 3))
    assert common_round(members.prefix) == 8 and reached_round(members.prefix, 1) == 2
    assert members.tend(secrecy).destroyed == ()
    members.play(1, (1, 2, 3))
    assert reached_round(members.prefix, 1) == 9
    assert members.tend(secrecy).destroyed == (first,)
    assert reached_round(members.prefix, 2) == 9


def test_who_has_closed_or_only_audits_goes_by_the_others(members: Members) -> None:
    members.play(3)
    assert reached_round(members.prefix, 3) == 3
    third = Members(Role.ALL, Role.ALL, Role.ALL)
    third.play(1, (1, 2, 3))
    closing = third.update(Cid("raw", b"\x01" * 32), 2, third.prefix.size)
    third.ledgers[0].publish(replace(closing, flags=Flag.FINAL), ())
    third.round = 1
    third.play(5, (2, 3))
    assert reached_round(third.prefix, 1) == common_round(third.prefix) == 6


def test_what_was_sealed_to_a_key(members: Members) -> None:
    one, two = keys(2)
    members.play()
    members.announce(1, one)
    members.play(2)
    members.announce(1, two)
    members.play()
    prefix = members.prefix
    assert {str(entry.ref) for entry in sealed_to(prefix, 1, one)} == {"1#2", "1#3", "2#2", "2#3"}
    assert {str(entry.ref) for entry in sealed_to(prefix, 1, two)} == {"1#4", "2#4"}
    assert list(sealed_to(prefix, 2, one)) == []


# ---- acts ----


@pytest.fixture(params=["memory", "disk"])
def secrecy(request: pytest.FixtureRequest, tmp_path: Path) -> Secrecy:
    return (
        Secrecy.in_memory() if request.param == "memory" else Secrecy.of(tmp_path, from_private_key("0x" + "17" * 32))
    )


def test_a_fresh_key_is_made_once_and_waits_to_be_announced(members: Members, secrecy: Secrecy) -> None:
    first = secrecy.recipient()
    assert secrecy.recipient() == first and members.tend(secrecy).made is None  # not announced yet: nothing to rotate
    members.announce(1, first)
    members.play(2)
    assert members.tend(secrecy).made is None
    members.play()
    made = members.tend(secrecy).made
    assert made is not None and made != first and secrecy.recipient() == made
    assert members.tend(secrecy).made is None and secrecy.recipient() == made
    members.announce(1, made)
    assert members.tend(secrecy).made is None


def test_a_rotation_that_was_asked_for(members: Members, secrecy: Secrecy) -> None:
    members.announce(1, secrecy.recipient())
    secrecy.keys.request_rotation()
    made = members.tend(secrecy).made
    assert made == secrecy.recipient() and not secrecy.keys.rotation_requested()
    members.announce(1, made)
    assert members.tend(secrecy).made is None


def test_many_rotations_lose_nothing_that_is_kept(members: Members, secrecy: Secrecy) -> None:
    """Rounds go on, keys come and go; every update that the content store has can be read at any time."""
    destroyed: list[bytes] = []
    for _ in range(16):
        oldest = max(0, members.round - 5)
        done = members.tend(secrecy, oldest=oldest)
        destroyed += done.destroyed
        if announced_key(members.prefix, 1) != secrecy.recipient():
            members.announce(1, secrecy.recipient())
        members.play()
        members.store.gc(max(0, members.round - 5))
        for number in range(1, members.round + 1):
            for peer in (1, 2):
                entry = members.prefix.update(UpdateRef(peer, number))
                if members.store.has(cid_of_update(entry.update)):
                    opened, encoding = secrecy.open(
                        entry.content, members.store.get(cid_of_update(entry.update), 1 << 20), 100
                    )
                    assert bytes(opened) == PAYLOAD + f"{peer}#{number}".encode() and encoding is None
    assert len(destroyed) >= 3 and len(secrecy.keys.identities()) <= 3
    assert all(secrecy.keys.find(public) is None for public in destroyed)
    assert 0 < len(secrecy.vault.contents()) <= 12  # of some 30 updates; the rest went with retention
    assert [record.destroyed is not None for record in secrecy.keys.records][: len(destroyed)] == [True] * len(
        destroyed
    )


def rotated(members: Members, secrecy: Secrecy) -> bytes:
    """The first key, announced, used for two rounds, superseded, and past its overlap."""
    first = secrecy.recipient()
    members.announce(1, first)
    members.play(2)
    members.announce(1, secrecy.keys.make(2, 9).public)
    members.play(3)
    return first


def lose(secrecy: Secrecy, public: bytes, folder: Path) -> Secrecy:
    """The same state folder without a private key: as after a start."""
    path = folder / "keys" / f"{age.recipient_text(public)}.age"
    if path.exists():
        path.unlink()
        return Secrecy.of(folder, from_private_key("0x" + "17" * 32))
    del secrecy.keys._identities[public]
    return secrecy


def test_a_superseded_key_never_comes_back_for_one_that_is_lost(
    members: Members, secrecy: Secrecy, tmp_path: Path
) -> None:
    old = secrecy.recipient()
    members.announce(1, old)
    members.play(2)
    new = secrecy.keys.make(2, 9).public
    members.announce(1, new)
    members.play(2)
    assert lost_key(secrecy, members.prefix, 1) is None
    secrecy = lose(secrecy, new, tmp_path)
    secrecy.vault.put(members.prefix.update(UpdateRef(1, 3)).content, b"known", round=3)
    lost = lost_key(secrecy, members.prefix, 1)
    assert lost is not None and lost.public == new
    assert [str(ref) for ref in lost.updates] == ["2#3", "1#4", "2#4"]
    for told in (age.recipient_text(new), "3 updates, from 2#3 to 2#4 on the ledger, cannot be read", "fl-node share"):
        assert told in lost.told()
    kept = lost_key(secrecy, members.prefix, 1, oldest_round=5)
    assert kept is not None and kept.updates == () and "no update that is still kept needs it" in kept.told()
    made = members.tend(secrecy).made
    assert made not in (None, old, new) and secrecy.recipient() == made
    assert secrecy.keys.find(old) is not None  # it still opens what was under way
    assert secrecy.keys.records[-1].made_round == 4
    members.announce(1, made)
    assert lost_key(secrecy, members.prefix, 1) is None and members.tend(secrecy).made is None


def test_a_list_made_again_brings_no_superseded_key_back(members: Members, tmp_path: Path) -> None:
    """All that is known of keys is the ledger, and the file of an old one."""
    signer = from_private_key("0x" + "17" * 32)
    secrecy = Secrecy.of(tmp_path, signer)
    old = secrecy.recipient()
    members.announce(1, old)
    new = secrecy.keys.make(0, 9).public
    members.announce(1, new)
    members.play(1)
    (tmp_path / "keys" / "keyring.json").unlink()
    (tmp_path / "keys" / f"{age.recipient_text(new)}.age").unlink()
    again = Secrecy.of(tmp_path, signer)
    remember_superseded(again.keys, members.prefix, 1)
    assert again.keys.find(old) is not None and again.recipient(1, 5) not in (old, new)
    assert again.keys.records[-1].made_round == 1 and again.keys.records[-1].made_size == 5


def test_the_first_key_is_of_the_round_in_which_it_is_made(members: Members, secrecy: Secrecy) -> None:
    members.play(3)
    assert members.tend(secrecy).made is None  # nothing was rotated
    (record,) = secrecy.keys.records
    assert record.made_round == 3 and record.made_size == members.prefix.size and secrecy.recipient() == record.public


def test_a_damaged_file_of_the_vault_is_neither_held_nor_taken_for_a_copy(members: Members, tmp_path: Path) -> None:
    told: list[str] = []
    secrecy = Secrecy.of(tmp_path, from_private_key("0x" + "17" * 32), told.append)
    first = rotated(members, secrecy)
    entries = [members.prefix.update(UpdateRef(2, number)) for number in (1, 2)]
    for entry in entries:
        secrecy.vault.put(entry.content, b"payload", round=entry.round)
    (path,) = (tmp_path / "vault").glob(f"{entries[0].content.hex()}-*.age")
    path.write_bytes(b"junk")
    assert not secrecy.holds(entries[0].content) and secrecy.holds(entries[1].content)
    assert len(told) == 1 and str(path) in told[0]
    (path,) = (tmp_path / "vault").glob(f"{entries[1].content.hex()}-*.age")
    path.write_bytes(b"junk")  # after it was found whole
    data = members.store.get(cid_of_update(entries[1].update), 1 << 20)
    assert bytes(secrecy.open(entries[1].content, data, 100)[0]) == PAYLOAD + b"2#2" and len(told) == 2
    assert not secrecy.holds(entries[1].content)
    secrecy.vault.put(entries[0].content, b"payload", round=1)
    (path,) = (tmp_path / "vault").glob(f"{entries[0].content.hex()}-*.age")
    path.write_bytes(b"junk")
    done = members.tend(secrecy)
    assert done.destroyed == (first,) and done.kept == 4 and len(told) == 3


def test_without_the_vault_the_old_updates_would_be_lost(members: Members, secrecy: Secrecy) -> None:
    first = rotated(members, secrecy)
    done = members.tend(secrecy)
    assert done.destroyed == (first,) and done.kept == 4
    entry = members.prefix.update(UpdateRef(2, 1))
    data = members.store.get(cid_of_update(entry.update), 1 << 20)
    with pytest.raises(Unreadable):
        age.unseal(data, secrecy.keys.identities(), 100)
    assert bytes(secrecy.open(entry.content, data, 100)[0]) == PAYLOAD + b"2#1"
    assert secrecy.recall(entry.content, 100) is not None and secrecy.recall(bytes(32), 100) is None
    (record, *_) = secrecy.keys.records
    assert record.superseded == 2 and record.destroyed == 5


def test_what_never_came_is_asked_for_once_more(members: Members, secrecy: Secrecy) -> None:
    """Of what is sealed to a key that goes: the latest of each peer, what that refers to, and what this peer called
    unavailable; nothing that it did not want before."""
    members.announce(1, secrecy.recipient())
    members.play(4)
    members.ledgers[0].object(UpdateRef(2, 2), Reason.UNAVAILABLE)
    members.ledgers[1].object(UpdateRef(1, 1), Reason.UNAVAILABLE)
    elsewhere = {}
    for number in range(1, 5):
        entry = members.prefix.update(UpdateRef(2, number))
        cid = cid_of_update(entry.update)
        elsewhere[entry.content] = bytes(members.store.get(cid, 1 << 20))
        members.store.unpin(cid, "own")
    members.store.gc()
    members.announce(1, secrecy.keys.make(4, 9).public)
    members.play(3)
    entry = members.prefix.update(UpdateRef(2, 7))
    assert not members.store.has(Cid("raw", next(iter(elsewhere)))) and members.store.has(cid_of_update(entry.update))
    assert wanted(SPEC, members.prefix, 1) == {UpdateRef(1, 7), UpdateRef(2, 7), UpdateRef(2, 2)}
    asked: list[str] = []

    def fetch(entry: UpdateEntry) -> bytes:
        asked.append(str(entry.ref))
        members.store.add(elsewhere[entry.content], label="fetched", round=entry.round)
        return elsewhere[entry.content]

    done = tend(secrecy, SPEC, members.prefix, 1, members.store, oldest_round=0, fetch=fetch)
    assert asked == ["2#2"] and done.kept == 5 and len(done.destroyed) == 1
    assert secrecy.vault.has(members.prefix.update(UpdateRef(2, 2)).content)


@pytest.mark.parametrize("error", [ContentUnavailable("down"), StoreUnreachable("no daemon")])
def test_what_nobody_gives_lets_a_key_go(members: Members, secrecy: Secrecy, error: ContentError) -> None:
    first = rotated(members, secrecy)
    entry = members.prefix.update(UpdateRef(2, 1))
    members.ledgers[0].object(entry.ref, Reason.UNAVAILABLE)
    members.store.unpin(cid_of_update(entry.update), "own")
    members.store.gc()

    def fetch(entry: UpdateEntry) -> bytes:
        raise error

    def go() -> None:
        tend(secrecy, SPEC, members.prefix, 1, members.store, oldest_round=0, fetch=fetch)

    if isinstance(error, StoreUnreachable):  # this peer's own fault: it may yet be had
        with pytest.raises(StoreUnreachable):
            go()
        assert secrecy.keys.find(first) is not None
    else:
        go()
        assert secrecy.keys.find(first) is None


def test_a_key_stays_while_the_store_does_not_answer(
    members: Members, secrecy: Secrecy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rotated(members, secrecy)

    def silent(cid: Cid) -> bool:
        raise StoreUnreachable("no daemon")

    with monkeypatch.context() as patch:
        patch.setattr(members.store, "has", silent)
        with pytest.raises(StoreUnreachable):
            members.tend(secrecy)
    assert secrecy.keys.find(first) is not None
    assert members.tend(secrecy).destroyed == (first,)


def test_a_key_stays_while_the_vault_cannot_be_written(
    members: Members, secrecy: Secrecy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rotated(members, secrecy)

    def full(*given: object, **more: object) -> None:
        raise KeyringError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(secrecy.vault, "put", full)
        with pytest.raises(KeyringError):
            members.tend(secrecy)
    assert secrecy.keys.find(first) is not None
    done = members.tend(secrecy)
    assert done.destroyed == (first,) and done.kept == 4


def test_what_nobody_could_read_does_not_keep_a_key(members: Members, secrecy: Secrecy) -> None:
    first = secrecy.recipient()
    members.announce(1, first)
    hostile = members.store.add(b"age-encryption.org/v1\nnothing", label="fetched", round=1)
    not_for_us = members.store.add(age.seal(b"x", keys(1)), label="fetched", round=2)
    for number, cid in enumerate((hostile, not_for_us), 1):
        members.ledgers[1].publish(members.update(cid, number, members.prefix.size), ())
    members.round = 2
    members.announce(1, secrecy.keys.make(0, 0).public)
    for number in range(3, 9):
        cid = members.store.add(f"clear {number}".encode(), label="own", round=number)
        for peer in (1, 2):
            sequence = members.prefix.sequence(peer) + 1
            update = members.update(cid, sequence, members.prefix.size)
            members.ledgers[peer - 1].publish(update, ())
    done = members.tend(secrecy)
    assert done.destroyed == (first,) and done.kept == 0


def test_the_vault_forgets_with_the_federation_s_retention(members: Members, secrecy: Secrecy) -> None:
    rotated(members, secrecy)
    assert members.tend(secrecy).kept == 4
    assert members.tend(secrecy, oldest=9).forgotten == 0  # the store still has them
    members.store.gc(3)
    assert members.tend(secrecy, oldest=2).forgotten == 2
    assert members.tend(secrecy, oldest=3).forgotten == 2 and secrecy.vault.contents() == frozenset()


def test_opening(members: Members, secrecy: Secrecy) -> None:
    key = secrecy.recipient()
    data = age.seal(b"payload", [key])
    assert bytes(secrecy.open(bytes(32), data, 7)[0]) == b"payload"
    with pytest.raises(MalformedWeights):
        secrecy.open(bytes(32), data, 6)
    with pytest.raises(Unreadable):
        secrecy.open(bytes(32), age.seal(b"x", keys(1)), 7)
    secrecy.vault.put(b"\x01" * 32, b"whole", round=3, encoding=0)
    opened, encoding = secrecy.open(b"\x01" * 32, b"no age file at all", 7)
    assert bytes(opened) == b"whole" and encoding == 0
    given = GivenKeys(secrecy.keys.identities())
    assert bytes(given.open(bytes(32), data, 7)[0]) == b"payload"
    with pytest.raises(Unreadable):
        GivenKeys([]).open(bytes(32), data, 7)


@pytest.mark.parametrize("ends", ["it comes", "it is gone", "it never comes"])
def test_a_key_waits_for_content_that_the_store_has_and_does_not_give(
    members: Members, secrecy: Secrecy, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """A daemon may be late. What can be read goes into the vault meanwhile; no key stays for ever."""
    first = rotated(members, secrecy)
    entry = members.prefix.update(UpdateRef(2, 2))
    cid = cid_of_update(entry.update)
    hold, has = members.store.hold, members.store.has

    def holding(wanted: Cid, most: int) -> object:
        if wanted == cid:
            raise ContentUnavailable("late")
        return hold(wanted, most)

    with monkeypatch.context() as patch:
        patch.setattr(members.store, "hold", holding)
        assert members.tend(secrecy).destroyed == () and secrecy.keys.find(first) is not None
        assert len(secrecy.vault.contents()) == 3
        if ends == "it never comes":
            rounds = 0
            while secrecy.keys.find(first) is not None:
                members.play()
                members.tend(secrecy)
                rounds += 1
            assert rounds == overlap(SPEC, Role.ALL)
    if ends == "it is gone":
        monkeypatch.setattr(members.store, "has", lambda wanted: wanted != cid and has(wanted))
    if ends != "it never comes":
        assert members.tend(secrecy).destroyed == (first,)
    assert (entry.content in secrecy.vault.contents()) == (ends == "it comes")
