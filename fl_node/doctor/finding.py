"""What a check found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fl_node.errors import FlNodeError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. ``result``: ``ok``; ``warning`` where a peer can run and somebody should know what that means;
    ``failed``; or ``unknown`` where it could not be made. ``mend``: what to do."""

    name: str
    result: str
    message: str
    mend: str = ""


def checked(name: str, look: Callable[[], T], mend: str) -> tuple[Finding, T | None]:
    """Ok where the look succeeds, with what it says or gave; failed where it raises an error of ours."""
    try:
        found = look()
    except FlNodeError as error:
        return Finding(name, "failed", str(error), mend), None
    message = found if isinstance(found, str) else "as expected"
    return Finding(name, "ok", message), found
