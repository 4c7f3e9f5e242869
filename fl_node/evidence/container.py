"""The file that holds a pack's files: a ZIP file in the one form that this module writes.

Every byte of it follows from the files' names, order and contents: nothing is compressed, times are 1980-01-01, there
are no gaps, comments or extra fields but the widths that a file beyond 4 GiB needs. So any tool opens it, equal content
gives equal bytes, and a reader has nothing to interpret: it writes the headers again and compares. What ZIP readers
stumble over (bombs, overlapping or doubled members, lies about sizes, encryption, traversal by name) has no form here.
Source: PKWARE's APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from fl_node.content.unixfs import Buffer
from fl_node.errors import MalformedEvidence
from fl_node.evidence.limits import MOST_DIRECTORY_BYTES, MOST_FILES, MOST_PACK_BYTES, MOST_PATH_BYTES

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_WIDE_END: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
#: Sizes and offsets from here on stand in an extra field.
_WIDE: Final = 0xFFFFFFFF
_PLAIN_VERSION, _WIDE_VERSION = 20, 45
_UNIX: Final = 3 << 8
_1980_01_01: Final = 0x21
_REGULAR_FILE: Final = 0o100644 << 16
_NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its name, size and CRC-32, and where its bytes begin in the container."""

    name: str
    size: int
    crc: int
    offset: int


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of one file."""

    size: int
    sha256: bytes


class Packer:
    """Writes a container into a seekable file, one member after the other."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._members: list[Member] = []

    def add(self, name: str, pieces: Iterable[Buffer], size: int) -> Written:
        """Add a file of exactly ``size`` bytes.

        Raises:
            MalformedEvidence: more files, or a longer name, than a pack may have.
            OSError: the disk refuses.
        """
        if len(self._members) >= MOST_FILES:
            raise MalformedEvidence(f"this pack would have more than {MOST_FILES} files; export fewer updates at once")
        _check_name(name.encode(), name)
        start = self._sink.tell()
        head = len(_local(Member(name, size, 0, start)))
        self._sink.seek(start + head)
        written, crc, digest = 0, 0, hashlib.sha256()
        for piece in pieces:
            self._sink.write(piece)
            written += memoryview(piece).nbytes
            crc = zlib.crc32(piece, crc)
            digest.update(piece)
        if written != size:
            raise ValueError(f"{name} has {written} bytes, not {size}")
        member = Member(name, size, crc, start + head)
        self._sink.seek(start)
        self._sink.write(_local(member))
        self._sink.seek(0, os.SEEK_END)
        self._members.append(member)
        return Written(size, digest.digest())

    def finish(self) -> None:
        """Write the list of files: the container is whole then."""
        start = self._sink.tell()
        directory = b"".join(_central(member) for member in self._members)
        self._sink.write(directory + _end(len(self._members), len(directory), start))


class Container:
    """Reads a container. Nothing is written to disk and no name is used as one. Safe to share between threads.

    ``members`` by name, in the order of the file. ``size`` of the whole file in bytes.

    Raises:
        MalformedEvidence: no container in the one form, or beyond the limits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Before it is opened: opening a pipe waits for somebody to write into it.
            if not stat.S_ISREG(path.stat().st_mode):
                raise MalformedEvidence(f"{path} is no regular file; expected an evidence pack")
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as cause:
            raise MalformedEvidence(f"cannot read {path}: {cause.strerror}; expected an evidence pack") from cause
        except ValueError as cause:
            raise MalformedEvidence(f"cannot read {path!r}: {cause}; expected an evidence pack") from cause
        try:
            self.size = os.fstat(self._fd).st_size
            self.members: Mapping[str, Member] = self._directory()
        except BaseException:
            os.close(self._fd)
            raise

    def read(self, member: Member) -> bytes:
        """A whole file in memory. The caller has looked at its size."""
        return self.part(member, 0, member.size)

    def part(self, member: Member, offset: int, length: int) -> bytes:
        """``length`` bytes of a file from ``offset`` on, fewer at its end."""
        return self._pread(member.offset + offset, max(0, min(length, member.size - offset)), member.name)

    def pieces(self, member: Member) -> Iterator[bytes]:
        """A file in pieces of 1 MiB."""
        for offset in range(0, member.size, _PIECE):
            yield self.part(member, offset, _PIECE)

    def close(self) -> None:
        """Close the file. Closing twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- below -------------------------------------------------------------------------------------------------

    def _pread(self, offset: int, length: int, what: str) -> bytes:
        parts: list[bytes] = []
        while length:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as cause:
                raise MalformedEvidence(f"{self.path}: cannot read {what}: {cause.strerror}") from cause
            if not part:
                raise self._malformed(what, "it ends in the middle: the pack was cut short while it was read")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _directory(self) -> dict[str, Member]:
        """The list of files at the end, each record and each local header equal to what would be written here."""
        if not _END.size <= self.size <= MOST_PACK_BYTES:
            raise self._malformed("", f"it has {self.size} bytes; expected {_END.size} to {MOST_PACK_BYTES}")
        raw_end = self._pread(self.size - _END.size, _END.size, "the end of the file")
        sign, _, _, _, count, length, start, _ = _END.unpack(raw_end)
        if sign != b"PK\5\6":
            raise self._malformed("", "it does not end as a ZIP file without a comment does")
        ends = _END.size
        if start == _WIDE:
            ends += _WIDE_END.size + _LOCATOR.size
            wide = self._pread(max(0, self.size - ends), min(self.size, _WIDE_END.size), "the end of the file")
            start = _WIDE_END.unpack(wide.ljust(_WIDE_END.size, b"\0"))[-1]
        if not 0 < count <= MOST_FILES or length > MOST_DIRECTORY_BYTES:
            raise self._malformed(
                "", f"it lists {count} files in {length} bytes; expected 1 to {MOST_FILES} in {MOST_DIRECTORY_BYTES}"
            )
        if start + length + ends != self.size:
            raise self._malformed("", f"its list of files has {length} bytes at {start}; expected it right at the end")
        raw = self._pread(start, length, "the list of files")
        members: dict[str, Member] = {}
        at = offset = 0
        for _ in range(count):
            member, at = self._member(raw, at, offset)
            if member.name in members:
                raise self._malformed(member.name, "it stands in the list twice")
            members[member.name] = member
            offset = member.offset + member.size
            if offset > start:
                raise self._malformed(member.name, f"it has {member.size} bytes, more than the pack has for it")
            head = _local(member)
            if self._pread(member.offset - len(head), len(head), member.name) != head:
                raise self._malformed(member.name, "the header before it is not the one that the list of files gives")
        if at != length or offset != start:
            raise self._malformed("", "there are bytes between its files, or after its list of files")
        if self._pread(start + length, ends, "the end of the file") != _end(count, length, start):
            raise self._malformed("", "its end is not in the one form that an evidence pack has")
        return members

    def _member(self, raw: bytes, at: int, offset: int) -> tuple[Member, int]:
        """The record at ``at`` of a file whose header begins at ``offset``, and where the next record begins."""
        if at + _CENTRAL.size > len(raw):
            raise self._malformed("", "its list of files is cut short")
        record = _CENTRAL.unpack_from(raw, at)
        crc, _, size, name_length, extra_length = record[7:12]
        name_at = at + _CENTRAL.size
        raw_name = raw[name_at : name_at + name_length]
        shown = raw_name[:MOST_PATH_BYTES].decode("ascii", "backslashreplace")
        name = _check_name(raw_name, f"{self.path}: {shown}")
        extra = raw[name_at + name_length : name_at + name_length + extra_length]
        if size == _WIDE and len(extra) >= 12:
            (size,) = struct.unpack_from("<Q", extra, 4)
        member = Member(name, size, crc, offset + len(_local(Member(name, size, crc, 0))))
        expected = _central(member)
        if raw[at : at + len(expected)] != expected:
            raise self._malformed(name, _difference(record))
        return member, at + len(expected)

    def _malformed(self, name: str, why: str) -> MalformedEvidence:
        where = f"{self.path}: {name}" if name else str(self.path)
        return MalformedEvidence(
            f"{where}: {why}. It was cut short, altered or packed again; take it as `fl-node export` wrote it"
        )


