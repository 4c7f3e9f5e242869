"""Files of lines: log entries, transactions and proofs, one JSON object a line. Each has one way to be written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fl_node.errors import MalformedEvidence
from fl_node.evidence import limits
from fl_node.evidence.layout import MARK_BYTES
from fl_node.evidence.plain import bytes_of, digest_of, known_keys, number_of, parse_json, written_json
from fl_node.ledger.protocol import RawLog

#: Of one line; a proof has the most.
MOST_VALUES: Final = 2 * limits.MOST_PROOF_HASHES
_MOST_TOPICS: Final = 4


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction as it was sent, and its keccak-256 hash."""

    hash: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The audit path of an entry's leaf to the root of the whole log."""

    index: int
    leaf: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Consistency:
    """The proof that the first ``old`` entries, with root ``old_root``, are a prefix of the whole log."""

    old: int
    old_root: bytes
    path: tuple[bytes, ...]


def log_line(index: int, log: RawLog) -> bytes:
    return _line(
        block=log.block_number,
        block_hash=log.block_hash.hex(),
        data=log.data.hex(),
        index=index,
        topics=[topic.hex() for topic in log.topics],
        tx=log.tx_hash.hex(),
    )


def read_log(line: bytes, where: str) -> tuple[int, RawLog]:
    """An entry's index and raw log.

    Raises:
        MalformedEvidence: as for every reader here: not this kind of line, or not its canonical form.
    """
    table = _table(line, where, "block", "block_hash", "data", "index", "topics", "tx")
    log = RawLog(
        number_of(table["block"], f"{where}: block"),
        digest_of(table["block_hash"], f"{where}: block_hash"),
        digest_of(table["tx"], f"{where}: tx"),
        _digests(table["topics"], f"{where}: topics", _MOST_TOPICS),
        bytes_of(table["data"], f"{where}: data"),
    )
    return number_of(table["index"], f"{where}: index"), log


def transaction_line(transaction: Transaction) -> bytes:
    return _line(hash=transaction.hash.hex(), raw=transaction.raw.hex())


def read_transaction(line: bytes, where: str) -> Transaction:
    table = _table(line, where, "hash", "raw")
    return Transaction(digest_of(table["hash"], f"{where}: hash"), bytes_of(table["raw"], f"{where}: raw"))


def inclusion_line(proof: Inclusion) -> bytes:
    return _line(index=proof.index, leaf=proof.leaf.hex(), path=[node.hex() for node in proof.path])


def read_inclusion(line: bytes, where: str) -> Inclusion:
    table = _table(line, where, "index", "leaf", "path")
    path = _digests(table["path"], f"{where}: path", limits.MOST_PROOF_HASHES)
    return Inclusion(number_of(table["index"], f"{where}: index"), digest_of(table["leaf"], f"{where}: leaf"), path)


def consistency_line(proof: Consistency) -> bytes:
    return _line(old=proof.old, old_root=proof.old_root.hex(), path=[node.hex() for node in proof.path])


def read_consistency(line: bytes, where: str) -> Consistency:
    table = _table(line, where, "old", "old_root", "path")
    path = _digests(table["path"], f"{where}: path", limits.MOST_PROOF_HASHES)
    return Consistency(number_of(table["old"], f"{where}: old"), digest_of(table["old_root"], f"{where}: root"), path)


def in_files(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines, divided into files: a file ends before the line with which it would be too long."""
    file: list[bytes] = []
    size = 0
    for line in lines:
        if len(line) > limits.MOST_LINE_BYTES:
            raise MalformedEvidence(f"a line of this pack would have {len(line)} bytes, more than a pack may have")
        if file and (len(file) == limits.MOST_LINES or size + len(line) > limits.MOST_LINES_BYTES):
            yield file
            file, size = [], 0
        file.append(line)
        size += len(line)
    if file:
        yield file


def split(raw: bytes, where: str) -> list[bytes]:
    """The lines of a file, each with its newline."""
    lines = [line + b"\n" for line in raw.split(b"\n")[:-1]] if raw.count(b"\n") <= limits.MOST_LINES else []
    if not lines or not raw.endswith(b"\n") or max(map(len, lines)) > limits.MOST_LINE_BYTES:
        raise MalformedEvidence(
            f"{where}: expected 1 to {limits.MOST_LINES} lines of at most {limits.MOST_LINE_BYTES} bytes"
        )
    return lines


def marks_of(lines: Sequence[bytes]) -> bytes:
    """The first bytes of each line's SHA-256, as the manifest has them."""
    return b"".join(hashlib.sha256(line).digest()[:MARK_BYTES] for line in lines)


def altered_lines(raw: bytes, marks: bytes) -> list[int]:
    """Which lines of a file are not those that the manifest has marks of, from 0; at least one of an altered file."""
    lines = raw.split(b"\n")
    wanted = [marks[at : at + MARK_BYTES] for at in range(0, len(marks), MARK_BYTES)]
    found = [
        number
        for number, mark in enumerate(wanted)
        if number >= len(lines) - 1 or marks_of([lines[number] + b"\n"]) != mark
    ]
    return found or [min(len(lines), len(wanted)) - 1]


def _line(**values: Any) -> bytes:
    return written_json(values) + b"\n"


def _table(line: bytes, where: str, *keys: str) -> dict[str, Any]:
    table = parse_json(line, where, MOST_VALUES)
    known_keys(table, where, *keys)
    assert isinstance(table, dict)
    if written_json(table) + b"\n" != line:
        raise MalformedEvidence(f"{where}: not in the canonical form: keys sorted, each once, no white space")
    return table


def _digests(value: Any, where: str, most: int) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > most:
        raise MalformedEvidence(f"{where}: expected a list of at most {most} digests")
    return tuple([digest_of(item, where) for item in value])
