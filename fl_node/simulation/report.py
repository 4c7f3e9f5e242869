"""A simulation's report for people: ``report.md`` with tables and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fl_node.simulation import plots
from fl_node.simulation.rows import Result, Run, Summary, mean
from fl_node.simulation.settings import Settings
from fl_node.simulation.told import scores

#: So many peers of the first run are shown one by one.
_SHOWN = 64
PLOTS = "plots"


def write_report(path: Path, settings: Settings, result: Result) -> Path:
    """Write ``report.md`` and its pictures into a folder; the report's path."""
    pictures: dict[str, str] = {}
    if result.runs and plots.available():
        pictures = plots.draw(result, path / PLOTS)
    report = path / "report.md"
    report.write_text("\n".join(_lines(settings, result, pictures)) + "\n", "utf-8")
    return report


def _lines(settings: Settings, result: Result, pictures: dict[str, str]) -> Iterable[str]:
    yield "# Simulation\n"
    done, wanted = len(result.runs), len(settings.peers) * settings.seeds
    if done < wanted:
        yield f"Unfinished: {done} of {wanted} runs. The same command goes on from here.\n"
    yield from _results(settings, result)
    for number, (caption, name) in enumerate(pictures.items()):
        if not number:
            yield "## Pictures\n"
        yield f"![{caption}]({PLOTS}/{name})\n\n{caption}.\n"
    if result.runs and not pictures:
        yield "There are no pictures, because matplotlib is not installed: `pip install 'fl-node[simulate]'`.\n"
    if result.runs:
        yield from _each_peer(result.runs[0], result.measure)
    yield from _trouble(result.runs)
    yield "## Settings\n"
    yield "The spec of the first seed is beside this file, one for each number of peers.\n"
    yield f"```json\n{json.dumps(settings.as_json(), indent=1)}\n```"


def _results(settings: Settings, result: Result) -> Iterable[str]:
    yield "## Results\n"
    yield (
        f"{result.measure[0].upper()}{result.measure[1:]} of the final merged models of honest peers. *Common*: on the "
        "common test set; *own*: on test rows of each peer's own distribution. Mean and standard deviation over peers "
        "and seeds; *pooled* is one model trained on all rows, *alone* each peer's without the others, for as many "
        "epochs.\n"
    )
    metric = settings.federation(settings.peers[0], settings.seed).spec.task.metric
    other = metric not in ("accuracy", "dice")
    extra = f" {metric}, % |" if other else ""
    yield f"| peers | seeds | common, % | own, % |{extra} macro F1 | pooled, % | alone, % | MB fetched | seconds |"
    yield "|---|---|---|---|---|---|---|---|---|" + "---|" * other
    for peers in settings.peers:
        runs = result.of(peers)
        if runs:
            cells = [
                str(peers),
                str(len(runs)),
                _spread(result.summary("quality", "common", peers)),
                _spread(result.summary("quality", "own", peers)),
                *([_spread(scores(result, peers))] if other else []),
                _number(result.summary("macro_f1", "common", peers).mean, 1, 3),
                _number(mean(run.pooled.quality for run in runs if run.pooled), 100, 2),
                _number(mean(one.quality for run in runs for one in run.alone if one), 100, 2),
                _number(mean(run.fetched_bytes for run in runs), 1e-6, 2),
                _number(mean(run.seconds for run in runs), 1, 2),
            ]
            yield f"| {' | '.join(cells)} |"
    yield "\nBytes and seconds are those of a run.\n"


def _each_peer(run: Run, measure: str) -> Iterable[str]:
    yield f"## Peers of the first run: {run.peers} peers, seed {run.seed}\n"
    yield f"*Common* and *own* are {measure}; F1, precision, recall and loss are on the common test set.\n"
    yield "| peer | rows | common, % | F1 | precision | recall | loss | own, % | MB fetched | seconds |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    finals = {row.peer: row for row in run.rows if row.final}
    for peer in range(1, min(run.peers, _SHOWN) + 1):
        rows = [row for row in run.rows if row.peer == peer]
        final = finals.get(peer)
        common = final.common if final else None
        cells = [
            f"{peer} (hostile)" if rows and not rows[0].honest else str(peer),
            str(max((row.train_samples for row in rows), default=0)),
            _number(common.quality if common else None, 100, 2),
            *(
                _number(getattr(common, name) if common else None, 1, 3)
                for name in ("macro_f1", "precision", "recall", "loss")
            ),
            _number(final.own.quality if final else None, 100, 2),
            _number(sum(row.fetched_bytes for row in rows), 1e-6, 2),
            _number(sum(row.seconds for row in rows), 1, 2),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _trouble(runs: Sequence[Run]) -> Iterable[str]:
    told = dict.fromkeys(f"- {run.peers} peers: {warning}" for run in runs for warning in run.warnings)
    told |= dict.fromkeys(
        f"- {run.peers} peers, seed {run.seed}: peer {number} stopped: {why}"
        for run in runs
        for number, why in run.failures.items()
    )
    if told:
        yield "## Warnings\n"
        yield from told
        yield ""


def _spread(summary: Summary) -> str:
    if summary.mean is None or summary.std is None:
        return "-"
    return f"{summary.mean * 100:.2f} ± {summary.std * 100:.2f}"


def _number(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
