"""``fl-node ui``"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import sys
import threading
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fl_node.cli.settings import settings_of
from fl_node.cli.text import safe
from fl_node.config import WILDCARDS
from fl_node.errors import UsageError

if TYPE_CHECKING:
    from ledger_ui.options import Options
    from ledger_ui.serve import Explorer

_INTERRUPTED = 130
_LOOK_S = 0.05


def ui(arguments: argparse.Namespace) -> int:
    """Serve the explorer until Ctrl-C or SIGTERM."""
    if not 0 <= arguments.port <= 65_535:
        raise UsageError(f"--port {arguments.port}: expected 0 (a free one) to 65535")
    _check_installed()
    gc.disable()  # importing makes a hundred thousand objects that stay
    from ledger_ui.serve import Explorer

    options = options_of(arguments)
    if not (options.secret or _is_loopback(arguments.host)):
        _warn(arguments.host)
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(_INTERRUPTED)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    explorer = Explorer(options, arguments.host, arguments.port)
    gc.freeze()
    gc.enable()
    announce(explorer, arguments.json)
    if arguments.open:
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(explorer.url,), daemon=True).start()
    explorer.run(stop.wait)
    return 0


def options_of(arguments: argparse.Namespace) -> Options:
    """The flags as the explorer takes them.

    Raises:
        UsageError: the secret cannot be read.
    """
    from ledger_ui.federation import Source
    from ledger_ui.options import LOOPBACK, Options, read_secret

    config = settings_of(arguments)
    files = arguments.federations or [config.federation]
    return Options(
        sources=tuple(Source(Path(name), config.rpc) for name in files),
        poll_s=config.poll_s,
        hosts=tuple(dict.fromkeys((*LOOPBACK, *own_names(arguments.host), *arguments.allow_hosts))),
        secret=read_secret(Path(arguments.secret_file)) if arguments.secret_file else "",
        harvest=not arguments.no_harvest,
        verify=not arguments.no_verify,
        monitor=arguments.monitor,
    )


def own_names(host: str) -> list[str]:
    """Names and addresses by which an explorer that listens there is reached, as far as this machine knows."""
    if host not in WILDCARDS:
        return [host]
    name = socket.gethostname()
    try:
        return [name, *(str(place[4][0]) for place in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))]
    except OSError:
        return [name]


def announce(explorer: Explorer, as_json: bool) -> None:
    """Where it is: words on stderr, or an object on stdout."""
    pages = [(one, f"{explorer.url}{one.slug}") for one in explorer.shown]
    if as_json:
        shown = [{"name": one.spec.name, "slug": one.slug, "url": url} for one, url in pages]
        print(json.dumps({"url": explorer.url, "pid": os.getpid(), "federations": shown}), flush=True)
        return
    for one, url in pages:
        print(f"{safe(one.spec.name)}  {url}", file=sys.stderr)
    print("Ctrl-C ends it.", file=sys.stderr, flush=True)


def _check_installed() -> None:
    try:
        import flask  # noqa: F401
        import waitress  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as cause:
        raise UsageError(
            f"the explorer needs {cause.name or 'flask and waitress'}, which is not installed here: "
            "pip install 'fl-node[ui]'"
        ) from cause


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _warn(host: str) -> None:
    print(
        f"fl-node: WARNING: --host {safe(host)} opens the explorer to everybody who can reach this machine, without a "
        "secret and without encryption. They can read all that it shows, and have audits run here. Give --secret-file "
        "FILE, and put a proxy with TLS before it: docs/explorer.md",
        file=sys.stderr,
    )
