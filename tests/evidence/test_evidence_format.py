"""The form of a pack: the same bytes for the same content, and readable by tools that are not ours."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from given import Given
from packs import MANIFEST, lines_of, put_together, taken_apart
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError

from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.evidence import container, limits
from fl_node.evidence.container import Container, Member
from fl_node.evidence.derived import MOST_UPDATES
from fl_node.evidence.layout import ALL, KINDS
from fl_node.evidence.read import open_pack
from fl_node.evidence.write import export


def test_two_exports_are_the_same_bytes(played: Given, pack: Path, tmp_path: Path) -> None:
    again = tmp_path / "another-name.zip"
    export(played.means(), ALL, again, blobs=True)
    assert again.read_bytes() == pack.read_bytes()


def test_a_pack_put_together_from_its_files_is_the_same_bytes(pack: Path, tmp_path: Path) -> None:
    files = taken_apart(pack)
    assert put_together(files, tmp_path / "again.zip").read_bytes() == pack.read_bytes()


def test_the_manifest_names_every_file_with_size_and_digest(pack: Path) -> None:
    files = taken_apart(pack)
    table = json.loads(files[MANIFEST[0]])
    assert files[MANIFEST[1]] == f"{hashlib.sha256(files[MANIFEST[0]]).hexdigest()}  manifest.json\n".encode()
    told = {item["path"]: (item["bytes"], item["sha256"]) for item in table["files"]}
    assert told == {
        name: (len(raw), hashlib.sha256(raw).hexdigest()) for name, raw in files.items() if name not in MANIFEST
    }
    assert list(files) == [*sorted(told), *MANIFEST]
    assert set(table) == {"blobs", "files", "format", "head", "ledger", "scope"}


def test_what_was_put_in_comes_back(played: Given, pack: Path) -> None:
    given = played.means()
    with open_pack(pack) as means:
        assert means.blocks is None and means.rpc == ""
        assert means.identity == given.identity
        assert list(means.entries) == list(given.entries)
        assert means.log.root() == given.log.root() and means.log.head.block_hash == given.log.head.block_hash
        assert means.federation is not None and given.federation is not None
        assert means.federation.spec_bytes == given.federation.spec_bytes
        assert means.checkpoints == given.checkpoints and means.breaches == given.breaches
        hashes = [entry.tx_hash for entry in given.entries]
        assert dict(means.transactions.signed([*hashes, bytes(32)])) == dict(given.transactions.signed(hashes))
        assert means.prefix.highest_round == means.log.head.highest_round == 4
        spec = Cid("raw", given.identity.spec_digest)
        for cid, data in played.blobs.items():
            assert cid == spec or bytes(means.blobs.hold(cid, 1 << 20).data) == data
        assert means.blobs.asked(spec) is None


def test_ordinary_tools_check_it(pack: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(pack) as archive:
        archive.extractall(tmp_path)
    subprocess.run(["sha256sum", "--check", "--quiet", "manifest.sha256"], cwd=tmp_path, check=True)
    table = json.loads((tmp_path / "manifest.json").read_bytes())
    sums = "".join(f"{item['sha256']}  {item['path']}\n" for item in table["files"])
    subprocess.run(["sha256sum", "--check", "--quiet"], cwd=tmp_path, check=True, input=sums.encode())
    command = "sed '/^# ---- deployment/,$d' federation.toml | sha256sum"
    spec = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True, text=True)
    assert spec.stdout.split()[0] == table["ledger"]["spec_digest"]
    readme = (tmp_path / "README.txt").read_text()
    assert table["head"]["root"] in readme and table["ledger"]["contract"] in readme
    assert command in readme


def test_the_page_and_the_readme_say_the_same(pack: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evidence-pack.md").read_text()
    readme = taken_apart(pack)["README.txt"].decode()
    *_, commands = re.findall(r"```sh\n(.*?)```", page, re.S)
    for line in commands.replace("pack.zip", "PACK.zip").splitlines():
        assert f"  {line}\n" in readme
    for name in (kind.name for kind in KINDS):
        assert f"| `{name}" in page and (name == "README.txt" or name in readme)
    for number in (limits.MOST_FILES, limits.MOST_ENTRIES, MOST_UPDATES):
        assert f"{number:,}" in page


def test_blobs_are_cars_named_by_their_root(played: Given, pack: Path) -> None:
    found = 0
    for name, raw in taken_apart(pack).items():
        if name.startswith("blobs/"):
            dag, data = car.read(raw, 1 << 20)
            assert name == f"blobs/{dag.root}.car" and data == played.blobs[dag.root]
            found += 1
    assert found == 18


# ---- proofs, judged by an implementation that is not ours ------------------------------------------------------------


def preimages(files: dict[str, bytes]) -> list[bytes]:
    return [bytes.fromhex("".join(line["topics"]) + line["data"]) for line in lines_of(files, "log")]


def accepted_by_sigstore(entry: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    proven = SimpleNamespace(log_index=index, tree_size=size, root_hash=root, hashes=proof)
    logged = SimpleNamespace(_inner=SimpleNamespace(canonicalized_body=entry, inclusion_proof=proven))
    try:
        verify_merkle_inclusion(logged)  # type: ignore[arg-type]
    except VerificationError:
        return False
    return True


def test_sigstore_accepts_every_inclusion_proof(pack: Path) -> None:
    files = taken_apart(pack)
    head = json.loads(files[MANIFEST[0]])["head"]
    entries, root = preimages(files), bytes.fromhex(head["root"])
    proofs = lines_of(files, "proofs/inclusion")
    assert [proof["index"] for proof in proofs] == list(range(len(entries))) == list(range(head["size"]))
    for proof in proofs:
        path = [bytes.fromhex(node) for node in proof["path"]]
        entry = entries[proof["index"]]
        assert hashlib.sha256(b"\0" + entry).hexdigest() == proof["leaf"]
        assert accepted_by_sigstore(entry, proof["index"], head["size"], path, root)
        assert not accepted_by_sigstore(entry + b"\0", proof["index"], head["size"], path, root)


def root_of(entries: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, as written there."""
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(entries[:split]) + root_of(entries[split:])).digest()


