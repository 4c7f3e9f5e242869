"""Private keys on a command line, where none belongs: refused before anything is done with them or told of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fl_node.sealing.redaction import EXPOSED, SHOWN, holds_secret

_FILES: Final = ("--key", "--identity", "--password-file")
#: An account's private key, as chains write it.
_ACCOUNT_KEY: Final = re.compile("(?:0x)?[0-9a-f]{64}", re.IGNORECASE)


def exposed_key(words: Sequence[str]) -> str | None:
    """What to tell whoever gave a private key itself as a word of the command line; ``None`` where nobody did."""
    for position, word in enumerate(words):
        option, equals, value = word.partition("=")
        if not equals:
            option, value = (words[position - 1] if position else ""), word
        if holds_secret(word):
            return f"got {SHOWN} on the command line. {EXPOSED}"
        if option in _FILES and _ACCOUNT_KEY.fullmatch(value):
            return (
                f"got 64 hexadecimal digits, which are not shown, for {option}; expected the name of a file. If they "
                "are the private key of an account, regard it as exposed, such as by the shell's history: take it out "
                "of there, and have another account admitted in its place"
            )
    return None
