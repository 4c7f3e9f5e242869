"""Bytes sent and received, by counterpart and kind: bodies as they went over HTTP, without heads and TLS.

Who asks says who it is with a header, ``fl-node-peer: 3``. That is a claim: nobody checks it, and nothing but these
counts depends on it. Whoever says nothing counts by address.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

Direction: TypeAlias = Literal["sent", "received"]
Kind: TypeAlias = str

FILE_NAME: Final = "traffic.json"
HEADER: Final = "fl-node-peer"
KINDS: Final = ("update", "report", "genesis", "spec", "log", "checkpoint", "other")
#: Labels of pins whose content is of one kind.
_LABELS: Final = {
    "genesis": "genesis",
    "spec": "spec",
    "report": "report",
    "own": "update",
    "fetched": "update",
    "latest": "update",
}
#: What is at a path of a gateway's own, by how it begins.
PATHS: Final = (("/checkpoint", "checkpoint"), ("/tile/", "log"))
_FORMAT: Final = 1
_MOST_COUNTERPARTS: Final = 1024
_MOST_ROWS: Final = 64
_SAVE_S: Final = 60.0
_OTHERS: Final = "others"
_MOST_CLAIMED: Final = 10**9
#: The year 9999, beyond which no clock shows a date.
_LAST_S: Final = 253_370_764_800.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the count. ``peer`` None: unknown, and ``place`` is its address. ``wasted_bytes``: received and
    thrown away, because they were not the ones asked for or broke off; not in ``num_bytes``."""

    direction: Direction
    peer: int | None
    place: str
    kind: Kind
    num_bytes: int
    wasted_bytes: int


_Key: TypeAlias = tuple[Direction, int | None, str, Kind]


def kind_of(label: str) -> Kind:
    """The kind of a file that is kept, or fetched, under this label."""
    return _LABELS.get(label, "other")


def claimed(header: str | None) -> int | None:
    """The peer number that a requester claims; None for what is none."""
    if header is None or not (header.isascii() and header.isdecimal() and len(header) <= len(str(_MOST_CLAIMED))):
        return None
    return int(header) if 0 < int(header) <= _MOST_CLAIMED else None


