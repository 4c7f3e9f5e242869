"""Cases of tampering: what is done, which check finds it, and what that check then says.

A case gives what an auditor is given. Where an audit is refused outright, as of a log that does not have the contract's
root, that is the finding, as ``fl-node audit`` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from given import Given, given
from playing import Lie, Play

from fl_node.audit.run import ALL as EVERY
from fl_node.audit.run import Scope, audit
from fl_node.audit.verdicts import BY_NAME, Finding, Result
from fl_node.errors import InconsistentLog
from fl_node.records import UpdateRef

ALL = ""
_BAD = (Result.FAILED, Result.SUSPICIOUS, Result.CONTRADICTED, Result.OUTLIER)

Found = list[tuple[str, Finding]]
"""Findings with the update that each is about, ``""`` where it is about the federation."""


@dataclass(frozen=True)
class Case:
    """One tampering.

    Attributes:
        title: what is done, as the table in the docs has it.
        check, result: the check that finds it, and what it says.
        words: what a person sees, up to what differs from case to case: a part of the finding's text.
        on: the update that the finding is about; ``""``: the federation.
        also: other checks that may turn bad or be unknown, where: ``"check"`` anywhere, or ``"2#1 check"``.
    """

    group: str
    title: str
    check: str
    result: Result
    words: str
    make: Callable[[], Given | Found]
    on: str = ALL
    also: Collection[str] = field(default=())

    @property
    def row(self) -> str:
        """Its line in the table."""
        return f"| {self.title} | {self.check} | {self.result.value} | {self.words} |"

    def excused(self, ref: str, check: str) -> bool:
        return (ref, check) == (self.on, self.check) or check in self.also or f"{ref} {check}".strip() in self.also


CASES: list[Case] = []


def case(
    group: str, title: str, check: str, result: str, words: str, *, on: str = ALL, also: Collection[str] = ()
) -> Callable[[Callable[[], Given | Found]], Callable[[], Given | Found]]:
    """Makes the decorated function a case."""

    def add(make: Callable[[], Given | Found]) -> Callable[[], Given | Found]:
        CASES.append(Case(group, title, check, Result(result), words, make, on, also))
        return make

    return add


def looked_at(one: Given, jobs: int = 1, checks: frozenset[str] = EVERY) -> Found:
    """What an audit finds."""
    try:
        means = one.means()
    except InconsistentLog as cause:
        return [(ALL, Finding("included", Result.FAILED, str(cause)))]
    with means.log:
        report = audit(means, Scope(checks=checks), jobs=jobs)
    return [(ALL, finding) for finding in report.findings] + [
        (str(update.ref), finding) for update in report.updates for finding in update.findings
    ]


def bad(found: Found) -> Found:
    """What is not as it should be, or leaves a gap in the record itself."""
    return [
        (ref, finding)
        for ref, finding in found
        if finding.result in _BAD
        or (finding.result is Result.UNKNOWN and finding.asked and BY_NAME[finding.check].essential)
    ]


# ---- histories -----------------------------------------------------------------------------------------------------

_PACE = ["async"]


def pace() -> str:
    """How the federations of cases go on, unless they say so themselves."""
    return _PACE[-1]


@contextmanager
def at_pace(mode: str) -> Iterator[None]:
    _PACE.append(mode)
    try:
        yield
    finally:
        _PACE.pop()


@cache
def honest(mode: str = "async") -> Play:
    """An honest federation, played once. Nobody changes it: :func:`shown` copies what it gives."""
    return Play(mode=mode).whole()


def shown(mode: str = "async") -> Given:
    """What an honest endpoint gives of an honest federation, to be altered."""
    return given(honest(mode)).copy()


def told(lies: dict[str, Lie], **more: Any) -> Given:
    """What is given of a federation in which some updates lie."""
    return given(Play(**{"lies": lies, "rounds": 2, "mode": pace(), **more}).whole())


def begun(rounds: int = 1, lies: dict[str, Lie] | None = None, **more: Any) -> Play:
    """A federation after some whole rounds, to be gone on from."""
    play = Play(**{"lies": lies or {}, "mode": pace(), **more})
    for number in range(1, rounds + 1):
        for peer in range(1, play.peers + 1):
            play.turn(peer, number)
    return play


def ref(text: str) -> UpdateRef:
    found = UpdateRef.parse(text)
    assert found is not None
    return found
