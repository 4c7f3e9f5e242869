"""Strangers' text for a terminal."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """The text with control and direction characters made visible, so that it can neither steer nor disguise."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
