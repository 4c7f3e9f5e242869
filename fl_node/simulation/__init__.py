"""Federations in one process: the node's own rounds over an in-memory ledger and store, for research.

Example::

    from fl_node.simulation import Settings, simulate

    result = simulate(Settings(preset="gossip", peers=(10,), rounds=5, dataset="digits", seeds=3))
    print(result.summary("accuracy").mean)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl_node.simulation.faults import Faults
    from fl_node.simulation.rows import Result, Row, Run, Summary
    from fl_node.simulation.run import simulate
    from fl_node.simulation.settings import Settings

__all__ = ["Faults", "Result", "Row", "Run", "Settings", "Summary", "simulate"]

_PLACES = {
    "Faults": "faults",
    **dict.fromkeys(("Result", "Row", "Run", "Summary"), "rows"),
    "Settings": "settings",
    "simulate": "run",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: the command line looks at the names of attacks, and needs no more."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
