"""What a person sees while a simulation runs: a bar on a terminal, a line for each run elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fl_node.simulation.rows import Row, mean
from fl_node.simulation.run import Tell
from fl_node.simulation.settings import Settings


@contextmanager
def shown(settings: Settings) -> Iterator[Tell]:
    """While this lasts, progress is told on stderr."""
    whole = len(settings.peers) * settings.seeds
    if not sys.stderr.isatty():
        yield lines(whole)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        runs = progress.add_task(f"0 of {whole} runs", total=whole, told="")
        rounds = progress.add_task("", total=1, told="")
        done = 0

        def tell(peers: int, seed: int, rows: list[Row]) -> None:
            nonlocal done
            if not rows:
                done += 1
                progress.update(runs, completed=done, description=f"{done} of {whole} runs")
                return
            planned = settings.federation(peers, seed).spec.rounds.planned if rows[0].tick == 0 else None
            if planned is not None:
                progress.update(rounds, total=planned + 1, description=f"{peers} peers, seed {seed}")
            progress.update(rounds, completed=max(row.round for row in rows), told=score(rows))

        yield tell


def lines(whole: int) -> Tell:
    """Tells each finished run in a line."""
    done = 0
    latest: dict[int, Row] = {}

    def tell(peers: int, seed: int, rows: list[Row]) -> None:
        nonlocal done
        if rows:
            latest.update((row.peer, row) for row in rows)
            return
        done += 1
        # Of closing models, where anybody closed: who left early has none.
        last = score([row for row in latest.values() if row.final] or list(latest.values()))
        print(
            f"run {done} of {whole}: {peers} peer{'s' if peers > 1 else ''}, seed {seed}{', ' + last if last else ''}",
            file=sys.stderr,
        )
        latest.clear()

    return tell


def score(rows: list[Row]) -> str:
    """What honest peers scored, in words."""
    there = [row.common for row in rows if row.common and row.honest]
    if there:
        measure = "accuracy" if there[0].dice is None else "Dice"
        return f"common test {measure} {sum(one.quality for one in there) / len(there) * 100:.2f} %"
    own = mean(row.score_ppm / 10_000 for row in rows if row.honest)
    return "" if own is None else f"score {own:.2f} %"
