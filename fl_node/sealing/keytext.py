"""X25519 keys as text, the way age writes them: ``age1...`` and ``AGE-SECRET-KEY-1...``.

The format is Bech32 (BIP 173) of the 32 bytes. Source: c2sp.org/age, "The X25519 recipient type".
"""

from __future__ import annotations

from typing import Final

from bech32 import bech32_decode, bech32_encode, convertbits

from fl_node.errors import UsageError

PUBLIC: Final = "age"
PRIVATE: Final = "age-secret-key-"
KEY_BYTES: Final = 32
#: Longer text is no key; a limit, because checking takes time in proportion.
MOST_TEXT: Final = 120


def recipient_text(public: bytes) -> str:
    """A public key as ``age1...``.

    >>> recipient_text(bytes(range(32)))
    'age1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0sqzuehm'

    Raises:
        UsageError: not 32 bytes.
    """
    return encode(PUBLIC, public)


def parse_recipient(text: str) -> bytes:
    """The 32 bytes of an ``age1...`` text.

    Raises:
        UsageError: anything else, such as a key of another type.
    """
    found = decode(PUBLIC, text)
    if found is None:
        raise UsageError(
            f"got {text[:MOST_TEXT]!r} for a public key, expected the text of an X25519 key, age1... of 62 characters, "
            "as `fl-node keys show` and `age-keygen -y` print it"
        )
    return found


def encode(prefix: str, key: bytes) -> str:
    """Bech32 in lower case of 32 bytes.

    Raises:
        UsageError: not 32 bytes; their value is not told.
    """
    if len(key) != KEY_BYTES:
        raise UsageError(f"got a key of {len(key)} bytes, expected {KEY_BYTES}")
    return str(bech32_encode(prefix, convertbits(key, 8, 5) or ()))


def decode(prefix: str, text: str) -> bytes | None:
    """The 32 bytes of Bech32 text; ``None`` where it is no such text."""
    text = text.strip()
    if len(text) > MOST_TEXT:
        return None
    found, words = bech32_decode(text)
    if found != prefix or words is None:
        return None
    key = convertbits(words, 5, 8, False)
    return bytes(key) if key is not None and len(key) == KEY_BYTES else None
