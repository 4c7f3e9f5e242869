"""Files of private keys: what is read, what is refused, and that no error tells what is in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fl_node.errors import KeyringError
from fl_node.sealing import identities as module
from fl_node.sealing.age import Identity
from fl_node.sealing.identities import identity_file, read_identities

ALICE, BOB = Identity.generate(), Identity.generate()


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_keys_come_in_order_and_once(tmp_path: Path) -> None:
    text = f"# two keys\r\n\r\n{BOB.text()}\r\n  {ALICE.text()}  \n# again\n{BOB.text()}"
    assert read_identities(written(tmp_path / "keys", text.encode())) == (BOB, ALICE)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = identity_file([(ALICE, "the first"), (BOB, "the second")])
    assert content.count(b"# public key: age1") == 2 and b"# the second\n" in content
    assert read_identities(written(tmp_path / "keys", content)) == (ALICE, BOB)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "keys", ALICE.text().encode(), mode)
    with pytest.raises(KeyringError, match=f"mode {mode:03o}.*chmod 600 {re.escape(str(path))}"):
        read_identities(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has no age identity"),
        (b"# nothing\n", "has no age identity"),
        (f"{ALICE.text()}\n{ALICE.text()[:-1]}\n".encode(), "line 2 of"),
        (f"# a\nsecret {ALICE.text()}\n".encode(), "line 2 of"),
        (b"AGE-PLUGIN-YUBIKEY-1XYZ\n", "line 1 of"),
        (b"age-encryption.org/v1\n", "line 1 of"),
        (b"\xff\xfe\x00", "line 1 of"),
        (b"x" * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
    ids=["empty", "comment", "cut key", "word before", "plugin", "age file", "no text", "too long"],  # keys are random
)
def test_what_is_no_such_file_is_told_without_its_content(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(KeyringError, match=told) as caught:
        read_identities(written(tmp_path / "keys", content))
    error: BaseException | None = caught.value
    while error is not None:
        assert ALICE.text()[20:40] not in str(error)
        error = error.__cause__


def test_what_is_no_key_is_told_before_who_may_read_it(tmp_path: Path) -> None:
    rows = written(tmp_path / "hospital-a.csv", b"label,pixel\n1,2\n", 0o644)
    with pytest.raises(KeyringError, match=r"line 1 of .*hospital-a.csv is no age identity") as caught:
        read_identities(rows)
    assert "make a new key" not in str(caught.value)


def test_absent_folders_pipes_and_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyringError, match="fl-node keys export"):
        read_identities(tmp_path / "absent")
    with pytest.raises(KeyringError, match="no regular file"):
        read_identities(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KeyringError, match="no regular file"):
        read_identities(tmp_path / "pipe")
    monkeypatch.setattr(module, "MOST_KEYS", 1)
    with pytest.raises(KeyringError, match="more than 1 keys"):
        read_identities(written(tmp_path / "keys", identity_file([(ALICE, ""), (BOB, "")])))
