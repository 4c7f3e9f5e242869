"""The folder of checkpoints: what is kept, what is damaged, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import an_update, dev_signer, memory_world

from fl_node.errors import StoreFull, WrongLedger
from fl_node.ledger import checkpoint
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.note_folder import Incident, NoteFolder
from fl_node.records import Role

ALICE, BOB = dev_signer(1), dev_signer(2)


@pytest.fixture
def log() -> Iterator[LedgerIndex]:
    world = memory_world((Role.ALL, Role.ALL))
    for ledger in world.members:
        ledger.publish(an_update(ledger.head(), 1, 1), ())
    with LedgerIndex(":memory:", world.owner) as index:
        index.sync()
        yield index


@pytest.fixture
def folder(tmp_path: Path) -> NoteFolder:
    return NoteFolder(tmp_path / "state" / "checkpoints")


def test_a_folder_that_is_not_there_is_empty(folder: NoteFolder, log: LedgerIndex) -> None:
    assert folder.own_sizes() == [] and folder.latest_own() is None and folder.own(3) is None
    assert folder.others() == {} and folder.conflicts() == [] and folder.incidents() == [] and folder.damaged() == []
    assert folder.incident(log) is None and not folder.folder.exists()


def test_what_is_kept_is_found_again(folder: NoteFolder, log: LedgerIndex) -> None:
    for size in (4, 5):
        folder.keep_own(checkpoint.sign(checkpoint.at(log, size), ALICE))
    theirs = checkpoint.sign(checkpoint.at(log, 4), BOB)
    folder.keep_other(BOB.address, theirs)
    conflict = checkpoint.compare(theirs, checkpoint.sign(replace(theirs.checkpoint, root=bytes(32)), BOB))
    assert conflict is not None
    proof = folder.keep_conflict(conflict, BOB.address)
    assert folder.keep_conflict(conflict, BOB.address) == proof
    latest = folder.latest_own()
    assert latest is not None
    incident = folder.keep_incident(Incident(latest, checkpoint.at(log, 3), "because"))
    again = NoteFolder(folder.folder)
    assert again.own_sizes() == [4, 5] and again.latest_own() == latest
    assert again.others() == {BOB.address: theirs}
    assert again.conflicts() == [(proof, conflict)]
    assert [(path, told["trouble"]) for path, told in again.incidents()] == [(incident, "because")]
    assert again.damaged() == []
    assert not [path for path in folder.folder.iterdir() if path.name.startswith(".")]


def test_damaged_files_count_as_absent_and_are_named(folder: NoteFolder, log: LedgerIndex) -> None:
    for size in (3, 4, 5):
        folder.keep_own(checkpoint.sign(checkpoint.at(log, size), ALICE))
    files = {
        "own-000000000005.note": b"",
        "own-x.note": b"",
        "peer-0x12.note": checkpoint.sign(checkpoint.at(log, 4), BOB).note,  # not the one that its name says
        "equivocation-0x12-ab.notes": b"\xff" * 500_000,
        "inconsistent-000000000005-ab.json": b"[" * 5_000,
        "inconsistent-000000000006-ab.json": b'{"trouble": 1, "note": "", "observed": ""}',
    }
    for name, content in files.items():
        (folder.folder / name).write_bytes(content)
    latest = folder.latest_own()
    assert latest is not None and latest.checkpoint.size == 4
    assert sorted(path.name for path in folder.damaged()) == sorted(files)
    assert folder.others() == {} and folder.conflicts() == [] and folder.incidents() == []


def test_what_was_signed_is_never_replaced_by_its_contrary(folder: NoteFolder, log: LedgerIndex) -> None:
    first = checkpoint.sign(checkpoint.at(log), ALICE)
    folder.keep_own(first)
    with pytest.raises(ValueError, match="another log"):
        folder.keep_own(checkpoint.sign(replace(first.checkpoint, root=bytes(32)), ALICE))
    with pytest.raises(WrongLedger, match="checkpoints of eip155"):
        folder.keep_own(checkpoint.sign(replace(first.checkpoint, chain_id=1), ALICE))
    assert folder.latest_own() == first


def test_the_latest_speaks_for_all_unless_each_is_asked(folder: NoteFolder, log: LedgerIndex) -> None:
    wrong = replace(checkpoint.at(log, 3), root=bytes(32))
    folder.keep_own(checkpoint.sign(wrong, ALICE))
    folder.keep_own(checkpoint.sign(checkpoint.at(log, 4), ALICE))
    assert folder.incident(log) is None
    found = folder.incident(log, every=True)
    assert found is not None and found.note.checkpoint == wrong and "have the root" in found.trouble


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, log: LedgerIndex) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(StoreFull, match="cannot write"):
        NoteFolder(tmp_path / "checkpoints").keep_own(checkpoint.sign(checkpoint.at(log), ALICE))
