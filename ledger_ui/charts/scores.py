"""Scores by round as a chart: a line for each peer, or of many peers how their claims are spread."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from fl_node.records import PPM
from ledger_ui.charts.lines import Band, Point, Series, lines
from ledger_ui.questions.scores import ScoreLine, ScorePoint, Scores, ScoreSpread
from ledger_ui.text import percent

SITE_COLOURS: Final = 12


def site_css(site: int | None) -> str:
    """The class that has a site's colour."""
    return "no-site" if site is None else f"c{(site - 1) % SITE_COLOURS}"


def of_percent(ppm: int | None) -> float | None:
    return None if ppm is None else ppm * 100 / PPM


def draw(scores: Scores, name: str = "scores") -> Markup:
    """The chart of a range of rounds."""
    if scores.spread:
        return _spread(scores, name)
    return by_peer(scores.lines, name, _about(scores))


def by_peer(of: list[ScoreLine], name: str, about: str) -> Markup:
    """A line for each peer, dashed where an earlier one of the same site has that colour already."""
    seen: dict[int | None, int] = {}
    series = []
    for line in of:
        earlier = seen.get(line.site, 0)
        seen[line.site] = earlier + 1
        points = tuple(_point(line.peer, point) for point in line.points)
        series.append(Series(f"peer {line.peer}", site_css(line.site), points, "dashed" if earlier else "line"))
    return lines(name, "Claimed and attested scores by round", about, series)


def _point(peer: int, point: ScorePoint) -> Point:
    words = f"peer {peer}, round {point.round}: claims {percent(point.claimed_ppm)}"
    if point.attested_ppm is not None:
        sites = "site" if point.attested_sites == 1 else "sites"
        words += f"; attested {percent(point.attested_ppm)} by {point.attested_sites} {sites}"
    if point.final:
        words += "; closing update"
    return Point(point.round, of_percent(point.claimed_ppm), words, of_percent(point.attested_ppm))


def _about(scores: Scores) -> str:
    if not scores.rounds:
        return "There are no updates in this range."
    return (
        f"Rounds {scores.rounds[0]} to {scores.rounds[-1]}. Dots on lines are what {len(scores.lines)} peers claim of "
        "their own updates; diamonds are medians of what other sites attest. The table beneath has all values."
    )


def _spread(scores: Scores, name: str) -> Markup:
    rows = scores.spread

    def series(key: str, words: str, css: str, style: str, label: str) -> Series:
        points = [
            Point(row.round, of_percent(getattr(row, key)), f"round {row.round}: {words} {percent(getattr(row, key))}")
            for row in rows
        ]
        return Series(label, css, tuple(points), style)  # type: ignore[arg-type]

    def edge(row: ScoreSpread) -> tuple[float, float, float]:
        most = PPM
        lower, upper = min(most, row.lower_quarter_ppm), min(most, row.upper_quarter_ppm)
        return row.round, lower * 100 / PPM, upper * 100 / PPM

    last = rows[-1]
    about = (
        f"Rounds {rows[0].round} to {last.round}. The line is the median of what peers claim, half of them lie in the "
        "band, dotted lines are the highest and the lowest claim; diamonds are medians of what others attest. The "
        "table beneath has all values."
    )
    return lines(
        name,
        "How claimed scores are spread, by round",
        about,
        [
            series("highest_ppm", "highest claim", "all", "thin", "highest"),
            series("lowest_ppm", "lowest claim", "all", "thin", "lowest"),
            series("median_ppm", "median claim", "all", "line", "median"),
            series("attested_median_ppm", "median attested", "word", "marks", ""),
        ],
        [Band("all", tuple(edge(row) for row in rows))],
    )
