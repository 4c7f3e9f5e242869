"""Payloads at rest: sealed, whole or absent, kept for their rounds."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from fl_node.errors import KeyringError
from fl_node.sealing import private_files
from fl_node.sealing.age import Identity, read_header, seal
from fl_node.sealing.vault import MemoryVault, Vault, Vaulting

SECRET = bytes(range(32))
ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))
PAYLOAD = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture(params=["memory", "disk"])
def vault(request: pytest.FixtureRequest, tmp_path: Path, told: list[str]) -> Vaulting:
    return MemoryVault() if request.param == "memory" else Vault(tmp_path / "vault", SECRET, told.append)


def test_what_is_put_is_got(vault: Vaulting) -> None:
    assert vault.get(ONE, 1 << 20) is None and not vault.has(ONE) and vault.contents() == frozenset()
    vault.put(ONE, [PAYLOAD[:7], memoryview(PAYLOAD)[7:]], round=4)
    vault.put(TWO, b"", round=4, encoding=0)
    vault.put(THREE, PAYLOAD, round=5, encoding=0x82)
    for content, payload, encoding in ((ONE, PAYLOAD, None), (TWO, b"", 0), (THREE, PAYLOAD, 0x82)):
        found = vault.get(content, len(PAYLOAD))
        assert found is not None and vault.has(content)
        assert bytes(found.payload) == payload and found.encoding == encoding
    assert vault.contents() == {ONE, TWO, THREE}


def test_put_again_it_is_the_same_and_lives_longer(vault: Vaulting) -> None:
    vault.put(ONE, PAYLOAD, round=4)
    vault.put(ONE, PAYLOAD, round=9)
    assert vault.gc(9) == 0 or vault.has(ONE)
    found = vault.get(ONE, 1 << 20)
    assert found is not None and bytes(found.payload) == PAYLOAD
    assert vault.gc(10) == 1 and not vault.has(ONE)


def test_rounds_beyond_retention_go_unless_wanted(vault: Vaulting) -> None:
    for content, number in ((ONE, 1), (TWO, 2), (THREE, 3)):
        vault.put(content, PAYLOAD, round=number)
    assert vault.gc(1) == 0
    assert vault.gc(3, {ONE}.__contains__) == 1
    assert vault.contents() == {ONE, THREE} and vault.get(TWO, 1 << 20) is None


# ---- on disk ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def test_it_is_there_again_sealed_and_private(folder: Path) -> None:
    Vault(folder, SECRET).put(ONE, PAYLOAD, round=4)
    (path,) = folder.iterdir()
    assert path.name == f"{ONE.hex()}-4.age" and path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert read_header(path.read_bytes()).kinds.count("X25519") == 1 and PAYLOAD[:64] not in path.read_bytes()
    found = Vault(folder, SECRET).get(ONE, len(PAYLOAD))
    assert found is not None and bytes(found.payload) == PAYLOAD


def test_one_whose_folder_is_deleted_is_empty_and_goes_on(folder: Path) -> None:
    vault = Vault(folder, SECRET)
    vault.put(ONE, PAYLOAD, round=4)
    shutil.rmtree(folder)
    assert vault.get(ONE, len(PAYLOAD)) is None and not vault.has(ONE) and vault.contents() == frozenset()
    assert vault.gc(9) == 0
    vault.put(TWO, PAYLOAD, round=4)
    assert vault.contents() == {TWO} and folder.stat().st_mode & 0o777 == 0o700


def test_one_that_became_a_file_is_told(folder: Path) -> None:
    vault = Vault(folder, SECRET)
    folder.rmdir()
    folder.write_text("")
    with pytest.raises(KeyringError, match="cannot read"):
        vault.get(ONE, 1)


def test_two_that_are_open_see_each_other(folder: Path) -> None:
    one, other = Vault(folder, SECRET), Vault(folder, SECRET)
    for number in range(20):
        content = bytes([number]) * 32
        assert not other.has(content)
        one.put(content, b"x", round=number)
        assert other.has(content)
    other.gc(10)
    assert len(one.contents()) == 10


def test_tensors_in_it_lie_aligned(folder: Path) -> None:
    vault = Vault(folder, SECRET)
    vault.put(ONE, np.arange(64.0).tobytes(), round=0)
    found = vault.get(ONE, 1 << 10)
    assert found is not None
    assert np.frombuffer(found.payload, "<f8").flags.aligned


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "swapped", "forged", "short", "large"])
def test_a_damaged_file_is_absent_and_told(folder: Path, told: list[str], damage: str) -> None:
    vault = Vault(folder, SECRET, told.append)
    vault.put(ONE, PAYLOAD, round=4)
    vault.put(TWO, b"other", round=4)
    path = folder / f"{ONE.hex()}-4.age"
    data = path.read_bytes()
    key = Identity.of(SECRET).public
    path.write_bytes(
        {
            "cut": data[:-1],
            "altered": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
            "empty": b"",
            "swapped": (folder / f"{TWO.hex()}-4.age").read_bytes(),
            "forged": seal(PAYLOAD, [key]),
            "short": seal(b"x", [key]),
            "large": seal(bytes(5 << 20), [key]),
        }[damage]
    )
    assert vault.get(ONE, len(PAYLOAD)) is None
    assert not path.exists() and not vault.has(ONE)
    (text,) = told
    assert "is damaged, and was deleted" in text and path.name in text
    vault.put(ONE, PAYLOAD, round=4)
    assert vault.get(ONE, len(PAYLOAD)) is not None


def test_damage_that_nobody_is_named_for_is_warned_of(folder: Path) -> None:
    vault = Vault(folder, SECRET)
    vault.put(ONE, PAYLOAD, round=4)
    (folder / f"{ONE.hex()}-4.age").write_bytes(b"rubbish")
    with pytest.warns(UserWarning, match=rf"the file {folder}/{ONE.hex()}-4.age of the vault is damaged.*share"):
        assert vault.get(ONE, 1 << 20) is None


@pytest.mark.parametrize("mode", [0o644, 0o620])
def test_a_file_that_others_may_read_is_refused(folder: Path, told: list[str], mode: int) -> None:
    vault = Vault(folder, SECRET, told.append)
    vault.put(ONE, PAYLOAD, round=4)
    path = folder / f"{ONE.hex()}-4.age"
    path.chmod(mode)
    with pytest.raises(KeyringError, match=f"mode {mode:03o}.*expected 600: chmod 600 {path}$"):
        vault.get(ONE, 1 << 20)
    path.chmod(0o600)
    assert vault.get(ONE, 1 << 20) is not None and told == []


def test_another_account_s_is_told_apart_and_kept(folder: Path, told: list[str]) -> None:
    Vault(folder, SECRET).put(ONE, PAYLOAD, round=4)
    with pytest.raises(KeyringError, match="not written by the account"):
        Vault(folder, bytes(32 * [9]), told.append).get(ONE, 1 << 20)
    assert Vault(folder, SECRET).get(ONE, 1 << 20) is not None and told == []


def test_a_full_disk_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault(folder, SECRET)
    vault.put(ONE, b"before", round=4)

    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(private_files.os, "write", full)
        with pytest.raises(KeyringError, match=r"No space left on device.*Nothing was lost"):
            vault.put(ONE, PAYLOAD, round=4)
    found = vault.get(ONE, 1 << 20)
    assert found is not None and bytes(found.payload) == b"before"
    assert len(list(folder.iterdir())) == 1


def test_leftovers_and_strangers_files_are_no_payloads(folder: Path) -> None:
    vault = Vault(folder, SECRET)
    vault.put(ONE, b"x", round=4)
    stale = folder / ".new-stale"
    stale.write_bytes(b"half")
    os.utime(stale, (1, 1))
    (folder / "README").write_text("not ours")
    assert vault.contents() == {ONE}
    assert vault.gc(4) == 0 and not stale.exists() and (folder / "README").exists()


def test_a_folder_that_others_may_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(KeyringError, match="chmod 700"):
        Vault(folder, SECRET)


def test_threads_that_write_and_read_at_once(vault: Vaulting) -> None:
    troubles: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                content = bytes([number, turn]) * 16
                vault.put(content, content * 100, round=turn)
                found = vault.get(content, 1 << 20)
                assert found is not None and bytes(found.payload) == content * 100
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == [] and len(vault.contents()) == 40
