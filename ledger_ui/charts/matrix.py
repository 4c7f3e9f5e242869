"""The matrix of merges as SVG: who merged what, with which share."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from ledger_ui.charts.grid import Cell, grid
from ledger_ui.questions.merges import Matrix, MatrixLine
from ledger_ui.text import percent


def draw(matrix: Matrix) -> Markup:
    """The matrix of a page; it keeps its size, so it belongs into something that scrolls."""
    title = f"{len(matrix.rows)} merges by {len(matrix.columns)} updates; the table beneath says the same"
    rows = [f"{line.update} {line.site_name or ''}" for line in matrix.rows]
    return grid("m", title, rows, [line.update for line in matrix.columns], _cells(matrix))


def _cells(matrix: Matrix) -> Iterator[Cell]:
    for cell in matrix.cells:
        child, parent = matrix.rows[cell.row], matrix.columns[cell.column]
        words = _words(child, parent, cell.share_ppm, cell.left_out)
        yield Cell(cell.row, cell.column, cell.share_ppm, words, own=child.peer == parent.peer)


def _words(child: MatrixLine, parent: MatrixLine, share_ppm: int | None, left_out: str | None) -> str:
    if share_ppm:
        nominal = ", a nominal share" if child.nominal else ""
        return f"{child.update} merged {parent.update}: {percent(share_ppm)}{nominal}"
    if share_ppm == 0:
        return f"{child.update} considered {parent.update}: share 0" + (f", {left_out}" if left_out else "")
    return ""  # there may be two thousand of them, with their reasons beneath
