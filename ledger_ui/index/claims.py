"""What a public report says of bytes, privacy and traffic: its publisher's word, read within bounds.

A report is a stranger's JSON. What is of another type, not a number, or beyond any ledger is taken for unsaid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: The largest count that a page shows: JavaScript's numbers are exact up to here.
MOST: Final = 2**53
#: The largest update that anybody is believed to have published, bytes: sums of a million of them fit into SQLite.
MOST_BYTES: Final = 2**42
#: Lines of traffic that are read of each way.
MOST_LINES: Final = 512
_LONGEST: Final = 40


@dataclass(frozen=True, slots=True)
class BytesClaim:
    """How large an update is said to be, in bytes.

    Attributes:
        update: as published.
        plain: as plain float32 safetensors, to compare with; ``None``: unsaid.
        encoding: how the weights are written, by name; empty: unsaid.
        zstd, full: whether it is compressed, and whole rather than a difference; ``None``: unsaid.
    """

    update: int
    plain: int | None
    encoding: str
    zstd: bool | None
    full: bool | None


@dataclass(frozen=True, slots=True)
class PrivacyClaim:
    """Privacy that a peer says it has spent, this update included. What is ``None`` or empty is unsaid.

    Attributes:
        mechanism: ``example`` or ``update``, or a stranger's word.
        accountant: by name.
        epsilon, delta: what was spent.
        noise_multiplier: noise over ``clip_norm``.
        clip_norm: largest L2 norm of one row's gradient, or of an update's change.
        sample_rate: part of the rows in one step.
        steps: noisy steps of one training.
        trainings: how many were paid for so far.
        budget_epsilon: at which it trains no more.
        scores: how scores are told: ``coarse``, ``withheld``, or a stranger's word.
    """

    mechanism: str
    accountant: str
    epsilon: float
    delta: float | None
    noise_multiplier: float | None
    clip_norm: float | None
    sample_rate: float | None
    steps: int | None
    trainings: int | None
    budget_epsilon: float | None
    scores: str


@dataclass(frozen=True, slots=True)
class TrafficLine:
    """Bytes that went one way. ``peer``: the counterpart's number; ``None``: not known, or no peer."""

    peer: int | None
    kind: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TrafficClaim:
    """Bytes that a peer says have gone through it since it started. ``cut``: more lines are not read."""

    sent_bytes: int
    received_bytes: int
    sent: tuple[TrafficLine, ...]
    received: tuple[TrafficLine, ...]
    cut: bool


def bytes_in(report: Mapping[str, Any]) -> BytesClaim | None:
    """What a report says of its update's size.

    >>> bytes_in({"bytes": {"update": 10, "plain": 40, "full": False}})
    BytesClaim(update=10, plain=40, encoding='', zstd=None, full=False)
    >>> bytes_in({"bytes": {"update": "10"}}) is None
    True
    """
    table = report.get("bytes")
    size = _size(table.get("update")) if isinstance(table, dict) else None
    if size is None or not isinstance(table, dict):
        return None
    zstd, full = table.get("zstd"), table.get("full")
    return BytesClaim(
        update=size,
        plain=_size(table.get("plain")) or None,
        encoding=word(table.get("encoding")),
        zstd=zstd if isinstance(zstd, bool) else None,
        full=full if isinstance(full, bool) else None,
    )


def privacy_in(report: Mapping[str, Any]) -> PrivacyClaim | None:
    """What a report says of privacy spent; ``None`` where it names no epsilon."""
    table = report.get("privacy")
    epsilon = figure(table.get("epsilon")) if isinstance(table, dict) else None
    if epsilon is None or not isinstance(table, dict):
        return None
    return PrivacyClaim(
        mechanism=word(table.get("mechanism")),
        accountant=word(table.get("accountant")),
        epsilon=epsilon,
        delta=_part(table.get("delta")),
        noise_multiplier=figure(table.get("noise_multiplier")),
        clip_norm=figure(table.get("clip_norm")),
        sample_rate=_part(table.get("sample_rate")),
        steps=count(table.get("steps")),
        trainings=count(table.get("trainings")),
        budget_epsilon=figure(table.get("budget_epsilon")),
        scores=word(table.get("scores")),
    )


def traffic_in(report: Mapping[str, Any]) -> TrafficClaim | None:
    """What a report says of bytes sent and received."""
    table = report.get("traffic")
    if not isinstance(table, dict):
        return None
    sent, received = count(table.get("sent_bytes")), count(table.get("received_bytes"))
    if sent is None or received is None:
        return None
    ways = [_lines(table.get(name)) for name in ("sent", "received")]
    return TrafficClaim(sent, received, ways[0][0], ways[1][0], ways[0][1] or ways[1][1])


def count(value: Any) -> int | None:
    """A whole number from 0 up that a page can show.

    >>> count(3), count(True), count(-1), count(2.0), count(10**40)
    (3, None, None, None, None)
    """
    return value if type(value) is int and 0 <= value <= MOST else None


def figure(value: Any) -> float | None:
    """A finite number from 0 up.

    >>> figure(3), figure(float("nan")), figure("3"), figure(10**400)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        return None
    return float(value) if math.isfinite(value) else None


def word(value: Any) -> str:
    """A short text; empty where it is none. It may hold anything that a stranger writes."""
    return value[:_LONGEST].encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ""


def _size(value: Any) -> int | None:
    found = count(value)
    return found if found is not None and found <= MOST_BYTES else None


def _part(value: Any) -> float | None:
    found = figure(value)
    return found if found is not None and found <= 1 else None


def _lines(value: Any) -> tuple[tuple[TrafficLine, ...], bool]:
    if not isinstance(value, list):
        return (), False
    found = []
    for item in value[:MOST_LINES]:
        size = count(item.get("bytes")) if isinstance(item, dict) else None
        if size is not None:
            peer = count(item.get("peer"))
            found.append(TrafficLine(peer if peer is not None and peer < 2**32 else None, word(item.get("kind")), size))
    return tuple(found), len(value) > MOST_LINES
