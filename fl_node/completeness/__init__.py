"""Completeness: in each round, who was expected, submitted, was merged by whom, was left out and why, is missing.

Pure functions of spec and log. :func:`completeness` derives all of it.
"""

from fl_node.completeness.derived import completeness
from fl_node.completeness.records import (
    Completeness,
    Ignored,
    LeftOut,
    PeerRow,
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
    "RoundRow",
    "Silence",
    "SiteRow",
    "State",
    "Submission",
    "completeness",
]
