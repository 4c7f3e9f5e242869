"""The pages, a module for each noun. Importing this registers all of them."""

from ledger_ui.pages import audit, entries, federation, live, provenance, updates

__all__ = ["audit", "entries", "federation", "live", "provenance", "updates"]
