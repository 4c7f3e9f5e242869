"""``fl-node demo``"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from fl_node.demo.play import play
from fl_node.demo.settings import DemoSettings
from fl_node.demo.table import as_json, show_result


def demo(arguments: argparse.Namespace) -> int:
    """Run a whole federation; 0 if every peer closed."""
    settings = DemoSettings(
        peers=arguments.peers,
        rounds=arguments.rounds,
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
    )
    console = Console(stderr=True)
    result = play(settings, console)
    if arguments.json == "-":
        print(json.dumps(as_json(result), indent=1))
    else:
        show_result(Console(), result)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(as_json(result), indent=1) + "\n")
    for failure in result.failures:
        print(f"fl-node: {failure}", file=sys.stderr)
    return 1 if result.failures else 0
