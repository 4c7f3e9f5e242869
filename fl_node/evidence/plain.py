"""JSON of strangers: parsed within bounds, each value of the type that it must have, and one way to write it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from fl_node.errors import MalformedEvidence

#: What SQLite's integers hold, and far more than any ledger counts.
MOST_NUMBER: Final = 2**63 - 1
_DIGEST_DIGITS: Final = 64
_DEEPEST: Final = 16
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
# A string that never ends matches to the end of the text, so that each byte is looked at once.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_STEP: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def written_json(value: Any) -> bytes:
    """The one way: keys sorted, no white space, ASCII."""
    return _ENCODER.encode(value).encode()


def parse_json(raw: bytes, where: str, most_values: int) -> Any:
    """Parse text of a stranger.

    Args:
        most_values: about as many values may be in it: a few bytes of text would make a hundred times as many of
            objects in memory.

    Raises:
        MalformedEvidence: no JSON in UTF-8, too many values, or nested too deep.
    """
    opening = raw.count(b"[") + raw.count(b"{")
    if opening + raw.count(b",") > most_values:
        raise MalformedEvidence(f"{where}: more than {most_values} values; expected no more")
    if opening > _DEEPEST and _depth(raw) > _DEEPEST:
        raise MalformedEvidence(f"{where}: nested more than {_DEEPEST} deep; expected no more")
    try:
        return json.loads(str(raw, "utf-8"), parse_constant=_refuse, parse_float=_refuse)
    except (ValueError, RecursionError) as cause:
        raise MalformedEvidence(f"{where}: not the JSON of a pack: {str(cause)[:200]}") from cause


def known_keys(value: Any, where: str, *keys: str) -> None:
    """Refuse anything but an object with exactly these keys."""
    if not isinstance(value, dict):
        raise MalformedEvidence(f"{where}: got {type(value).__name__}, expected an object")
    if value.keys() != set(keys):
        got = ", ".join(sorted(value)[:10])[:200]
        raise MalformedEvidence(f"{where}: got the keys {got}; expected {', '.join(sorted(keys))}")


def number_of(value: Any, where: str) -> int:
    """A whole number from 0 to 2^63 - 1."""
    if type(value) is not int or not 0 <= value <= MOST_NUMBER:
        got = str(value)[:40] if type(value) is int else type(value).__name__
        raise MalformedEvidence(f"{where}: got {got}, expected a whole number from 0 and below 2^63")
    return value


def text_of(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise MalformedEvidence(f"{where}: got {type(value).__name__}, expected text")
    return value


def bytes_of(value: Any, where: str) -> bytes:
    """Bytes in lower-case hexadecimal."""
    text = text_of(value, where)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    # It also takes spaces and capitals.
    if raw.hex() != text:
        raise MalformedEvidence(f"{where}: got {text[:40]!r}, expected hexadecimal digits in lower case")
    return raw


def digest_of(value: Any, where: str) -> bytes:
    """32 bytes in hexadecimal."""
    raw = bytes_of(value, where)
    if 2 * len(raw) != _DIGEST_DIGITS:
        raise MalformedEvidence(f"{where}: got {len(raw)} bytes, expected 32")
    return raw


def _depth(raw: bytes) -> int:
    """How deep objects and lists are nested. The parser recurses in C, and may end the process on what is too deep."""
    depth = deepest = 0
    for found in _STRUCTURE.finditer(raw):
        depth += _STEP.get(found[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _refuse(text: str) -> None:
    raise ValueError(f"{text[:40]} is no whole number")