def subproof(old: int, entries: Sequence[bytes], whole: bool) -> list[bytes]:
    """RFC 6962, section 2.1.2, as written there."""
    if old == len(entries):
        return [] if whole else [root_of(entries)]
    split = 1 << (len(entries) - 1).bit_length() - 1
    if old <= split:
        return [*subproof(old, entries[:split], whole), root_of(entries[split:])]
    return [*subproof(old - split, entries[split:], False), root_of(entries[:split])]


def test_consistency_proofs_are_those_of_the_rfc_for_all_that_was_seen(played: Given, pack: Path) -> None:
    files = taken_apart(pack)
    entries, proofs = preimages(files), lines_of(files, "proofs/consistency")
    prefix = played.means().prefix
    seen = {update.update.seen for peer in prefix.peers() for update in prefix.updates(peer.number)}
    assert [proof["old"] for proof in proofs] == sorted(seen | {20, len(entries)})
    for proof in proofs:
        assert proof["old_root"] == root_of(entries[: proof["old"]]).hex()
        assert [bytes.fromhex(node) for node in proof["path"]] == subproof(proof["old"], entries, True)


# ---- beyond what plain ZIP fields hold -------------------------------------------------------------------------------


def test_files_beyond_4_gib_have_a_form_that_other_tools_read(tmp_path: Path) -> None:
    """Two files of 3 GiB and one of 5, which are holes on the disk: every width of field occurs."""
    path, offset, members = tmp_path / "wide.zip", 0, []
    for name, size in (("a", 3 << 30), ("b", 5 << 30), ("c", 3 << 30), ("d", 1)):
        head = len(container._local(Member(name, size, 0, 0)))
        members.append(Member(name, size, zlib.crc32(b"\0"), offset + head))
        offset += head + size
    directory = b"".join(map(container._central, members))
    with path.open("wb") as sink:
        for member in members:
            head = container._local(member)
            sink.seek(member.offset - len(head))
            sink.write(head)
        sink.seek(offset)
        sink.write(directory + container._end(len(members), len(directory), offset))
    with zipfile.ZipFile(path) as archive:
        assert [(info.filename, info.file_size, info.CRC) for info in archive.infolist()] == [
            (member.name, member.size, member.crc) for member in members
        ]
        assert archive.open("d").read(1) == b"\0"
    with Container(path) as read:
        assert list(read.members.values()) == members
    for at in range(offset, path.stat().st_size):
        altered(path, at)
        with pytest.raises(container.MalformedEvidence):
            Container(path)
        altered(path, at)


def altered(path: Path, at: int) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << at % 8]))
