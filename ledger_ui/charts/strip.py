"""The completeness strip as SVG: a cell for each site and round, told apart by sign as well as by colour."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup, escape

from ledger_ui.questions.strip import Strip
from ledger_ui.text import visible

_CELL, _ROW, _TOP, _LETTER, _EDGE = 13, 16, 20, 6.4, 6
_LONGEST: Final = 24

#: The sign of each state, on a square of twelve by twelve; the same signs as on badges.
_SIGNS: Final = {
    "merged": "M3 6.5 5.2 8.8 9.2 3.6",
    "submitted": "M6 9.3V2.9M3.4 5.4 6 2.8 8.6 5.4",
    "left-out": "M3.2 3.2 8.8 8.8M8.8 3.2 3.2 8.8",
    "closing": "M4 4H8V8H4Z",
    "ignored": "M3.4 8.6 8.6 3.4M6 2.6A3.4 3.4 0 1 1 6 9.4 3.4 3.4 0 1 1 6 2.6",
    "missing": "M6 2.4V6.8M6 8.9V9.6",
    "awaited": "M2.8 6H3.4M5.7 6H6.3M8.6 6H9.2",
    "retired": "M3.2 6H8.8",
    "not-expected": "M5.7 6H6.3",
}


def draw(strip: Strip) -> Markup:
    """The strip of a page; it keeps its size, so it belongs into something that scrolls."""
    names = [visible(site.name or f"site {site.site}", _LONGEST) for site in strip.sites]
    left = _EDGE + round(_LETTER * max(map(len, names), default=0)) + 8
    width = left + _CELL * len(strip.rounds) + _EDGE
    height = _TOP + _ROW * len(strip.sites) + 2
    parts = [
        f'<svg class="chart cells" role="img" aria-labelledby="strip-title" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">',
        f'<title id="strip-title">{escape(_words(strip))}</title>',
        "<defs>",
        *(_sign(state) for state in _SIGNS),
        "</defs>",
        *_axis(strip, left),
    ]
    for at, (site, plain) in enumerate(zip(strip.sites, names, strict=True)):
        name = escape(plain)
        parts.append(f'<g transform="translate(0 {_TOP + _ROW * at})"><text x="{_EDGE}" y="11">{name}</text>')
        parts += [
            f'<use href="#s-{state}" x="{left + _CELL * column}"><title>round {number}: {state}</title></use>'
            for column, (number, state) in enumerate(zip(strip.rounds, site.states, strict=True))
        ]
        parts.append("</g>")
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704  names are escaped above, states are ours


def _words(strip: Strip) -> str:
    if not strip.rounds:
        return "Completeness: no rounds"
    span = f"rounds {strip.rounds[0]} to {strip.rounds[-1]}"
    return f"Completeness: {len(strip.sites)} of {strip.total_sites} sites by {span}; the table beneath says the same"


def _sign(state: str) -> str:
    return (
        f'<g id="s-{state}" class="cell {state}"><rect width="12" height="13" rx="2"/><path d="{_SIGNS[state]}"/></g>'
    )


def _axis(strip: Strip, left: int) -> list[str]:
    """Every fifth round, and the first, so that numbers do not touch one another."""
    found = []
    digits = len(str(strip.rounds[-1])) if strip.rounds else 1
    step = 5 if digits < 5 else 10
    for column, number in enumerate(strip.rounds):
        if column == 0 or (number % step == 0 and column * _CELL > digits * _LETTER + 4):
            found.append(f'<text x="{left + _CELL * column}" y="12">{number}</text>')
    return found
