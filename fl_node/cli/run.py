"""``fl-node run``"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from fl_node.cli.settings import settings_of
from fl_node.cli.text import safe, told
from fl_node.errors import FlNodeError
from fl_node.node import run as run_node
from fl_node.progress import Emit, Event

INTERRUPTED = 130
#: What a peer is doing now; on a terminal the last one stays in view and turns into no line of its own.
_DOING = frozenset({"training", "waiting", "ready"})


def run(arguments: argparse.Namespace) -> int:
    """Take part until the rounds are done. Events on stderr as they happen; with ``--json``, one object a line on
    stdout, the last of kind ``ended``, whatever ends it."""
    try:
        return _take_part(arguments)
    except Exception as error:
        if arguments.json:
            code = error.exit_code if isinstance(error, FlNodeError) else 1
            _lines(True)(Event("ended", told(str(error)), {"exit_code": code, "closed": False}))
        raise


def _take_part(arguments: argparse.Namespace) -> int:
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        # os.write, since the signal may come in the middle of a print; os._exit, since a step cut short is what a crash
        # is as well, and neither threads that fetch nor a chain that does not answer should delay it.
        if stop.is_set():
            os.write(2, b"fl-node: interrupted\n")
            os._exit(INTERRUPTED)
        os.write(2, b"fl-node: finishing the step under way, then leaving; once more leaves at once\n")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)

    config = settings_of(arguments)
    with ExitStack() as stack:
        tell = stack.enter_context(_screen()) if not arguments.json and sys.stderr.isatty() else _lines(arguments.json)
        ended = run_node(config, tell, stop)
    tell = _lines(arguments.json)
    summary = (
        f"peer {ended.peer}: {ended.sequence} updates, {'closed' if ended.closed else 'stopped'} at round {ended.round}"
        f"; sent {ended.sent_bytes:,} bytes and received {ended.received_bytes:,}: `fl-node traffic` has them by peer"
    )
    tell(
        Event(
            "ended",
            summary,
            {
                "exit_code": 0,
                "peer": ended.peer,
                "sequence": ended.sequence,
                "round": ended.round,
                "closed": ended.closed,
                "seconds": {name: round(value, 3) for name, value in ended.seconds.items()},
                "published_bytes": ended.published_bytes,
                "fetched_bytes": ended.fetched_bytes,
                "sent_bytes": ended.sent_bytes,
                "received_bytes": ended.received_bytes,
            },
        )
    )
    return 0


def _lines(as_json: bool) -> Emit:
    """One line an event: JSON on stdout, or words on stderr."""

    def tell(event: Event) -> None:
        # That nobody listens any more is no reason to stop taking part.
        with suppress(BrokenPipeError):
            if as_json:
                print(json.dumps({"kind": event.kind, "text": event.text, **event.detail}), flush=True)
            else:
                print(f"{time.strftime('%H:%M:%S')} {safe(event.text)}", file=sys.stderr, flush=True)

    return tell


@contextmanager
def _screen() -> Iterator[Emit]:
    """On a terminal: what is done scrolls by, what is being done stays below it with a clock."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, markup=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def tell(event: Event) -> None:
            text = safe(event.text)
            if event.kind not in _DOING:
                progress.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)
            progress.reset(task, description=text, total=None)

        yield tell
