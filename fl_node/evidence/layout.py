"""Which files a pack has, and its manifest: what they are, byte for byte. docs/evidence-pack.md is normative."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from fl_node.errors import MalformedEvidence
from fl_node.evidence import limits
from fl_node.evidence.plain import digest_of, known_keys, number_of, parse_json, text_of, written_json
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.records import LedgerHead, UpdateRef

FORMAT: Final = "fl-node-evidence-1"
MANIFEST: Final = "manifest.json"
MANIFEST_DIGEST: Final = "manifest.sha256"
README: Final = "README.txt"
FEDERATION: Final = "federation.toml"
GENESIS: Final = "genesis.safetensors"
LINEAGE: Final = "lineage.prov.json"
LOG, TRANSACTIONS, INCLUSION, CONSISTENCY = "log", "transactions", "proofs/inclusion", "proofs/consistency"
CHECKPOINTS, REPORTS, BLOBS, PLAIN = "checkpoints", "reports", "blobs", "plain"

_NUMBERED: Final = (LOG, TRANSACTIONS, INCLUSION, CONSISTENCY, CHECKPOINTS)
_CID: Final = "b[a-z2-7]{58}"
_REF: Final = "([1-9][0-9]{0,9})-([1-9][0-9]{0,9})"
#: Bytes of each line's SHA-256 that the manifest keeps: enough to say which line was altered, no matter of security.
MARK_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """Files of one kind: what their paths look like, how large one may be, and whether it is made of lines."""

    name: str
    path: re.Pattern[str]
    most_bytes: int
    lines: bool = False


def _kind(name: str, path: str, most_bytes: int, lines: bool = False) -> Kind:
    return Kind(name, re.compile(path), most_bytes, lines)


def _numbered(folder: str, suffix: str) -> str:
    return rf"{re.escape(folder)}/[0-9]{{6}}\.{suffix}"


KINDS: Final = (
    _kind(README, r"README\.txt", limits.MOST_TEXT_BYTES),
    _kind(BLOBS, rf"blobs/{_CID}\.car", limits.MOST_CAR_BYTES),
    _kind(CHECKPOINTS, _numbered(CHECKPOINTS, "txt"), limits.MOST_NOTE_BYTES),
    _kind(FEDERATION, r"federation\.toml", limits.MOST_TEXT_BYTES),
    _kind(GENESIS, r"genesis\.safetensors", limits.MOST_WEIGHTS_BYTES),
    _kind(LINEAGE, r"lineage\.prov\.json", limits.MOST_LINEAGE_BYTES),
    _kind(LOG, _numbered(LOG, "jsonl"), limits.MOST_LINES_BYTES, lines=True),
    _kind(PLAIN, rf"plain/{_REF}\.safetensors", limits.MOST_WEIGHTS_BYTES),
    _kind(CONSISTENCY, _numbered(CONSISTENCY, "jsonl"), limits.MOST_LINES_BYTES, lines=True),
    _kind(INCLUSION, _numbered(INCLUSION, "jsonl"), limits.MOST_LINES_BYTES, lines=True),
    _kind(REPORTS, rf"reports/{_CID}\.json", limits.MOST_REPORT_BYTES),
    _kind(TRANSACTIONS, _numbered(TRANSACTIONS, "jsonl"), limits.MOST_LINES_BYTES, lines=True),
)


def kind_of(path: str) -> Kind | None:
    """The kind of a data file by its path; ``None`` if a pack has none such."""
    return next((kind for kind in KINDS if kind.path.fullmatch(path)), None)


def numbered(folder: str, number: int, suffix: str = "jsonl") -> str:
    """The ``number``-th file of a folder, from 0."""
    return f"{folder}/{number:06}.{suffix}"


def plain(ref: UpdateRef) -> str:
    """The file of an encrypted update's weights in the clear."""
    return f"{PLAIN}/{ref.peer}-{ref.sequence}.safetensors"


