"""What a peer's gateway serves besides content: checkpoints, and the log as static tiles.

/checkpoint     the latest that this peer signed, as text
/checkpoints    that, then the latest of each other member that held against this peer's log, one after the other
/tile/...       tiles and bundles of entries: fl_node.ledger.tiles
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Final

from fl_node.content.http_server import Handler, Request, Response, text
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.note_folder import NoteFolder
from fl_node.ledger.tiles import Tile

_FRESH_S: Final = 2.0
_NOTE: Final = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "max-age=2"}
_TILE: Final = {"Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=86400"}


def log_routes(log: LogStore, folder: NoteFolder) -> Mapping[str, Handler]:
    """The routes, for :class:`fl_node.content.gateway.Gateway`. Safe to share between threads."""
    notes = _Notes(folder)

    def checkpoint(request: Request) -> Response:
        return _served(notes.now()[0], _NOTE, "this peer has not signed a checkpoint yet")

    def checkpoints(request: Request) -> Response:
        return _served(b"".join(notes.now()), _NOTE, "this peer has no checkpoints yet")

    def tile(request: Request) -> Response:
        named = Tile.parse(request.path[1:])
        if named is None:
            return text(404, "expected /tile/L/N, /tile/entries/N, or either with .p/W: https://c2sp.org/tlog-tiles")
        try:
            return _served(named.read(log), _TILE, "")
        except (LookupError, ValueError) as cause:
            return text(404, f"not here: {cause}")

    return {"/checkpoint": checkpoint, "/checkpoints": checkpoints, "/tile/": tile}


class _Notes:
    """The folder's latest notes, read again at most every two seconds, however many ask."""

    def __init__(self, folder: NoteFolder) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._notes: list[bytes] = []
        self._read_at = float("-inf")

    def now(self) -> list[bytes]:
        """The own one first (empty if there is none), then the others'."""
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_S:
                own = self._folder.latest_own()
                others = self._folder.others()
                self._notes = [own.note if own else b"", *(others[account].note for account in sorted(others))]
                self._read_at = time.monotonic()
            return self._notes


def _served(body: bytes, headers: Mapping[str, str], otherwise: str) -> Response:
    return Response(200, headers, (body,), len(body)) if body else text(404, otherwise)
