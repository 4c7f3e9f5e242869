"""The monitor on a real chain: silent while all is well, and an alarm for each thing that a person should know of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consortium import Consortium, found

from fl_node import keys
from fl_node.audit.at_hand import AtHand
from fl_node.audit.open_means import Where, means_of
from fl_node.chains import DevChain, call
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.key_keeping import Secrecy
from fl_node.ledger import checkpoint
from fl_node.ledger.note_folder import NoteFolder
from fl_node.monitor import Alarm, Monitor, Watched
from fl_node.records import Reason, UpdateRef

pytestmark = pytest.mark.xdist_group("monitor")
PASSWORD = "of a test"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Two peers that have played their rounds and closed."""
    with DevChain.start("anvil") as chain:
        # Each waits for the other's key: what was sealed without it could not be looked at.
        rounds, privacy = {"linger_s": 5.0, "mode": "sync"}, {"key_wait_s": 20.0}
        made = found(tmp_path_factory.mktemp("watched"), chain, 2, rounds=rounds, privacy=privacy)
        runs = [made.run(1), made.run(2)]
        assert [run.wait() for run in runs] == [0, 0], [run.stderr for run in runs]
        yield made


def watched(made: Consortium, tmp_path: Path, peer: int = 1, **more: Any) -> Watched:
    where = Where(made.file, content=[str(state) for state in made.states], work=tmp_path)
    state = made.states[peer - 1]
    signer = keys.load(state / "key.json", PASSWORD)
    own = Secrecy.of(state, signer)
    current = own.keys.current()
    at_hand = AtHand([own], current) if current is not None else None  # updates are encrypted
    return Watched(where, signer.address, state, keys=at_hand, **more)


def kinds(alarms: list[Alarm]) -> list[str]:
    return sorted(alarm.kind for alarm in alarms)


def test_nothing_is_told_while_all_is_well(made: Consortium, tmp_path: Path) -> None:
    monitor = Monitor(watched(made, tmp_path))
    assert monitor.look() == [] and monitor.look() == []


def test_each_alarm_once_and_by_its_kind(made: Consortium, tmp_path: Path) -> None:
    """In the order in which a bad week may go; the tests after this one may find its history, or a new one."""
    monitor = Monitor(watched(made, tmp_path))
    assert monitor.look() == []

    thief = made.ledger(keys.load(made.states[0] / "key.json", PASSWORD))  # the same key, no state folder of its own
    epoch = thief.peer(1).epoch + 1
    thief.announce(epoch, bytes(32), bytes(32), "http://127.0.0.1:9")
    (alarm,) = monitor.look()
    assert alarm.kind == "foreign-entry" and "PeerAnnounced" in alarm.text
    assert monitor.look() == []

    call(made.chain.rpc_url, "anvil_reorg", 1, [])
    call(made.chain.rpc_url, "evm_mine")
    assert "reorganised" in kinds(monitor.look())
    assert monitor.look() == []

    thief.object(UpdateRef(2, 1), Reason.MALFORMED)
    told = monitor.look()
    assert kinds(told) == ["failed", "foreign-entry"]
    assert any("malformed" in alarm.text for alarm in told if alarm.kind == "failed"), "its bytes are good"
    last = thief.peer(1)
    update = made.replay().full.updates(1)[-1].update
    size = thief.head(fresh=True).size
    forged = replace(update, sequence=last.sequence + 1, round=last.round + 1, seen=size, seen_root=bytes(32))
    thief.publish(forged, ())
    thief.close()
    told = monitor.look()
    assert {"foreign-entry", "inconsistent", "failed"} <= set(kinds(told))
    assert any("seen" in alarm.text for alarm in told if alarm.kind == "inconsistent")
    assert monitor.look() == []

    owner = made.ledger(made.owner)
    owner.retire(owner.peer(1).account, "its key is stolen", owner.head(fresh=True).size)
    owner.close()
    assert kinds(monitor.look()) == ["retired"]


