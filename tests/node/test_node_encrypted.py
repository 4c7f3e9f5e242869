"""Encrypted and encoded updates between peers in memory: who can read what, late joiners, rotation, deltas."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from replay import cid_of
from twins import Twins

from fl_node import readers
from fl_node.audit.sealed import sealed
from fl_node.audit.verdicts import Result
from fl_node.config import NodeConfig
from fl_node.content.cid import Cid
from fl_node.decoding import Decoder
from fl_node.errors import Unreadable
from fl_node.journal import Draft
from fl_node.key_keeping import Secrecy
from fl_node.keys import from_private_key
from fl_node.ledger.memory import memory_account
from fl_node.merging import encodings
from fl_node.merging.personal import published
from fl_node.merging.weights import schema_of
from fl_node.node import announce, keep_keys, next_goal, take_part
from fl_node.peer import Moved, Stopped
from fl_node.prefix import Prefix
from fl_node.publishing import for_readers_now
from fl_node.readers import readers_at, sealed_for
from fl_node.records import Flag, PeerAnnounced, Reason, UpdateObjected, UpdateRef
from fl_node.round import Goal, evaluate, merge, play_round, train
from fl_node.sealing.age import read_header, recipient_text
from fl_node.spec import Spec, parse_federation


def spec_of(more: str = "", **rounds: Any) -> Spec:
    table = "\n".join(f"{key} = {value!r}".replace("'", '"') for key, value in {"planned": 3, **rounds}.items())
    head = 'format = 1\nname = "secret"\n[training]\nlearning_rate = 0.1\nepochs = 1\n'
    return parse_federation(f"{head}[rounds]\n{table}\n{more}".encode()).spec


def lockstep(twins: Twins, rounds: int, numbers: tuple[int, ...]) -> dict[int, Any]:
    peers = {number: twins.peer(number) for number in numbers}
    for peer in peers.values():
        peer.sync()
        announce(peer, f"memory://{peer.number}", 0.01)
    play(peers, rounds)
    return peers


def play(peers: dict[int, Any], rounds: int) -> None:
    for _ in range(rounds):
        for peer in peers.values():
            keep_keys(peer)
            announce(peer, f"memory://{peer.number}", 0.01)
            goal = next_goal(peer)
            assert goal is not None
            play_round(peer, goal)
    for peer in peers.values():
        peer.sync()


def decoder_of(twins: Twins, opener: Any) -> Decoder:
    shared = published(twins.spec, twins.genesis)
    return Decoder(twins.spec, schema_of(shared), lambda: shared, lambda entry: twins.read(cid_of(entry)), opener)


def prefix_of(twins: Twins) -> Prefix:
    peer = twins.peer(1)
    peer.sync()
    return peer.prefix


@pytest.mark.parametrize("kind", ["f32", "f16", "int8-delta", "top-k-delta"])
@pytest.mark.parametrize(("encrypted", "mode"), [(True, "sync"), (True, "async"), (False, "sync")])
def test_a_federation_replays_whatever_its_encoding(tmp_path: Path, kind: str, encrypted: bool, mode: str) -> None:
    twins = Twins(tmp_path, spec_of(f'[encoding]\nkind = "{kind}"\nfull_every = 3\n', planned=4, mode=mode))
    twins = Twins(tmp_path, twins.spec, encrypted=encrypted)
    assert set(twins.run().values()) == {None}
    replay = twins.replay()
    replay.decoder = decoder_of(twins, twins.secrets.get(1))
    updates = replay.check()
    assert len(updates) == 3 * 5
    for entry in updates:
        assert bool(entry.update.flags & Flag.ENCRYPTED) == encrypted
        assert bool(entry.update.sealed_at) == encrypted
        full = entry.final or "delta" not in kind or entry.ref.sequence % 3 == 1
        assert (entry.update.refers_to == 0) == full
        if entry.final or not full or kind in ("f32", "f16"):
            expected = 0 if entry.final else {"f32": 0, "f16": 1, "int8-delta": 2, "top-k-delta": 3}[kind]
            assert encodings.kind_of(entry.update.encoding) == expected
        if encrypted:
            header = read_header(twins.read(cid_of(entry)))
            assert header.kinds.count("X25519") == 3
    assert "lost" not in {event.kind for _, event in twins.events}
    assert not any(isinstance(entry.body, UpdateObjected) for entry in replay.entries)


def test_who_is_no_member_reads_nothing(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of(), size=2, encrypted=True)
    lockstep(twins, 1, (1, 2))
    prefix = prefix_of(twins)
    entry = prefix.update(UpdateRef(1, 1))
    decoder_of(twins, twins.secrets[2]).tensors(entry, prefix)
    for nobody in (None, Secrecy.in_memory()):
        with pytest.raises(Unreadable):
            decoder_of(twins, nobody).tensors(entry, prefix)


def test_a_retired_peer_reads_what_came_before_and_nothing_after(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of(planned=9), encrypted=True)
    peers = lockstep(twins, 1, (1, 2, 3))
    twins.chain.ledger().retire(twins.ledgers[3].account, "left", peers[1].prefix.size)
    del peers[3]
    play(peers, 1)
    prefix = prefix_of(twins)
    before, after = prefix.update(UpdateRef(1, 1)), prefix.update(UpdateRef(1, 2))
    retired = decoder_of(twins, twins.secrets[3])
    retired.tensors(before, prefix)
    with pytest.raises(Unreadable):
        retired.tensors(after, prefix)
    decoder_of(twins, twins.secrets[2]).tensors(after, prefix)


@pytest.mark.parametrize("kind", ["f32", "int8-delta"])
def test_a_late_joiner_starts_from_what_follows_and_objects_to_nothing(tmp_path: Path, kind: str) -> None:
    twins = Twins(tmp_path, spec_of(f'[encoding]\nkind = "{kind}"\n', planned=9), members=2, encrypted=True)
    peers = lockstep(twins, 2, (1, 2))
    twins.chain.ledger().admit(twins.ledgers[3].account, "site-3")
    peers[3] = twins.peer(3)
    play({3: peers[3]}, 1)
    prefix = peers[3].prefix
    first = prefix.update(UpdateRef(3, 1))
    assert not first.parents, "nothing was sealed for it yet"
    report = json.loads(twins.read(Cid("raw", first.update.report)))
    assert "not-sealed" in {item["outcome"] for item in report["candidates"]}
    play(peers, 2)
    replay = twins.replay()
    replay.decoder = decoder_of(twins, twins.secrets[1])
    replay.check()
    prefix = prefix_of(twins)
    second = prefix.update(UpdateRef(3, 3))
    assert {parent.peer for parent in second.parents if parent.share_ppm} == {1, 2, 3}
    # Whoever published after it came wrote a full update, though the tenth was not due.
    assert prefix.update(UpdateRef(1, 3)).update.refers_to == 0
    assert not any(isinstance(entry.body, UpdateObjected) for entry in replay.entries)
    assert not sealed_for(prefix, prefix.update(UpdateRef(1, 2)), 3, 10)
    assert sealed_for(prefix, prefix.update(UpdateRef(1, 3)), 3, 10)


def test_keys_rotate_and_old_ones_go_without_losing_an_update(tmp_path: Path) -> None:
    more = "[privacy]\nrotate_every = 2\noverlap_rounds = 1\n"
    twins = Twins(tmp_path, spec_of(more, planned=12), encrypted=True)
    peers = lockstep(twins, 9, (1, 2, 3))
    keys = {facts.announcement.recipient_key for n in (1, 2, 3) if (facts := peers[1].prefix.peer(n)).announcement}
    assert len(keys) == 3 and all(facts.announcement.epoch >= 3 for facts in peers[1].prefix.peers())
    destroyed = [event for _, event in twins.events if event.kind == "key-destroyed"]
    assert len(destroyed) >= 3
    replay = twins.replay()
    replay.decoder = decoder_of(twins, twins.secrets[2])  # from what it keeps now, the vault included
    assert len(replay.check()) == 27
    assert not any(isinstance(entry.body, UpdateObjected) for entry in replay.entries)


def test_a_publisher_beyond_the_most_readers_goes_on_from_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MOST_READERS", 2)
    twins = Twins(tmp_path, spec_of(planned=9), encrypted=True)
    peers = {number: twins.peer(number) for number in (1, 2, 3)}
    for peer in peers.values():
        peer.sync()
        announce(peer, f"memory://{peer.number}", 0.01)
    play(peers, 2)
    prefix = prefix_of(twins)
    assert not any(prefix.objections(update.ref) for n in (1, 2, 3) for update in prefix.updates(n))
    assert {parent.peer for parent in prefix.update(UpdateRef(3, 2)).parents} == {3}
    assert {parent.peer for parent in prefix.update(UpdateRef(1, 2)).parents} == {1, 2, 3}
    stanzas = {}
    for facts in prefix.peers():
        entry = prefix.update(UpdateRef(facts.number, 2))
        content = twins.read(cid_of(entry))
        found = sealed(twins.spec, prefix, entry, content)
        assert found.result is Result.OK, found
        stanzas[facts.number] = read_header(content).kinds.count("X25519")
    assert stanzas == {1: 2, 2: 2, 3: 3}
    told = {(number, event.detail["peer"]) for number, event in twins.events if event.kind == "not-sealed-for"}
    assert told == {(1, 3), (2, 3)}


def test_a_member_that_is_left_out_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = Twins(tmp_path, spec_of(planned=9), encrypted=True)
    peers = {number: twins.peer(number) for number in (1, 2, 3)}
    for peer in peers.values():
        peer.sync()
        announce(peer, f"memory://{peer.number}", 0.01)
    import fl_node.publishing as publishing

    def without_three(prefix: Prefix, publisher: int) -> Any:
        return tuple(key for n, key in readers_at(prefix).keys.items() if n != 3)

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "recipients_of", without_three)
        play({1: peers[1]}, 1)
    play({2: peers[2]}, 1)
    play({3: peers[3]}, 1)
    play({2: peers[2]}, 1)
    prefix = prefix_of(twins)
    (word,) = prefix.objections(UpdateRef(1, 1))
    assert (word.peer, word.reason) == (3, Reason.UNAVAILABLE)
    assert {parent.peer for parent in prefix.update(UpdateRef(2, 2)).parents} == {1, 2, 3}


def test_what_is_in_the_clear_where_the_spec_encrypts_is_objected_to(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of(planned=9), encrypted=True)
    peers = {number: twins.peer(number) for number in (1, 2, 3)}
    for peer in peers.values():
        peer.sync()
        announce(peer, f"memory://{peer.number}", 0.01)
    peers[1].secrecy = None
    peers[1].spec = peers[1].spec.model_copy(
        update={"privacy": peers[1].spec.privacy.model_copy(update={"encrypt": False})}
    )
    play({1: peers[1]}, 1)
    play({2: peers[2]}, 1)
    (word,) = prefix_of(twins).objections(UpdateRef(1, 1))
    assert (word.peer, word.reason) == (2, Reason.MALFORMED)


def test_an_update_is_not_readable_in_the_store(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of(), size=2, encrypted=True)
    lockstep(twins, 1, (1, 2))
    entry = prefix_of(twins).update(UpdateRef(1, 1))
    data = twins.read(cid_of(entry))
    assert data.startswith(b"age-encryption.org/v1\n") and b"linear" not in data
    assert twins.read(Cid("raw", entry.update.report)).startswith(b"{")


def test_a_peer_waits_for_keys_before_its_first_update(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of("[privacy]\nkey_wait_s = 0.3\n", planned=1, linger_s=0.1), size=2, encrypted=True)
    take_part(twins.peer(1), "memory://1", NodeConfig(poll_s=0.01, retry_s=5.0))
    assert any(event.kind == "waiting" and "keys of" in event.text for _, event in twins.events)
    assert any(event.kind == "not-sealed-for" for _, event in twins.events)


@pytest.mark.parametrize("keyring", ["there", "made again"])
def test_a_lost_key_is_told_and_the_one_before_never_comes_back(tmp_path: Path, keyring: str) -> None:
    twins = Twins(tmp_path, spec_of(planned=9), size=2, encrypted=True)
    signer = from_private_key("0x" + "17" * 32)
    twins.secrets[1] = Secrecy.of(tmp_path / "one", signer)
    peers = lockstep(twins, 1, (1, 2))
    twins.secrets[1].keys.request_rotation()
    play(peers, 1)
    leaked, current = (record.public for record in twins.secrets[1].keys.records)
    (tmp_path / "one" / "keys" / f"{recipient_text(current)}.age").unlink()
    if keyring == "made again":
        (tmp_path / "one" / "keys" / "keyring.json").unlink()
    twins.secrets[1] = Secrecy.of(tmp_path / "one", signer)
    twins.events.clear()
    peers[1] = twins.peer(1)
    play(peers, 1)
    (event,) = (event for number, event in twins.events if event.kind == "key-lost")
    assert event.detail == {"key": current.hex(), "updates": 2} and recipient_text(current) in event.text
    prefix = prefix_of(twins)
    said = [fact.body.recipient_key for fact in prefix.announcements(1) if isinstance(fact.body, PeerAnnounced)]
    assert said[:2] == [leaked, current] and len(said) == 3 and said[2] not in said[:2]
    decoder_of(twins, twins.secrets[1]).tensors(prefix.update(UpdateRef(2, 3)), prefix)
    twins.events.clear()
    play(peers, 1)
    assert not any(event.kind == "key-lost" for _, event in twins.events)


@pytest.mark.parametrize("waits", ["for a round", "for the others to end", "for keys"])
def test_a_rotation_is_made_while_a_peer_waits(tmp_path: Path, waits: str) -> None:
    more = "[privacy]\nkey_wait_s = 100.0\n" if waits == "for keys" else ""
    planned = 1 if waits == "for the others to end" else 9
    twins = Twins(tmp_path, spec_of(more, planned=planned, linger_s=100.0, mode="sync"), size=2, encrypted=True)
    if waits != "for keys":
        other = twins.peer(2)
        other.sync()
        announce(other, "memory://2", 0.01)
        if waits == "for the others to end":
            lockstep(twins, 1, (1, 2))
    peer = twins.peer(1)
    living = threading.Thread(target=live, args=(peer,))
    living.start()
    try:
        reached = {"for a round": "waits for the round", "for keys": "waiting for the keys"}.get(waits, "closing model")
        until(lambda: any(reached in event.text for _, event in twins.events))
        assert peer.secrecy is not None
        peer.secrecy.keys.request_rotation()
        until(lambda: prefix_of(twins).peer(1).announcement.epoch == 2)
        assert not peer.secrecy.keys.rotation_requested()
        assert prefix_of(twins).peer(1).announcement.recipient_key == peer.secrecy.recipient()
    finally:
        peer.stop.set()
        living.join()
    assert [event.kind for _, event in twins.events].count("key-made") == 1


def live(peer: Any) -> None:
    with suppress(Stopped):
        take_part(peer, "memory://1", NodeConfig(poll_s=0.01, retry_s=5.0))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def with_a_newcomer(twins: Twins, peers: dict[int, Any] | None = None) -> tuple[dict[int, Any], Goal, Draft]:
    """Peers 1 and 2 after a round (unless given); peer 1 has trained its next update, and then a third came."""
    peers = peers or lockstep(twins, 1, (1, 2))
    goal = next_goal(peers[1])
    assert goal is not None
    draft, base = merge(peers[1], goal, None)
    draft = evaluate(peers[1], train(peers[1], draft, base))
    twins.chain.ledger().admit(twins.ledgers[3].account, "site-3")
    announce(twins.peer(3), "memory://3", 0.01)
    return peers, goal, draft


def test_who_came_while_a_peer_trained_reads_the_result_and_the_report_tells_its_size(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of(planned=9), members=2, encrypted=True)
    peers, goal, draft = with_a_newcomer(twins)
    play_round(peers[1], goal)
    prefix = prefix_of(twins)
    entry = prefix.update(UpdateRef(1, 2))
    data = twins.read(cid_of(entry))
    assert entry.content != draft.content and read_header(data).kinds.count("X25519") == 3
    decoder_of(twins, twins.secrets[3]).tensors(entry, prefix)
    report = json.loads(twins.read(Cid("raw", entry.update.report)))
    assert report["bytes"]["update"] == len(data)
    assert peers[1].trainer.trained == [1, 2]


def test_bytes_that_are_lost_before_the_record_are_made_again(tmp_path: Path) -> None:
    twins = Twins(tmp_path, spec_of(planned=9), members=2, encrypted=True)
    peers, goal, draft = with_a_newcomer(twins)
    gone = Cid("raw", draft.content)
    for pin in peers[1].store.pins():
        if pin.cid == gone:
            peers[1].store.unpin(gone, pin.label)
    peers[1].store.gc()
    peers[1].sync()
    with pytest.raises(Moved, match="no longer there"):
        for_readers_now(peers[1], draft)
    play_round(peers[1], goal)
    assert peers[1].trainer.trained == [1, 2, 2]
    assert twins.read(cid_of(prefix_of(twins).update(UpdateRef(1, 2))))


def test_a_reorganisation_while_bytes_are_sealed_anew_is_noticed_before_the_record(tmp_path: Path) -> None:
    """The contract holds no roots: it would take an update that saw another log."""
    twins = Twins(tmp_path, spec_of(planned=9), members=2, encrypted=True)
    peers = lockstep(twins, 1, (1, 2))
    twins.ledgers[2].announce(2, bytes(32), bytes(32), "memory://2")  # seen, and no parent
    peers[1].sync()
    _, goal, draft = with_a_newcomer(twins, peers)
    evaluated = peers[1].trainer.evaluate

    def evaluate_meanwhile(*given: Any, **more: Any) -> Any:
        peers[1].trainer.evaluate = evaluated
        twins.chain.reorganise(3)  # the announcement above, and all of the newcomer
        for epoch in (2, 3, 4):
            twins.chain.ledger(memory_account(2)).announce(epoch, bytes(32), bytes(32), "memory://elsewhere")
        return evaluated(*given, **more)

    peers[1].trainer.evaluate = evaluate_meanwhile
    with pytest.raises(Moved, match="not the beginning of the log"):
        play_round(peers[1], goal)
    play({1: peers[1]}, 1)
    prefix = prefix_of(twins)
    entry = prefix.update(UpdateRef(1, 2))
    assert entry.update.seen_root == peers[1].index.root(entry.update.seen) != draft.seen_root
    assert peers[1].trainer.trained == [1, 2]


def test_what_was_carried_over_does_not_make_an_update_malformed(tmp_path: Path) -> None:
    more = '[encoding]\nkind = "top-k-delta"\n[merging]\nmax_magnitude = 100.0\n'
    twins = Twins(tmp_path, spec_of(more, planned=9), members=1, encrypted=True)
    (peer,) = lockstep(twins, 1, (1,)).values()
    rest = {name: array * 0 + 1000 for name, array in peer.genesis().items()}
    assert peer.residuals is not None
    peer.residuals.keep(1, rest)
    play({1: peer}, 1)
    prefix = prefix_of(twins)
    second = prefix.update(UpdateRef(1, 2))
    assert encodings.kind_of(second.update.encoding) == 0 and second.update.refers_to == 0
    decoder_of(twins, twins.secrets[1]).tensors(second, prefix)
    play({1: peer}, 1)
    assert prefix_of(twins).update(UpdateRef(1, 3)).update.refers_to == UpdateRef(1, 2).packed()
