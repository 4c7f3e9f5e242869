"""The pages, a module for each noun. Importing this registers all of them."""

from ledger_ui.pages import live, updates

__all__ = ["live", "updates"]
