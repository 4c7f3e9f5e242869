"""The header of an age file, read before anything is decrypted, within bounds.

Format: c2sp.org/age. A header names nobody: each stanza is the file key, wrapped for one recipient. The reader of the
age library takes time in the square of a header's length, so what is long is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from fl_node.errors import MalformedWeights
from fl_node.readers import MOST_RECIPIENTS

Buffer: TypeAlias = bytes | bytearray | memoryview

#: Stanzas of a header: one for each recipient, and one that means nothing, as age's authors ask writers to add.
MOST_STANZAS: Final = MOST_RECIPIENTS + 1
#: Bytes of a header: :data:`MOST_STANZAS` of 98 bytes, and some.
MOST_HEADER_BYTES: Final = 32_768

VERSION: Final = b"age-encryption.org/v1\n"
X25519: Final = "X25519"
CHUNK_BYTES: Final = 65_536
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 16
_STANZA_BYTES: Final = len("-> X25519 ") + 43 + 1 + 43 + 1
_MAC_BYTES: Final = len("--- ") + 43 + 1
_GREASE_BYTES: Final = 512
_COLUMNS: Final = 64
_ARGUMENTS: Final = re.compile(rb"-> [\x21-\x7e]+(?: [\x21-\x7e]+)*")
_BODY: Final = re.compile(rb"[A-Za-z0-9+/]*")
_MAC: Final = re.compile(rb"--- [A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says to somebody without a key.

    ``kinds`` are the types of the stanzas in their order, ``size_bytes`` is where the payload begins.
    """

    stanzas: int
    size_bytes: int
    kinds: tuple[str, ...]


def read_header(data: Buffer) -> Header:
    """Read the header of an age file.

    Raises:
        MalformedWeights: not an age file of version 1, or more stanzas or bytes than a reader takes.
    """
    head = bytes(memoryview(data).cast("B")[: MOST_HEADER_BYTES + 1])
    if not head.startswith(VERSION):
        raise MalformedWeights(f"expected an age file, which begins with {VERSION!r}; these bytes begin otherwise")
    at = len(VERSION)
    kinds: list[str] = []
    line, at = _line(head, at)
    while not line.startswith(b"---"):
        if not _ARGUMENTS.fullmatch(line):
            raise MalformedWeights(f"the header of the age file has a line {line[:40]!r}, expected a stanza or its MAC")
        if len(kinds) == MOST_STANZAS:
            raise MalformedWeights(
                f"the age file is for more than {MOST_RECIPIENTS} recipients, which no reader takes the time to open"
            )
        kinds.append(line[3:].split(b" ", 1)[0].decode("ascii"))
        body = b"x" * _COLUMNS
        while len(body) == _COLUMNS:
            body, at = _line(head, at)
            if len(body) > _COLUMNS or not _BODY.fullmatch(body):
                raise MalformedWeights(f"the header of the age file has a line {body[:40]!r}, expected base64")
        line, at = _line(head, at)
    if not kinds or not _MAC.fullmatch(line):
        raise MalformedWeights("the header of the age file has no stanza or no MAC at its end: it was cut or altered")
    return Header(len(kinds), at, tuple(kinds))


def plain_size(header: Header, file_bytes: int) -> int:
    """Bytes of plaintext that an age file of ``file_bytes`` holds, known without a key.

    Raises:
        MalformedWeights: no file has this size: it was cut.
    """
    sealed = file_bytes - header.size_bytes - NONCE_BYTES
    chunks = -(-sealed // (CHUNK_BYTES + TAG_BYTES))
    size = sealed - TAG_BYTES * chunks
    if sealed < TAG_BYTES or size <= CHUNK_BYTES * (chunks - 1) - (chunks == 1):
        raise MalformedWeights(f"the age file ends after {file_bytes} bytes, within its last chunk: it was cut short")
    return size


def sealed_size(plain_bytes: int, recipients: int = MOST_RECIPIENTS) -> int:
    """An upper bound in bytes of the age file of ``plain_bytes`` for so many X25519 recipients."""
    chunks = max(1, -(-plain_bytes // CHUNK_BYTES))
    head = len(VERSION) + recipients * _STANZA_BYTES + _GREASE_BYTES + _MAC_BYTES
    return head + NONCE_BYTES + plain_bytes + TAG_BYTES * chunks


def _line(head: bytes, at: int) -> tuple[bytes, int]:
    end = head.find(b"\n", at)
    if end >= 0:
        return head[at:end], end + 1
    if len(head) > MOST_HEADER_BYTES:
        raise MalformedWeights(f"the age file has a header of more than {MOST_HEADER_BYTES} bytes")
    raise MalformedWeights(f"the age file ends after {len(head)} bytes, within its header: it was cut short")
