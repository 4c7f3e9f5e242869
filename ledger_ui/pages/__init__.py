"""The pages, a module for each noun. Importing this registers all of them."""

from ledger_ui.pages import entries, federation, live, updates

__all__ = ["entries", "federation", "live", "updates"]
