"""Scatter charts of two words for the same thing, with the line on which they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ledger_ui.charts.frame import Plot, around, at, element, nothing, number, said, svg, ticks, titled

WIDTH: Final = 440.0
HEIGHT: Final = 360.0
_CSS: Final = "plot square"


@dataclass(frozen=True, slots=True)
class Dot:
    """One pair, and what it says when pointed at. ``css``: class that gives the colour."""

    x: float
    y: float
    title: str
    css: str


def scatter(
    name: str,
    title: str,
    about: str,
    dots: Sequence[Dot],
    *,
    x_label: str,
    y_label: str,
    equal: str,
    offset: float | None = None,
    offset_name: str = "",
    empty: str = "Nothing to draw yet.",
) -> Markup:
    """Pairs of scores in percent on two axes of one length. Pairs beyond 0 and 100 are left out.

    Args:
        equal: name of the line on which both are the same.
        offset: how far above that line another one is drawn.
    """
    shown = [dot for dot in dots if 0 <= dot.x <= 100 and 0 <= dot.y <= 100]
    if not shown:
        return nothing(name, title, about, WIDTH, HEIGHT / 3, empty, _CSS)
    low, high = around([value for dot in shown for value in (dot.x, dot.y)], 0.0, 100.0, least=5.0)
    plot = Plot(WIDTH, HEIGHT, low, high, low, high)
    marks = [(value, number(value)) for value in ticks(low, high)]
    parts = plot.axes(x_label, y_label, marks, marks)
    parts.append(f"<g><title>{said(equal)}</title>{_slanted(plot, 0.0, 'equal')}</g>")
    if offset is not None and abs(offset) < high - low:
        parts.append(f"<g><title>{said(offset_name)}</title>{_slanted(plot, offset, 'offset')}</g>")
    parts += [
        titled("circle", dot.title, cx=plot.x(dot.x), cy=plot.y(dot.y), r=3.2, css=f"{dot.css} dotted") for dot in shown
    ]
    return svg(name, title, about, WIDTH, HEIGHT, parts, _CSS)


def _slanted(plot: Plot, above: float, css: str) -> str:
    """The line y = x + above, within the plot."""
    start, end = max(plot.x_low, plot.x_low - above), min(plot.x_high, plot.x_high - above)
    places = [(plot.x(x), plot.y(x + above)) for x in (start, end)]
    return element("path", d="M" + "L".join(f"{at(x)} {at(y)}" for x, y in places), css=css)
