"""Bytes as age files, and back: who can read what is published.

An age file (c2sp.org/age) holds a fresh file key, wrapped for each recipient's X25519 key, and the bytes in chunks of
64 KiB under ChaCha20-Poly1305. The work is done by pyrage, the bindings of the implementation in Rust; the standard
``age`` tool opens these files and the other way round. Nothing here joins the bytes before they are encrypted, and
nothing takes more memory than the file that comes out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import pyrage  # type: ignore[import-untyped]
from pyrage import x25519

from fl_node.errors import MalformedWeights, Unreadable, UsageError
from fl_node.readers import MOST_RECIPIENTS, valid_key
from fl_node.sealing import keytext
from fl_node.sealing.header import (
    MOST_HEADER_BYTES,
    MOST_STANZAS,
    X25519,
    Buffer,
    Header,
    plain_size,
    read_header,
    sealed_size,
)
from fl_node.sealing.keytext import parse_recipient, recipient_text

__all__ = [
    "MOST_HEADER_BYTES",
    "MOST_RECIPIENTS",
    "MOST_STANZAS",
    "Buffer",
    "Header",
    "Identity",
    "parse_recipient",
    "plain_size",
    "read_header",
    "recipient_text",
    "seal",
    "sealed_size",
    "unseal",
]

#: What pyrage says where a file is well-formed and none of the keys is for it.
_NO_MATCH: Final = "No matching keys found"
_BLOCK_BYTES: Final = 1 << 18


class Identity:
    """A private X25519 key. Never shown: ``repr`` has the public key only, and it cannot be pickled.

    Two are equal when their public keys are.
    """

    __slots__ = ("_inner", "public")

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        #: The public key, 32 bytes.
        self.public: bytes = parse_recipient(str(inner.to_public()))

    @classmethod
    def generate(cls) -> Identity:
        """A new key, from the operating system's randomness."""
        return cls(x25519.Identity.generate())

    @classmethod
    def of(cls, secret: bytes) -> Identity:
        """The key whose 32 secret bytes are given.

        Raises:
            UsageError: not 32 bytes; they are not told.
        """
        return cls(x25519.Identity.from_str(keytext.encode(keytext.PRIVATE, secret).upper()))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read an ``AGE-SECRET-KEY-1...`` line.

        Raises:
            UsageError: anything else; the text is not told.
        """
        secret = keytext.decode(keytext.PRIVATE, text)
        if secret is None:
            raise UsageError("got no age identity, expected a line AGE-SECRET-KEY-1..., as `age-keygen` writes it")
        return cls.of(secret)

    def text(self) -> str:
        """The ``AGE-SECRET-KEY-1...`` line. Whoever has it can read what is encrypted to this key."""
        return str(self._inner)

    def __eq__(self, other: object) -> bool:
        return self.public == other.public if isinstance(other, Identity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"Identity({recipient_text(self.public)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key cannot be pickled")


def seal(buffers: Buffer | Sequence[Buffer], recipients: Sequence[bytes]) -> memoryview:
    """Encrypt bytes, given as buffers that follow each other, to every one of the recipients, with a fresh file key.

    Args:
        buffers: C-contiguous; they are read in place.
        recipients: X25519 public keys, 32 bytes each; one that is there twice counts once.

    Returns:
        The age file, read-only.

    Raises:
        UsageError: no recipient, more than :data:`MOST_RECIPIENTS`, or one that is no usable key.
    """
    distinct = list(dict.fromkeys(recipients))
    if not 1 <= len(distinct) <= MOST_RECIPIENTS:
        raise UsageError(f"got {len(distinct)} recipients, expected 1 to {MOST_RECIPIENTS}")
    for public in distinct:
        if not valid_key(public):
            raise UsageError(
                f"got {public.hex()} for a recipient, expected a usable X25519 public key of 32 bytes: everybody could "
                "read what is encrypted to this one"
            )
    reader = _Reader([buffers] if isinstance(buffers, bytes | bytearray | memoryview) else buffers)
    sink = _Sink(sealed_size(reader.size_bytes, len(distinct)))
    keys = [x25519.Recipient.from_str(recipient_text(public)) for public in distinct]
    with _panics("encrypting"):
        pyrage.encrypt_io(reader, sink, keys)
    return sink.filled()


def unseal(data: Buffer, identities: Sequence[Identity], most_bytes: int) -> memoryview:
    """Decrypt an age file of a stranger with whichever of these keys opens it.

    Returns:
        The plaintext, read-only.

    Raises:
        Unreadable: none of the keys opens it.
        MalformedWeights: not an age file, cut, altered, for too many recipients, or more than ``most_bytes`` come out.
    """
    view = memoryview(data).cast("B")
    header = read_header(view)
    size = plain_size(header, view.nbytes)
    if size > most_bytes:
        raise MalformedWeights(f"the age file holds {size} bytes, expected at most {most_bytes}")
    if not identities:
        raise Unreadable(f"the bytes are encrypted to {_count(header)}, and there is no key here to try")
    if X25519 not in header.kinds:
        kinds = ", ".join(sorted(set(header.kinds)))
        raise Unreadable(f"the bytes are encrypted to recipients of type {kinds[:100]}, expected {X25519}")
    sink = _Sink(size)
    try:
        with _panics("decrypting"):
            pyrage.decrypt_io(_Reader([view]), sink, [identity._inner for identity in identities])
    except pyrage.DecryptError as cause:
        if str(cause) == _NO_MATCH:
            raise Unreadable(
                f"none of {len(identities)} keys opens the age file, which is encrypted to {_count(header)}: it was "
                "not encrypted to this reader, or the key is gone"
            ) from cause
        raise MalformedWeights(f"the age file was cut or altered: {cause}") from cause
    except OSError as cause:
        raise MalformedWeights(f"the age file was cut or altered: {cause}") from cause
    return sink.filled()


def _count(header: Header) -> str:
    """For how many keys a file is, without what age's authors ask writers to add, which means nothing."""
    count = header.kinds.count(X25519)
    return "1 key" if count == 1 else f"{count} keys"


