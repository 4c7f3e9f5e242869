"""The ledger explorer: the trail of a federation as web pages, and as JSON from the same records.

Reads a chain, keeps an index, needs no key. ``create_app`` is a WSGI factory; ``fl-node ui`` serves it.
"""

from ledger_ui.app import create_app
from ledger_ui.options import Options

__all__ = ["Options", "create_app"]