class Meter:
    """Counts, and keeps its counts in a file: written every minute or so and on :meth:`close`, so that a crash loses a
    minute at most. Safe to share between threads; one process writes a file at a time.

    Args:
        path: the file; None keeps nothing.

    ``damage``: why an earlier run's file could not be read; the counts begin anew then. Empty: it could, or there was
    none.
    ``sent_bytes``, ``received_bytes``: since this object was made, the wasted ones included.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._whose: Callable[[str], int | None] = lambda place: None
        self.damage = ""
        self._counts: dict[_Key, tuple[int, int]] = {}
        self._since = time.time()
        if path is not None:
            # Nothing but a display depends on the file: a peer counts anew, and does not stop for it.
            try:
                self._counts, self._since = _read(path)
            except FileNotFoundError:
                pass
            except OSError as cause:
                self.damage = cause.strerror or "it cannot be opened"
            except (ValueError, KeyError, TypeError, RecursionError) as cause:
                self.damage = str(cause) if isinstance(cause, _Damaged) else "it holds no counts as a peer writes them"
        self._saved_at = time.monotonic()
        self._changed = False
        self.sent_bytes = self.received_bytes = 0

    @property
    def since(self) -> float:
        """Unix time of the first count."""
        return self._since

    def identify(self, whose: Callable[[str], int | None]) -> None:
        """``whose``: URL of a gateway -> the peer that announced it."""
        self._whose = whose

    def sent(self, address: str, claim: int | None, kind: Kind, num_bytes: int) -> None:
        """Count bytes that somebody at ``address``, who says that it is peer ``claim``, was given."""
        place = "" if claim is not None else address
        self._count(("sent", claim, place, kind), num_bytes, 0)

    def received(self, endpoint: str, kind: Kind, num_bytes: int, wasted_bytes: int = 0) -> None:
        """Count bytes that a gateway gave."""
        peer = self._whose(endpoint)
        self._count(("received", peer, "" if peer is not None else endpoint, kind), num_bytes, wasted_bytes)

    def rows(self) -> list[Row]:
        """Every count: sent before received, by peer, unknown ones last, then by kind."""
        with self._lock:
            counts = dict(self._counts)
        return sorted((Row(*key, *value) for key, value in counts.items()), key=_order)

    def table(self) -> dict[str, Any]:
        """The counts as the report tells them: totals, and for each direction at most 64 rows, the largest; what is
        beyond them, or of no known peer, is summed under ``"peer": None``. Rows are by peer, None last, then kind."""
        rows = self.rows()
        totals = {
            f"{direction}_bytes": sum(row.num_bytes for row in rows if row.direction == direction)
            for direction in ("sent", "received")
        }
        wasted = sum(row.wasted_bytes for row in rows)
        directions = {direction: _bounded(rows, direction) for direction in ("sent", "received")}
        return {**totals, "wasted_bytes": wasted, **directions}

    def save(self) -> None:
        """Write the file now. That it cannot be written stops nothing."""
        with self._lock:
            self._save()

    def close(self) -> None:
        self.save()

    def _count(self, key: _Key, num_bytes: int, wasted_bytes: int) -> None:
        if num_bytes <= 0 and wasted_bytes <= 0:
            return
        with self._lock:
            if key not in self._counts and len(self._counts) >= _MOST_COUNTERPARTS:
                self._make_room()
            known, thrown = self._counts.get(key, (0, 0))
            self._counts[key] = (known + num_bytes, thrown + wasted_bytes)
            self._changed = True
            if key[0] == "sent":
                self.sent_bytes += num_bytes
            else:
                self.received_bytes += num_bytes + wasted_bytes
            if time.monotonic() - self._saved_at >= _SAVE_S:
                self._save()

    def _make_room(self) -> None:
        """Add up the smallest counterpart with others: strangers may claim to be anybody, but not for many bytes."""
        smallest = min(
            (key for key in self._counts if key[2] != _OTHERS), key=lambda key: sum(self._counts[key]), default=None
        )
        if smallest is None:
            return
        num_bytes, wasted = self._counts.pop(smallest)
        rest: _Key = (smallest[0], None, _OTHERS, smallest[3])
        known, thrown = self._counts.get(rest, (0, 0))
        self._counts[rest] = (known + num_bytes, thrown + wasted)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._path is None or not self._changed:
            return
        rows = [[*key, *value] for key, value in self._counts.items()]
        temporary = self._path.with_suffix(".new")
        with suppress(OSError):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, "since": self._since, "rows": rows}, file)
            temporary.replace(self._path)
            self._changed = False


def _bounded(rows: Iterable[Row], direction: str) -> list[dict[str, Any]]:
    sums: dict[tuple[int | None, Kind], int] = {}
    for row in rows:
        if row.direction == direction and row.num_bytes:
            sums[row.peer, row.kind] = sums.get((row.peer, row.kind), 0) + row.num_bytes
    named = sorted((key for key in sums if key[0] is not None), key=lambda key: (-sums[key], key[0], key[1]))
    for key in named[_MOST_ROWS - len(KINDS) :]:
        rest = (None, key[1])
        sums[rest] = sums.get(rest, 0) + sums.pop(key)
    ordered = sorted(sums, key=lambda key: (key[0] is None, key[0] or 0, key[1]))
    return [{"peer": peer, "kind": kind, "bytes": sums[peer, kind]} for peer, kind in ordered]


def _order(row: Row) -> tuple[bool, bool, int, str, str]:
    return row.direction == "received", row.peer is None, row.peer or 0, row.place, row.kind


class _Damaged(ValueError):
    """What is wrong with a file, in words."""


def _read(path: Path) -> tuple[dict[_Key, tuple[int, int]], float]:
    """What an earlier run counted.

    Raises:
        OSError, ValueError, KeyError, TypeError, RecursionError: the file cannot be read.
    """
    text = path.read_text("utf-8")
    try:
        table: Mapping[str, Any] = json.loads(text)
    except json.JSONDecodeError as cause:
        raise _Damaged(f"it is no whole JSON text: line {cause.lineno}, column {cause.colno}") from cause
    if table["format"] != _FORMAT:
        raise _Damaged(f"its format is {table['format']!r}, expected {_FORMAT}")
    counts: dict[_Key, tuple[int, int]] = {}
    for direction, peer, place, kind, num_bytes, wasted in table["rows"][:_MOST_COUNTERPARTS]:
        if direction in ("sent", "received") and kind in KINDS and (peer is None or isinstance(peer, int)):
            counts[direction, peer, str(place), kind] = (int(num_bytes), int(wasted))
    since = float(table["since"])
    if not 0.0 <= since < _LAST_S:
        raise _Damaged(f"it began at {since:g} s, which is no time")
    return counts, since
