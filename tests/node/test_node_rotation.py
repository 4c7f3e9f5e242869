"""Keys that change in every round, in real processes on a real chain: with a node that is killed, and one that is asked
to rotate while it runs. Nothing that is kept becomes unreadable, and no private key is found anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium import PASSWORD, Consortium, found
from offspring import Run

from fl_node import keys
from fl_node.chains import DevChain
from fl_node.content.names import cid_of_update
from fl_node.errors import Unreadable
from fl_node.key_keeping import Secrecy
from fl_node.prefix import Prefix
from fl_node.records import PeerAnnounced, Reason, UpdateObjected
from fl_node.sealing import age
from fl_node.sealing.keyring import read_records

pytestmark = pytest.mark.xdist_group("node-rotation")

PEERS, ROUNDS = 3, 7


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Consortium, list[Run]]]:
    with DevChain.start("anvil") as chain:
        made = found(
            tmp_path_factory.mktemp("rotation"),
            chain,
            PEERS,
            rounds={"planned": ROUNDS, "mode": "sync", "linger_s": 20.0},
            privacy={"rotate_every": 1, "overlap_rounds": 2, "key_wait_s": 20.0},
        )
        running = [made.run(peer, fault="die" if peer == 2 else "", given=("record", 4, True) if peer == 2 else ())
                   for peer in range(1, PEERS + 1)]  # fmt: skip
        running[2].until(lambda: len(running[2].events("recorded")) >= 2)
        asked = Run(
            made.states[2] / "asked",
            ["keys", "rotate", "--state", str(made.states[2])],
            FL_NODE_PASSWORD=PASSWORD,
        )
        assert asked.wait() == 0, asked.stderr
        assert "a node runs with this key" in asked.stdout
        running[1].process.join(60)
        assert running[1].process.exitcode == -9
        running.append(made.run(2))
        for number in (0, 2, 3):
            assert running[number].wait(120) == 0, running[number].stderr
        yield made, running


def test_keys_changed_and_old_ones_went(finished: tuple[Consortium, list[Run]]) -> None:
    made, running = finished
    prefix = Prefix(made.entries())
    for number, state in enumerate(made.states, 1):
        epochs = [fact.body.epoch for fact in prefix.announcements(number) if isinstance(fact.body, PeerAnnounced)]
        assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) >= 4
        records = read_records(state / "keys")
        gone = [record for record in records if record.destroyed is not None]
        assert len(gone) >= 2
        for record in gone:
            assert record.superseded is not None and record.destroyed is not None
            assert record.destroyed - record.superseded > 2
        files = list((state / "keys").glob("age1*.age"))
        assert len(files) == len(records) - len(gone) <= 4
        assert not (state / "keys" / "rotate.request").exists()
    destroyed = [event for run in running for event in run.events("key-destroyed")]
    assert len(destroyed) >= 6


@pytest.mark.parametrize("peer", range(1, PEERS + 1))
def test_each_peer_still_reads_every_update(finished: tuple[Consortium, list[Run]], peer: int) -> None:
    made, _ = finished
    replay = made.replay()
    replay.decoder._opener = made.opener(peer)
    assert len(replay.check()) == PEERS * (ROUNDS + 1)
    # While peer 2 was dead the others could not have what it had just recorded; they got it before their keys went.
    words = [entry.body for entry in replay.entries if isinstance(entry.body, UpdateObjected)]
    assert all(word.target.peer == 2 and word.reason == Reason.UNAVAILABLE for word in words)


def test_it_does_so_from_the_vault(finished: tuple[Consortium, list[Run]]) -> None:
    made, _ = finished
    prefix = Prefix(made.entries())
    secrecy = made.opener(1)
    assert secrecy is not None
    first = prefix.updates(2)[0]
    data = made.read(cid_of_update(first.update))
    with pytest.raises(Unreadable):
        age.unseal(data, secrecy.keys.identities(), 1 << 30)
    assert secrecy.vault.has(first.content)


def test_no_private_key_is_in_any_file_or_word(finished: tuple[Consortium, list[Run]]) -> None:
    made, running = finished
    secrets = []
    for number, state in enumerate(made.states, 1):
        opener = made.opener(number)
        assert opener is not None
        secrets += [identity.text()[16:].encode() for identity in opener.keys.identities()]
        signer = keys.load(state / "key.json", PASSWORD)
        secrets.append(signer.derive(b"fl-node vault 1").hex().encode())
    for path in made.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"AGE-SECRET-KEY-1" not in content, path
            assert not any(secret in content or secret.lower() in content for secret in secrets), path
    for run in running:
        assert "SECRET" not in json.dumps(run.events()) and "AGE-SECRET" not in run.stderr


def test_another_account_opens_none_of_it(finished: tuple[Consortium, list[Run]], tmp_path: Path) -> None:
    made, _ = finished
    prefix = Prefix(made.entries())
    thief = Secrecy.of(tmp_path, keys.from_private_key("0x" + "77" * 32))
    thief.recipient()
    for number in range(1, PEERS + 1):
        for entry in prefix.updates(number):
            with pytest.raises(Unreadable):
                thief.open(entry.content, made.read(cid_of_update(entry.update)), 1 << 30)
