"""What templates may draw: ``{{ charts.strip(strip) }}``."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from markupsafe import Markup

from ledger_ui.charts import activity, bars, conduct, heat, matrix, scores, spent, strip

#: By name; a chart's module is imported here.
CHARTS: dict[str, Callable[..., Markup]] = {
    "activity": activity.draw,
    "calibration": conduct.calibration,
    "cell": bars.cell,
    "heat": heat.draw,
    "matrix": matrix.draw,
    "own_scores": conduct.own_scores,
    "scores": scores.draw,
    "spent": spent.draw,
    "strip": strip.draw,
}


def for_templates() -> SimpleNamespace:
    """The charts as attributes of one name."""
    return SimpleNamespace(**CHARTS)
