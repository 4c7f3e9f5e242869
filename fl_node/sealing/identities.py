"""Files of private keys, as ``age-keygen`` writes them: a line for each key, comments behind ``#``, empty lines."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fl_node.errors import KeyringError, UsageError
from fl_node.sealing.age import Identity
from fl_node.sealing.keytext import recipient_text
from fl_node.sealing.private_files import check_private
from fl_node.sealing.redaction import EXPOSED, SHOWN, holds_secret

#: A file of identities has a line or three for each key; more is another kind of file.
MOST_BYTES: Final = 1 << 20
#: Every key of such a file is tried.
MOST_KEYS: Final = 4096


def read_identities(path: Path) -> tuple[Identity, ...]:
    """The keys of a file, in its order, each once. No error tells anything of the file but line numbers.

    Raises:
        KeyringError: it cannot be read, others may read it, or a line of it is no key.
    """
    if holds_secret(str(path)):
        raise KeyringError(f"got {SHOWN} for the name of a file. {EXPOSED}")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe waits for somebody to write into it
            raise KeyringError(f"{path} is no regular file; expected a file of age identities")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as cause:
        raise KeyringError(
            f"cannot read the identities {path}: {cause.strerror}; `fl-node keys export` writes such a file"
        ) from cause
    if len(content) > MOST_BYTES:
        raise KeyringError(f"{path} has more than {MOST_BYTES} bytes; expected a file of age identities")
    found = parse_identities(content, str(path))
    check_private(path)  # after it is known to hold keys: what holds none gives nobody cause to make new ones
    return found


def parse_identities(content: bytes, where: str) -> tuple[Identity, ...]:
    """The keys in the content of such a file.

    Raises:
        KeyringError: no key, too many, or a line that is none; ``where`` and the line's number are told.
    """
    found: dict[bytes, Identity] = {}
    for number, line in enumerate(content.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            identity = Identity.parse(text.decode("ascii"))
        except (UsageError, UnicodeDecodeError):
            raise KeyringError(
                f"line {number} of {where} is no age identity; expected AGE-SECRET-KEY-1..., as `fl-node keys export` "
                "and `age-keygen` write it (a passphrase-protected file must be decrypted first: age -d)"
            ) from None
        found.setdefault(identity.public, identity)
        if len(found) > MOST_KEYS:
            raise KeyringError(f"{where} has more than {MOST_KEYS} keys; leave out those that open nothing here")
    if not found:
        raise KeyringError(f"{where} has no age identity; expected a line AGE-SECRET-KEY-1...")
    return tuple(found.values())


def identity_file(keys: Iterable[tuple[Identity, str]]) -> bytes:
    """A file of keys, each with a line of comment: what :func:`read_identities` and ``age -d -i`` read."""
    lines = []
    for identity, comment in keys:
        lines += [f"# {comment}", f"# public key: {recipient_text(identity.public)}", identity.text()]
    return ("\n".join(lines) + "\n").encode()
