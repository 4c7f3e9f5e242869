"""Folders of what is kept between runs: in the user's cache, and for one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_node.cli.working import working_folder
from fl_node.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = tmp_path / "federation.toml"
    found.touch()
    return found


def test_it_lies_in_the_users_cache_and_stays(file: Path, tmp_path: Path) -> None:
    with working_folder(None, file, "audit") as first:
        (first / "kept").touch()
    with working_folder(None, file, "audit") as again, working_folder(None, file, "monitor") as other:
        assert again == first and (first / "kept").exists() and other != first
    assert first.is_relative_to(tmp_path / "cache" / "fl-node" / "audit")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "cache", file]


def test_a_relative_cache_is_no_cache(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for named in ("here", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        with working_folder(None, file, "audit") as folder:
            assert folder.is_relative_to(tmp_path / "home" / ".cache" / "fl-node")


def test_while_one_is_at_work_another_has_a_folder_of_its_own(file: Path) -> None:
    with working_folder(None, file, "audit") as first:
        with working_folder(None, file, "audit") as second:
            assert second != first and second.is_dir()
        assert not second.exists()
    with working_folder(None, file, "audit") as third:
        assert third == first


def test_a_named_folder_is_that_folder_or_none(file: Path, tmp_path: Path) -> None:
    named = tmp_path / "deep" / "work"
    with working_folder(str(named), file, "audit") as first:
        assert first == named
        with pytest.raises(UsageError, match="another process is at work there"), working_folder(str(named), file, "x"):
            pass
    with pytest.raises(UsageError, match="cannot be written"), working_folder(str(file), None, "audit"):
        pass


def test_without_a_federation_file_nothing_is_kept(file: Path) -> None:
    with working_folder(None, file.with_name("none.toml"), "audit") as missing, working_folder(None, None, "x") as none:
        assert missing.is_dir() and none.is_dir()
    assert not missing.exists() and not none.exists()


def test_a_cache_that_cannot_be_written_is_done_without(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # a file, not a folder
    with working_folder(None, file, "audit") as scratch:
        assert scratch.is_dir()
