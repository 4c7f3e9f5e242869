"""The explorer under waitress: one process, threads, and an end within a second or two."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from fl_node.errors import UsageError
from ledger_ui.app import create_app
from ledger_ui.federation import Shown
from ledger_ui.options import Options

#: For pages; each listener has one more.
PAGE_THREADS: Final = 8
LISTENERS: Final = 24
_LEAVE_S: Final = 1.5
_MOST_BODY_BYTES: Final = 64 << 10


class Explorer:
    """An explorer that listens on an address.

    Args:
        port: 0 takes a free one.

    Raises:
        UsageError: the address cannot be had, or there is nothing to show.
        SpecError: a federation file that is none.
    """

    def __init__(self, options: Options, host: str, port: int) -> None:
        # Before anything is opened: whoever has started it twice should hear of that at once.
        self._sockets = _bound(host, port)
        try:
            self.app = create_app(replace(options, listeners=LISTENERS), start=False)
        except BaseException:
            _close(self._sockets)
            raise
        self.shown: Sequence[Shown] = tuple(self.app.extensions["federations"].values())
        taken = self._sockets[0].getsockname()[1]
        name = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host  # noqa: S104
        #: Where a browser on this machine finds it.
        self.url = f"http://[{name}]:{taken}/" if ":" in name else f"http://{name}:{taken}/"
        self._open: dict[int, Any] = {}
        self._server = _server(self.app, self._sockets, self._open)

    def run(self, wait: Callable[[float], bool], leave_s: float = _LEAVE_S) -> None:
        """Serve until ``wait`` says that it is over (it waits so many seconds, and tells). ``leave_s``: for everything
        to come to its end."""
        # What is here now stays: looking for rubbish among it takes longer than most pages.
        gc.collect()
        gc.freeze()
        for one in self.shown:
            one.start()
        serving = threading.Thread(target=self._server.run, name="serve", daemon=True)
        serving.start()
        while not wait(1.0) and serving.is_alive():
            pass
        self.close(leave_s)

    def close(self, leave_s: float = _LEAVE_S) -> None:
        """Let go of everything. What does not end in time ends with the process: SQLite sees to the index."""
        deadline = time.monotonic() + leave_s
        for one in self.shown:
            one.end()
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=leave_s / 2)
        self._hang_up()
        stopping = [threading.Thread(target=one.stop, name=f"stop {one.slug}", daemon=True) for one in self.shown]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _hang_up(self) -> None:
        """Close every connection, in the thread that looks after them; that ends it."""
        from waitress import wasyncore  # type: ignore[import-untyped]

        # Whoever was cut off in the middle of an answer is no news now.
        logging.getLogger("waitress").setLevel(logging.CRITICAL)
        for one in list(self._open.values()):
            if hasattr(one, "thunks"):
                with contextlib.suppress(OSError):  # closed already
                    one.pull_trigger(lambda: wasyncore.close_all(self._open, ignore_all=True))
                return


def _server(app: Any, sockets: list[socket.socket], opened: dict[int, Any]) -> Any:
    from waitress import create_server

    # Each page is asked for at once by browsers with several tabs; that some wait for a thread is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return create_server(
        app,
        map=opened,
        sockets=sockets,
        threads=PAGE_THREADS + LISTENERS,
        # Then a listener that has gone is noticed at once, and not when the next event cannot be sent.
        channel_request_lookahead=1,
        connection_limit=256,
        max_request_body_size=_MOST_BODY_BYTES,
        asyncore_use_poll=True,
        ident="fl-node",
    )


def _bound(host: str, port: int) -> list[socket.socket]:
    """Sockets at every address that a host's name stands for, all with the same port."""
    made: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in dict.fromkeys(places):
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((where[0], made[0].getsockname()[1] if len(made) > 1 else port, *where[2:]))
            one.listen(128)
    except OSError as cause:
        _close(made)
        raise UsageError(_why(cause, host, port)) from cause
    return made


def _why(cause: OSError, host: str, port: int) -> str:
    if cause.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken: by another explorer? Name another with --port, or 0 for a free one"
    if cause.errno == errno.EACCES:
        return f"port {port} may not be taken by this user; name one above 1023 with --port"
    if isinstance(cause, socket.gaierror) or cause.errno == errno.EADDRNOTAVAIL:
        return f"--host {host[:100]} is no address of this machine; expected 127.0.0.1, 0.0.0.0, or one of its own"
    return f"cannot listen on {host[:100]}, port {port}: {cause.strerror or cause}; name another with --host and --port"


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()
