"""Audits of encrypted and encoded updates: with a member's key, with another's, with none, in hardly any memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from given import Given, given
from playing import Play
from signed_ledger import key
from tampering import ALL, looked_at
from test_audit_shelf import Mapped, Watched, told

from fl_node.audit.at_hand import AtHand
from fl_node.audit.kept import Kept
from fl_node.audit.opening import genesis
from fl_node.audit.reading import Reader
from fl_node.audit.replay import Replay
from fl_node.audit.run import Scope, audit, updates_of
from fl_node.audit.verdicts import Result
from fl_node.content.unixfs import Buffer
from fl_node.errors import Unreadable
from fl_node.key_keeping import GivenKeys
from fl_node.monitor import of_report
from fl_node.sealing import age
from fl_node.sealing.age import Identity

OF_WEIGHTS = {"well-formed", "commitment", "merge", "originality"}
KINDS: list[dict[str, Any]] = [
    {"encrypt": True},
    {"encrypt": True, "encoding": "int8-delta"},
    {"encrypt": True, "encoding": "int8-delta", "full_every": 2, "mode": "sync"},
    {"encrypt": True, "encoding": "f16", "mode": "sync"},
    {"encoding": "top-k-delta"},
    {"encoding": "top-k-delta", "full_every": 2},
]


def not_ok(one: Given, jobs: int = 1) -> dict[tuple[str, str], Result]:
    return {(where, f.check): f.result for where, f in looked_at(one, jobs) if f.result is not Result.OK}


#: Nobody measures closing updates, and nobody signed a checkpoint.
USUAL = {**{(f"{peer}#4", "score"): Result.UNKNOWN for peer in (1, 2, 3, 4)}, (ALL, "consistent"): Result.UNKNOWN}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def play(request: pytest.FixtureRequest) -> Play:
    return Play(**request.param).whole()


@pytest.fixture(scope="module")
def secret() -> Play:
    return Play(encrypt=True, encoding="int8-delta", rounds=4).whole()


def test_honest_histories_hold_for_who_has_a_key(play: Play) -> None:
    assert not_ok(given(play)) == not_ok(given(play), jobs=3) == USUAL


def test_without_keys_weights_are_unknown_and_all_else_holds(secret: Play) -> None:
    one = given(secret)
    one.identities = ()
    found = looked_at(one)
    assert not [f for _, f in found if f.result not in (Result.OK, Result.UNKNOWN)]
    unknown = {(where, f.check): f for where, f in found if f.result is Result.UNKNOWN}
    updates = [str(update.ref) for update in updates_of(one.means())]
    first = [f"{peer}#1" for peer in (1, 2, 3, 4)]
    # The first base is the genesis, which everybody has.
    wanted = {(where, check) for where in updates for check in OF_WEIGHTS} - {
        (where, "merge") for where in first if (where, "merge") not in unknown
    }
    usual = {(f"{peer}#5", "score") for peer in (1, 2, 3, 4)} | {(ALL, "consistent")}
    assert unknown.keys() == wanted | usual
    assert {f.result for where, f in found if f.check in ("bytes", "sealed")} == {Result.OK}
    for where in updates:
        said = unknown[where, "well-formed"]
        assert said.detail.startswith("encrypted: members and auditors") and "--identity" in said.detail
        assert said.data["encrypted"] is unknown[where, "commitment"].data["encrypted"] is True


def test_a_late_joiner_s_key_opens_what_is_sealed_for_it_and_nothing_else(secret: Play) -> None:
    one = given(secret)
    one.identities = (secret.identities[5],)
    found = looked_at(one)
    assert not [f for _, f in found if f.result not in (Result.OK, Result.UNKNOWN)]
    read = {where for where, f in found if f.check == "commitment" and f.result is Result.OK}
    joined = next(e.index for e in secret.ledger.entries if getattr(e.body, "peer", 0) == 5)
    every = [update for facts in secret.ledger.prefix.peers() for update in secret.ledger.prefix.updates(facts.number)]
    assert read == {str(update.ref) for update in every if update.update.sealed_at > joined + 1}
    assert len(read) < len(every)


def test_a_retired_member_s_key_opens_nothing_that_came_after(secret: Play) -> None:
    play = Play(encrypt=True)
    for peer in (1, 2, 3, 4):
        play.turn(peer, 1)
    play.ledger.retire(4, len(play.ledger.entries))
    for number in (2, 3):
        for peer in (1, 2, 3):
            play.turn(peer, number)
    one = given(play)
    assert not {where: r for where, r in not_ok(one).items() if r is not Result.UNKNOWN}
    one.identities = (play.identities[4],)
    read = {where for where, f in looked_at(one) if f.check == "commitment" and f.result is Result.OK}
    assert read == {"1#1", "2#1", "3#1", "4#1"}


def test_unusable_and_shared_keys_are_nobody_s_fault() -> None:
    """A key of small order, none at all, and two members with one key: the others go on."""
    play = Play(encrypt=True, peers=5)
    play.ledger.announce(
        5,
        "memory://5",
        (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(32, "little"),
    )
    play.identities[4] = play.identities[3]
    play.ledger.announce(4, "memory://4", play.identities[3].public)
    play.ledger.admit(key("keyless"), "site-keyless")
    for number in (1, 2):
        for peer in (1, 2, 3, 4):
            play.turn(peer, number)
    found = looked_at(given(play))
    assert not [f for _, f in found if f.result not in (Result.OK, Result.UNKNOWN)]
    assert {f.data["readers"] for _, f in found if f.check == "sealed"} == {3}


# ---- memory ------------------------------------------------------------------------------------------------------


class Counting:
    """Keys that count what they open."""

    def __init__(self, identities: Any) -> None:
        self._inner, self.opened = GivenKeys(identities), Counter[bytes]()

    def open(self, content: bytes, data: Buffer, most_bytes: int) -> tuple[Buffer, int | None]:
        self.opened[content] += 1
        return self._inner.open(content, data, most_bytes)


@pytest.mark.parametrize("jobs", [1, 3])
def test_chains_of_changes_are_opened_once_and_again_only_where_memory_is_short(secret: Play, jobs: int) -> None:
    means = given(secret).means()
    _, start = genesis(means)
    assert start is not None and means.federation is not None
    spec = means.federation.spec

    def replayed(**bounds: int) -> tuple[list[Any], Watched, Counting]:
        keys = Counting(list(secret.identities.values())[:1])
        reader = Reader(spec, means.prefix, Mapped(means.blobs), start, opener=keys, sketching=True)
        replay = Replay(
            spec,
            means.prefix,
            start,
            lambda uses: Watched(reader, means.prefix, uses, **bounds),
            sketching=True,
            jobs=jobs,
        )
        return [told(one) for one in replay.run(updates_of(means))], replay.shelf, keys

    expected, shelf, keys = replayed()
    assert set(keys.opened.values()) == {1} and shelf.reopened == 0
    assert any("refers_to" in finding.data for one in expected for finding in one[1])
    found, tight, again = replayed(budget_bytes=0)
    assert found == expected
    assert tight.reopened > 0 and max(again.opened.values()) > 1 and tight.most_bytes == 0
    for one in (shelf, tight):
        assert not one._there and not one._at_work and not one._known and one.resident_bytes == one.mapped == 0


def test_decrypted_weights_count_as_memory(secret: Play) -> None:
    means = given(secret).means()
    _, start = genesis(means)
    assert start is not None and means.federation is not None
    keys = GivenKeys(list(secret.identities.values())[:1])
    reader = Reader(means.federation.spec, means.prefix, means.blobs, start, opener=keys)
    model = sum(array.nbytes for array in start.values())
    first = updates_of(means)[0]
    found = reader.look(first, None)
    assert found.good and found.held is None and found.resident_bytes == model


# ---- results on disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def kept_with(path: Path, one: Given, own: Identity | None) -> int:
    """How many results of an earlier audit this one found."""
    means = one.means()
    with Kept(path, means.log, means.spec_digest, own) as kept:
        assert not audit(means, Scope(), kept=kept).counted("suspicious")
        return kept.taken


def test_what_keys_found_out_is_kept_for_that_key_only(secret: Play, results: Path) -> None:
    one, mine, other = given(secret), secret.identities[1], secret.identities[2]
    updates = len(updates_of(one.means()))
    assert kept_with(results, one, mine) == 0
    assert kept_with(results, one, mine) == updates
    assert kept_with(results, one, other) == 0
    one.identities = ()
    assert kept_with(results, one, None) == 0
    found = looked_at(one)
    assert {f.result for _, f in found if f.check == "commitment"} == {Result.UNKNOWN}


def test_no_plaintext_and_nothing_that_follows_from_it_is_on_disk(secret: Play, results: Path) -> None:
    one = given(secret)
    means = one.means()
    assert kept_with(results, one, secret.identities[1]) == 0
    raw = b"".join(path.read_bytes() for path in results.parent.iterdir())
    assert b"age-encryption.org" in raw
    for update in updates_of(means):
        assert update.update.weights.hex().encode() not in raw and f'"{update.ref}"'.encode() not in raw
    for ref, model in secret.models.items():
        for name, array in model.items():
            assert array.tobytes()[:64] not in raw, (ref, name)
    # Sketches in the clear are there where everybody can read the weights anyway.
    plain, play = results.parent / "plain.sqlite", Play().whole()
    assert kept_with(plain, given(play), None) == 0
    assert b'"1#1"' in b"".join(path.read_bytes() for path in plain.parent.glob("plain*"))


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_the_first_of_several_keyholders_that_can_opens_and_the_last_word_is_told() -> None:
    mine, theirs = Identity.generate(), Identity.generate()
    data = age.seal(b"weights", [theirs.public])
    both = AtHand([GivenKeys([mine]), GivenKeys([theirs])], mine)
    assert bytes(both.open(b"", data, 100)[0]) == b"weights"
    with pytest.raises(Unreadable, match="none of 1 keys opens"):
        AtHand([GivenKeys([mine])], mine).open(b"", data, 100)


def test_a_monitor_without_keys_raises_no_alarm_and_does_not_ask_again_for_what_it_cannot_read(secret: Play) -> None:
    from fl_node.monitor import _may_change

    one = given(secret)
    one.identities = ()
    report = audit(one.means())
    assert not list(of_report(report))
    again = [f for update in report.updates for f in update.findings if _may_change(f)]
    assert not again