def plain_ref(path: str) -> UpdateRef:
    """The update whose weights in the clear a file of that kind holds."""
    found = re.search(_REF, path)
    assert found is not None
    return UpdateRef(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Listed:
    """A data file as the manifest has it. ``marks``: the first bytes of the SHA-256 of each line (its newline
    included), one after the other; ``None`` for files that are not made of lines."""

    path: str
    size: int
    sha256: bytes
    marks: bytes | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which updates a pack is about."""

    kind: Literal["all", "round", "update"]
    round: int = 0
    update: UpdateRef | None = None

    def __str__(self) -> str:
        if self.kind == "all":
            return "all updates"
        return f"update {self.update}" if self.kind == "update" else f"all updates of round {self.round}"

    def as_json(self) -> dict[str, Any]:
        if self.kind == "update":
            return {"kind": "update", "update": str(self.update)}
        return {"kind": "round", "round": self.round} if self.kind == "round" else {"kind": "all"}


ALL: Final = Scope("all")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a pack is of, and every data file in it. ``head``: size and root of the log, and the block at which they
    were read (its highest round is not part of the manifest). ``blobs``: whether weights were to be put in as they
    were published. ``plain``: whether encrypted ones were to be put in in the clear."""

    chain_id: int
    contract: str
    first_block: int
    spec_digest: bytes
    head: LedgerHead
    scope: Scope
    blobs: bool
    files: tuple[Listed, ...]
    plain: bool = False

    def encode(self) -> bytes:
        """The manifest's bytes: keys sorted, no white space."""
        head = self.head
        plain = {"plain": True} if self.plain else {}
        return written_json(
            {
                **plain,
                "blobs": self.blobs,
                "files": [_file_json(listed) for listed in self.files],
                "format": FORMAT,
                "head": {
                    "block": head.block_number,
                    "block_hash": head.block_hash.hex(),
                    "root": head.root.hex(),
                    "size": head.size,
                },
                "ledger": {
                    "chain_id": self.chain_id,
                    "contract": self.contract,
                    "first_block": self.first_block,
                    "spec_digest": self.spec_digest.hex(),
                },
                "scope": self.scope.as_json(),
            }
        )


def by_kind(files: Iterable[Listed]) -> dict[str, list[Listed]]:
    """Data files by the name of their kind, in order; a kind without any has an empty list."""
    found: dict[str, list[Listed]] = {kind.name: [] for kind in KINDS}
    for listed in files:
        kind = kind_of(listed.path)
        if kind is not None:
            found[kind.name].append(listed)
    return found


def digest_line(manifest: bytes) -> bytes:
    """The file ``manifest.sha256``, as ``sha256sum --check`` reads it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def parse_manifest(raw: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        MalformedEvidence: not the canonical form, a wrong type, an unknown key or file, or beyond the limits.
    """
    if len(raw) > limits.MOST_MANIFEST_BYTES:
        raise MalformedEvidence(f"{MANIFEST}: got {len(raw)} bytes, expected at most {limits.MOST_MANIFEST_BYTES}")
    # Each file is one object of at most four values.
    table = parse_json(raw, MANIFEST, most_values=6 * limits.MOST_FILES)
    if isinstance(table, dict) and table.get("format") != FORMAT:
        got = str(table.get("format"))[:40]
        raise MalformedEvidence(f"{MANIFEST}: got format {got!r}, expected {FORMAT!r}: use another version of fl-node")
    where = MANIFEST
    plain = isinstance(table, dict) and "plain" in table
    known_keys(table, where, "blobs", "files", "format", "head", "ledger", "scope", *(["plain"] if plain else []))
    ledger, head = table["ledger"], table["head"]
    known_keys(ledger, f"{where}: ledger", "chain_id", "contract", "first_block", "spec_digest")
    known_keys(head, f"{where}: head", "block", "block_hash", "root", "size")
    if not isinstance(table["files"], list) or not isinstance(table["blobs"], bool):
        raise MalformedEvidence(f"{where}: expected a list of files, and true or false for blobs")
    if plain and table["plain"] is not True:
        raise MalformedEvidence(f"{where}: expected plain to be true, or not there")
    found = Manifest(
        chain_id=number_of(ledger["chain_id"], f"{where}: chain_id"),
        contract=_address(ledger["contract"]),
        first_block=number_of(ledger["first_block"], f"{where}: first_block"),
        spec_digest=digest_of(ledger["spec_digest"], f"{where}: spec_digest"),
        head=LedgerHead(
            number_of(head["size"], f"{where}: size"),
            digest_of(head["root"], f"{where}: root"),
            number_of(head["block"], f"{where}: block"),
            digest_of(head["block_hash"], f"{where}: block_hash"),
        ),
        scope=_scope(table["scope"]),
        blobs=table["blobs"],
        files=tuple(_listed(item) for item in table["files"]),
        plain=plain,
    )
    _check_files(found.files)
    if by_kind(found.files)[PLAIN] and not plain:
        raise MalformedEvidence(f"{where}: weights in the clear, and no plain that says so")
    if found.encode() != raw:
        raise MalformedEvidence(f"{where}: not in the canonical form: keys sorted, each once, no white space")
    return found


def _file_json(listed: Listed) -> dict[str, Any]:
    marks = {} if listed.marks is None else {"lines": listed.marks.hex()}
    return {"bytes": listed.size, "path": listed.path, "sha256": listed.sha256.hex(), **marks}


def _listed(item: Any) -> Listed:
    where = f"{MANIFEST}: a file"
    if not isinstance(item, dict):
        raise MalformedEvidence(f"{where}: got {type(item).__name__}, expected an object")
    path = text_of(item.get("path"), f"{where}'s path")
    kind = kind_of(path)
    if kind is None:
        raise MalformedEvidence(f"{MANIFEST}: {path[:100]!r} is no file of a pack")
    known_keys(item, f"{MANIFEST}: {path}", "bytes", "path", "sha256", *(["lines"] if kind.lines else []))
    size = number_of(item["bytes"], f"{MANIFEST}: bytes of {path}")
    if size > kind.most_bytes:
        raise MalformedEvidence(f"{MANIFEST}: {path} has {size} bytes, expected at most {kind.most_bytes}")
    marks = None
    if kind.lines:
        marks = _marks(item["lines"], path)
        if not 1 <= len(marks) // MARK_BYTES <= limits.MOST_LINES:
            raise MalformedEvidence(f"{MANIFEST}: {path} must have 1 to {limits.MOST_LINES} lines")
    return Listed(path, size, digest_of(item["sha256"], f"{MANIFEST}: sha256 of {path}"), marks)


def _marks(value: Any, path: str) -> bytes:
    text = text_of(value, f"{MANIFEST}: lines of {path}")
    if len(text) % (2 * MARK_BYTES) or not re.fullmatch("[0-9a-f]*", text):
        raise MalformedEvidence(f"{MANIFEST}: lines of {path}: expected {2 * MARK_BYTES} hexadecimal digits for each")
    return bytes.fromhex(text)


def _check_files(files: Sequence[Listed]) -> None:
    """In order, each once, and numbered ones without a gap."""
    for before, after in pairwise(files):
        if before.path >= after.path:
            raise MalformedEvidence(f"{MANIFEST}: {after.path} after {before.path}: expected each once, in order")
    kinds = by_kind(files)
    for name in _NUMBERED:
        numbers = [int(item.path.rpartition("/")[2][:6]) for item in kinds[name]]
        if numbers != list(range(len(numbers))):
            raise MalformedEvidence(f"{MANIFEST}: files of {name}/ are not numbered from 000000 without a gap")
    if len(kinds[CHECKPOINTS]) > limits.MOST_CHECKPOINTS:
        raise MalformedEvidence(f"{MANIFEST}: expected at most {limits.MOST_CHECKPOINTS} checkpoints")
    if not kinds[README] or not kinds[LOG]:
        raise MalformedEvidence(f"{MANIFEST}: expected {README} and a log")
    total = sum(item.size for item in kinds[LOG])
    if total > limits.MOST_LOG_BYTES:
        raise MalformedEvidence(f"{MANIFEST}: the log has {total} bytes, expected at most {limits.MOST_LOG_BYTES}")


def _scope(value: Any) -> Scope:
    where = f"{MANIFEST}: scope"
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "all":
        known_keys(value, where, "kind")
        return ALL
    if kind == "round":
        known_keys(value, where, "kind", "round")
        return Scope("round", round=number_of(value["round"], f"{where}: round"))
    if kind == "update":
        known_keys(value, where, "kind", "update")
        ref = UpdateRef.parse(text_of(value["update"], f"{where}: update"))
        if ref is not None:
            return Scope("update", update=ref)
    raise MalformedEvidence(f"{where}: expected all, a round, or an update such as 3#12")


def _address(value: Any) -> str:
    text = text_of(value, f"{MANIFEST}: contract")
    try:
        address = checksum_address(address_bytes(text))
    except ValueError as cause:
        raise MalformedEvidence(f"{MANIFEST}: contract: {cause}") from cause
    if address != text:
        raise MalformedEvidence(f"{MANIFEST}: got contract {text}, expected it with its checksum, {address}")
    return text
