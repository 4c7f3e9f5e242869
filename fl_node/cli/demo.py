"""``fl-node demo``"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from fl_node.cli.text import safe
from fl_node.demo.crew import Crew
from fl_node.demo.settings import DemoSettings
from fl_node.errors import StoreFull, UsageError
from fl_node.presets import preset
from fl_node.unwritable import NO_ROOM


def demo(arguments: argparse.Namespace) -> int:
    """Run a whole federation; 0 if every peer closed."""
    settings = DemoSettings(
        preset=arguments.preset,
        peers=arguments.peers,
        rounds=arguments.rounds,
        interval_s=arguments.interval,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        dataset=arguments.dataset,
        data_dir=Path(arguments.data_dir) if arguments.data_dir else None,
        model=arguments.model,
        partition=arguments.partition,
        mode=arguments.mode,
        chain=arguments.chain,
        state=Path(arguments.state) if arguments.state else None,
        seed=arguments.seed,
        baselines=not arguments.no_baselines,
        export=Path(arguments.export) if arguments.export else None,
        ui=not arguments.no_ui,
    )
    out = _writable(arguments.json)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    began = time.perf_counter()
    with Crew() as crew:
        # What follows takes a third of a second to import, while the crew's server loads torch on the other core. A
        # signal waits so long: an exception in the middle of an import is not always handed on.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            import numpy.random  # noqa: F401  numpy imports it at its first use, which would be later
            from rich.console import Console

            from fl_node.cli.console import Out
            from fl_node.demo.play import play
            from fl_node.demo.table import as_json, show_result
            from fl_node.learning.partition import parse_partition
            from fl_node.merging.fit import check_fit
            from fl_node.spec import parse_federation
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        # Before a chain is started for nothing.
        parse_partition(settings.partition)
        spec = parse_federation(settings.spec_text().encode(), "the demo's spec").spec
        warnings = check_fit(spec, range(1, settings.peers + 1))
        console = Console(stderr=True)
        if settings.preset:
            chosen = preset(settings.preset)
            console.print(f"preset      {chosen.name}: {chosen.what}", highlight=False)
        for warning in warnings:
            console.print(f"warning     {warning}", highlight=False, markup=False)
        result = play(settings, console, crew, began)
    if arguments.json == "-":
        print(json.dumps(as_json(result), indent=1))
    else:
        show_result(Out(), result)
        if out is not None:
            out.write_text(json.dumps(as_json(result), indent=1) + "\n")
    for what in result.pack.missing if result.pack else ():
        print(f"fl-node: not in the pack: {safe(what)}", file=sys.stderr)
    for failure in result.failures:
        print(f"fl-node: {failure}", file=sys.stderr)
    return 1 if result.failures else 0


def _writable(name: str | None) -> Path | None:
    """The result's file, found out to be writable before the work and not after it."""
    if name is None or name == "-":
        return None
    path = Path(name)
    try:
        path.open("a").close()
    except OSError as cause:
        kind = StoreFull if cause.errno in NO_ROOM else UsageError
        raise kind(f"--json {name}: cannot write it: {cause.strerror}; name another file, or - for stdout") from cause
    return path


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM as Ctrl-C: everything that was started is stopped on the way out, which a second one would cut short."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt
