"""The pages, a module for each noun. Importing this registers all of them."""

from ledger_ui.pages import (
    audit,
    entries,
    federation,
    live,
    peers,
    provenance,
    round,
    rounds,
    sites,
    trust,
    update,
    updates,
)

__all__ = [
    "audit",
    "entries",
    "federation",
    "live",
    "peers",
    "provenance",
    "round",
    "rounds",
    "sites",
    "trust",
    "update",
    "updates",
]
