"""Completeness on a terminal: for ``fl-node audit --completeness`` and ``fl-node verify --completeness``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fl_node.cli.text import safe
from fl_node.completeness import Completeness, RoundRow, SiteRow, State, Submission
from fl_node.completeness.records import MEANINGS
from fl_node.merging.outcomes import ranges

_SIGNS: Final[Mapping[State, tuple[str, str]]] = {
    State.MERGED: ("#", "green"),
    State.SUBMITTED: ("+", "cyan"),
    State.LEFT_OUT: ("x", "yellow"),
    State.CLOSING: ("c", "green"),
    State.IGNORED: ("i", "magenta"),
    State.MISSING: ("!", "bold red"),
    State.AWAITED: ("?", "yellow"),
    State.RETIRED: ("r", "dim"),
    State.NOT_EXPECTED: (".", "dim"),
}

_OUTCOMES: Final[Mapping[str, str]] = {
    "retired": "its publisher has been retired",
    "withdrawn": "withdrawn by its publisher",
    "stale": "too many own updates of the merging peer since",
    "not-sealed": "sealed without a key of the merging peer",
    "objected": "called unavailable by a quorum of sites",
    "unavailable": "the merging peer could not fetch it",
    "malformed": "the merging peer found its bytes malformed",
    "digest-mismatch": "the merging peer found that its bytes are not the ones recorded",
    "too-few-samples": "fewer training samples than the spec asks for",
    "unattested": "too few other sites had attested it",
    "not-a-neighbour": "no neighbour of the merging peer",
    "outscored": "others scored better",
    "not-drawn": "not among those drawn for the merge",
    "not-the-token": "not the model that goes round",
    "rejected": "the aggregation rule gave it no share, on account of its bytes",
    "other-round": "made before its round had begun",
    "late": "recorded after the cut of the next round",
    "not-recorded": "a candidate by the policy, yet not among the recorded parents",
}

_MOST_SHOWN: Final = 20
_MOST_NAMES: Final = 3
_LEAST_COLUMNS: Final = 20


def show_completeness(console: Console, found: Completeness) -> None:
    """Print it, what needs a look first. The console should not interpret markup: names are strangers' text."""
    rounds, sites = len(found.rounds), len(found.sites)
    _say(console, f"Completeness: {rounds} rounds ({found.mode}), {sites} sites, {found.size:,} entries", "bold")
    for line, style in _alarms(found):
        _say(console, line, style)
    if not found.rounds:
        _say(console, "No update has been recorded yet.")
        return
    console.print()
    rows, alike = _told_together(found.sites)
    for text in _grid(rows, len(found.rounds), console.width):
        console.print(text, soft_wrap=True)
    for line in alike:
        _say(console, line, "dim")
    console.print(_legend(found))
    console.print()
    console.print(_rounds(found))
    reasons = list(_reasons(found.submissions))
    if reasons:
        console.print()
        console.print(_reason_table(reasons))
    for line in _details(found):
        _say(console, line)


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(safe(line), style=style))


def _alarms(found: Completeness) -> Iterator[tuple[str, str]]:
    """Who dropped out, and who has not come yet in the open round."""
    gone = [row for row in found.silent if row.silence is not None and row.silence.missed]
    for row in gone:
        yield f"{row.site} {row.silence.words}" if row.silence else row.site, "bold red"
    if found.rounds and not gone:
        yield "No site has dropped out.", "green"
    for row in found.sites:
        for peer in row.peers:
            if peer.retirement is not None:
                reason = f": {peer.retirement.reason}" if peer.retirement.reason else ""
                yield f"{row.site}: peer {peer.peer} was retired at entry {peer.retirement.index}{reason}", "yellow"
    waiting = [row.site for row in found.silent if row.silence is not None and not row.silence.missed]
    if waiting:
        yield f"Round {found.rounds[-1].number} is open; nothing yet from {', '.join(waiting)}", "yellow"


# ---- sites over time ---------------------------------------------------------------------------------------------


_Line: TypeAlias = tuple[str, Sequence[State], str]


def _told_together(sites: Sequence[SiteRow]) -> tuple[list[_Line], list[str]]:
    """A line for each site and, where a site has several peers, for each of them. Among many sites, those that went
    alike and were never missing share a line; what it stands for is told besides."""
    groups: dict[object, list[SiteRow]] = {}
    for row in sites:
        plain = len(sites) > _MOST_SHOWN and not row.missed and row.silence is None and len(row.peers) == 1
        groups.setdefault(row.states if plain else row.site, []).append(row)
    lines: list[_Line] = []
    told: list[str] = []
    for rows in groups.values():
        row = rows[0]
        if len(rows) > 1:
            name = f"group {len(told) + 1}: {len(rows)} sites"
            told.append(f"{name} alike, {', '.join(one.site for one in rows)}")
            lines.append((name, row.states, ""))
            continue
        lines.append((safe(row.site), row.states, f"missed {ranges(row.missed)}" if row.missed else ""))
        if len(row.peers) > 1:
            lines += [(f"  peer {peer.peer}", peer.states, "") for peer in row.peers]
    return lines, told


def _grid(lines: Sequence[_Line], rounds: int, width: int) -> Iterator[Text]:
    """The lines, a sign for each round; cut into blocks that fit."""
    label = max(cell_len(name) for name, _, _ in lines)
    block = max(_LEAST_COLUMNS, width - label - 2)
    for start in range(0, rounds, block):
        stop = min(start + block, rounds)
        yield Text(" " * (label + 2) + _ruler(start, stop), style="dim")
        for name, states, missed in lines:
            line = Text(set_cell_size(name, label) + "  ")
            for state in states[start:stop]:
                line.append(*_SIGNS[state])
            if missed and stop == rounds:
                line.append(f"  {missed}", "red")
            yield line


