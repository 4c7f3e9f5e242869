"""A simulation's pictures, as PNG files. matplotlib is imported here and nowhere else, for it takes a while."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fl_node.simulation.rows import Result, Row, Run, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Heat maps of more peers than this have no numbers in them, and curves no legend.
_LABELLED = 12
_SIZE = (7.0, 4.2)


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(result: Result, folder: Path) -> dict[str, str]:
    """Write all pictures that the result has numbers for; file name by caption, in the order of a report.

    What is drawn is Dice of masks, else the accuracy: of merged models on the common test set where every round was
    scored there, else of updates on their publishers' own test rows.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    counts = list(dict.fromkeys(run.peers for run in result.runs))
    first = result.of(counts[0]) if counts else ()
    names = f"{first[0].peers} peers, seed {first[0].seed}" if first else ""
    measure = result.measure
    title = measure[0].upper() + measure[1:]
    rows = "" if scored_every_round(result.runs) else ", of updates on own test rows"
    seeds = f"; mean over {len(first)} seeds" if len(first) > 1 else ""
    wanted: list[tuple[str, str, bool, Callable[[Axes], None]]] = [
        (
            "accuracy",
            f"{title} by round{rows}: mean and standard deviation over peers and seeds",
            True,
            _rounds_of(result),
        ),
        ("peers", f"{title} of each peer by round{rows}, with {names}", bool(first), _peers_of(first, measure)),
        (
            "trust",
            f"Shares that each peer gave in its last trained update{seeds}",
            bool(first),
            _trust_of(first),
        ),
        ("confusion", "Confusion of the final models on the common test set", bool(first), _confusion_of(first)),
        ("bytes", f"{title} against megabytes that a peer has fetched{rows}", True, _bytes_of(result)),
        ("size", f"Final {measure} against the number of peers", len(counts) > 1, _size_of(result, counts)),
    ]
    made = {}
    for name, caption, there, picture in wanted:
        if there:
            _save(folder / f"{name}.png", picture)
            made[caption] = f"{name}.png"
    return made


def quality_of(row: Row, every: bool) -> float | None:
    """What is drawn of a row: see :func:`draw`."""
    if every:
        return row.common.quality if row.common else None
    return None if row.final else row.own.quality


def scored_every_round(runs: Sequence[Run]) -> bool:
    """Whether all merged models were scored on the common test set."""
    return all(row.common is not None for run in runs for row in run.rows)


def by_round(runs: Sequence[Run]) -> dict[int, list[float]]:
    """What honest peers reached, by the number of rounds that are behind the model."""
    every = scored_every_round(runs)
    found: dict[int, list[float]] = {}
    for run in runs:
        for row in run.rows:
            value = quality_of(row, every)
            if row.honest and value is not None:
                found.setdefault(row.round - every, []).append(value)
    return dict(sorted(found.items()))


def _save(path: Path, picture: Callable[[Axes], None]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    picture(figure.add_subplot())
    figure.savefig(path, dpi=110)


def _rounds_of(result: Result) -> Callable[[Axes], None]:
    def picture(axes: Axes) -> None:
        for peers in dict.fromkeys(run.peers for run in result.runs):
            values = by_round(result.of(peers))
            middle = [statistics.fmean(some) for some in values.values()]
            spread = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in values.values()]
            axes.plot(list(values), middle, marker="o", markersize=3, label=f"{peers} peers")
            low = [m - s for m, s in zip(middle, spread, strict=True)]
            high = [m + s for m, s in zip(middle, spread, strict=True)]
            axes.fill_between(list(values), low, high, alpha=0.2)
        axes.set(xlabel="rounds", ylabel=result.measure)
        axes.locator_params(axis="x", integer=True)
        axes.legend()

    return picture


