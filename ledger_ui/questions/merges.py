"""Who merged what, as a matrix of merges by updates, and who was left out and why."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from fl_node.lineage.kin import NOMINAL_RULES
from fl_node.records import Rule
from ledger_ui.contexts import Context, Ref
from ledger_ui.index.replayed import MOST_LEAVERS

#: Merges, and updates, of one matrix.
MOST_LINES: Final = 50
#: Rules whose shares say how much of each parent is in the base; of one that is not known here nobody can say so.
_TELLING: Final = frozenset(int(rule) for rule in frozenset(Rule) - NOMINAL_RULES)


class MatrixLine(Context):
    """An update as a line of the matrix."""

    update: Ref
    entry: int
    peer: int
    round: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    nominal: bool = Field(description="made by a rule whose shares do not say how much of each parent is in the base")


class MatrixCell(Context):
    """What one merge did with one update; where there is no cell, it did not consider it."""

    row: int = Field(description="place in rows, from 0")
    column: int = Field(description="place in columns, from 0")
    share_ppm: int | None = Field(description="0: considered, not merged; none: it is not among the parents")
    left_out: str | None = Field(description="outcome, where the update was left out")


class Matrix(Context):
    """Merges by updates.

    A row is an update that was made from a merge; a column is an update that was merged or left out.
    """

    rows: list[MatrixLine]
    columns: list[MatrixLine]
    cells: list[MatrixCell]
    page: int = Field(description="page of rows, from 1")
    pages: int
    all_rows: int
    all_columns: int = Field(description="more than are shown: those that most merges looked at are")

    def table(self) -> list[tuple[MatrixLine, list[str]]]:
        """Each row with words for its cells."""
        found = [[""] * len(self.columns) for _ in self.rows]
        for cell in self.cells:
            found[cell.row][cell.column] = _in_short(cell)
        return list(zip(self.rows, found, strict=True))


class LeftOutUpdate(Context):
    """An update, and the merges that left it out."""

    update: Ref
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    by: list[Ref] = Field(description="the updates made from those merges; none: nobody so much as looked at it")
    more: bool = Field(description="there are more: about a hundred merges are kept for each update")


class LeftOutReason(Context):
    """Updates that were left out for one and the same reason."""

    outcome: str = Field(description="as in a report, or not-recorded, or late")
    reason: str
    merges: int = Field(description="how often, over all of these updates")
    updates: list[LeftOutUpdate]


def _in_short(cell: MatrixCell) -> str:
    if cell.share_ppm:
        return f"{cell.share_ppm / 10_000:.2f}"
    return "out" if cell.left_out else "0"


def is_nominal(rule: int) -> bool:
    """Whether shares recorded with this rule do not say how much of each parent is in the base."""
    return rule not in _TELLING


def matrix(db: sqlite3.Connection, indices: Sequence[int], kind: Literal["became", "made"], page: int = 1) -> Matrix:
    """The merges of some updates.

    Args:
        indices: entries of the updates, at most :data:`MOST_LINES`.
        kind: ``became``: who merged them; ``made``: what they were made from.
        page: of merges.
    """
    if kind == "made":
        rows, columns = list(indices), _considered(db, indices)
    else:
        rows, columns = _mergers(db, indices), list(indices)
    pages = max(1, -(-len(rows) // MOST_LINES))
    page = min(page, pages)
    shown = rows[(page - 1) * MOST_LINES : page * MOST_LINES]
    return Matrix(
        rows=_lines(db, shown),
        columns=_lines(db, columns[:MOST_LINES] if kind == "became" else sorted(columns[:MOST_LINES])),
        cells=_cells(db, shown, columns[:MOST_LINES] if kind == "became" else sorted(columns[:MOST_LINES])),
        page=page,
        pages=pages,
        all_rows=len(rows),
        all_columns=len(columns),
    )


def left_out(db: sqlite3.Connection, indices: Sequence[int]) -> list[LeftOutReason]:
    """Why some updates were left out, and by whom; the most frequent reason first."""
    names = {line.entry: line for line in _lines(db, indices)}
    found: dict[tuple[str, str], dict[int, list[str]]] = {}
    query = (
        "SELECT l.update_idx, l.outcome, l.reason, u.peer, u.sequence FROM left_out l "  # noqa: S608
        f"LEFT JOIN updates u ON u.idx = l.by_idx WHERE l.update_idx IN ({_marks(indices)}) "
        "ORDER BY l.update_idx, l.by_idx"
    )
    many: Counter[int] = Counter()
    for idx, outcome, reason, peer, sequence in db.execute(query, list(indices)):
        by = found.setdefault((outcome, reason), {}).setdefault(idx, [])
        many[idx] += 1
        if peer is not None:
            by.append(f"{peer}#{sequence}")
    reasons = [
        LeftOutReason(
            outcome=outcome,
            reason=reason,
            merges=sum(map(len, updates.values())),
            updates=[
                LeftOutUpdate(
                    update=names[idx].update,
                    site=names[idx].site,
                    site_name=names[idx].site_name,
                    by=by,
                    more=bool(by) and many[idx] >= MOST_LEAVERS,
                )
                for idx, by in updates.items()
                if idx in names
            ],
        )
        for (outcome, reason), updates in found.items()
    ]
    return sorted(reasons, key=lambda one: (-one.merges, one.outcome, one.reason))


def _mergers(db: sqlite3.Connection, indices: Sequence[int]) -> list[int]:
    """Updates that merged, considered or left out some of these, by entry."""
    marks = _marks(indices)
    query = (
        f"SELECT child FROM parents WHERE parent IN ({marks}) "  # noqa: S608
        f"UNION SELECT by_idx FROM left_out WHERE update_idx IN ({marks}) AND by_idx >= 0 ORDER BY 1"
    )
    return [row[0] for row in db.execute(query, [*indices, *indices])]


def _considered(db: sqlite3.Connection, indices: Sequence[int]) -> list[int]:
    """Updates that these merged, considered or left out; those that most of them looked at first."""
    many: Counter[int] = Counter()
    marks = _marks(indices)
    merged = f"SELECT parent, count(*) FROM parents WHERE child IN ({marks}) AND parent IS NOT NULL GROUP BY parent"  # noqa: S608
    left = f"SELECT update_idx, count(*) FROM left_out WHERE by_idx IN ({marks}) GROUP BY update_idx"  # noqa: S608
    for query in (merged, left):
        for idx, times in db.execute(query, list(indices)):
            many[idx] += times
    return sorted(many, key=lambda idx: (-many[idx], idx))


def _lines(db: sqlite3.Connection, indices: Sequence[int]) -> list[MatrixLine]:
    query = (
        "SELECT u.idx, u.peer, u.sequence, u.round, u.rule, u.site, s.name FROM updates u "  # noqa: S608
        f"LEFT JOIN sites s ON s.site = u.site WHERE u.idx IN ({_marks(indices)})"
    )
    found = {
        row[0]: MatrixLine(
            update=f"{row[1]}#{row[2]}",
            entry=row[0],
            peer=row[1],
            round=row[3],
            site=row[5],
            site_name=row[6],
            nominal=is_nominal(row[4]),
        )
        for row in db.execute(query, list(indices))
    }
    return [found[idx] for idx in indices if idx in found]


def _cells(db: sqlite3.Connection, rows: Sequence[int], columns: Sequence[int]) -> list[MatrixCell]:
    at_row, at_column = {idx: at for at, idx in enumerate(rows)}, {idx: at for at, idx in enumerate(columns)}
    found: dict[tuple[int, int], tuple[int | None, str | None]] = {}
    left = (
        f"SELECT by_idx, update_idx, outcome FROM left_out WHERE update_idx IN ({_marks(columns)}) "  # noqa: S608
        f"AND by_idx IN ({_marks(rows)})"
    )
    for child, parent, outcome in db.execute(left, [*columns, *rows]):
        found[at_row[child], at_column[parent]] = (None, outcome)
    shares = f"SELECT child, parent, share_ppm FROM parents WHERE child IN ({_marks(rows)})"  # noqa: S608
    for child, parent, share in db.execute(shares, list(rows)):
        if parent in at_column:
            place = at_row[child], at_column[parent]
            found[place] = (share, found.get(place, (None, None))[1])
    return [
        MatrixCell(row=row, column=column, share_ppm=share, left_out=outcome)
        for (row, column), (share, outcome) in sorted(found.items())
    ]


def _marks(values: Sequence[int]) -> str:
    return ",".join("?" * len(values))
