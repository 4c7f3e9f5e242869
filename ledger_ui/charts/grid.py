"""Lines by lines, a cell where two meet: the frame of the matrix of merges and of the heat map of trust."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from fl_node.records import PPM
from ledger_ui.text import visible

_WIDTH, _HEIGHT, _LETTER, _EDGE = 26, 17, 6.4, 6
_LONGEST: Final = 24
_LONGEST_ABOVE: Final = 12
#: From how many percent on a share has each of five shades.
_SHADES: Final = (0, 3, 8, 20, 45)


@dataclass(frozen=True, slots=True)
class Cell:
    """``share_ppm`` is ``None`` where something was left out. ``words`` are told where one points at it; a stranger's
    text among them went through :func:`ledger_ui.text.visible`. Without any, the table beneath tells."""

    row: int
    column: int
    share_ppm: int | None
    words: str
    own: bool = False


def grid(name: str, title: str, rows: Sequence[str], columns: Sequence[str], cells: Iterable[Cell]) -> Markup:
    """The chart. Labels and words may be strangers' text.

    Args:
        name: an identifier of ours, another for each grid on a page; a letter, since each cell has it.
        cells: row by row.
    """
    told = [(cell, _symbol(name, cell.share_ppm)) for cell in cells]
    beside = [visible(label, _LONGEST) for label in rows]
    above = [visible(label, _LONGEST_ABOVE) for label in columns]
    left = _EDGE + round(_LETTER * max(map(len, beside), default=0)) + 8
    top = _EDGE + round(0.87 * _LETTER * max(map(len, above), default=0)) + 8
    right, bottom = left + _WIDTH * len(columns), top + _HEIGHT * len(rows)
    width, height = right + round(0.5 * _LETTER * len(above[-1] if above else "")) + 8, bottom + 4
    parts = [
        f'<svg class="chart cells" role="img" aria-labelledby="{name}-title" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">',
        f'<title id="{name}-title">{escape(title)}</title>',
        "<defs>",
        *(_defined(name, share) for share in sorted({_rounded(cell.share_ppm) for cell, _ in told})),
        "</defs>",
    ]
    for at, label in enumerate(above):
        place = f"translate({left + _WIDTH * at + 14} {top - 6}) rotate(-60)"
        parts.append(f'<text transform="{place}">{escape(label)}</text>')
    for at, label in enumerate(beside):
        parts.append(f'<text x="{_EDGE}" y="{top + _HEIGHT * at + 12}">{escape(label)}</text>')
        parts.append(f'<path class="grid" d="M{left} {top + _HEIGHT * (at + 1) - 0.5}H{right}"/>')
    at = -1
    for cell, symbol in told:
        if cell.row != at:
            parts.append(("" if at < 0 else "</g>") + f'<g transform="translate({left} {top + _HEIGHT * cell.row})">')
            at = cell.row
        own = ' class="own"' if cell.own else ""
        words = f"><title>{html.escape(cell.words, quote=False)}</title></use>" if cell.words else "/>"
        parts.append(f'<use href="#{symbol}" x="{_WIDTH * cell.column}"{own}{words}')
    parts.append("</svg>" if at < 0 else "</g></svg>")
    return Markup("".join(parts))  # noqa: S704  strangers' text is escaped above


def _rounded(share_ppm: int | None) -> int:
    """A share as its symbol has it: -2 left out, -1 nothing of it, 0 below one percent, 1 to 100."""
    if share_ppm is None:
        return -2
    return -1 if share_ppm <= 0 else min(100, round(share_ppm * 100 / PPM))


def _symbol(name: str, share_ppm: int | None) -> str:
    rounded = _rounded(share_ppm)
    return f"{name}-{('x', 'z')[rounded + 2] if rounded < 0 else rounded}"


def _defined(name: str, rounded: int) -> str:
    ground = f'<rect width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="2"/>'
    if rounded == -2:
        return f'<g id="{name}-x" class="cell out">{ground}<path d="M8 4 16 12M16 4 8 12"/></g>'
    words = "0" if rounded == -1 else "&lt;1" if rounded == 0 else str(rounded)
    shade = "none" if rounded == -1 else f"shade{sum(rounded >= least for least in _SHADES)}"
    symbol = f"{name}-{'z' if rounded == -1 else rounded}"
    return f'<g id="{symbol}" class="cell {shade}">{ground}<text x="12" y="11.5">{words}</text></g>'
