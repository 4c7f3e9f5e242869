"""``fl-node run``"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from types import FrameType

from fl_node.cli.settings import settings_of
from fl_node.node import run as run_node
from fl_node.progress import Event


def run(arguments: argparse.Namespace) -> int:
    """Take part until the rounds are done. Events on stderr as they happen; with ``--json``, one object a line on
    stdout, the last of kind ``ended``."""
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        print("fl-node: finishing the step under way, then leaving; once more leaves at once", file=sys.stderr)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)

    def tell(event: Event) -> None:
        if arguments.json:
            print(json.dumps({"kind": event.kind, "text": event.text, **event.detail}), flush=True)
        else:
            print(f"{time.strftime('%H:%M:%S')} {event.text}", file=sys.stderr, flush=True)

    ended = run_node(settings_of(arguments), tell, stop)
    summary = (
        f"peer {ended.peer}: {ended.sequence} updates, {'closed' if ended.closed else 'stopped'} at round {ended.round}"
    )
    tell(
        Event(
            "ended",
            summary,
            {
                "peer": ended.peer,
                "sequence": ended.sequence,
                "round": ended.round,
                "closed": ended.closed,
                "seconds": {name: round(value, 3) for name, value in ended.seconds.items()},
                "published_bytes": ended.published_bytes,
                "fetched_bytes": ended.fetched_bytes,
            },
        )
    )
    return 0
