"""Text for a terminal: of strangers, of what went wrong; and readers who leave before the end."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fl_node.sealing.redaction import EXPOSED, redacted

#: Half a surrogate pair, which JSON may hold, cannot be written at all.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def safe(text: str) -> str:
    """The text with control and direction characters made visible, so that it can neither steer nor disguise."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def told(text: str) -> str:
    """What went wrong, as it may be shown: messages quote strangers (reasons and endpoints on the ledger, answers of an
    RPC endpoint) and what they were given, which may be a private key."""
    shown = redacted(text)
    return "\n".join(map(safe, (shown if shown == text else f"{shown}. {EXPOSED}").split("\n")))


@contextmanager
def read_or_not() -> Iterator[None]:
    """Around printing after which the exit code has something to say: it says so also when the reader went away before
    the end (``fl-node audit | head``)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads()


def nobody_reads() -> None:
    """What is printed from here on, or was and is not out yet, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
