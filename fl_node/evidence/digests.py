"""The first look at a pack: whether every file is, bit for bit, the one that the manifest names."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eth_hash.auto import keccak

from fl_node.audit.means import Progress
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.errors import MalformedEvidence
from fl_node.evidence import layout, limits, lines
from fl_node.evidence.container import Container
from fl_node.evidence.layout import Kind, Listed, Manifest, kind_of
from fl_node.evidence.plain import MOST_NUMBER, parse_json
from fl_node.ledger import codec, tree
from fl_node.records import UpdatePublished


@dataclass(frozen=True, slots=True)
class Altered:
    """A file that is not the one that the manifest names, and what of the ledger it concerns, in words."""

    path: str
    concerns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}: {'; '.join(self.concerns)}" if self.concerns else self.path


def altered_files(container: Container, manifest: Manifest, tell: Progress) -> list[Altered]:
    """Every file whose bytes are others than the manifest's digest is of.

    Raises:
        MalformedEvidence: the bytes are right, and what the container or the manifest say of them besides is not.
    """
    found: list[Listed] = []
    total = sum(listed.size for listed in manifest.files)
    done = 0
    for listed in manifest.files:
        member = container.members[listed.path]
        digest, crc = hashlib.sha256(), 0
        for piece in container.pieces(member):
            digest.update(piece)
            crc = zlib.crc32(piece, crc)
            done += len(piece)
            tell("digests", done, total)
        if digest.digest() != listed.sha256:
            found.append(listed)
        elif crc != member.crc:
            raise MalformedEvidence(f"{container.path}: {listed.path}: its CRC-32 in the ZIP file is wrong")
        elif listed.marks is not None:
            given = lines.split(container.read(member), listed.path)
            if lines.marks_of(given) != listed.marks:
                raise MalformedEvidence(f"{layout.MANIFEST}: what it says of the lines of {listed.path} is wrong")
    return _Concerns(container, manifest).of(found) if found else []


class _Concerns:
    """Says of altered files which entries and updates they are about, as far as what is left tells."""

    def __init__(self, container: Container, manifest: Manifest) -> None:
        self._container, self._manifest = container, manifest

    def of(self, altered: list[Listed]) -> list[Altered]:
        bad = {listed.path for listed in altered}
        self._by_tx: dict[str, list[int]] = {}
        self._by_cid: dict[Cid, str] = {}
        self._by_leaf: dict[str, int] = {}
        self._by_root: dict[str, int] = {}
        frontier = tree.Frontier()
        for number, line in enumerate(self._log_lines(bad)):
            leaf = self._learn(number, line)
            if leaf is not None and frontier.size == number:
                frontier.append(leaf)
                self._by_root[frontier.root.hex()] = number + 1
        return [Altered(listed.path, tuple(self._about(listed))) for listed in altered]

    def _about(self, listed: Listed) -> Iterator[str]:
        kind = kind_of(listed.path)
        assert kind is not None
        if listed.marks is not None:
            yield from self._lines(kind, listed, listed.marks)
        elif kind.name == layout.REPORTS or kind.name == layout.BLOBS:
            cid = Cid.parse(listed.path.rpartition("/")[2].partition(".")[0])
            what = "report" if kind.name == layout.REPORTS else "weights"
            yield f"{what} of {self._by_cid.get(cid, 'no update that can be told')}"
        elif kind.name == layout.PLAIN:
            yield f"weights of {layout.plain_ref(listed.path)} in the clear"

    def _lines(self, kind: Kind, listed: Listed, marks: bytes) -> Iterator[str]:
        raw = self._container.read(self._container.members[listed.path])
        given = raw.split(b"\n")
        before = 0
        for other in layout.by_kind(self._manifest.files)[kind.name]:
            if other.path == listed.path:
                break
            before += len(other.marks or b"") // layout.MARK_BYTES
        for number in lines.altered_lines(raw, marks):
            line = given[number] if number < len(given) else b""
            if kind.name == layout.LOG:
                yield f"entry {before + number}"
            elif kind.name == layout.TRANSACTIONS:
                yield f"line {number + 1}, {self._transaction(line)}"
            else:
                yield f"line {number + 1}, {self._proof(kind, line)}"

    def _transaction(self, line: bytes) -> str:
        """Of which entries: by what it hashes to, or else by the hash that stands there."""
        table = _table(line)
        try:
            hashes = [keccak(bytes.fromhex(table["raw"])).hex(), str(table["hash"])]
        except (KeyError, TypeError, ValueError):
            hashes = [str(table.get("hash"))]
        for one in hashes:
            if one in self._by_tx:
                entries = self._by_tx[one]
                return f"the signed transaction of {'entry' if len(entries) == 1 else 'entries'} {_ranges(entries)}"
        return "a signed transaction"

    def _proof(self, kind: Kind, line: bytes) -> str:
        """Of which entry, or of how many: by its hash, or else by the number that stands there."""
        table = _table(line)
        if kind.name == layout.INCLUSION:
            return f"the inclusion proof of entry {_either(self._by_leaf, table.get('leaf'), table.get('index'))}"
        size = _either(self._by_root, table.get("old_root"), table.get("old"))
        return f"the consistency proof of the first {size} entries"

    def _log_lines(self, bad: set[str]) -> Iterator[bytes]:
        """Every entry's line; an empty one where its file was altered and it with it."""
        for listed in layout.by_kind(self._manifest.files)[layout.LOG]:
            raw = self._container.read(self._container.members[listed.path])
            given, marks = raw.split(b"\n"), listed.marks or b""
            broken = set(lines.altered_lines(raw, marks)) if listed.path in bad else set()
            for number in range(len(marks) // layout.MARK_BYTES):
                yield b"" if number in broken or number >= len(given) else given[number] + b"\n"

    def _learn(self, number: int, line: bytes) -> bytes | None:
        """Note what an entry is about. Returns its leaf hash."""
        if not line:
            return None
        try:
            _, log = lines.read_log(line, "a line")
        except MalformedEvidence:
            return None
        self._by_tx.setdefault(log.tx_hash.hex(), []).append(number)
        leaf = tree.entry_leaf(log.topics, log.data)
        self._by_leaf[leaf.hex()] = number
        if len(log.topics) < 2:
            return leaf
        _, _, body = codec.decode(log.topics, log.data)
        if isinstance(body, UpdatePublished):
            name = f"{body.ref} (entry {number})"
            self._by_cid.setdefault(cid_of_update(body.update), name)
            self._by_cid.setdefault(Cid("raw", body.update.report), name)
        return leaf


def _either(by_hash: Mapping[str, int], digest: object, number: object) -> str:
    if isinstance(digest, str) and digest in by_hash:
        return str(by_hash[digest])
    return str(number) if type(number) is int and 0 <= number <= MOST_NUMBER else "?"


def _table(line: bytes) -> dict[str, Any]:
    """A line as far as it can be read at all."""
    if len(line) > limits.MOST_LINE_BYTES:
        return {}
    try:
        table = parse_json(line, "", lines.MOST_VALUES)
    except MalformedEvidence:
        return {}
    return table if isinstance(table, dict) else {}


def _ranges(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
