"""JSON of a stranger, read so that it cannot end the process."""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: Nesting of what is read; reports have four levels. The parser recurses in C, and how deep it may is a setting of the
#: process that any import can raise beyond its stack: see :mod:`fl_node.recursion`.
MOST_NESTED: Final = 64
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.S)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def json_of(raw: bytes) -> Any:
    """What some bytes say.

    >>> json_of(b'{"a": [1, "[[["]}')
    {'a': [1, '[[[']}

    Raises:
        ValueError: no JSON, or nested deeper than anything of ours.
    """
    if raw.count(b"[") + raw.count(b"{") > MOST_NESTED:
        depth = 0
        for found in _BRACKET.finditer(_STRING.sub(b"", raw)):
            depth += 1 if found[0] in b"[{" else -1
            if depth > MOST_NESTED:
                raise ValueError(f"nested more than {MOST_NESTED} deep")
    try:
        return json.loads(raw.decode())
    except RecursionError as cause:
        raise ValueError("nested too deep") from cause
