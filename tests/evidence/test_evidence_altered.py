"""One bit, anywhere: found, and the file and the entry named."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packs import MANIFEST, put_together, taken_apart

from fl_node.errors import ChecksFailed, MalformedEvidence
from fl_node.evidence.container import Container
from fl_node.evidence.layout import KINDS, kind_of
from fl_node.evidence.read import AlteredEvidence, opened

#: Places that are tried in each file, but for shorter ones.
PLACES = 50


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.zip"
    path.write_bytes(small.read_bytes())
    return path


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def refusal(path: Path) -> ChecksFailed | MalformedEvidence:
    with pytest.raises((ChecksFailed, MalformedEvidence)) as caught, opened(path):
        pass
    return caught.value


def places(size: int, draw: random.Random) -> Iterator[tuple[int, int]]:
    """Both ends and places between them, and a bit in each."""
    spread = range(0, size, max(1, size // PLACES))
    for at in sorted({*spread, size - 1}):
        yield at, draw.randrange(8)


def test_every_file_altered_at_any_place_is_named(copy: Path) -> None:
    draw = random.Random(1)
    with Container(copy) as container:
        members = list(container.members.values())
    tried = 0
    for member in members:
        for at, bit in places(member.size, draw):
            flip(copy, member.offset + at, bit)
            error = refusal(copy)
            assert error.exit_code == 40 and isinstance(error, AlteredEvidence)
            (altered,) = error.altered
            assert member.name in altered.path.split(" or ") and member.name in str(error)
            flip(copy, member.offset + at, bit)
            tried += 1
    kinds = {kind.name for member in members if (kind := kind_of(member.name))}
    assert kinds == {kind.name for kind in KINDS} and tried > PLACES * len(members)
    with opened(copy) as pack:
        assert not pack.findings and not pack.by_entry


def test_every_bit_between_the_files_counts(copy: Path) -> None:
    """Headers, the list of files, the end: nothing of it may differ, whatever a ZIP reader would make of it."""
    with Container(copy) as container:
        members, size = list(container.members.values()), container.size
    inside = [range(member.offset, member.offset + member.size) for member in members]
    outside = sorted(set(range(size)).difference(*inside))
    draw = random.Random(2)
    for at in draw.sample(outside, 600):
        bit = draw.randrange(8)
        flip(copy, at, bit)
        assert isinstance(refusal(copy), MalformedEvidence), (at, bit)
        flip(copy, at, bit)


def test_a_wrong_checksum_of_the_container_is_refused(pack: Path, tmp_path: Path) -> None:
    """CRC-32 fields altered in both headers alike: nothing else tells."""
    with Container(pack) as container:
        members = list(container.members.values())
    raw = pack.read_bytes()
    for member in (members[0], members[5], *members[-2:]):
        wrong = raw.replace(member.crc.to_bytes(4, "little"), (member.crc ^ 1).to_bytes(4, "little"))
        path = tmp_path / "wrong.zip"
        path.write_bytes(wrong)
        with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile):
            archive.read(member.name)
        error = refusal(path)
        assert isinstance(error, MalformedEvidence) and f"{member.name}: its CRC-32" in str(error)


# ---- the entry that it is about --------------------------------------------------------------------------------------


def named(pack: Path, out: Path, name: str, old: bytes, new: bytes) -> str:
    """What is said of a file in which the first ``old`` became ``new``; they have the same length."""
    raw = pack.read_bytes()
    with Container(pack) as container:
        member = container.members[name]
        at = container.read(member).index(old) + member.offset
    assert len(old) == len(new)
    out.write_bytes(raw[:at] + new + raw[at + len(old) :])
    error = refusal(out)
    assert isinstance(error, AlteredEvidence)
    (altered,) = error.altered
    assert altered.path == name
    return "; ".join(altered.concerns)


def test_the_entry_is_named(pack: Path, tmp_path: Path) -> None:
    files = taken_apart(pack)
    out = tmp_path / "altered.zip"
    log = [json.loads(line) for line in files["log/000000.jsonl"].splitlines()]
    for number in (0, 17, len(log) - 1):
        for key in ("tx", "block_hash"):
            text = log[number][key].encode()
            first = next(index for index, line in enumerate(log) if line[key].encode() == text)
            assert named(pack, out, "log/000000.jsonl", text, b"f" * 64) == f"entry {first}"
        line = files["log/000000.jsonl"].splitlines()[number]
        assert named(pack, out, "log/000000.jsonl", line, line[:-1] + b" ") == f"entry {number}"
        assert named(pack, out, "log/000000.jsonl", line + b"\n", line + b" ").startswith(f"entry {number}")

    signed = [json.loads(line) for line in files["transactions/000000.jsonl"].splitlines()]
    for number in (0, 5, len(signed) - 1):
        one = signed[number]
        entries = [str(index) for index, line in enumerate(log) if line["tx"] == one["hash"]]
        told = f"entry {entries[0]}" if len(entries) == 1 else f"entries {entries[0]} to {entries[-1]}"
        for text in (one["hash"].encode(), one["raw"].encode()):
            swapped = text[:9] + (b"0" if text[9:10] != b"0" else b"1") + text[10:]
            said = named(pack, out, "transactions/000000.jsonl", text, swapped)
            assert said == f"line {number + 1}, the signed transaction of {told}"

    for index in (0, 9, len(log) - 1):
        old = f'"index":{index},'.encode()
        said = named(pack, out, "proofs/inclusion/000000.jsonl", old, old.replace(b"index", b"Index"))
        assert said == f"line {index + 1}, the inclusion proof of entry {index}"
    said = named(pack, out, "proofs/inclusion/000000.jsonl", b'"index":30', b'"index":31')
    assert said == "line 31, the inclusion proof of entry 30"
    said = named(pack, out, "proofs/consistency/000000.jsonl", b'"old":20', b'"old":21')
    assert said.endswith("the consistency proof of the first 20 entries")

    published = [line for line in log if len(line["topics"]) == 4]
    index = published[3]["index"]
    for folder, what in (("reports", "report"), ("blobs", "weights")):
        for name in files:
            if name.startswith(folder):
                first = files[name][-40:]
                said = named(pack, out, name, first, bytes(byte ^ 1 for byte in first))
                assert said.startswith(f"{what} of ") and "(entry " in said
    assert index > 0


def test_several_altered_files_are_all_named(pack: Path, tmp_path: Path) -> None:
    """A log file that was altered as well does not hide what the others are about."""
    with Container(pack) as container:
        members = container.members
    path = tmp_path / "several.zip"
    path.write_bytes(pack.read_bytes())
    reports = [name for name in members if name.startswith("reports/")]
    wanted = ["log/000000.jsonl", *reports[:2], "transactions/000000.jsonl", "README.txt", "federation.toml"]
    for name in wanted:
        flip(path, members[name].offset + 200, 3)
    error = refusal(path)
    assert isinstance(error, AlteredEvidence)
    assert [altered.path for altered in error.altered] == sorted(wanted)
    assert all("(entry " in str(altered) for altered in error.altered if altered.path in reports)


def test_a_manifest_that_lies_of_lines_is_refused(pack: Path, tmp_path: Path) -> None:
    files = taken_apart(pack)

    def other(table: dict) -> None:  # type: ignore[type-arg]
        for item in table["files"]:
            if item["path"].startswith("log/"):
                item["lines"] = "00000000" + item["lines"][8:]

    error = refusal(put_together(files, tmp_path / "lines.zip", listed=other))
    assert isinstance(error, MalformedEvidence) and "log/000000.jsonl" in str(error)
    assert MANIFEST[0] in str(error)
