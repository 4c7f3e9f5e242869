"""A simulation from start to end: every number of peers with every seed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TextIO

from fl_node.learning.shifts import parse_shift
from fl_node.simulation.checks import check, check_dealing
from fl_node.simulation.deal import Source, deal, poisoned
from fl_node.simulation.faults import cast
from fl_node.simulation.output import Folder, write_rows
from fl_node.simulation.rows import Result, Row, Run
from fl_node.simulation.settings import Settings
from fl_node.simulation.told import as_json

#: Told with every tick: number of peers, seed, and the tick's rows; once more with none when a run is done.
Tell = Callable[[int, int, list[Row]], None]


def simulate(settings: Settings, tell: Tell | None = None) -> Result:
    """Run all of it, those runs that the output folder does not have yet. Ctrl-C ends it: what is finished is the
    result, and is in the folder.

    Raises:
        FlNodeError: the settings do not go together, the data cannot be dealt out, the folder cannot be written; all
            of that before anything is started.
    """
    began = time.perf_counter()
    wanted = [(peers, settings.seed + k) for peers in settings.peers for k in range(settings.seeds)]
    warnings = check(settings)
    folder = None if settings.out is None else Folder(settings.out, settings)
    runs: list[Run] = []
    source: Source | None = None
    interrupted = False
    try:
        for peers, seed in wanted:
            run = folder.finished(peers, seed) if folder is not None else None
            if run is None:
                if source is None:
                    source = Source.load(settings.federation(peers, seed).spec.task, settings.data_dir)
                    check_dealing(settings, source, wanted)
                with nullcontext() if folder is None else folder.writing(peers, seed) as sink:
                    run = run_one(settings, source, peers, seed, sink=sink, tell=tell)
                    run = replace(run, warnings=(*warnings[peers], *nothing_merged(run)))
                if folder is not None:
                    folder.finish(run)
            runs.append(run)
            if tell is not None:
                tell(peers, seed, [])
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # Also where a run cannot go on: what was finished before it stays, and is reported.
        result = Result(tuple(runs), time.perf_counter() - began, interrupted)
        if folder is not None and (runs or interrupted):
            from fl_node.simulation.report import write_report

            folder.write(result, as_json(settings, result))
            write_report(folder.path, settings, result)
    return result


def nothing_merged(run: Run) -> tuple[str, ...]:
    """A warning where closing models have nobody's training in them, for nothing else looks wrong with such a run."""
    finals = run.finals().values()
    empty = [row.peer for row in finals if not row.shares]
    if not empty:
        return ()
    return (
        f"{len(empty)} of {len(finals)} closing models are the genesis: the policy left every update out; compare "
        "merging.min_samples, max_staleness and attesting_sites with what peers have",
    )


def run_one(
    settings: Settings,
    source: Source,
    peers: int,
    seed: int,
    *,
    sink: TextIO | None = None,
    tell: Tell | None = None,
) -> Run:
    """One federation from start to end; its rows go to ``sink`` as they come."""
    from fl_node.simulation.baselines import train_baselines
    from fl_node.simulation.batches import Batcher
    from fl_node.simulation.federation import in_memory
    from fl_node.simulation.ticks import Ticks

    began = time.perf_counter()
    federation = settings.federation(peers, seed)
    spec = federation.spec
    threads = settings.threads or len(os.sched_getaffinity(0))
    parts = cast(settings.faults, peers, spec.rounds.planned, seed)
    shift = parse_shift(settings.shift)
    dealt = deal(source, spec.task, peers, settings.partition, seed, test_rows=settings.test_rows, shift=shift)
    if parts.attack.flips_labels:
        dealt = poisoned(dealt, parts.malicious, spec.task.classes)
    batcher = Batcher(spec, dealt.splits, settings.batch, threads)
    dealt = replace(dealt, splits=batcher.splits)
    rows: list[Row] = []
    with ExitStack() as stack:
        if settings.ledger == "anvil":
            from fl_node.simulation.anvil import on_anvil

            world = stack.enter_context(on_anvil(federation, dealt, parts))
        else:
            world = in_memory(federation, dealt, parts)
        ticks = Ticks(world, batcher, settings.evaluate == "every")
        for some in ticks.run():
            rows += some
            if sink is not None:
                write_rows(sink, some)
            if tell is not None:
                tell(peers, seed, some)
    seconds = time.perf_counter() - began
    found = train_baselines(spec, dealt, parts, settings.batch, threads) if settings.baselines else None
    return Run(
        peers=peers,
        seed=seed,
        rows=tuple(rows),
        seconds=seconds,
        entries=world.prefix.size,
        root="0x" + world.index.root(world.prefix.size).hex(),
        failures=dict(ticks.failures),
        pooled=found.pooled if found else None,
        alone=found.alone if found else (),
        alone_own=found.alone_own if found else (),
    )
