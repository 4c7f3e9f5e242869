"""Private keys on disk: who may read them, what is left after a crash, two processes at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_node.errors import KeyringError
from fl_node.keys import from_private_key
from fl_node.sealing import keyring as module
from fl_node.sealing import private_files
from fl_node.sealing.age import Identity, seal, unseal
from fl_node.sealing.keyring import (
    VAULT_INFO,
    Keyring,
    Keys,
    kept_keys,
    read_records,
    request_rotation,
    rotation_pending,
)
from fl_node.sealing.keytext import recipient_text

SECRET = bytes(range(32))


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture(params=["memory", "disk"])
def keys(request: pytest.FixtureRequest, folder: Path) -> Keys:
    return Keys() if request.param == "memory" else Keyring(folder, SECRET)


def test_a_key_s_life(keys: Keys) -> None:
    assert keys.current() is None and keys.identities() == () and keys.records == ()
    first, second = keys.make(0, 3), keys.make(20, 90)
    assert keys.current() == second and keys.identities() == (second, first)
    keys.superseded(first.public, 21)
    keys.destroy(first.public, 24)
    assert keys.identities() == (second,) and keys.find(first.public) is None and keys.find(second.public) == second
    gone, kept = keys.records
    assert (gone.made_round, gone.made_size, gone.superseded, gone.destroyed) == (0, 3, 21, 24)
    assert (kept.public, kept.made_round, kept.superseded, kept.destroyed) == (second.public, 20, None, None)
    keys.destroy(first.public, 25)  # what is gone is gone


def test_what_was_superseded_is_never_current_again(keys: Keys) -> None:
    first, second = keys.make(0, 3), keys.make(20, 90)
    keys.superseded(first.public, 21)
    assert keys.current() == second
    keys.destroy(second.public, 22)
    assert keys.current() is None and keys.identities() == (first,)  # it opens what it opened, and no more
    third = keys.make(23, 99)
    assert keys.current() == third


def test_a_key_that_was_never_announced_may_be_lost(folder: Path) -> None:
    keys = Keyring(folder, SECRET)
    first, second = keys.make(0, 3), keys.make(20, 90)
    (folder / f"{recipient_text(second.public)}.age").unlink()
    assert Keyring(folder, SECRET).current() == first  # no later one took its place


def test_which_keys_lie_in_a_folder_is_seen_without_a_secret(folder: Path) -> None:
    assert kept_keys(folder) == frozenset()
    keys = Keyring(folder, SECRET)
    first, second = keys.make(0, 0), keys.make(1, 1)
    (folder / "age1other.age").write_bytes(b"no key")
    assert kept_keys(folder) == {first.public, second.public}
    keys.destroy(first.public, 2)
    assert kept_keys(folder) == {second.public}


def test_a_request_for_rotation(keys: Keys) -> None:
    assert not keys.rotation_requested()
    keys.request_rotation()
    assert keys.rotation_requested()
    keys.rotation_done()
    assert not keys.rotation_requested()
    keys.rotation_done()


def test_another_process_asks_for_a_rotation(folder: Path) -> None:
    keys = Keyring(folder, SECRET)
    assert not rotation_pending(folder)
    request_rotation(folder)
    assert keys.rotation_requested() and rotation_pending(folder)


def test_what_is_on_disk_is_there_again_and_sealed(folder: Path) -> None:
    made = [Keyring(folder, SECRET).make(number, number) for number in range(3)]
    again = Keyring(folder, SECRET)
    assert again.identities() == tuple(reversed(made)) and len(again.records) == 3
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        for identity in made:
            assert identity.text().encode() not in path.read_bytes()
    (one, *_) = folder.glob("age1*.age")
    opened = bytes(unseal(one.read_bytes(), [Identity.of(SECRET)], 10_000))
    assert opened.startswith(b"# fl-node key, made in round ") and b"\nAGE-SECRET-KEY-1" in opened


def test_reading_records_needs_no_secret(folder: Path) -> None:
    assert read_records(folder) == ()
    keys = Keyring(folder, SECRET)
    keys.make(4, 9)
    assert read_records(folder) == keys.records


def test_another_account_s_keys_are_told_apart(folder: Path) -> None:
    key = Keyring(folder, SECRET).make(0, 0)
    with pytest.raises(KeyringError, match="not written by the account") as caught:
        Keyring(folder, bytes(32 * [7]))
    assert key.text() not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_files_that_others_may_read_are_refused(folder: Path, mode: int) -> None:
    Keyring(folder, SECRET).make(0, 0)
    (path,) = folder.glob("age1*.age")
    path.chmod(mode)
    with pytest.raises(KeyringError, match=f"mode {mode:03o}.*chmod 600 {path}"):
        Keyring(folder, SECRET)
    path.chmod(0o600)
    (folder / "keyring.json").chmod(mode)
    with pytest.raises(KeyringError, match="chmod 600"):
        read_records(folder)
    (folder / "keyring.json").chmod(0o600)
    folder.chmod(0o755)
    with pytest.raises(KeyringError, match=f"mode 755.*chmod 700 {folder}"):
        Keyring(folder, SECRET)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"keys": [{}]}', b'{"keys": [{"public": "age1"}]}', b"\xff\xfe"]
)
def test_a_damaged_list_is_made_again_from_the_keys(folder: Path, content: bytes) -> None:
    made = Keyring(folder, SECRET).make(6, 7)
    path = folder / "keyring.json"
    path.write_bytes(content)
    with pytest.raises(KeyringError, match="move it away"):
        Keyring(folder, SECRET)
    path.unlink()
    again = Keyring(folder, SECRET)
    assert again.current() == made
    assert [(one.public, one.made_round, one.made_size) for one in again.records] == [(made.public, 6, 7)]


RECORD = {"public": recipient_text(bytes(32)), "made_round": 1, "made_size": 2, "superseded": None, "destroyed": 3}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "it is no JSON; move"),
        (b"\xff\xfe", "it is no JSON; move"),
        (b"[]", "expected a JSON object with a list named keys; move"),
        (b'{"keys": {}}', "expected a JSON object with a list named keys; move"),
        (b'{"keys": [[]]}', "entry 1 of its keys has no public key; expected an object with public: age1...; move"),
        (b'{"keys": [{"public": 7}]}', "entry 1 of its keys has no public key"),
        (json.dumps({"keys": [RECORD, {**RECORD, "public": "age1"}]}).encode(), "got 'age1' for a public key"),
        *(
            (
                json.dumps({"keys": [RECORD, record]}).encode(),
                f"entry 2 of its keys has no usable {name}; expected {kind}",
            )
            for name, kind in (
                ("made_round", "a number from 0"),
                ("made_size", "a number from 0"),
                ("superseded", "a round or null"),
                ("destroyed", "a round or null"),
            )
            for record in (
                {key: value for key, value in RECORD.items() if key != name},
                {**RECORD, name: "x"},
                {**RECORD, name: -1},
                {**RECORD, name: True},
            )
        ),
    ],
)
def test_a_damaged_list_is_told_in_words(folder: Path, content: bytes, told: str) -> None:
    Keyring(folder, SECRET)
    (folder / "keyring.json").write_bytes(content)
    (folder / "keyring.json").chmod(0o600)
    with pytest.raises(KeyringError) as caught:
        read_records(folder)
    assert f"{folder / 'keyring.json'} is damaged: " in str(caught.value) and told in str(caught.value)


def test_a_damaged_or_missing_key_is_told(folder: Path) -> None:
    keys = Keyring(folder, SECRET)
    first, second = keys.make(0, 0), keys.make(1, 1)
    path = folder / f"{recipient_text(second.public)}.age"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(KeyringError, match=r"is damaged.*restore it, or move it away.*a fresh one is announced then"):
        Keyring(folder, SECRET)
    path.unlink()
    assert Keyring(folder, SECRET).identities() == (first,)


# ---- crashes: every write, rename and deletion may be the last thing that happens ----


def crash_at(patch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Have the ``step``-th write or erasure, from 1, not happen, and the process end there; steps that were taken."""
    taken = 0

    def counting(function: Callable[..., None]) -> Callable[..., None]:
        def called(*given: object) -> None:
            nonlocal taken
            taken += 1
            if taken == step:
                raise Crash
            function(*given)

        return called

    patch.setattr(module, "write_private", counting(private_files.write_private))
    patch.setattr(module, "erase", counting(private_files.erase))
    return lambda: taken


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_key_that_was_written_is_never_lost(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    old = Keyring(folder, SECRET).make(0, 0)
    keys = Keyring(folder, SECRET)
    with monkeypatch.context() as patch:
        taken = crash_at(patch, step)
        crashed = False
        try:
            keys.make(5, 50)
        except Crash:
            crashed = True
        assert crashed == (step <= 2) and taken() == min(step, 2)
    written = {path.stem for path in folder.glob("age1*.age")}
    again = Keyring(folder, SECRET)
    assert {recipient_text(one.public) for one in again.identities()} == written
    assert old in again.identities()
    if step > 1:  # the key is there, announced or not: it is the next one to be announced
        assert again.current() != old and again.records[-1].made_round == 5 and again.records[-1].made_size == 50
    assert Keyring(folder, SECRET).records == again.records


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_destruction_that_began_is_finished(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    keys = Keyring(folder, SECRET)
    old, new = keys.make(0, 0), keys.make(5, 50)
    with monkeypatch.context() as patch:
        crash_at(patch, step)
        try:
            keys.destroy(old.public, 9)
        except Crash:
            assert step <= 2
    again = Keyring(folder, SECRET)
    if step == 1:  # nothing was done: it still opens
        assert again.identities() == (new, old)
    else:
        assert again.identities() == (new,) and again.records[0].destroyed == 9
        assert not (folder / f"{recipient_text(old.public)}.age").exists()


def test_a_key_is_overwritten_before_it_is_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keyring(folder, SECRET)
    public = keys.make(0, 0).public
    path = folder / f"{recipient_text(public)}.age"
    beside = path.with_name("beside")
    beside.hardlink_to(path)  # what is left of the file once its name is gone
    keys.destroy(public, 1)
    assert not path.exists() and set(beside.read_bytes()) == {0}


def test_leftovers_of_a_writer_that_died_go_after_a_while(folder: Path) -> None:
    import os

    Keyring(folder, SECRET)
    fresh, stale = folder / ".new-fresh", folder / ".new-stale"
    fresh.write_bytes(b"x")
    stale.write_bytes(b"x")
    os.utime(stale, (1, 1))
    Keyring(folder, SECRET)
    assert fresh.exists() and not stale.exists()


MAKER = """
import sys
from pathlib import Path
from fl_node.sealing.keyring import Keyring
keys = Keyring(Path(sys.argv[1]), bytes(range(32)))
for number in range(20):
    keys.make(number, number)
"""


def test_two_processes_that_write_lose_nothing_of_each_other(folder: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", MAKER, str(folder)]) for _ in range(2)]
    keys = Keyring(folder, SECRET)
    for number in range(20):
        keys.make(100 + number, 0)
    assert [process.wait(60) for process in running] == [0, 0]
    again = Keyring(folder, SECRET)
    assert len(again.records) == len(again.identities()) == 60
    assert len(json.loads((folder / "keyring.json").read_text())["keys"]) == 60


def test_a_writer_that_never_ends_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    keys = Keyring(folder, SECRET)
    monkeypatch.setattr(module, "_LOCK_S", 0.1)
    with (folder / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KeyringError, match="another process writes keys"):
            keys.make(0, 0)
    assert keys.make(0, 0) == keys.current()


# ---- what keys are wrapped to ----


def test_the_vault_key_follows_from_the_account_by_hkdf() -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    signer = from_private_key("0x" + "17" * 32)
    theirs = HKDF(SHA256(), length=32, salt=None, info=VAULT_INFO).derive(bytes.fromhex("17" * 32))
    assert signer.derive(VAULT_INFO) == theirs != signer.derive(b"fl-node vault 2")
    assert from_private_key("0x" + "18" * 32).derive(VAULT_INFO) != theirs
    assert theirs.hex() not in repr(signer)
    unseal(seal(b"x", [Identity.of(theirs).public]), [Identity.of(signer.derive(VAULT_INFO))], 1)


def test_a_folder_that_is_deleted_meanwhile_is_told_and_made_anew_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ring = Keyring(folder, bytes(range(32)))
    first = ring.make(0, 0).public
    shutil.rmtree(folder)
    with pytest.raises(KeyringError, match="was deleted while it was in use; put it back, or start again"):
        ring.make(1, 0)
    assert Keyring(folder, bytes(range(32))).make(0, 0).public != first
