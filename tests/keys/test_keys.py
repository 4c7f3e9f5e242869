"""Keystores: made once, never overwritten, readable by their owner only, opened by their password only."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest
from eth_account import Account

from fl_node import keys
from fl_node.chains import FUNDERS
from fl_node.errors import KeystoreError


def test_a_key_comes_back_with_its_password(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.json"
    signer = keys.create(path, "correct horse", light=True)
    assert keys.load(path, "correct horse").address == signer.address
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["key.json"]
    assert signer.address in repr(signer) and signer._account.key.hex() not in repr(signer)
    with pytest.raises(KeystoreError, match="the password does not open"):
        keys.load(path, "wrong")


def test_the_standard_derivation_is_slow_on_purpose_and_light_is_not(tmp_path: Path) -> None:
    keys.create(tmp_path / "standard.json", "x")
    keys.create(tmp_path / "light.json", "x", light=True)
    standard, light = (json.loads((tmp_path / f"{name}.json").read_text())["crypto"] for name in ("standard", "light"))
    assert standard["kdf"] == "scrypt" and standard["kdfparams"]["n"] >= 2**17
    assert light["kdf"] == "pbkdf2" and light["kdfparams"]["c"] == 1000
    assert keys.load(tmp_path / "standard.json", "x").address


def test_other_tools_open_it(tmp_path: Path) -> None:
    signer = keys.create(tmp_path / "key.json", "pw", light=True)
    private_key = Account.decrypt((tmp_path / "key.json").read_text(), "pw")
    assert Account.from_key(private_key).address == signer.address
    address, known = FUNDERS[3]
    assert keys.store(tmp_path / "other.json", known, "pw", light=True).address == address


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text("precious")
    with pytest.raises(KeystoreError, match="exists already"):
        keys.create(path, "x", light=True)
    assert path.read_text() == "precious"
    assert [item.name for item in tmp_path.iterdir()] == ["key.json"]


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeystoreError, match="nothing was written"):
        keys.create(tmp_path / "file" / "key.json", "x", light=True)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "{}", '{"version": 2}', '{"version": 3}', '{"version": 3, "crypto": {}}']
)
def test_what_is_no_keystore_is_said_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    with pytest.raises(KeystoreError, match="backup"):
        keys.load(tmp_path / "key.json", "x")


def test_a_missing_keystore_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="fl-node init"):
        keys.load(tmp_path / "key.json", "x")


@pytest.mark.parametrize("bad", ["", "0x12", b"short", "zz" * 32, bytes(32)])
def test_what_is_no_private_key_is_refused(bad: str | bytes) -> None:
    with pytest.raises(KeystoreError, match="expected 32 bytes"):
        keys.from_private_key(bad)


def test_public_development_keys_are_all_known() -> None:
    Account.enable_unaudited_hdwallet_features()
    mnemonic = "test test test test test test test test test test test junk"
    derived = {Account.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{n}").address for n in range(20)}
    assert derived == keys.PUBLIC_ACCOUNTS
    signer = keys.from_private_key(FUNDERS[0][1])
    for chain_id in keys.DEV_CHAINS:
        signer.check_chain(chain_id)
    with pytest.raises(KeystoreError, match="fl-node init"):
        signer.check_chain(11155111)


def test_where_the_password_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("from file \n")
    other = tmp_path / "other"
    other.write_bytes(b"from other\r\n")
    both = {keys.ENV_PASSWORD: "from env", keys.ENV_PASSWORD_FILE: str(other)}
    assert keys.read_password(file, environment=both) == "from file "
    assert keys.read_password(environment=both) == "from env"
    assert keys.read_password(environment={keys.ENV_PASSWORD_FILE: str(other)}) == "from other"
    with pytest.raises(KeystoreError, match="cannot read the password file"):
        keys.read_password(tmp_path / "nothing")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(KeystoreError, match="no terminal to ask"):
        keys.read_password(environment={})


def test_a_new_password_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = iter(["one", "one", "one", "two"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    assert keys.read_password(environment={}, confirm=True) == "one"
    with pytest.raises(KeystoreError, match="two different"):
        keys.read_password(environment={}, confirm=True)


def test_signing_uses_the_fast_curve() -> None:
    from eth_keys import backends

    assert type(backends.get_backend()).__name__ == "CoinCurveECCBackend"
