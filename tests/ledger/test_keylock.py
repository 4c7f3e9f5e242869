"""One holder per key, wherever the lock files lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_node.errors import KeyInUse, LedgerError
from fl_node.ledger.keylock import KeyLock, lock_folder

ACCOUNT = "0xAb" + "00" * 19


def test_a_key_has_one_holder_per_chain(tmp_path: Path) -> None:
    held = KeyLock("1-aa", ACCOUNT, tmp_path / "a")
    for state in (tmp_path / "a", tmp_path / "b", None):
        with pytest.raises(KeyInUse, match="stop it first"):
            KeyLock("1-aa", ACCOUNT.lower(), state)
    with pytest.raises(KeyInUse):
        KeyLock("2-bb", ACCOUNT, tmp_path / "a")
    KeyLock("2-bb", ACCOUNT, tmp_path / "c").close()
    held.close()
    held.close()
    KeyLock("1-aa", ACCOUNT, tmp_path / "a").close()


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("FL_NODE_LOCKS", str(tmp_path / "file" / "locks"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert lock_folder().is_relative_to(tmp_path / "tmp")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(LedgerError, match="FL_NODE_LOCKS"):
        lock_folder()
