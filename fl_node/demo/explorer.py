"""The ledger explorer beside a demo: a process of its own, so that the demo neither waits for it nor falls with it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from rich.console import Console

from fl_node import beside

_PORT: Final = 8600
_POLL_S: Final = "0.2"
#: For the contract; a demo that takes longer has failed.
_WAIT_S: Final = "600"
#: After the last entry, for it to see that: the chain is about to end. On a machine that is not busy it is level then.
_LEVEL_S: Final = 3.0
_ANSWER_S: Final = 1.0
_LOOK_S: Final = 0.05
_LEAVE_S: Final = 2.0
_NEEDED: Final = ("flask", "waitress")


class Explorer:
    """Starts the explorer over a federation file, and ends it on leaving.

    It loads while the demo makes its chain and the file, on a core that has little to do then.

    Args:
        file: the federation file, which need not be there yet.
        console: is told the address once there is one, or why there is none.
    """

    def __init__(self, file: Path, console: Console) -> None:
        self._file, self._console = file.absolute(), console
        self._process: subprocess.Popen[bytes] | None = None
        self._pages = ""
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            self._tell(f"not started: {' and '.join(missing)} not installed: pip install 'fl-node[ui]'")
            return self
        self._errors = tempfile.TemporaryFile()
        command = ["ui", "--federation", str(self._file), "--port", str(_free_port()), "--wait", _WAIT_S, "--json"]
        try:
            self._process = beside.begin(
                command,
                folder=self._file.parent,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                settings={"poll_s": _POLL_S},
            )
        except OSError as cause:
            self._tell(f"not started: {cause}")
            return self
        threading.Thread(target=self._hear, name="explorer", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            beside.end(self._process, _LEAVE_S)
        if self._errors is not None:
            self._errors.close()

    def finish(self, entries: int) -> None:
        """Let it see the last entries, since what it has not seen is lost to it with the chain; then have it leave."""
        process, deadline = self._process, time.monotonic() + _LEVEL_S
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            if self._pages and self._size() >= entries:
                break
            time.sleep(_LOOK_S)
        if process is not None and process.poll() is None:
            process.terminate()

    # ---- below -----------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Its address, when it listens; why not, when it has ended instead."""
        process = self._process
        assert process is not None and process.stdout is not None
        line = process.stdout.readline(1 << 16)
        if line:
            self._pages = str(_first(line).get("url", ""))
            self._tell(self._pages)
        elif process.wait() not in (0, -15, -9):
            self._tell(f"could not start: {self._said()}")

    def _size(self) -> int:
        """Entries that it shows; -1 where it does not say."""
        place, _, path = self._pages.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(place, timeout=_ANSWER_S)
        try:
            connection.request("GET", f"/{path}/health.json")
            return int(json.loads(connection.getresponse().read())["federation"]["size"])
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
            return -1
        finally:
            connection.close()

    def _said(self) -> str:
        if self._errors is None:
            return "no reason given"
        self._errors.seek(0)
        text = self._errors.read(2000).decode("utf-8", "replace").strip()
        return text.removeprefix("fl-node: ") or "no reason given"

    def _tell(self, words: str) -> None:
        self._console.print(f"explorer    {words}", highlight=False, markup=False, soft_wrap=True)


def _first(line: bytes) -> dict[str, Any]:
    """The federation that it says it shows."""
    try:
        told = json.loads(line)["federations"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        return {}
    return told if isinstance(told, dict) else {}


def _free_port() -> int:
    """The explorer's own port if nobody has it, so that a page left open finds the next demo; else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _PORT))
        except OSError:
            return 0
    return _PORT
