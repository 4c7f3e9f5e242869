"""Trust as a heat map: a row gives, a column receives."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from ledger_ui.charts.grid import Cell, grid
from ledger_ui.questions.trust import Trust, TrustColumn, TrustLine
from ledger_ui.text import percent, visible


def draw(trust: Trust) -> Markup:
    """The map of a page; it keeps its size, so it belongs into something that scrolls."""
    what = "sites" if trust.by == "site" else "peers"
    title = (
        f"Mean shares that {len(trust.rows)} {what} gave {len(trust.columns)} {what} in rounds {trust.first} to "
        f"{trust.last}; the table beneath says the same"
    )
    rows = [_label(line, trust.by) + (" ≈" if line.nominal else "") for line in trust.rows]
    return grid("t", title, rows, [_above(column, trust.by) for column in trust.columns], _cells(trust))


def _cells(trust: Trust) -> Iterator[Cell]:
    for cell in trust.cells:
        giver, taker = trust.rows[cell.row], trust.columns[cell.column]
        mean = percent(cell.mean_ppm) if cell.merged else "considered, never merged"
        words = f"{_short(giver, trust.by)} → {_short(taker, trust.by)}: {mean}, {cell.merged} of {giver.merges}"
        words += ", nominal" if giver.nominal else ""
        yield Cell(cell.row, cell.column, cell.mean_ppm, words, own=giver.number == taker.number)


def _label(one: TrustLine | TrustColumn, by: str) -> str:
    name = one.site_name or ""
    return name or f"site {one.number}" if by == "site" else f"{one.number} {name}".strip()


def _short(one: TrustLine | TrustColumn, by: str) -> str:
    """In the words of two and a half thousand cells."""
    return visible(one.site_name or f"site {one.number}", 10) if by == "site" else str(one.number)


def _above(one: TrustColumn, by: str) -> str:
    return (one.site_name or f"site {one.number}") if by == "site" else f"peer {one.number}"
