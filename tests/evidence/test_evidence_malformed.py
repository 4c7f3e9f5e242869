"""Packs of strangers: whatever is in the file, it is refused with a message, in little memory and time."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak
from given_log import with_log
from packs import MANIFEST, canonical, lines_of, put_together, taken_apart, with_lines, write

from fl_node.errors import ChecksFailed, MalformedEvidence
from fl_node.evidence import limits
from fl_node.evidence.container import Packer
from fl_node.evidence.read import opened


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "hostile.zip"


def refused(path: Path, words: str | None = None, error: type[Exception] = MalformedEvidence) -> str:
    with pytest.raises(error, match=words or None) as caught, opened(path):
        pass
    return str(caught.value)


# ---- the file as a whole ---------------------------------------------------------------------------------------------


def test_what_is_no_zip_file(out: Path, tmp_path: Path) -> None:
    refused(tmp_path / "missing.zip", "cannot read")
    refused(tmp_path, "no regular file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")
    refused(Path("/dev/zero"), "no regular file")
    for raw in (b"", b"PK", b"no pack at all" * 10, b"PK\5\6" + bytes(18), b"PK\5\6" + b"\xff" * 18, b"\xff" * 4096):
        out.write_bytes(raw)
        refused(out)


def test_a_pack_cut_short_anywhere(small: Path, out: Path) -> None:
    raw = small.read_bytes()
    draw = random.Random(1)
    for end in (*(draw.randrange(len(raw)) for _ in range(300)), *range(len(raw) - 100, len(raw))):
        out.write_bytes(raw[:end])
        refused(out)
    for extra in (b"\0", raw, b"PK\5\6" + bytes(18)):
        out.write_bytes(raw + extra)
        refused(out)
        out.write_bytes(extra + raw)
        refused(out)


def test_packed_by_another_program(small: Path, out: Path) -> None:
    files = taken_apart(small)
    with zipfile.ZipFile(out, "w") as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    refused(out, "another program packed it")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), raw, zipfile.ZIP_DEFLATED)
    refused(out, "compressed .method 8")


def test_a_bomb_is_never_unpacked(out: Path) -> None:
    """Ten gigabytes of zeros in ten megabytes; it is not even begun."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("blobs.bin", "w") as sink:
        block = bytes(1 << 20)
        for _ in range(64):
            sink.write(block)
    began = time.perf_counter()
    refused(out, "compressed")
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "name",
    [
        "../README.txt",
        "/etc/passwd",
        "log/../../x",
        "C:\\x",
        "a//b",
        "./a",
        "log/",
        ".hidden",
        "",
        "a\0b",
        "blobs/é",
        "x" * 101,
        "CON:",
        "-rf",
    ],
)
def test_names_that_lead_elsewhere(name: str, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("placeholder-name-that-is-longer-than-any"[: max(1, len(name.encode()))])
        info.filename = name
        archive.writestr(info, b"x")
    refused(out)
    with pytest.raises(MalformedEvidence, match="not a name"), out.open("w+b") as sink:
        Packer(sink).add(name, [b"x"], 1)


def test_doubled_overlapping_and_encrypted_members(small: Path, out: Path) -> None:
    with out.open("w+b") as sink:
        packer = Packer(sink)
        for raw in (b"one", b"two"):
            packer.add("README.txt", [raw], 3)
        packer.finish()
    refused(out, "twice")
    raw = small.read_bytes()
    end = raw.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<I", raw, end + 16)
    for at, bit, words in (
        (8, 1, "encrypted"),
        (10, 8, "method 8"),
        (42, 1, ""),
        (38, 0x40, ""),
        (28, 1, ""),
        (32, 1, ""),
    ):
        altered = bytearray(raw)
        altered[start + at] ^= bit
        out.write_bytes(altered)
        refused(out, words)
    record = raw[start : start + 46 + 10]
    out.write_bytes(raw[:start] + record * 2 + raw[start + len(record) :])
    refused(out)


def test_a_million_entries_are_refused_at_once(out: Path) -> None:
    """Each has 46 bytes in a list that is said to hold a million, or 65,535."""
    record = (
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 0x314, 20, 0, 0, 0, 0x21, 0, 0, 0, 1, 0, 0, 0, 0, 0x81A40000, 0) + b"a"
    )
    directory = record * 1_000_000
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0x32D, 45, 0, 0, 1_000_000, 1_000_000, len(directory), 0)
    wide += struct.pack("<4sIQI", b"PK\6\7", 0, len(directory), 1)
    began = time.perf_counter()
    for count, tail in ((0xFFFF, wide), (0xFFFF, b""), (60_000, b"")):
        end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), 0, 0)
        out.write_bytes(directory + tail + end)
        refused(out)
    assert time.perf_counter() - began < 2