def _peers_of(runs: Sequence[Run], measure: str) -> Callable[[Axes], None]:
    def picture(axes: Axes) -> None:
        run = runs[0]
        every = scored_every_round([run])
        curves: dict[int, list[tuple[int, float]]] = {}
        hostile = {row.peer for row in run.rows if not row.honest}
        for row in run.rows:
            value = quality_of(row, every)
            if value is not None:
                curves.setdefault(row.peer, []).append((row.round - every, value))
        for peer, points in sorted(curves.items()):
            rounds, values = zip(*points, strict=True)
            style = "--" if peer in hostile else "-"
            label = f"peer {peer}" + (" (hostile)" if peer in hostile else "")
            axes.plot(rounds, values, style, linewidth=1, label=label if len(curves) <= _LABELLED else None)
        axes.set(xlabel="rounds", ylabel=measure)
        axes.locator_params(axis="x", integer=True)
        if 0 < len(curves) <= _LABELLED:
            axes.legend(fontsize="small")

    return picture


def _trust_of(runs: Sequence[Run]) -> Callable[[Axes], None]:
    def picture(axes: Axes) -> None:
        matrices = [run.trust() for run in runs]
        peers = runs[0].peers
        shares = [
            [statistics.fmean(matrix[r][c] for matrix in matrices) / 1_000_000 for c in range(peers)]
            for r in range(peers)
        ]
        _heat(axes, shares, [str(number) for number in range(1, peers + 1)])
        axes.set(xlabel="share given to peer", ylabel="by peer")

    return picture


def _confusion_of(runs: Sequence[Run]) -> Callable[[Axes], None]:
    def picture(axes: Axes) -> None:
        found = [one.confusion for run in runs for one in run.common if one is not None]
        classes = len(found[0]) if found else 0
        total = [[sum(one[r][c] for one in found) for c in range(classes)] for r in range(classes)]
        rows = [[cell / max(1, sum(row)) for cell in row] for row in total]
        _heat(axes, rows or [[0.0]], [str(number) for number in range(classes)])
        axes.set(xlabel="predicted class", ylabel="class")

    return picture


def _heat(axes: Axes, values: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    shown = axes.imshow(values, cmap="viridis", vmin=0.0)
    if len(names) <= _LABELLED:
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        most = max(max(row) for row in values)
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                colour = "black" if value > 0.6 * most else "white"
                axes.text(c, r, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(shown, ax=axes)


def _bytes_of(result: Result) -> Callable[[Axes], None]:
    def picture(axes: Axes) -> None:
        for peers in dict.fromkeys(run.peers for run in result.runs):
            runs = result.of(peers)
            spent = fetched_by_round(runs)
            values = by_round(runs)
            points = [(spent[at] / 1e6, statistics.fmean(some)) for at, some in values.items() if at in spent]
            if points:
                xs, ys = zip(*points, strict=True)
                axes.plot(xs, ys, marker="o", markersize=3, label=f"{peers} peers")
        axes.set(xlabel="megabytes fetched by a peer", ylabel=result.measure)
        axes.legend()

    return picture


def fetched_by_round(runs: Sequence[Run]) -> Mapping[int, float]:
    """Mean bytes that an honest peer had fetched for its model, by the number of rounds behind that."""
    every = scored_every_round(runs)
    so_far: dict[tuple[int, int], int] = {}
    found: dict[int, list[float]] = {}
    for number, run in enumerate(runs):
        for row in run.rows:
            key = (number, row.peer)
            so_far[key] = so_far.get(key, 0) + row.fetched_bytes
            if row.honest:
                found.setdefault(row.round - every, []).append(so_far[key])
    return {at: statistics.fmean(some) for at, some in found.items()}


def _size_of(result: Result, counts: Sequence[int]) -> Callable[[Axes], None]:
    def picture(axes: Axes) -> None:
        summaries = [result.summary("quality", "common", peers) for peers in counts]
        there = [(n, s.mean, s.std or 0.0) for n, s in zip(counts, summaries, strict=True) if s.mean is not None]
        xs, ys, spread = zip(*there, strict=True) if there else ((), (), ())
        axes.errorbar(xs, ys, yerr=spread, marker="o", capsize=3, label="federated")
        for label, values in (
            ("pooled", [mean(r.pooled.quality for r in result.of(n) if r.pooled) for n in counts]),
            ("alone", [mean(one.quality for r in result.of(n) for one in r.alone if one) for n in counts]),
        ):
            points = [(n, value) for n, value in zip(counts, values, strict=True) if value is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", linestyle="--", label=label)
        axes.set(xlabel="peers", ylabel=result.measure)
        axes.locator_params(axis="x", integer=True)
        axes.legend()

    return picture
