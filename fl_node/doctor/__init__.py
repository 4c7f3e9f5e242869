"""Checks of everything a peer needs, each with how to mend it."""

from fl_node.doctor.examine import examine
from fl_node.doctor.finding import Finding

__all__ = ["Finding", "examine"]
