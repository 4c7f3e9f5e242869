"""Did you mean: the nearest known name to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?``, or nothing where no known name is near.

    >>> did_you_mean("braintorent", ["fedavg", "braintorrent"])
    '; did you mean braintorrent?'
    """
    close = difflib.get_close_matches(got, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
