"""Activity as a chart: entries by stretch of time and by kind."""

from __future__ import annotations

import datetime as dt
from typing import Final

from markupsafe import Markup

from fl_node.times import duration
from ledger_ui.charts.bars import Bar, bars
from ledger_ui.questions.activity import Activity, Stretch
from ledger_ui.text import utc

#: Kinds from the bottom up, with the class of their colour.
KINDS: Final = (
    ("updates", "updates", "k-updates"),
    ("attestations", "attestations and other", "k-attestations"),
    ("objections", "objections", "k-objections"),
    ("members", "members", "k-members"),
)
_LABELS: Final = 6


def draw(activity: Activity, name: str = "activity") -> Markup:
    """The chart of a whole log."""
    stretches = activity.stretches
    every = max(1, -(-len(stretches) // _LABELS))
    shown = [
        Bar(_label(one.start_s, activity.length_s) if place % every == 0 else "", _title(one), _parts(one))
        for place, one in enumerate(stretches)
    ]
    length = duration(activity.length_s)
    about = f"Bars of {length}, of all entries of the log by kind. The table beneath has all values."
    return bars(
        name,
        "Entries over time",
        about,
        shown,
        x_label=f"block time (UTC), {length} a bar",
        y_label="entries",
        empty="The log is empty.",
    )


def _parts(one: Stretch) -> tuple[tuple[str, float], ...]:
    return tuple((css, float(getattr(one, key))) for key, _, css in KINDS)


def _title(one: Stretch) -> str:
    told = ", ".join(f"{getattr(one, key):,} {words}" for key, words, _ in KINDS if getattr(one, key))
    return f"from {utc(one.start_s)}: {told}"


def _label(time_s: int, length_s: int) -> str:
    try:
        moment = dt.datetime.fromtimestamp(time_s, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    if length_s < 60:
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%H:%M" if length_s < 3600 else "%d %b %H:%M" if length_s < 86_400 else "%Y-%m-%d")