def test_as_many_files_as_there_may_be_take_little(out: Path) -> None:
    """All of them empty; the manifest is what is wrong."""
    with out.open("w+b") as sink:
        packer = Packer(sink)
        for number in range(limits.MOST_FILES - 2):
            packer.add(f"a{number:06}", [], 0)
        for name in MANIFEST:
            packer.add(name, [b"{}"], 2)
        with pytest.raises(MalformedEvidence, match="more than 65000 files"):
            packer.add("one-more", [], 0)
        packer.finish()
    began = time.perf_counter()
    refused(out, "manifest", ChecksFailed)
    assert time.perf_counter() - began < 5


# ---- the manifest ----------------------------------------------------------------------------------------------------

WRONG: list[Any] = [None, True, -1, 1.5, 2**63, 10**400, "", "x", "0" * 64, "é", [], [[]], {}, {"a": 1}, "F" * 64]


def everywhere(value: Any) -> Iterator[Callable[[Any], Any]]:
    """For each place in some JSON: a function that puts another value there."""
    yield lambda other: other
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            for put in everywhere(value[key]):

                def inside(other: Any, key: Any = key, put: Callable[[Any], Any] = put) -> Any:
                    copy = dict(value) if isinstance(value, dict) else list(value)
                    copy[key] = put(other)
                    return copy

                yield inside


def test_a_wrong_type_anywhere_in_the_manifest(small: Path, out: Path) -> None:
    files = taken_apart(small)
    table = json.loads(files[MANIFEST[0]])
    table["files"] = table["files"][:3] + table["files"][6:8]
    puts = list(everywhere(table))
    assert len(puts) > 30
    for put in puts:
        for wrong in WRONG:
            changed = put(wrong)
            if changed != table or type(changed) is not dict:
                refused(put_together(files, out, listed=lambda _, found=changed: canonical(found)))


def test_other_forms_of_the_manifest(small: Path, out: Path) -> None:
    files = taken_apart(small)
    raw = files[MANIFEST[0]]
    forms = [
        b"",
        b"null",
        b"[" * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{}",
        b"9" * 5000,
        b"NaN",
        raw + b"\n",
        raw.replace(b":", b": ", 1),
        raw.replace(b'"blobs":true', b'"blobs":true,"blobs":true'),
        raw.replace(b'"blobs":true', b'"blobs":1'),
        raw.replace(b"evidence-1", b"evidence-2"),
        raw.replace(b'"files":[', b'"files":[{},'),
        b"[" + b"0," * (7 * limits.MOST_FILES) + b"0]",
    ]
    for form in forms:
        assert form != raw
        refused(put_together(files, out, listed=lambda _, form=form: form), "manifest.json")


