"""Private keys in text where none belongs, such as one that was pasted where the name of a file is expected."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

#: What is shown in place of a key.
SHOWN: Final = "AGE-SECRET-KEY-1[not shown]"
#: What to do about it.
EXPOSED: Final = (
    "That is a private key itself, where the name of a file is expected that holds it. Regard the key as exposed, such "
    "as by the shell's history: take it out of there, and where it is a peer's, `fl-node keys rotate` announces a "
    "fresh one"
)
# Keys of any kind that age-keygen writes, in either case, whole or cut. Fewer letters of Bech32 than these are a
# sentence about keys, or the name of a file.
_SECRET: Final = re.compile("(?:age-)?secret-key-(?:[a-z0-9]{1,16}-)?1[02-9ac-hj-np-z]{12}[a-z0-9]*", re.IGNORECASE)


def holds_secret(text: str) -> bool:
    """Whether a private age key is in the text, or most of one; also where it is written for a URL.

    >>> holds_secret("--identity=age%2Dsecret%2Dkey%2D1qqqsyqcyq5rqwzq"), holds_secret("AGE-SECRET-KEY-1...")
    (True, False)
    """
    return _SECRET.search(text) is not None or ("%" in text and _SECRET.search(unquote(text)) is not None)


def redacted(text: str) -> str:
    """The text without the private age keys in it.

    >>> redacted("cannot read AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQ: no such file")
    'cannot read AGE-SECRET-KEY-1[not shown]: no such file'
    """
    text = _SECRET.sub(SHOWN, text)
    return _SECRET.sub(SHOWN, unquote(text)) if holds_secret(text) else text
