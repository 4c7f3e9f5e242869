"""Standard output as rich prints on it."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class Out(Console):
    """A console whose reader may leave (``fl-node peers | head``): that is told as everywhere else in Python, where
    rich would end the process with the exit code of a failure."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError
