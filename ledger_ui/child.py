"""A command of ``fl-node`` run to its end: low priority, limited in time and output, gone when we are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger_ui import beside

_LOOK_S: Final = 0.1
_MOST_WORDS: Final = 2000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended. ``code``: ``None`` where it was ended; ``words``: what it said on stderr, or why not."""

    code: int | None
    words: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take: seconds, and bytes in each of the files that it writes."""

    seconds: float
    bytes: int


def run(
    arguments: Sequence[str],
    out: Path,
    limits: Limits,
    stopped: Callable[[float], bool],
    *,
    rpc: str,
    made: Path | None = None,
) -> Ended:
    """Run a command to its end; its stdout goes to a file.

    Args:
        out: file for its stdout.
        stopped: waits so many seconds; true when there is no time left, and the child is to go.
        rpc: endpoint.
        made: another file that it writes, and that counts.
    """
    errors = out.with_name(f"{out.name}.err")
    files = (out, errors) if made is None else (out, errors, made)
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        process = beside.begin(arguments, folder=out.parent, stdout=stdout, stderr=stderr, settings={"rpc": rpc})
        try:
            trouble = _watched(process.poll, files, limits, stopped)
        finally:
            beside.end(process)
    return Ended(None, trouble) if trouble else Ended(process.returncode, _said(errors))


def _watched(
    code: Callable[[], int | None], files: Sequence[Path], limits: Limits, stopped: Callable[[float], bool]
) -> str:
    """Wait until it has ended, or why it has to; empty: it has ended itself."""
    end = time.monotonic() + limits.seconds
    while code() is None:
        if stopped(_LOOK_S):
            return "the explorer was stopped meanwhile"
        if time.monotonic() > end:
            return f"it took more than {limits.seconds:,.0f} s; run it yourself, where it may take longer"
        if max(map(_size, files)) > limits.bytes:
            return f"it wrote more than {limits.bytes:,} bytes; run it yourself, for a part at a time"
    return ""


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _said(errors: Path) -> str:
    with errors.open("rb") as file:
        text = file.read(_MOST_WORDS).decode("utf-8", "replace").strip()
    return text.removeprefix("fl-node: ")
