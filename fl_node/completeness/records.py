"""What :func:`fl_node.completeness.completeness` finds, as frozen records that also go into JSON."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fl_node.merging.outcomes import ranges
from fl_node.prefix import Retirement
from fl_node.records import UpdateRef
from fl_node.times import duration, utc


class State(enum.StrEnum):
    """Where one peer, or one site, stands in one round."""

    MERGED = "merged"
    SUBMITTED = "submitted"
    LEFT_OUT = "left-out"
    CLOSING = "closing"
    IGNORED = "ignored"
    MISSING = "missing"
    AWAITED = "awaited"
    RETIRED = "retired"
    NOT_EXPECTED = "not-expected"


MEANINGS: Final[Mapping[State, str]] = {
    State.MERGED: "by another peer at least",
    State.SUBMITTED: "no other peer has merged it or left it out so far",
    State.LEFT_OUT: "looked at, or late, and merged by no other peer",
    State.CLOSING: "a closing update: untrained, never merged",
    State.IGNORED: "its update does not count",
    State.MISSING: "an active member that had not closed, and nothing came",
    State.AWAITED: "an active member; nothing yet, and the round is still open",
    State.RETIRED: "no member any more",
    State.NOT_EXPECTED: "not admitted yet, without the role, or closed before",
}

#: Of a site's peers the one that got farthest speaks for it; what is graver comes before what is no news.
_RANK: Final = {state: rank for rank, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Merges that left one update out for one and the same reason.

    ``by``: the updates that were made from those merges, by entry; none where nobody so much as looked at it.
    ``outcome``: as in a report, or ``not-recorded`` (a candidate by the policy, and not among the recorded parents), or
    ``late``.
    """

    outcome: str
    reason: str
    by: tuple[UpdateRef, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """An update and what became of it. ``merged_by``: the updates that list it with a share, its publisher's own too.

    ``late``: of a synchronous round, recorded after the cut of the next.
    """

    ref: UpdateRef
    site: str
    round: int
    index: int
    state: State
    late: bool
    merged_by: tuple[UpdateRef, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One round. Peers ascend; updates are in the order of the log.

    Attributes:
        first, last: entries of its first and its last update.
        expected: who was waited for (sync), or was to publish (async), when the round's first update that counts was
            recorded; ``None`` where none of its updates counts, so that the round has not begun.
        submitted: updates that count and are not closing ones. ``closing``, ``ignored``: the others.
        missing: expected, not retired meanwhile, and nothing came. ``awaited``: the same while the round is open.
        given_up: active members without an update that were not expected any more: silent for too long.
        cut: log size at which the next round looks (sync), ``None`` while it must wait. ``by_deadline``: because time
            had run out.
    """

    number: int
    first: int
    last: int
    expected: tuple[int, ...] | None
    submitted: tuple[UpdateRef, ...]
    closing: tuple[UpdateRef, ...]
    ignored: tuple[UpdateRef, ...]
    late: tuple[UpdateRef, ...]
    missing: tuple[int, ...]
    awaited: tuple[int, ...]
    given_up: tuple[int, ...]
    cut: int | None
    by_deadline: bool


@dataclass(frozen=True, slots=True)
class RoundNow:
    """One round by itself, as a log has it so far.

    Attributes:
        absences: by peer, of those without an update in it: missing, awaited or retired. The others were not expected.
        closed_at: log size that it took to know that the next round had begun; ``None`` while this one is open.
    """

    row: RoundRow
    absences: Mapping[int, State]
    closed_at: int | None


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One peer over time. ``states``: of rounds 1, 2, 3, ..."""

    peer: int
    states: tuple[State, ...]
    retirement: Retirement | None


@dataclass(frozen=True, slots=True)
class Silence:
    """A site from which nothing has come lately, though it is expected to take part.

    Attributes:
        missed: the rounds up to the end of the log that went by without it, an open one not among them.
        awaited: nothing has come in the open round either.
        last: its last update that counts; ``None`` if it never had one. ``last_round``, ``last_index``,
            ``last_time_s``: of that; of its admission where there is none.
        entries, seconds: from then to the end of the log.
        given_up: the others do not wait for it any more.
    """

    missed: tuple[int, ...]
    awaited: bool
    last: UpdateRef | None
    last_round: int
    last_index: int
    last_time_s: int
    entries: int
    seconds: int
    given_up: bool

    @property
    def words(self) -> str:
        """The sentence, without the site's name."""
        when = f"entry {self.last_index}, {utc(self.last_time_s)}"
        if self.last is None:
            since = f"has published nothing since it was admitted ({when})"
        else:
            since = f"has published nothing since round {self.last_round} ({self.last}, {when})"
        if self.missed:
            many = len(self.missed)
            missed = f"missing in round{'s' if many > 1 else ''} {ranges(self.missed)}, {many} in a row"
            missed += ", and not yet there in the open one" if self.awaited else ""
        else:
            missed = "not yet there in the open round"
        gone = f"{self.entries:,} entries and {duration(self.seconds)} before the end of the log"
        tail = "; the others have given up waiting for it" if self.given_up else ""
        return f"{since}, {gone}: {missed}{tail}"


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site over time: of each round the state of the peer of it that got farthest.

    ``missed``: all rounds in which it was missing. ``silence``: where it is missing at the end.
    """

    site: str
    states: tuple[State, ...]
    peers: tuple[PeerRow, ...]
    missed: tuple[int, ...]
    silence: Silence | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """An entry that does not count. ``ref``: where it is an update."""

    index: int
    peer: int
    kind: str
    ref: UpdateRef | None
    why: str


@dataclass(frozen=True, slots=True)
class Completeness:
    """All of it, for the first ``size`` entries.

    ``unreplayed``: updates from whose record the policy gives nothing, so that whom they left out is unknown.
    """

    size: int
    mode: str
    rounds: tuple[RoundRow, ...]
    sites: tuple[SiteRow, ...]
    submissions: tuple[Submission, ...]
    ignored: tuple[Ignored, ...]
    unreplayed: tuple[UpdateRef, ...]

    @property
    def silent(self) -> tuple[SiteRow, ...]:
        """Sites from which nothing comes any more, or not yet."""
        return tuple(row for row in self.sites if row.silence is not None)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: updates as ``3#12``, peers by number, states by name."""
        return {
            "entries": self.size,
            "mode": self.mode,
            "states": {state.value: meaning for state, meaning in MEANINGS.items()},
            "rounds": [round_json(row) for row in self.rounds],
            "sites": [_site_json(row) for row in self.sites],
            "updates": [_submission_json(one) for one in self.submissions],
            "ignored": [
                {
                    "entry": one.index,
                    "peer": one.peer,
                    "kind": one.kind,
                    "update": None if one.ref is None else str(one.ref),
                    "why": one.why,
                }
                for one in self.ignored
            ],
            "unreplayed": _names(self.unreplayed),
        }


def best_of(states: Iterable[State]) -> State:
    """The state that speaks for a site: that of its peer that got farthest."""
    return min(states, key=_RANK.__getitem__)


def round_json(row: RoundRow) -> dict[str, Any]:
    """A round, JSON-ready."""
    return {
        "round": row.number,
        "first_entry": row.first,
        "last_entry": row.last,
        "expected": None if row.expected is None else list(row.expected),
        "submitted": _names(row.submitted),
        "closing": _names(row.closing),
        "ignored": _names(row.ignored),
        "late": _names(row.late),
        "missing": list(row.missing),
        "awaited": list(row.awaited),
        "given_up": list(row.given_up),
        "cut": row.cut,
        "by_deadline": row.by_deadline,
    }


def _site_json(row: SiteRow) -> dict[str, Any]:
    return {
        "site": row.site,
        "states": [state.value for state in row.states],
        "missed": list(row.missed),
        "silence": None if row.silence is None else _silence_json(row.silence),
        "peers": [
            {
                "peer": peer.peer,
                "states": [state.value for state in peer.states],
                "retired_at": None if peer.retirement is None else peer.retirement.index,
                "reason": None if peer.retirement is None else peer.retirement.reason,
            }
            for peer in row.peers
        ],
    }


def _silence_json(silence: Silence) -> dict[str, Any]:
    return {
        "words": silence.words,
        "missed": list(silence.missed),
        "awaited": silence.awaited,
        "last_update": None if silence.last is None else str(silence.last),
        "last_round": silence.last_round,
        "last_entry": silence.last_index,
        "last_time_s": silence.last_time_s,
        "entries_since": silence.entries,
        "seconds_since": silence.seconds,
        "given_up": silence.given_up,
    }


def _submission_json(one: Submission) -> dict[str, Any]:
    return {
        "update": str(one.ref),
        "site": one.site,
        "round": one.round,
        "entry": one.index,
        "state": one.state.value,
        "late": one.late,
        "merged_by": _names(one.merged_by),
        "left_out": [{"outcome": item.outcome, "reason": item.reason, "by": _names(item.by)} for item in one.left_out],
    }


def _names(refs: Sequence[UpdateRef]) -> list[str]:
    return [str(ref) for ref in refs]
