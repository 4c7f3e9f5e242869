"""Did you mean: the nearest known name to one that is not known, and updates whose name is written otherwise."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?``, or nothing where no known name is near.

    >>> did_you_mean("braintorent", ["fedavg", "braintorrent"])
    '; did you mean braintorrent?'
    """
    close = difflib.get_close_matches(got, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def update_meant(got: str) -> str:
    """``; did you mean 3#12?`` for the two numbers of an update in another form; nothing for anything else.

    >>> update_meant("3-12"), update_meant("latests")
    ('; did you mean 3#12?', '')
    """
    found = re.fullmatch(r"\W*([0-9]{1,9})[^0-9a-z]{1,3}([0-9]{1,9})", got, re.IGNORECASE)
    return f"; did you mean {int(found[1])}#{int(found[2])}?" if found else ""