def _check_name(raw: bytes, shown: str) -> str:
    """A relative path of plain ASCII without dots at a part's start: it can name no file outside a folder."""
    if len(raw) > MOST_PATH_BYTES or not _NAME.fullmatch(raw):
        raise MalformedEvidence(f"{shown}: not a name that a file of a pack may have; do not unpack this file")
    return raw.decode("ascii")


def _local(member: Member) -> bytes:
    wide = member.size >= _WIDE
    extra = struct.pack("<2H2Q", 1, 16, member.size, member.size) if wide else b""
    size, version = (_WIDE, _WIDE_VERSION) if wide else (member.size, _PLAIN_VERSION)
    name = member.name.encode()
    fields = version, 0, 0, 0, _1980_01_01, member.crc, size, size, len(name), len(extra)
    return _LOCAL.pack(b"PK\3\4", *fields) + name + extra


def _central(member: Member) -> bytes:
    name = member.name.encode()
    start = member.offset - len(_local(member))
    size, offset, wide = member.size, start, b""
    if size >= _WIDE:
        size, wide = _WIDE, struct.pack("<2Q", member.size, member.size)
    if offset >= _WIDE:
        offset, wide = _WIDE, wide + struct.pack("<Q", start)
    extra = struct.pack("<2H", 1, len(wide)) + wide if wide else b""
    version = _WIDE_VERSION if wide else _PLAIN_VERSION
    fields = _UNIX | version, version, 0, 0, 0, _1980_01_01, member.crc, size, size
    tail = len(name), len(extra), 0, 0, 0, _REGULAR_FILE, offset
    return _CENTRAL.pack(b"PK\1\2", *fields, *tail) + name + extra


def _end(count: int, length: int, start: int) -> bytes:
    """What follows the list of ``count`` files, which has ``length`` bytes from ``start`` on."""
    if start < _WIDE:
        return _END.pack(b"PK\5\6", 0, 0, count, count, length, start, 0)
    versions = _UNIX | _WIDE_VERSION, _WIDE_VERSION
    wide = _WIDE_END.pack(b"PK\6\6", _WIDE_END.size - 12, *versions, 0, 0, count, count, length, start)
    locator = _LOCATOR.pack(b"PK\6\7", 0, start + length, 1)
    return wide + locator + _END.pack(b"PK\5\6", 0, 0, count, count, length, _WIDE, 0)


def _difference(record: tuple[int, ...]) -> str:
    """What a person should know of a record that is not in the one form."""
    _, _, _, flags, method, _, date, _, packed, size, *_ = record
    if flags & 1:
        return "it is encrypted; files of a pack are not"
    if method != 0:
        return f"it is compressed (method {method}); files of a pack are stored as they are"
    if packed != size:
        return f"it is said to have {size} bytes and {packed} in the pack; expected the same"
    if date != _1980_01_01:
        return "it has a date of its own, so another program packed it"
    return "its record in the list of files is not in the one form that an evidence pack has"
