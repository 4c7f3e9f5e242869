"""``fl-node simulate``"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from fl_node.errors import UsageError
from fl_node.simulation import Faults, Result, Settings
from fl_node.simulation import simulate as play
from fl_node.simulation.checks import check
from fl_node.simulation.progress import shown
from fl_node.simulation.settings import parse_override
from fl_node.simulation.told import as_json, scores

INTERRUPTED = 130


def simulate(arguments: argparse.Namespace) -> int:
    """Run federations in this process; 0 if every peer could go on to the end."""
    settings = settings_of(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    told_before = {(peers, warning) for peers, warnings in check(settings).items() for warning in warnings}
    _warn(sorted(told_before))
    with shown(settings) as tell:
        result = play(settings, tell)
    _warn(sorted({(run.peers, warning) for run in result.runs for warning in run.warnings} - told_before))
    told = as_json(settings, result)
    if arguments.json:
        print(json.dumps(told, indent=1))
    else:
        print(summary(settings, result))
    failures = [
        f"{run.peers} peers, seed {run.seed}: peer {n}: {why}" for run in result.runs for n, why in run.failures.items()
    ]
    for failure in failures:
        print(f"fl-node: {failure}", file=sys.stderr)
    if result.interrupted:
        left = f"; the same command goes on with {settings.out}" if settings.out else ""
        done = f"{len(result.runs)} finished run{'' if len(result.runs) == 1 else 's'}"
        print(f"fl-node: interrupted after {done}{left}", file=sys.stderr)
        return INTERRUPTED
    return 1 if failures else 0


def _warn(warnings: Iterable[tuple[int, str]]) -> None:
    for peers, warning in warnings:
        print(f"fl-node: warning: {peers} peers: {warning}", file=sys.stderr)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The command line as settings. Raises UsageError for what cannot be."""
    return Settings(
        spec=Path(arguments.spec) if arguments.spec else None,
        preset=arguments.preset or "",
        peers=_numbers(arguments.peers),
        rounds=arguments.rounds,
        dataset=arguments.dataset,
        data_dir=Path(arguments.data_dir) if arguments.data_dir else None,
        model=arguments.model,
        mode=arguments.mode,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        overrides=dict(parse_override(text) for text in arguments.set),
        partition=arguments.partition,
        shift=arguments.shift,
        seeds=arguments.seeds,
        seed=arguments.seed,
        test_rows=arguments.test_rows,
        evaluate=arguments.evaluate or ("every" if arguments.out else "last"),
        baselines=arguments.baselines,
        faults=Faults(
            dropout=arguments.dropout,
            stragglers=arguments.stragglers,
            straggle=arguments.straggle,
            churn=arguments.churn,
            malicious=arguments.malicious,
            attack=arguments.attack,
        ),
        ledger=arguments.ledger,
        batch=arguments.batch,
        out=Path(arguments.out) if arguments.out else None,
        allow_code=arguments.allow_code,
        threads=arguments.threads,
    )


def summary(settings: Settings, result: Result) -> str:
    """The result in a few lines."""
    lines = []
    for peers in settings.peers:
        runs = result.of(peers)
        if not runs:
            continue
        found, own = result.summary("quality", "common", peers), result.summary("quality", "own", peers)
        many = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
        lines.append(f"{peers} peer{'s' if peers > 1 else ''}, {many}")
        common = f"common test {result.measure}"
        lines.append(f"  {common:<21} {_percent(found.mean)}, standard deviation {_percent(found.std)}")
        lines.append(f"  {'own test ' + result.measure:<21} {_percent(own.mean)}")
        metric = settings.federation(peers, settings.seed).spec.task.metric
        if metric not in ("accuracy", "dice"):
            lines.append(f"  {'common test ' + metric:<21} {_percent(scores(result, peers).mean)}")
        for name, values in (
            ("pooled", [run.pooled.quality for run in runs if run.pooled]),
            ("alone", [one.quality for run in runs for one in run.alone if one]),
        ):
            if values:
                lines.append(f"  trained {name:<13} {_percent(sum(values) / len(values))}")
        fetched = sum(run.fetched_bytes for run in runs) / len(runs)
        lines.append(
            f"  a run                 {sum(r.seconds for r in runs) / len(runs):.2f} s, {fetched / 1e6:.2f} MB fetched"
        )
    if settings.out is not None:
        lines.append(f"results in {settings.out}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.2f} %"


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as cause:
        raise UsageError(
            f"--peers {text}: expected a whole number, or several with commas between, such as 6,10,20"
        ) from cause


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM as Ctrl-C: what is finished stays."""
    raise KeyboardInterrupt