class _Reader:
    """Buffers as what pyrage reads from, 8 KiB at a time: it wants ``bytes``, so blocks are copied, and cut in C."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        found = (memoryview(buffer) for buffer in buffers)
        views = [view.cast("B") for view in found if view.nbytes]
        self.size_bytes = sum(view.nbytes for view in views)
        self._blocks = (view[at : at + _BLOCK_BYTES] for view in views for at in range(0, view.nbytes, _BLOCK_BYTES))
        self._take = io.BytesIO().read

    def read(self, size: int = -1) -> bytes:
        if piece := self._take(size):
            return piece
        block = next(self._blocks, None)
        if block is None:
            return b""
        self._take = io.BytesIO(bytes(block)).read
        return self._take(size)


class _Sink:
    """Bytes as what pyrage writes to: memory that is taken once, for it is known what will come at most. numpy's
    comes in large pages and is not cleared first, which makes a third of the time."""

    def __init__(self, most_bytes: int) -> None:
        self._view = np.empty(most_bytes, np.uint8).data
        self._at = 0

    def write(self, data: bytes) -> int:
        end = self._at + len(data)
        self._view[self._at : end] = data
        self._at = end
        return len(data)

    def flush(self) -> None:
        """Nothing waits to be written."""

    def filled(self) -> memoryview:
        return self._view[: self._at].toreadonly()


@contextlib.contextmanager
def _panics(doing: str) -> Iterator[None]:
    """Turn a panic of the Rust code, which Python sees as a ``BaseException``, into an error of the bytes."""
    try:
        yield
    except BaseException as cause:
        if type(cause).__name__ != "PanicException":
            raise
        raise MalformedWeights(f"the age library gave up {doing}: {cause}") from None
