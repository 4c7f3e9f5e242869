"""Strangers' text in pictures: made visible, then quoted for the format at hand."""

from __future__ import annotations

import re

# Control characters, directions, and what XML does not take.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """The text with characters that steer, disguise or are refused made visible, as ``\\u001b``."""
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def for_xml(text: str) -> str:
    """For XML, in an element or between double quotes."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#39;")


def for_dot(*lines: str) -> str:
    """A quoted string of Graphviz, read as it stands: no escape sequence, no entity, no end of the string."""
    quoted = (visible(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(quoted) + '"'