def _ruler(start: int, stop: int) -> str:
    """Round numbers above the signs: the first, and every tenth after it."""
    marks = ""
    for place in range(start, stop):
        number = place + 1
        if place == start or ((number - 1) % 10 == 0 and len(marks) < place - start):
            marks = marks.ljust(place - start) + str(number)
    return marks


def _legend(found: Completeness) -> Text:
    """The signs that occur."""
    there = {state for row in found.sites for peer in row.peers for state in peer.states}
    text = Text()
    for state in State:
        if state in there:
            text.append(*_SIGNS[state])
            text.append(f" {state.value}: {MEANINGS[state]}\n", "dim")
    text.rstrip()
    return text


# ---- rounds ------------------------------------------------------------------------------------------------------


def _rounds(found: Completeness) -> Table:
    """A line for each round; rounds that went alike are told of together."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    heads = ("round", "expected", "submitted", "merged", "left out", "late", "closing", "ignored")
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("missing")
    site_of = {peer.peer: row.site for row in found.sites for peer in row.peers}
    states: dict[int, list[State]] = {}
    for one in found.submissions:
        states.setdefault(one.round, []).append(one.state)
    rows = [(row.number, _cells(row, states[row.number], site_of)) for row in found.rounds]
    for cells, alike in groupby(rows, key=lambda row: row[1]):
        numbers = [number for number, _ in alike]
        table.add_row(ranges(numbers), *cells)
    return table


def _cells(row: RoundRow, states: Sequence[State], site_of: Mapping[int, str]) -> tuple[str, ...]:
    def count(number: int) -> str:
        return str(number) if number else "-"

    absent = []
    if row.expected is None:
        absent.append("has not begun")
    if row.missing:
        absent.append(_who(row.missing, site_of))
    if row.awaited:
        absent.append(f"not yet: {_who(row.awaited, site_of)}")
    if row.given_up:
        absent.append(f"given up: {_who(row.given_up, site_of)}")
    return (
        "-" if row.expected is None else str(len(row.expected)),
        str(len(row.submitted)),
        count(states.count(State.MERGED)),
        count(states.count(State.LEFT_OUT)),
        count(len(row.late)),
        count(len(row.closing)),
        count(len(row.ignored)),
        safe("; ".join(absent)),
    )


def _who(peers: Sequence[int], site_of: Mapping[int, str]) -> str:
    if len(peers) > _MOST_NAMES:
        return f"{len(peers)} peers: {ranges(peers)}"
    return ", ".join(site_of[peer] for peer in peers)


# ---- left out ----------------------------------------------------------------------------------------------------


def _reasons(submissions: Iterable[Submission]) -> Iterator[tuple[str, int, int, int, list[int]]]:
    """By outcome: how many merges left out how many updates of how many sites, in which rounds; the most first."""
    merges: dict[str, int] = {}
    updates: dict[str, list[Submission]] = {}
    for one in submissions:
        for item in one.left_out:
            merges[item.outcome] = merges.get(item.outcome, 0) + len(item.by)
            of_outcome = updates.setdefault(item.outcome, [])
            if not of_outcome or of_outcome[-1] is not one:
                of_outcome.append(one)
    for outcome, found in sorted(updates.items(), key=lambda item: -len(item[1])):
        rounds = sorted({one.round for one in found})
        yield outcome, merges[outcome], len(found), len({one.site for one in found}), rounds


def _reason_table(reasons: Iterable[tuple[str, int, int, int, list[int]]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("updates left out", "of sites", "by merges"):
        table.add_column(head, justify="right")
    table.add_column("rounds")
    table.add_column("why")
    for outcome, merges, updates, sites, rounds in reasons:
        spread = ranges(rounds) if len(rounds) <= _MOST_SHOWN else f"{rounds[0]}-{rounds[-1]}"
        why = _OUTCOMES.get(outcome, outcome)
        table.add_row(f"{updates:,}", str(sites), f"{merges:,}" if merges else "-", spread, f"{outcome}: {why}")
    return table


def _details(found: Completeness) -> Iterator[str]:
    """What is worth naming one by one, as far as that can be read."""
    alone = [one for one in found.submissions if one.state is State.LEFT_OUT]
    yield from _some(
        f"Merged by no other peer, though looked at or late: {len(alone)}",
        [f"  {one.ref} of {one.site}, round {one.round}: {_why(one)}" for one in alone],
    )
    yield from _some(
        f"Entries that do not count: {len(found.ignored)}",
        [f"  entry {one.index}, {one.kind} of {_writer(one.peer, one.ref)}: {one.why}" for one in found.ignored],
    )
    if found.unreplayed:
        names = ", ".join(str(ref) for ref in found.unreplayed[:_MOST_SHOWN])
        more = f" and {len(found.unreplayed) - _MOST_SHOWN} more" if len(found.unreplayed) > _MOST_SHOWN else ""
        yield ""
        yield f"Unknown whom these left out, for the policy gives nothing for what they had seen: {names}{more}"


def _why(one: Submission) -> str:
    return "; ".join(f"{item.reason} ({len(item.by)})" if item.by else item.reason for item in one.left_out)


def _writer(peer: int, ref: object) -> str:
    return f"peer {peer}" if ref is None else f"{ref}"


def _some(head: str, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    yield ""
    yield head
    yield from lines[:_MOST_SHOWN]
    if len(lines) > _MOST_SHOWN:
        yield f"  ... and {len(lines) - _MOST_SHOWN:,} more: --json has all"