def test_silence(made: Consortium, tmp_path: Path) -> None:
    owner = made.ledger(made.owner)
    if owner.peer_of(keys.from_private_key(b"\x07" * 32).address) is None:
        owner.admit(keys.from_private_key(b"\x07" * 32).address, "late")
    owner.close()
    late = made.replay().full.time_s
    now = [late + 10.0]
    monitor = Monitor(watched(made, tmp_path, silent_s=60.0), clock=lambda: now[0])
    before = {alarm.kind for alarm in monitor.look()}
    assert "silent" not in before
    now[0] += 100.0
    (alarm,) = [alarm for alarm in monitor.look() if alarm.kind == "silent"]
    assert alarm.detail["site"] == "late"
    assert not [alarm for alarm in monitor.look() if alarm.kind == "silent"]


def test_content_that_nobody_gives(made: Consortium, tmp_path: Path) -> None:
    """A gateway answers and has nothing."""
    with Gateway(MemoryStore()) as gateway:
        owner = made.peer_ledger(2)
        owner.announce(owner.peer(2).epoch + 1, bytes(32), bytes(32), gateway.endpoint)
        owner.close()
        monitor = Monitor(watched(made, tmp_path))
        told = [alarm for alarm in monitor.look() if alarm.kind == "unavailable"]
        assert any("2#" in alarm.text for alarm in told)


def test_a_log_that_the_peer_itself_did_not_sign(made: Consortium, tmp_path: Path) -> None:
    signer = keys.load(made.states[1] / "key.json", PASSWORD)
    state, work = tmp_path / "state", tmp_path / "work"
    work.mkdir()
    with means_of(Where(made.file)) as means:
        other = replace(checkpoint.at(means.log, 2), root=b"\x05" * 32)
    watching = replace(watched(made, work, peer=2), state=state)
    before = kinds(Monitor(watching).look())
    NoteFolder(state / "checkpoints").keep_own(checkpoint.sign(other, signer))
    monitor = Monitor(watching)
    told = [alarm for alarm in monitor.look() if alarm.key == "inconsistent-own 2"]
    assert len(told) == 1 and "not the one that this peer signed" in told[0].text
    assert len(kinds(Monitor(watching).look())) == len(before) + 1
    assert not monitor.look()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--account", "0x12"), "--account: got '0x12'; expected an address"),
        (("--state", "nowhere"), "--state nowhere: there is no key in nowhere/key.json"),
    ],
)
def test_nobody_is_watched_by_mistake(made: Consortium, words: tuple[str, ...], said: str) -> None:
    base = [sys.executable, "-m", "fl_node", "monitor", "--federation", str(made.file), "--once", *words]
    done = subprocess.run(base, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith(f"fl-node: {said}")


def test_the_command(made: Consortium, tmp_path: Path) -> None:
    """One look, as cron would have it: JSON lines, exit code 42 for alarms; a chain that is gone is one, too."""
    base = [sys.executable, "-m", "fl_node", "monitor", "--federation", str(made.file), "--once", "--json"]
    base += ["--state", str(made.states[1]), "--content", str(made.states[0]), "--content", str(made.states[1])]
    thief = made.peer_ledger(2)  # without the state folder
    thief.announce(thief.peer(2).epoch + 1, bytes(32), bytes(32), "http://127.0.0.1:9")
    thief.close()
    done = subprocess.run(base, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 42, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "foreign-entry" in {line["kind"] for line in lines}
    assert all(set(line) == {"time", "kind", "text", "detail"} for line in lines)
    assert "Traceback" not in done.stderr
    gone = subprocess.run(
        [*base, "--rpc", "http://127.0.0.1:9"], capture_output=True, text=True, check=False, timeout=60
    )
    assert gone.returncode == 42 and json.loads(gone.stdout)["kind"] == "chain-unavailable"
