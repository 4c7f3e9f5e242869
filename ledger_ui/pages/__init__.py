"""The pages, a module for each noun. Importing this registers all of them."""

from ledger_ui.pages import (
    audit,
    content,
    entries,
    federation,
    health,
    live,
    peers,
    provenance,
    round,
    rounds,
    search,
    sites,
    trust,
    update,
    updates,
)

__all__ = [
    "audit",
    "content",
    "entries",
    "federation",
    "health",
    "live",
    "peers",
    "provenance",
    "round",
    "rounds",
    "search",
    "sites",
    "trust",
    "update",
    "updates",
]