def test_a_manifest_of_other_files(small: Path, out: Path) -> None:
    files = taken_apart(small)
    refused(write({name: raw for name, raw in files.items() if name not in MANIFEST}, out), "manifest.json")
    refused(write({**files, "x": b""}, out), "at its end")
    short = {name: raw for name, raw in files.items() if name != "federation.toml"}
    refused(write(short, out), "federation.toml")
    first, *others = (name for name in files if name not in MANIFEST)
    swapped = {**{name: files[name] for name in (*others, first)}, **{name: files[name] for name in MANIFEST}}
    refused(write(swapped, out), "their order")
    for name in ("stray.txt", "log/000002.jsonl", "log/1.jsonl", "blobs/x.car", "reports/b.json", "blobs/a/b.car"):
        refused(put_together({**files, name: b"{}\n"}, out), "manifest.json")
    refused(put_together({name: raw for name, raw in files.items() if "README" not in name}, out), "README")
    refused(put_together({name: raw for name, raw in files.items() if "log/" not in name}, out), "log")


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_another_ledger_or_scope_than_the_log_is_of(small: Path, out: Path) -> None:
    files = taken_apart(small)
    table = json.loads(files[MANIFEST[0]])
    edits: list[tuple[str, dict[str, Any], type[Exception]]] = [
        ("ledger", {"chain_id": 1}, MalformedEvidence),
        ("ledger", {"first_block": 0}, MalformedEvidence),
        ("ledger", {"spec_digest": "0" * 64}, MalformedEvidence),
        ("ledger", {"contract": "0x" + "00" * 20}, MalformedEvidence),
        ("head", {"size": table["head"]["size"] - 1}, MalformedEvidence),
        ("head", {"block": 0}, MalformedEvidence),
        ("head", {"root": "0" * 64}, ChecksFailed),
    ]
    for key, edit, error in edits:
        refused(put_together(files, out, listed=lambda found, k=key, e=edit: found[k].update(e)), None, error)
    for scope in (
        {"kind": "round", "round": 9},
        {"kind": "update", "update": "9#9"},
        {"kind": "update", "update": "9"},
    ):
        refused(put_together(files, out, listed=lambda found, s=scope: {**found, "scope": s}))
    refused(put_together(files, out, listed=lambda found: {**found, "scope": {"kind": "update", "update": "1#1"}}))


def test_files_that_are_not_what_their_names_say(small: Path, out: Path) -> None:
    files = taken_apart(small)
    report = next(name for name in files if name.startswith("reports/"))
    car = next(name for name in files if name.startswith("blobs/"))
    strange = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    cases: dict[str, bytes] = {
        "federation.toml": b"format = 1\n",
        "federation.toml ": b"[" * 5000 + b"\n",
        "federation.toml  ": b"\xff\xff",
        "federation.toml   ": files["federation.toml"].replace(b"chain_id = ", b"chain_id = 7"),
        "checkpoints/000000.txt": b"",
        "checkpoints/000001.txt": files["checkpoints/000000.txt"],
        f"reports/{strange}.json": b"{}",
        f"blobs/{strange}.car": files[car],
        f"reports/{report[8:-6]}a.json": files[report],
    }
    for name, raw in cases.items():
        message = refused(put_together({**files, name.strip(): raw}, out))
        assert name.strip() in message or "manifest" in message
    altered = json.loads(files["lineage.prov.json"])
    altered["entity"].popitem()
    refused(put_together({**files, "lineage.prov.json": canonical(altered)}, out), "lineage.prov.json", ChecksFailed)


def test_lines_that_are_none(small: Path, out: Path) -> None:
    """Every place in a line of each kind with every wrong value, and lines in other orders and numbers."""
    files = taken_apart(small)
    for folder in ("log", "transactions", "proofs/inclusion", "proofs/consistency"):
        lines = lines_of(files, folder)
        for put in everywhere(lines[0]):
            for wrong in WRONG:
                changed = put(wrong)
                if changed != lines[0] and not only_a_chain(changed, lines[0]):
                    with pytest.raises((MalformedEvidence, ChecksFailed)):
                        checked(put_together(with_lines(files, folder, [changed, *lines[1:]]), out), whole=True)
        name = f"{folder}/000000.jsonl"
        raw = files[name]
        for other in (
            lines[1:],
            lines[:-1],
            [lines[0], *lines],
            [*lines, lines[-1]],
            lines[::-1],
        ):
            if len(lines) > 1 or other != lines:
                with pytest.raises((MalformedEvidence, ChecksFailed)):
                    checked(put_together(with_lines(files, folder, other), out), whole=folder == "transactions")
        for text in (
            raw[:-1],
            raw + b"\n",
            raw.replace(b"\n", b"\r\n"),
            b" " + raw,
            raw.replace(b":", b": ", 1),
            b"\n",
        ):
            refused(put_together({**files, name: text}, out))
    refused(put_together({**files, "log/000000.jsonl": b"1\n" * 1001}, out), "manifest")
    refused(put_together({**files, "log/000000.jsonl": b"1" * (limits.MOST_LINE_BYTES + 1) + b"\n"}, out), "lines")


