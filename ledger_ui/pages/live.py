"""The head of the log as a stream of server-sent events: pages look again when it is another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from flask import Response, current_app, request

from ledger_ui.contexts import NoQuery
from ledger_ui.federation import Shown
from ledger_ui.registry import Route, add_route
from ledger_ui.respond import frame_of

#: At most four events a second.
_PACE_S: Final = 0.25
_HEARTBEAT_S: Final = 15.0
#: In a process that only reads, nobody tells of changes.
_LOOK_S: Final = 1.0
#: Browsers come back after so long.
_RETRY_MS: Final = 3000
#: A stream ends then, and the browser opens another: servers restart, and threads are handed round.
_LONGEST_S: Final = 600.0


class Listeners:
    """How many listen: each holds a thread of the server."""

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most) if most else None

    def come(self) -> bool:
        return self._room is not None and self._room.acquire(blocking=False)

    def go(self) -> None:
        if self._room is not None:
            self._room.release()


class Stream:
    """One listener's events; the server closes it, however it ends."""

    def __init__(self, shown: Shown, left: Callable[[], bool], listeners: Listeners) -> None:
        self._events, self._listeners = events(shown, left), listeners
        self._open = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._events)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._listeners.go()


def live(shown: Shown, query: NoQuery) -> Response:
    """The stream; 503 where the server has no thread to spare for it."""
    listeners: Listeners = current_app.extensions["listeners"]
    if not request.environ.get("wsgi.multithread") or not listeners.come():
        words = "no room for another listener now; ask for the page itself now and then instead\n"
        return Response(words, 503, {"Retry-After": "10"}, mimetype="text/plain")
    left = request.environ.get("waitress.client_disconnected") or (lambda: False)
    response = Response(Stream(shown, left, listeners), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx passes each event on at once
    return response


def events(shown: Shown, left: Callable[[], bool], longest_s: float = _LONGEST_S) -> Iterator[str]:
    """Events until the listener has left or the explorer ends."""
    yield f"retry: {_RETRY_MS}\n\n"
    began = spoken = time.monotonic()
    last, known = "", 0
    while not (shown.ended or left()) and time.monotonic() - began < longest_s:
        head = head_of(shown)
        now = time.monotonic()
        if head != last:
            last, spoken = head, now
            yield f"id: {json.loads(head)['version']}\nevent: head\ndata: {head}\n\n"
        elif now - spoken >= _HEARTBEAT_S:
            spoken = now
            yield ": still here\n\n"
        # Woken at once by a change; looks by itself where another process follows, and for whether the listener left.
        known = shown.wait(known, _LOOK_S)
        time.sleep(max(0.0, _PACE_S - (time.monotonic() - now)))


def head_of(shown: Shown) -> str:
    """What pages follow from, as JSON."""
    with shown.store.reading() as db:
        frame = frame_of(shown, db)
        row = db.execute("SELECT value FROM ui_state WHERE key = 'version'").fetchone()
    told: dict[str, Any] = {
        name: getattr(frame, name) for name in ("size", "root", "state", "detail", "block", "behind")
    }
    return json.dumps({**told, "version": row[0] if row else 0})


LIVE = add_route(
    Route(
        name="live",
        rule="/live",
        summary="Server-sent events: one named head, with size, root, state, detail, block, behind and version as "
        "JSON, at once and whenever one of them is another",
        view=live,
        answers={
            200: ("text/event-stream", "events until the reader leaves, or ten minutes"),
            503: ("text/plain", "no room for another listener; see Retry-After"),
        },
    )
)
