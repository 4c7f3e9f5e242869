"""The ledger explorer beside a demo: one of its processes, at low priority, that the demo does not need."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from fl_node.demo.crew import Child, Crew, Done, Failed

_PORT: Final = 8600
#: After the last entry, for it to see that: the chain is about to end. It takes a moment, on a busy machine many.
_LEVEL_S: Final = 15.0
_LOOK_S: Final = 0.05
_NEEDED: Final = ("flask", "waitress")


class Explorer:
    """Starts the explorer, tells where it is, and has it leave once it has seen everything. The crew ends it in any
    case.

    Args:
        console: is told the address, or why there is none.
    """

    def __init__(self, crew: Crew, console: Console) -> None:
        self._crew, self._console = crew, console
        self._child: Child | None = None
        self._pages = ""

    def start(self, file: Path) -> None:
        """Show a federation, whose contract is there."""
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            self._tell(f"not started: {' and '.join(missing)} not installed: pip install 'fl-node[ui]'")
            return
        self._child = self._crew.start("explorer", "show_explorer", file.absolute(), _free_port())

    def hear(self, child: Child, message: Any) -> bool:
        """Take in what a child said; whether it was the explorer."""
        if self._child is None or child is not self._child:
            return False
        if isinstance(message, Failed):
            self._tell(f"{'it ended' if self._pages else 'could not start'}: {message.message}")
        elif not isinstance(message, Done):
            self._pages = str(message)
            self._tell(self._pages)
        return True

    def finish(self, entries: int) -> None:
        """Let it see the last entries, since what it has not seen is lost to it with the chain; then have it leave."""
        child, deadline = self._child, time.monotonic() + _LEVEL_S
        while child is not None and child.result is None and not self._pages and time.monotonic() < deadline:
            self._listen(child)
        if self._pages:
            self._until(entries, deadline)
        if child is not None:
            child.process.terminate()

    # ---- below -----------------------------------------------------------------------------------------------------

    def _listen(self, child: Child) -> None:
        """Its address may be on the way."""
        try:
            if not child.pipe.poll(_LOOK_S):
                return
            message = child.pipe.recv()
        except (EOFError, OSError):
            message = Failed("the process ended without a word")
        if isinstance(message, Done | Failed):
            child.result = message
        self.hear(child, message)

    def _until(self, entries: int, deadline: float) -> None:
        """Follow its own events until it shows so many entries."""
        place, _, path = self._pages.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(place, timeout=_LEVEL_S)
        try:
            connection.request("GET", f"/{path}/live")
            answer = connection.getresponse()
            while time.monotonic() < deadline and (line := answer.readline(1 << 16)):
                if line.startswith(b"data: ") and json.loads(line[6:])["size"] >= entries:
                    return
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
            return  # it is gone, or says nothing: the demo is not to wait for it
        finally:
            connection.close()

    def _tell(self, words: str) -> None:
        self._console.print(f"explorer    {words}", highlight=False, markup=False, soft_wrap=True)


def _free_port() -> int:
    """The explorer's own port if nobody has it, so that a page left open finds the next demo; else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _PORT))
        except OSError:
            return 0
    return _PORT
