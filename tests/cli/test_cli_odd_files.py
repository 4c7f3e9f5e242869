"""Files and endpoints that are none, in words: no codecs, numbers of errors or names of Python's own."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from fl_node import __main__ as entry_point
from fl_node.cli import doctor
from fl_node.content.cid import Cid
from fl_node.content.fetch import Fetcher
from fl_node.errors import ContentUnavailable, DataError, FlNodeError, KeystoreError, LedgerError, StoreFull, UsageError
from fl_node.keys import load, read_password
from fl_node.learning.data import load as load_rows
from fl_node.ledger.transport import Rpc
from fl_node.spec import read_federation
from fl_node.tables import TaskSpec
from fl_node.unwritable import unwritable
from ledger_ui.options import read_secret

PYTHON = re.compile(r"Errno|codec|pickle|Error\(|b'")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd"
    path.write_bytes(b"ab\xff\xfe" * 500)
    path.chmod(0o600)
    return path


def test_what_is_no_text(odd: Path) -> None:
    for read in (read_federation, lambda path: load(path, "x"), lambda path: read_password(path), read_secret):
        with pytest.raises(FlNodeError, match="byte 3 is no text in UTF-8") as caught:
            read(odd)
        assert not PYTHON.search(str(caught.value))


def test_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    for read in (lambda path: read_password(path), read_secret, lambda path: load_rows(f"npz:{path}", TaskSpec())):
        with pytest.raises(FlNodeError, match="No such file or directory") as caught:
            read(nowhere)
        assert not PYTHON.search(str(caught.value)) and str(caught.value).count(str(nowhere)) == 1
    assert entry_point.main(["cid", str(nowhere)]) == 2
    assert (
        capsys.readouterr().err
        == f"fl-node: cannot read {nowhere}: No such file or directory; expected a file on disk\n"
    )


def test_what_is_no_archive_of_arrays(odd: Path) -> None:
    with pytest.raises(DataError, match="it is no archive of arrays of numbers; expected") as caught:
        load_rows(f"npz:{odd}", TaskSpec())
    assert not PYTHON.search(str(caught.value))


def test_what_is_no_keystore(odd: Path) -> None:
    odd.write_text(json.dumps({}))
    with pytest.raises(KeystoreError, match="it has no 'version'; restore"):
        load(odd, "x")


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://127.0.0.1:x", "http://127.0.0.1:0", "http://:5"])
def test_an_endpoint_without_a_port_that_can_be(url: str) -> None:
    with pytest.raises(LedgerError, match="expected http://HOST:PORT"):
        Rpc(url)


def test_a_gateway_that_is_down() -> None:
    with Fetcher(("127.0.0.0/8",), timeout_s=2.0) as fetcher, pytest.raises(ContentUnavailable) as caught:
        fetcher.fetch(Cid("raw", bytes(32)), 100, ("http://127.0.0.1:1",))
    assert "cannot be reached: Connection refused" in str(caught.value)


def test_names_that_are_too_long(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = str(tmp_path / ("n" * 300))
    for words in (["model", "--out", name], ["status", "--state", name], ["traffic", "--state", name]):
        assert entry_point.main(words) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"fl-node: cannot use {name}") and "File name too long; name another" in err


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 2), (errno.ENOTDIR, 2), (errno.EBADF, 1)])
def test_errors_of_the_system(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def broken(arguments: object) -> int:
        raise OSError(number, "told by the system", "some/file")

    monkeypatch.setattr(doctor, "doctor", broken)
    assert entry_point.main(["doctor"]) == code
    err = capsys.readouterr().err
    assert "some/file" in err and "told by the system" in err and ("defect" in err) is (code == 1)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, UsageError),
        (errno.EACCES, UsageError),
        (errno.ENAMETOOLONG, UsageError),
        (errno.ENOSPC, StoreFull),
        (errno.EROFS, StoreFull),
    ],
)
def test_a_file_that_cannot_be_written(number: int, kind: type[FlNodeError]) -> None:
    error = unwritable("a/b", OSError(number, "told by the system"), "name another with --out")
    assert type(error) is kind and str(error).startswith("cannot write a/b: told by the system; ")
    assert str(error).endswith("name another with --out")
