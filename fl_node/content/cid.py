"""Content identifiers: CIDv1, sha2-256, codecs ``raw`` and ``dag-pb`` only.

Everything else a CID could say (identity hashes, other hash functions, unknown codecs, CIDv0, other bases) is refused,
so that one content has one name and no name carries content. Source of the layout: github.com/multiformats/cid.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from fl_node.errors import UsageError

Codec: TypeAlias = Literal["raw", "dag-pb"]

DIGEST_BYTES: Final = 32
BINARY_BYTES: Final = 36
_CODES: Final[dict[str, int]] = {"raw": 0x55, "dag-pb": 0x70}
_NAMES: Final = {code: name for name, code in _CODES.items()}
_SHA2_256: Final = b"\x12\x20"
# 'b' and 58 base32 characters carry the 36 bytes.
_TEXT: Final = re.compile(r"b[a-z2-7]{58}")


@dataclass(frozen=True, slots=True, order=True)
class Cid:
    """The name of some bytes: how they are coded and their (root block's) SHA-256, 32 raw bytes."""

    codec: Codec
    digest: bytes

    def __post_init__(self) -> None:
        if self.codec not in _CODES:
            raise UsageError(f"got codec {self.codec!r}, expected raw or dag-pb")
        if len(self.digest) != DIGEST_BYTES:
            raise UsageError(f"got a digest of {len(self.digest)} bytes, expected {DIGEST_BYTES} (SHA-256)")

    def __bytes__(self) -> bytes:
        return bytes((1, _CODES[self.codec])) + _SHA2_256 + self.digest

    def __str__(self) -> str:
        return "b" + base64.b32encode(bytes(self)).decode().rstrip("=").lower()

    @classmethod
    def decode(cls, binary: bytes) -> Cid:
        """Read the 36-byte binary form.

        Raises:
            UsageError: another version, codec or hash function, or another length.
        """
        if len(binary) != BINARY_BYTES or binary[0] != 1 or binary[2:4] != _SHA2_256 or binary[1] not in _NAMES:
            raise UsageError(
                f"got the binary CID {binary[:BINARY_BYTES].hex()}{'...' if len(binary) > BINARY_BYTES else ''}, "
                "expected CIDv1, codec raw or dag-pb, sha2-256"
            )
        return cls(cast(Codec, _NAMES[binary[1]]), bytes(binary[4:]))

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read the base32 text form, ``bafkrei...`` or ``bafybei...``.

        Raises:
            UsageError: anything but the canonical lower-case base32 of a CID that :meth:`decode` takes.
        """
        if not _TEXT.fullmatch(text):
            raise UsageError(f"got {text[:80]!r}, expected a CIDv1 in base32 (bafkrei... or bafybei...)")
        cid = cls.decode(base64.b32decode(text[1:].upper() + "======"))
        if str(cid) != text:
            raise UsageError(f"got {text!r}, expected the canonical form {cid}")
        return cid
