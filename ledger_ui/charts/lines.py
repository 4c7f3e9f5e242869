"""Line charts: values over rounds, with bands and with marks that stand apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markupsafe import Markup

from ledger_ui.charts.frame import Plot, around, at, element, nothing, number, said, svg, ticks, titled

WIDTH: Final = 680.0
HEIGHT: Final = 280.0
#: More points than that are drawn without a mark and words of their own: the table has them.
MOST_MARKED: Final = 480
_APART: Final = 12.0


@dataclass(frozen=True, slots=True)
class Point:
    """A value, and what it says when pointed at. ``apart``: a second value for the same, drawn as a diamond."""

    x: float
    y: float | None
    title: str
    apart: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points in the order of ``x``.

    Attributes:
        name: at the end of its line.
        css: class that gives the colour.
        style: ``line``; ``dashed``; ``thin`` (dotted); ``marks`` (no line).
    """

    name: str
    css: str
    points: tuple[Point, ...]
    style: Literal["line", "dashed", "thin", "marks"] = "line"


@dataclass(frozen=True, slots=True)
class Band:
    """The area between two lines: ``x``, lower, upper."""

    css: str
    edges: tuple[tuple[float, float, float], ...]


def lines(
    name: str,
    title: str,
    about: str,
    series: Sequence[Series],
    bands: Sequence[Band] = (),
    *,
    x_label: str = "round",
    y_label: str = "score, %",
    limits: tuple[float, float] = (0.0, 100.0),
    empty: str = "Nothing to draw yet.",
) -> Markup:
    """A chart of lines over whole numbers. Values beyond ``limits`` are left out: the caller says how many.

    Args:
        name: ours, unlike any other on the page.
    """
    low, high = limits
    series = [_within(one, low, high) for one in series]
    xs = [point.x for one in series for point in one.points] + [edge[0] for band in bands for edge in band.edges]
    ys = [value for one in series for point in one.points for value in (point.y, point.apart) if value is not None]
    ys += [value for band in bands for edge in band.edges for value in edge[1:]]
    if not xs or not ys:
        return nothing(name, title, about, WIDTH, HEIGHT / 2, empty)
    bottom, top = around(ys, low, high)
    labels = any(one.name for one in series)
    plot = Plot(WIDTH, HEIGHT, min(xs), max(xs), bottom, top, 66.0 if labels else 16.0)
    parts = plot.axes(
        x_label,
        y_label,
        [(value, number(value)) for value in ticks(min(xs), max(xs), 10, whole=True)],
        [(value, number(value)) for value in ticks(bottom, top)],
    )
    parts += [_band(plot, band) for band in bands if band.edges]
    marked = sum(len(one.points) for one in series) <= MOST_MARKED
    parts += [_series(plot, one, marked) for one in series if one.points]
    parts += _names(plot, series)
    return svg(name, title, about, WIDTH, HEIGHT, parts)


def _within(one: Series, low: float, high: float) -> Series:
    """Without values that no score can have."""

    def kept(value: float | None) -> float | None:
        return value if value is not None and low <= value <= high else None

    points = (Point(point.x, kept(point.y), point.title, kept(point.apart)) for point in one.points)
    shown = tuple(point for point in points if point.y is not None or point.apart is not None)
    return Series(one.name, one.css, shown, one.style)


def _series(plot: Plot, one: Series, marked: bool) -> str:
    parts = []
    drawn = [(plot.x(point.x), plot.y(point.y)) for point in one.points if point.y is not None]
    if one.style != "marks" and len(drawn) > 1:
        parts.append(element("path", d=path(drawn), css=f"series {one.style}".replace(" line", "")))
    if one.style != "thin":
        parts += [_mark(plot, point, marked, one.style) for point in one.points]
    return element("g", "".join(parts) or " ", css=one.css)


def _mark(plot: Plot, point: Point, marked: bool, style: str) -> str:
    x = plot.x(point.x)
    shapes = ""
    if point.y is not None and style == "marks":
        shapes += diamond(x, plot.y(point.y))
    elif point.y is not None and marked:
        shapes += element("circle", cx=x, cy=plot.y(point.y), r=2.4)
    if point.apart is not None:
        shapes += diamond(x, plot.y(point.apart))
    if not marked or not shapes:
        return shapes
    return element("g", f"<title>{said(point.title)}</title>{shapes}")


def diamond(x: float, y: float, size: float = 3.6) -> str:
    """The mark of what is attested: hollow, so that it differs from a claim's without colour."""
    s = at(size)
    return element("path", d=f"M{at(x)} {at(y - size)}l{s} {s}-{s} {s}-{s}-{s}z", css="hollow")


def path(places: Iterable[tuple[float, float]]) -> str:
    """A line through places, as an SVG path."""
    return "M" + "L".join(f"{at(x)} {at(y)}" for x, y in places)


def _band(plot: Plot, band: Band) -> str:
    upper = [(plot.x(x), plot.y(high)) for x, _, high in band.edges]
    lower = [(plot.x(x), plot.y(low)) for x, low, _ in band.edges]
    if len(upper) == 1:
        (x, y), (_, down) = upper[0], lower[0]
        return titled(
            "path", "half of the peers lie in here", d=f"M{at(x)} {at(y)}V{at(down)}", css=f"{band.css} whisker"
        )
    return element("path", d=path([*upper, *reversed(lower)]) + "z", css=f"{band.css} band")


def _names(plot: Plot, series: Sequence[Series]) -> list[str]:
    """Each line's name beside its end, pushed apart where ends lie close together."""
    ends = []
    for one in series:
        last = next((point for point in reversed(one.points) if point.y is not None), None)
        if one.name and last is not None and last.y is not None:
            ends.append((plot.y(last.y), one))
    ends.sort(key=lambda end: (end[0], end[1].name))
    places = spread([y for y, _ in ends], plot.y.end, plot.y.start)
    return [
        element("text", said(one.name), x=plot.width - plot.right + 4, y=y + 4, css=f"{one.css} name")
        for y, (_, one) in zip(places, ends, strict=True)
    ]


def spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Ascending places near the wanted ones that do not overlap, as long as there is room.

    >>> spread([10, 11, 50], 0, 100)
    [10, 22.0, 50]
    """
    places: list[float] = []
    for y in wanted:
        places.append(max(y, places[-1] + _APART) if places else max(y, top))
    limit = bottom
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - _APART
    return places
