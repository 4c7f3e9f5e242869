"""Privacy that a peer says it has spent, by round, against the budget."""

from __future__ import annotations

from markupsafe import Markup

from ledger_ui.charts.lines import Point, Series, lines
from ledger_ui.questions.spent import Spent


def draw(spent: Spent, name: str = "spent") -> Markup:
    """The chart of one peer. Epsilon far beyond the budget is left to the table."""
    budget = spent.budget
    most = max((point.epsilon for point in spent.points), default=0.0)
    top = most * 1.1 if budget is None else min(most * 1.1, budget * 4)
    top = max(top, (budget or 0.0) * 1.1, 1e-6)
    told = tuple(
        Point(point.round, point.epsilon, f"{point.update}, round {point.round}: epsilon {point.epsilon:.4g}")
        for point in spent.points
    )
    series = [Series("spent", "all", told)]
    if budget is not None and told:
        ends = sorted({told[0].x, told[-1].x})
        series.append(Series("budget", "word", tuple(Point(x, budget, f"budget {budget:g}") for x in ends), "thin"))
    return lines(
        name,
        "Privacy spent by round",
        "Dots on the line are the epsilon that the peer's reports say was spent, each update included; the dotted line "
        "is the budget of the spec. The table beneath has all values.",
        series,
        y_label="epsilon",
        limits=(0.0, top),
        empty="No report tells of privacy spent.",
    )
