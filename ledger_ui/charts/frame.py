"""What charts share: scales, ticks, and the frame of an SVG. Everything drawn is deterministic and escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from markupsafe import Markup

from ledger_ui.text import visible

LEFT: Final = 46.0
TOP: Final = 26.0
BOTTOM: Final = 36.0
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Scale:
    """From values ``low`` to ``high`` to places ``start`` to ``end``; values beyond are drawn at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high <= self.low:
            return (self.start + self.end) / 2
        part = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return self.start + part * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> tuple[float, ...]:
    """Round values from ``low`` to ``high``, ``most`` of them or a few fewer.

    >>> ticks(0, 100), ticks(3, 7, whole=True), ticks(5, 5)
    ((0.0, 20.0, 40.0, 60.0, 80.0, 100.0), (3.0, 4.0, 5.0, 6.0, 7.0), (5.0,))
    """
    if high <= low:
        return (float(low),)
    step = _step((high - low) / max(1, most - 1), whole)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(number * step, 9) for number in range(first, min(last, first + 2 * most) + 1))


def around(values: Iterable[float], low: float, high: float, least: float = 2.0) -> tuple[float, float]:
    """Round bounds that hold all values, are ``least`` apart, and stay within ``low`` and ``high``.

    >>> around([87.2, 93.4], 0, 100), around([100.0], 0, 100), around([], 0, 100)
    ((86.0, 94.0), (98.0, 100.0), (0.0, 100.0))
    """
    found = [min(high, max(low, value)) for value in values]
    if not found:
        return float(low), float(high)
    bottom, top = min(found), max(found)
    if top - bottom < least:
        middle = (top + bottom) / 2
        bottom, top = middle - least / 2, middle + least / 2
    step = _step((top - bottom) / 5, False)
    bottom, top = math.floor(bottom / step + 1e-9) * step, math.ceil(top / step - 1e-9) * step
    if bottom < low:
        bottom, top = low, max(top, low + least)
    if top > high:
        bottom, top = min(bottom, high - least), high
    return round(max(float(low), bottom), 9), round(min(float(high), top), 9)


def _step(about: float, whole: bool) -> float:
    """The least of 1, 2, 5, 10, 20, ... that is no smaller."""
    if about <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(about))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= about * (1 - 1e-9))
    return max(1.0, step) if whole else step


def at(value: float) -> str:
    """A place, to a tenth of a unit.

    >>> at(12.04), at(7.96), at(-0.01)
    ('12', '8', '0')
    """
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def number(value: float) -> str:
    """A tick's number, without digits that say nothing.

    >>> number(20.0), number(0.25), number(1500000.0)
    ('20', '0.25', '1.5M')
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            scaled = value / (1e3 if name == "k" else unit)
            return f"{scaled:.6g}{name}"
    return f"{value:.6g}"


def said(text: str) -> str:
    """Text inside an SVG: strangers' characters made visible, markup escaped."""
    return escape(visible(text, _LONGEST))


def element(name: str, content: str = "", **attributes: object) -> str:
    """An element. Names of attributes have ``_`` for ``-``; ``css`` is the class; what is ``None`` is left out."""
    told = ""
    for key, value in attributes.items():
        if value is not None and value != "":
            name_of = "class" if key == "css" else key.replace("_", "-")
            told += f' {name_of}="{escape(at(value) if isinstance(value, float) else str(value))}"'
    return f"<{name}{told}>{content}</{name}>" if content else f"<{name}{told}/>"


def titled(name: str, title: str, **attributes: object) -> str:
    """An element that says something when pointed at."""
    return element(name, f"<title>{said(title)}</title>", **attributes)


def svg(
    name: str, title: str, about: str, width: float, height: float, parts: Sequence[str], css: str = "plot"
) -> Markup:
    """The whole chart. ``name``: ours, unlike any other on the page."""
    head = f'<title id="{name}-title">{said(title)}</title><desc id="{name}-about">{said(about)}</desc>'
    return Markup(  # noqa: S704  every text in it went through `said`
        f'<svg class="chart {css}" viewBox="0 0 {at(width)} {at(height)}" role="img" '
        f'aria-labelledby="{name}-title {name}-about">{head}{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class Plot:
    """The area of a chart with two axes; ``right`` is left for labels beside it."""

    width: float
    height: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    right: float = 16.0

    @property
    def x(self) -> Scale:
        return Scale(self.x_low, self.x_high, LEFT + 8, self.width - self.right - 8)

    @property
    def y(self) -> Scale:
        return Scale(self.y_low, self.y_high, self.height - BOTTOM, TOP)

    def axes(
        self, x_label: str, y_label: str, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]]
    ) -> list[str]:
        """Grid, axes, ticks and what they count."""
        left, right, bottom = LEFT, self.width - self.right, self.height - BOTTOM
        parts = []
        for value, words in y_ticks:
            y = self.y(value)
            parts.append(element("path", d=f"M{at(left)} {at(y)}H{at(right)}", css="grid"))
            parts.append(element("text", said(words), x=left - 6, y=y + 4, text_anchor="end"))
        parts.append(element("path", d=f"M{at(left)} {at(bottom)}H{at(right)}", css="axis"))
        for value, words in x_ticks:
            x = self.x(value)
            parts.append(element("path", d=f"M{at(x)} {at(bottom)}v4", css="axis"))
            parts.append(element("text", said(words), x=x, y=bottom + 16, text_anchor="middle"))
        parts.append(element("text", said(y_label), x=0.0, y=12.0, css="label"))
        parts.append(element("text", said(x_label), x=right, y=self.height - 4, text_anchor="end", css="label"))
        return parts


def nothing(name: str, title: str, about: str, width: float, height: float, words: str, css: str = "plot") -> Markup:
    """A chart of nothing, which says so."""
    middle = element("text", said(words), x=width / 2, y=height / 2, text_anchor="middle")
    edge = element("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=6.0, css="empty-plot")
    return svg(name, title, about, width, height, [edge, middle], css)
