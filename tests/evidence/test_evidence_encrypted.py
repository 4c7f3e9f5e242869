"""Packs of encrypted updates: as they were published, in the clear, and both; with keys and without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from given import Given, given
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from packs import failed, put_together, taken_apart, verified
from playing import Play

from fl_node.__main__ import main
from fl_node.audit.run import Scope as Asked
from fl_node.audit.run import audit
from fl_node.audit.verdicts import Report, Result
from fl_node.cli.verify import with_pack
from fl_node.errors import ChecksFailed, MalformedEvidence, Unreadable
from fl_node.evidence.layout import ALL, Scope
from fl_node.evidence.read import opened
from fl_node.evidence.write import export
from fl_node.key_keeping import GivenKeys
from fl_node.merging import weights
from fl_node.records import UpdateRef
from fl_node.sealing.age import Identity
from fl_node.sealing.identities import identity_file

OF_WEIGHTS = {"well-formed", "commitment", "merge", "originality"}


@pytest.fixture(scope="module")
def play() -> Play:
    return Play(encrypt=True, encoding="int8-delta").whole()


@pytest.fixture(scope="module")
def keyed(play: Play) -> Given:
    return given(play)


@pytest.fixture(scope="module")
def in_clear(keyed: Given, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.zip"
    made = export(keyed.means(), ALL, path, plain=True)
    assert (made.blobs, made.plain, made.missing) == (0, 18, ())
    return path


@pytest.fixture(scope="module")
def sealed(keyed: Given, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "sealed.zip"
    made = export(keyed.means(), ALL, path, blobs=True)
    assert (made.blobs, made.plain, made.missing) == (18, 0, ())
    return path


def with_keys(path: Path, *identities: Identity) -> Report:
    with opened(path) as pack:
        means = replace(pack.means, opener=GivenKeys(identities))
        return with_pack(audit(means, Asked(refs=pack.refs)), pack, Asked().checks)


def results(report: Report, check: str) -> set[Result]:
    return {one.result for update in report.updates for one in update.findings if one.check == check}


def test_without_keys_a_pack_of_ciphertext_says_that_it_does_not_know(sealed: Path) -> None:
    report = verified(sealed)
    assert results(report, "bytes") == results(report, "sealed") == {Result.OK}
    assert results(report, "commitment") == results(report, "well-formed") == {Result.UNKNOWN}
    assert not failed(report) and report.counted("incomplete")


def test_with_a_key_it_is_checked_to_the_bit(play: Play, sealed: Path) -> None:
    report = with_keys(sealed, play.identities[3])
    assert not report.counted("incomplete")
    assert all(results(report, check) == {Result.OK} for check in OF_WEIGHTS | {"bytes", "sealed"})


def test_a_pack_in_the_clear_is_checked_without_a_key(in_clear: Path) -> None:
    report = verified(in_clear)
    assert not report.counted("incomplete") and not failed(report)
    assert all(results(report, check) == {Result.OK} for check in OF_WEIGHTS)
    for check in ("bytes", "sealed"):
        assert results(report, check) == {Result.UNKNOWN}
        assert not any(one.asked for update in report.updates for one in update.findings if one.check == check)
    assert any("in the clear" in note for note in report.notes)


def test_with_both_the_bytes_are_checked_as_well(keyed: Given, play: Play, tmp_path: Path) -> None:
    made = export(keyed.means(), ALL, tmp_path / "both.zip", blobs=True, plain=True)
    assert (made.blobs, made.plain) == (18, 18)
    for report in (
        verified(made.path),
        with_keys(made.path, play.identities[2]),
        with_keys(made.path, Identity.generate()),
    ):
        assert all(results(report, check) == {Result.OK} for check in OF_WEIGHTS | {"bytes", "sealed"})


def test_its_files_are_the_decoded_weights_to_the_bit(play: Play, in_clear: Path) -> None:
    files = taken_apart(in_clear)
    names = {name for name in files if name.startswith("plain/")}
    assert names == {f"plain/{ref.peer}-{ref.sequence}.safetensors" for ref in play.models}
    for ref, model in play.models.items():
        tensors = weights.decode(files[f"plain/{ref.peer}-{ref.sequence}.safetensors"], play.schema).tensors
        assert weights.digest(tensors) == weights.digest(model)
    readme = files["README.txt"].decode()
    assert "KEEP IT TO YOURSELF" in readme and json.loads(files["manifest.json"])["plain"] is True


def test_without_keys_nothing_is_written_in_the_clear(play: Play, sealed: Path) -> None:
    files = taken_apart(sealed)
    whole = b"".join(files.values())
    assert not any(name.startswith("plain/") for name in files) and "plain" not in json.loads(files["manifest.json"])
    assert "KEEP IT" not in files["README.txt"].decode()
    for model in play.models.values():
        assert all(array.tobytes() not in whole for array in model.values())


def test_equal_means_give_equal_bytes(keyed: Given, in_clear: Path, tmp_path: Path) -> None:
    again = export(keyed.means(), ALL, tmp_path / "again.zip", plain=True).path
    assert again.read_bytes() == in_clear.read_bytes()


def test_what_no_key_opens_is_missing_and_told(keyed: Given, play: Play, tmp_path: Path) -> None:
    late = replace(keyed.copy(), identities=(play.identities[5],))
    made = export(late.means(), ALL, tmp_path / "late.zip", plain=True)
    assert 0 < made.plain < 18 and len(made.missing) == 18 - made.plain
    assert all("in the clear: well-formed: encrypted: " in what for what in made.missing)
    assert not failed(verified(made.path))
    stranger = replace(keyed.copy(), identities=(Identity.generate(),))
    with pytest.raises(Unreadable, match=r"none of 18 encrypted updates can be read.*--identity"):
        export(stranger.means(), ALL, tmp_path / "none.zip", plain=True)
    assert not (tmp_path / "none.zip").exists()


def test_a_pack_of_one_update_has_what_its_bytes_refer_to(keyed: Given, play: Play, tmp_path: Path) -> None:
    ref = UpdateRef(2, 3)
    entry = play.ledger.prefix.update(ref)
    assert UpdateRef.unpack(entry.update.refers_to) == UpdateRef(2, 2)
    made = export(keyed.means(), Scope("update", update=ref), tmp_path / "one.zip", blobs=True)
    report = with_keys(made.path, play.identities[1])
    (update,) = report.updates
    found = {one.check: one.result for one in update.findings}
    assert {found[check] for check in ("bytes", "sealed", "well-formed", "commitment", "merge")} == {Result.OK}


def test_a_pack_of_changes_in_the_clear_federation_has_them_as_well(tmp_path: Path) -> None:
    play = Play(encoding="int8-delta", mode="sync").whole()
    entry = play.ledger.prefix.update(UpdateRef(2, 3))
    assert entry.update.refers_to
    made = export(given(play).means(), Scope("update", update=entry.ref), tmp_path / "one.zip", blobs=True, plain=True)
    assert made.plain == 0
    (update,) = verified(made.path).updates
    found = {one.check: one.result for one in update.findings}
    assert {found[check] for check in ("bytes", "sealed", "well-formed", "commitment", "merge")} == {Result.OK}


# ---- altered -------------------------------------------------------------------------------------------------------

NAME = "plain/2-2.safetensors"


def found_in(report: Report, ref: str = "2#2") -> dict[str, tuple[Result, str]]:
    update = next(update for update in report.updates if str(update.ref) == ref)
    return {one.check: (one.result, one.detail) for one in update.findings}


def test_an_altered_file_is_named(in_clear: Path, tmp_path: Path) -> None:
    from packs import write

    files = taken_apart(in_clear)
    files[NAME] = files[NAME][:-1] + bytes([files[NAME][-1] ^ 1])
    with pytest.raises(ChecksFailed, match=r"plain/2-2.safetensors: weights of 2#2 in the clear"):
        verified(write(files, tmp_path / "altered.zip"))


def test_other_weights_in_the_clear_are_not_their_publisher_s(in_clear: Path, tmp_path: Path) -> None:
    """The manifest made to fit."""
    files = taken_apart(in_clear)
    files[NAME] = files[NAME][:-4] + np.float32(0.5).tobytes()
    report = verified(put_together(files, tmp_path / "other.zip"))
    found = found_in(report)
    assert found["bytes"][0] is Result.FAILED and "not what its publisher committed to" in found["bytes"][1]
    assert found["commitment"][0] is found["well-formed"][0] is Result.UNKNOWN
    assert failed(report) == {("2#2", "bytes")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-8], "cannot be read"),
        (lambda raw: b"", "cannot be read"),
        (lambda raw: raw + bytes(1 << 20), "expected at most"),
        (lambda raw: raw[:-4] + np.float32("nan").tobytes(), "cannot be read"),
    ],
)
def test_files_that_are_none(change, words: str, in_clear: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files = taken_apart(in_clear)
    files[NAME] = change(files[NAME])
    report = verified(put_together(files, tmp_path / "none.zip"))
    assert words in found_in(report)["bytes"][1] and failed(report) == {("2#2", "bytes")}


def test_a_file_that_is_written_another_way(in_clear: Path, tmp_path: Path) -> None:
    """The same tensors with other metadata: nothing may be hidden in it."""
    files = taken_apart(in_clear)
    tensors = weights.decode(files[NAME]).tensors
    files[NAME] = b"".join(map(bytes, weights.encode(tensors, "hello")))
    report = verified(put_together(files, tmp_path / "other.zip"))
    assert "not written as they are to be" in found_in(report)["bytes"][1]


def test_another_s_weights_under_its_name(in_clear: Path, tmp_path: Path) -> None:
    files = taken_apart(in_clear)
    files[NAME] = files["plain/3-2.safetensors"]
    assert failed(verified(put_together(files, tmp_path / "swapped.zip"))) == {("2#2", "bytes")}


def test_manifests_that_do_not_say_it_are_refused(in_clear: Path, tmp_path: Path) -> None:
    files = taken_apart(in_clear)
    for change in (lambda table: table.pop("plain") and None, lambda table: table.update(plain=False)):
        with pytest.raises(MalformedEvidence, match="plain"):
            verified(put_together(files, tmp_path / "bad.zip", listed=change))


@pytest.mark.parametrize("name", ["plain/9-9.safetensors", "plain/02-2.safetensors", "plain/2#2.safetensors"])
def test_files_of_no_update_are_refused(name: str, in_clear: Path, tmp_path: Path) -> None:
    files = taken_apart(in_clear)
    files[name] = files.pop(NAME)
    with pytest.raises(MalformedEvidence):
        verified(put_together(files, tmp_path / "bad.zip"))


def test_weights_in_the_clear_of_a_federation_that_encrypts_nothing_are_refused(pack: Path, tmp_path: Path) -> None:
    files = taken_apart(pack)
    files["plain/1-1.safetensors"] = b"hello"
    with pytest.raises(MalformedEvidence, match="no such update that is encrypted"):
        verified(put_together(files, tmp_path / "bad.zip", listed=lambda table: table.update(plain=True)))


@settings(max_examples=60)
@examples(st.data())
def test_no_bit_of_it_can_be_changed_unseen(
    in_clear: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(in_clear.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    out = tmp_path_factory.mktemp("bit") / "bit.zip"
    out.write_bytes(raw)
    with pytest.raises((ChecksFailed, MalformedEvidence)):
        verified(out)


# ---- commands ------------------------------------------------------------------------------------------------------


def test_the_command_takes_keys(play: Play, sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "auditor.key"
    file.write_bytes(identity_file([(play.identities[2], "of an auditor")]))
    file.chmod(0o600)
    assert main(["verify", str(sealed)]) == 41
    assert "--identity" in capsys.readouterr().err
    assert main(["verify", str(sealed), "--identity", str(file)]) == 0
    capsys.readouterr()
    file.chmod(0o644)
    assert main(["verify", str(sealed), "--identity", str(file)]) == 28
    assert "AGE-SECRET-KEY" not in capsys.readouterr().err


def test_the_command_needs_none_for_a_pack_in_the_clear(in_clear: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(in_clear)]) == 0
    assert "whoever gets it can read them" in capsys.readouterr().out