def only_a_chain(changed: Any, line: dict[str, Any]) -> bool:
    """Whether it is another block's hash, which nothing but a chain speaks against."""
    return isinstance(changed, dict) and changed == {**line, "block_hash": "0" * 64}


def checked(path: Path, whole: bool = False) -> None:
    """Open a pack and look at all that it holds. ``whole``: what lacks counts as wrong."""
    with opened(path) as pack:
        wrong = [*pack.findings, *pack.by_entry.values()]
        if wrong:
            raise ChecksFailed(wrong[0].detail)
        hashes = {entry.tx_hash for entry in pack.means.entries}
        found = pack.means.transactions.signed(list(hashes))
        if whole and len(found) != len(hashes):
            raise ChecksFailed("transactions are missing")
        for tx_hash, raw in found.items():
            if keccak(raw) != tx_hash:
                raise ChecksFailed("a transaction is another one")


def test_logs_that_no_contract_makes_do_not_crash(small: Path, out: Path) -> None:
    """Entries of random topics and data under a root that fits: read as entries of an unknown kind, or refused."""
    files = taken_apart(small)
    draw = random.Random(5)
    for _ in range(60):
        lines = lines_of(files, "log")
        for line in draw.sample(lines, 2):
            what = draw.randrange(6)
            if what == 0:
                line["data"] = draw.randbytes(draw.randrange(0, 400)).hex()
            elif what == 1:
                line["topics"][draw.randrange(len(line["topics"]))] = draw.choice(["f" * 64, "0" * 64, "0" * 63 + "1"])
            elif what == 2:
                line["topics"] = line["topics"][: draw.randrange(len(line["topics"]) + 1)]
            elif what == 3:
                line["topics"] = [*line["topics"], "f" * 64][:4]
            elif what == 4:
                raw = bytearray.fromhex(line["data"])
                raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
                line["data"] = raw.hex()
            else:
                line["block"] = draw.choice([0, 2**63 - 1])
        try:
            checked(with_log(files, lines, out))
        except (MalformedEvidence, ChecksFailed):
            pass


# ---- from the command line -------------------------------------------------------------------------------------------

VERIFY = """
import sys
from pathlib import Path
from fl_node.__main__ import main

for path in sys.argv[1:]:
    print("code", main(["verify", path]), file=sys.stderr)
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def test_memory_and_time_stay_small(small: Path, out: Path) -> None:
    """A manifest, a line, a lineage and a spec as large as may be, full of what costs a parser most."""
    files = taken_apart(small)
    cases = [
        put_together(files, out.with_name("a.zip"), listed=lambda _: b"[" + b"[]," * (15 << 20) + b"0]"),
        put_together(files, out.with_name("b.zip"), listed=lambda _: b"[" * (40 << 20)),
        put_together({**files, "log/000000.jsonl": b"[[],[]]" * 9000 + b"\n"}, out.with_name("c.zip")),
        put_together({**files, "lineage.prov.json": b"[]," * (10 << 20)}, out.with_name("d.zip")),
        put_together({**files, "federation.toml": b"a = " + b"[" * 500_000}, out.with_name("e.zip")),
    ]
    began = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", VERIFY, *map(str, cases)], capture_output=True, text=True)
    assert time.perf_counter() - began < 30
    assert run.returncode == 0 and "Traceback" not in run.stderr and "defect" not in run.stderr
    assert re.findall("^code ([0-9]+)$", run.stderr, re.M) == ["43", "43", "43", "40", "43"], run.stderr
    assert run.stderr.count("fl-node: ") == len(cases)
    assert int(run.stdout.splitlines()[-1]) < 400
    for path in cases:
        path.unlink()
