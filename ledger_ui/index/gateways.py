"""The peers' gateways, as the log announces them: asked within bounds, and left alone while nobody answers."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress
from typing import Final

from fl_node.audit.gateways import GatewayBlobs
from fl_node.content.endpoints import Endpoint, parse_endpoint
from fl_node.errors import ContentUnavailable
from fl_node.tables import ContentSpec

#: Gateways that are asked: those announced last.
MOST: Final = 256
#: After so long it is looked anew which of them can be reached.
_FRESH_S: Final = 60.0
_FILE_S: Final = 60.0


class Gateways:
    """The bounded client over the endpoints that active peers announced. Safe to share between threads.

    Args:
        content: the spec's settings: networks that may be asked, seconds for a file.
    """

    def __init__(self, content: ContentSpec) -> None:
        self._content = content.model_copy(update={"fetch_timeout_s": min(content.fetch_timeout_s, _FILE_S)})
        self._lock = threading.Lock()
        self._announced: dict[int, Endpoint] = {}
        self._blobs: GatewayBlobs | None = None
        self._made_at = float("-inf")

    def at(self, db: sqlite3.Connection) -> GatewayBlobs:
        """The client for the log as it is now."""
        announced = announced_in(db)
        with self._lock:
            stale = time.monotonic() - self._made_at > _FRESH_S
            if self._blobs is None or announced != self._announced or stale:
                if self._blobs is not None:
                    self._blobs.close()  # its idle connections; what is under way comes to its end
                self._blobs = GatewayBlobs(announced=announced)
                self._blobs.follow(self._content)
                self._announced, self._made_at = announced, time.monotonic()
            return self._blobs

    def close(self) -> None:
        with self._lock:
            if self._blobs is not None:
                self._blobs.close()


def announced_in(db: sqlite3.Connection) -> dict[int, Endpoint]:
    """The latest endpoint of each active peer that can be used at all, by peer number."""
    # Peer by peer: a log may hold a million announcements.
    rows = db.execute(
        "SELECT p.peer, a.endpoint, a.tls_pin FROM peers p JOIN announcements a ON a.idx = "
        "(SELECT b.idx FROM announcements b WHERE b.peer = p.peer ORDER BY b.idx DESC LIMIT 1) "
        "WHERE p.retired IS NULL ORDER BY a.idx DESC LIMIT ?",
        (MOST,),
    )
    found = {}
    for peer, endpoint, pin in rows:
        with suppress(ContentUnavailable):
            found[peer] = parse_endpoint(endpoint or "", bytes(pin) if pin and any(pin) else b"")
    return found
