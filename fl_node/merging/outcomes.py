"""What became of each peer's update in one selection, and how that is told in a report."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fl_node.prefix import UpdateEntry
from fl_node.records import Reason, UpdateRef

#: Up to as many considered peers, a report names each; beyond, those that fared alike are told together.
NAMED_ONE_BY_ONE: Final = 64


class Outcome(enum.StrEnum):
    """What became of a peer's update in one selection."""

    MERGED = "merged"
    NONE_YET = "none-yet"
    MISSING = "missing"
    OTHER_ROUND = "other-round"
    RETIRED = "retired"
    WITHDRAWN = "withdrawn"
    STALE = "stale"
    NOT_SEALED = "not-sealed"
    OBJECTED = "objected"
    UNAVAILABLE = "unavailable"
    MALFORMED = "malformed"
    DIGEST_MISMATCH = "digest-mismatch"
    TOO_FEW_SAMPLES = "too-few-samples"
    UNATTESTED = "unattested"
    NOT_A_NEIGHBOUR = "not-a-neighbour"
    ALREADY_MERGED = "already-merged"
    OUTSCORED = "outscored"
    NOT_DRAWN = "not-drawn"
    NOT_THE_TOKEN = "not-the-token"  # noqa: S105  a place in a ring, no secret
    REJECTED = "rejected"


OF_REASON: Final[Mapping[Reason, Outcome]] = {
    Reason.UNAVAILABLE: Outcome.UNAVAILABLE,
    Reason.MALFORMED: Outcome.MALFORMED,
    Reason.DIGEST_MISMATCH: Outcome.DIGEST_MISMATCH,
    Reason.WITHDRAWN: Outcome.WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate could not be used after all: what goes into the objection, and words for people."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Considered:
    """One publishing peer and what became of its update; ``entry`` is ``None`` where it has none to consider.

    ``alike``: the reason without what is this peer's alone, for a report that tells of many peers at once.
    """

    peer: int
    entry: UpdateEntry | None
    outcome: Outcome
    reason: str
    alike: str = ""

    def as_json(self) -> dict[str, Any]:
        sequence = self.entry.ref.sequence if self.entry else None
        return {"peer": self.peer, "sequence": sequence, "outcome": self.outcome.value, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Alike:
    """Peers whose updates were left out for one and the same reason; ascending numbers."""

    peers: Sequence[int]
    outcome: Outcome
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {
            "peers": ranges(self.peers),
            "count": len(self.peers),
            "outcome": self.outcome.value,
            "reason": self.reason,
        }


def told(
    candidates: Iterable[Considered], left_out: Iterable[Considered], alike: Iterable[Alike]
) -> tuple[dict[str, Any], ...]:
    """A report's items about more peers than are named one by one: the candidates each, then the others in groups.

    A candidate's item has the keys ``peer, sequence, outcome, reason``; a group's ``peers`` (numbers and ranges, as
    ``1-40,45``), ``count``, ``outcome``, ``reason``. Groups stand in the order of outcome and reason.
    """
    items = [item.as_json() for item in sorted(candidates, key=lambda item: item.peer)]
    groups: dict[tuple[Outcome, str], list[int]] = {}
    for item in left_out:
        groups.setdefault((item.outcome, item.alike or item.reason), []).append(item.peer)
    for group in alike:
        groups.setdefault((group.outcome, group.reason), []).extend(group.peers)
    items += [Alike(sorted(peers), *what).as_json() for what, peers in sorted(groups.items())]
    return tuple(items)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short.

    >>> ranges([1, 2, 3, 7, 9, 10])
    '1-3,7,9-10'
    """
    parts = []
    at, size = 0, len(numbers)
    while at < size:
        # The last place up to which numbers rise by one, found by halving: long runs cost little.
        low, high = at, size - 1
        while low < high:
            middle = (low + high + 1) // 2
            if numbers[middle] - numbers[at] == middle - at:
                low = middle
            else:
                high = middle - 1
        parts.append(f"{numbers[at]}" if low == at else f"{numbers[at]}-{numbers[low]}")
        at = low + 1
    return ",".join(parts)


def after_fetching(
    item: Considered, failures: Mapping[UpdateRef, Failure], rejected: Mapping[UpdateRef, str]
) -> Considered:
    """What became of a candidate in the end: it could not be had or read, or the aggregation rule left it out."""
    if item.entry is None or item.outcome is not Outcome.MERGED:
        return item
    failure = failures.get(item.entry.ref)
    if failure is not None:
        return Considered(item.peer, item.entry, OF_REASON[failure.reason], failure.message)
    why = rejected.get(item.entry.ref)
    return item if why is None else Considered(item.peer, item.entry, Outcome.REJECTED, why)


def percent(ppm: int) -> str:
    """Parts per million as a percentage: two decimals, or as many as tell it exactly.

    >>> percent(912_000), percent(-1_234)
    ('91.20 %', '-0.1234 %')
    """
    whole, rest = divmod(abs(ppm), 10_000)
    decimals = f"{rest:04d}"
    decimals = decimals[:2] + decimals[2:].rstrip("0")
    return f"{'-' if ppm < 0 else ''}{whole}.{decimals} %"
