"""Bar charts: counts over time by kind, counts of whole numbers, and a bar in a table's cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ledger_ui.charts.frame import BOTTOM, LEFT, Plot, at, element, nothing, number, said, svg, ticks

WIDTH: Final = 680.0
HEIGHT: Final = 220.0
_WIDEST: Final = 46.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: under it; empty for none.
        title: what it says when pointed at.
        parts: from the bottom up, colour class and value.
    """

    label: str
    title: str
    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        return sum(value for _, value in self.parts)


def bars(
    name: str,
    title: str,
    about: str,
    drawn: Sequence[Bar],
    *,
    x_label: str,
    y_label: str,
    empty: str = "Nothing to draw yet.",
) -> Markup:
    """Bars side by side, their parts on top of each other."""
    most = max((bar.total for bar in drawn), default=0.0)
    if most <= 0:
        return nothing(name, title, about, WIDTH, HEIGHT / 2, empty)
    y_ticks = ticks(0.0, most, 5, whole=True)
    top = max(most, y_ticks[-1])
    plot = Plot(WIDTH, HEIGHT, 0.0, 1.0, 0.0, top)
    room = (WIDTH - LEFT - plot.right) / len(drawn)
    wide = min(_WIDEST, max(1.0, room - (2 if room > 6 else 0.5)))
    parts = plot.axes(x_label, y_label, (), [(value, number(value)) for value in y_ticks])
    for place, bar in enumerate(drawn):
        x = LEFT + room * (place + 0.5)
        if bar.label:
            parts.append(
                element("text", said(bar.label), x=x, y=HEIGHT - BOTTOM + 16, text_anchor=_anchor(place, drawn))
            )
        if bar.total > 0:
            parts.append(f"<g><title>{said(bar.title)}</title>{_stack(plot, bar, x - wide / 2, wide)}</g>")
    return svg(name, title, about, WIDTH, HEIGHT, parts)


def _stack(plot: Plot, bar: Bar, x: float, wide: float) -> str:
    below, shapes = 0.0, ""
    for css, value in bar.parts:
        if value > 0:
            high, low = plot.y(below + value), plot.y(below)
            # What is there at all can be seen.
            height = max(1.0, low - high)
            shapes += element("rect", x=x, y=low - height, width=wide, height=height, css=f"{css} fill")
            below += value
    return shapes


def _anchor(place: int, drawn: Sequence[Bar]) -> str:
    """Long labels at the edges stay inside."""
    if len(drawn) < 6 or len(drawn[place].label) < 4:
        return "middle"
    return "start" if place == 0 else "end" if place == len(drawn) - 1 else "middle"


def cell(part: float, css: str) -> Markup:
    """A bar in a table's cell, beside the number that it shows."""
    wide = at(100 * min(1.0, max(0.0, part)))
    return Markup(  # noqa: S704  numbers and classes of ours
        f'<svg class="bar-cell {css}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="8"/><rect class="fill" width="{wide}" height="8"/></svg>'
    )
