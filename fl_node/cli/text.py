"""Strangers' text for a terminal, and readers who leave before the end."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Half a surrogate pair, which JSON may hold, cannot be written at all.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def safe(text: str) -> str:
    """The text with control and direction characters made visible, so that it can neither steer nor disguise."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
