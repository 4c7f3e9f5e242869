"""Completeness: in each round, who was expected, submitted, was merged by whom, was left out and why, is missing.

Pure functions of spec and log. :func:`completeness` derives all of it.
"""

from fl_node.completeness.derived import completeness, round_now, why_ignored, why_late
from fl_node.completeness.records import (
    Completeness,
    Ignored,
    LeftOut,
    PeerRow,
    RoundNow,
    RoundRow,
    Silence,
    SiteRow,
    State,
    Submission,
)

__all__ = [
    "Completeness",
    "Ignored",
    "LeftOut",
    "PeerRow",
    "RoundNow",
    "RoundRow",
    "Silence",
    "SiteRow",
    "State",
    "Submission",
    "completeness",
    "round_now",
    "why_ignored",
    "why_late",
]
