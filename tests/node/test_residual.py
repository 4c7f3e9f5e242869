"""What an update could not carry outlives the process, is told to nobody, and if damaged is lost, not believed."""

from __future__ import annotations

import stat

import numpy as np
import pytest

from fl_node.errors import StoreFull
from fl_node.residual import FOLDER_NAME, Residuals

REST = {"w": np.array([0.5, -1e-9], np.float32), "v": np.array(2.5)}


def same(got, wanted):
    return got is not None and {name: array.tobytes() for name, array in got.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }


@pytest.fixture(params=["memory", "folder"])
def residuals(request, tmp_path):
    return Residuals(None if request.param == "memory" else tmp_path, "31337:0xab")


def test_what_one_update_left_is_there_for_the_next(residuals):
    assert residuals.before(1) is None
    residuals.keep(3, REST)
    assert same(residuals.before(4), REST)
    assert residuals.before(3) is None and residuals.before(5) is None
    residuals.keep(3, {"w": REST["w"] * 2})
    assert same(residuals.before(4), {"w": REST["w"] * 2}), "the same update, made again"
    residuals.keep(3, None)
    assert residuals.before(4) is None


@pytest.mark.parametrize(("on_disk", "first"), [(True, 5), (False, 11)], ids=["disk", "memory"])
def test_the_last_few_are_kept_and_none_from_a_future_that_did_not_happen(tmp_path, on_disk, first):
    residuals = Residuals(tmp_path if on_disk else None, "31337:0xab")
    for sequence in range(1, 13):
        residuals.keep(sequence, REST)
    assert [number for number in range(1, 20) if residuals.before(number + 1) is not None] == list(range(first, 13))
    residuals.keep(11, REST)
    assert [number for number in range(1, 20) if residuals.before(number + 1) is not None] == list(range(first, 12))


def test_files_are_their_owners_and_outlive_the_process(tmp_path):
    Residuals(tmp_path, "31337:0xab").keep(3, REST)
    (path,) = (tmp_path / FOLDER_NAME).iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert same(Residuals(tmp_path, "31337:0xab").before(4), REST)
    assert Residuals(tmp_path, "31337:0xcd").before(4) is None, "another ledger"
    path.rename(path.with_name("7.safetensors"))
    assert Residuals(tmp_path, "31337:0xab").before(8) is None, "another update's"


def test_a_crash_leaves_no_half_file_and_no_open_one(tmp_path):
    folder = tmp_path / FOLDER_NAME
    folder.mkdir()
    (folder / "3.new").write_bytes(b"half")
    (folder / "3.new").chmod(0o644)
    kept = Residuals(tmp_path, "x")
    kept.keep(3, REST)
    assert [path.name for path in folder.iterdir()] == ["3.safetensors"]
    assert stat.S_IMODE((folder / "3.safetensors").stat().st_mode) == 0o600
    raw = (folder / "3.safetensors").read_bytes()
    for damaged in (raw[:-1], b"", raw.replace(b"residual", b"presumed"), raw[:-4] + b"\0\0\xf8\x7f"):
        (folder / "3.safetensors").write_bytes(damaged)
        assert kept.before(4) is None


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / FOLDER_NAME).write_text("in the way")
    with pytest.raises(StoreFull, match="free some space"):
        Residuals(tmp_path, "x").keep(1, REST)
