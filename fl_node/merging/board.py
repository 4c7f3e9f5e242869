"""What a view of the log shows of its members, kept between selections: who there is, and everybody's latest update.

A thousand peers that choose one after another look at views which differ by an entry. So what does not depend on who
chooses is derived once and carried forward, and costs what is new.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Flag, PeerAdmitted, PeerRetired, Role, UpdateObjected, UpdatePublished, UpdateRef

_BOARDS_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a view. ``publishing``: active with the role to publish, ascending; ``attesting`` likewise;
    ``retired``: number and the entry that retired it; ``sites`` of all ever admitted."""

    publishing: tuple[int, ...]
    attesting: frozenset[int]
    retired: tuple[tuple[int, int], ...]
    sites: Mapping[int, str]

    def __contains__(self, peer: int) -> bool:
        at = bisect_left(self.publishing, peer)
        return at < len(self.publishing) and self.publishing[at] == peer


@dataclass(frozen=True, slots=True)
class Board:
    """Everybody's latest trained update in the first ``size`` entries: of active members that publish, by number."""

    size: int
    latest: dict[int, UpdateEntry]


@dataclass(slots=True)
class _Kept:
    """What was derived from the first ``scanned`` entries, and boards of some views."""

    scanned: int = 0
    changes: list[int] = field(default_factory=list)
    members: dict[int, Members] = field(default_factory=dict)
    objected: set[UpdateRef] = field(default_factory=set)
    boards: list[Board] = field(default_factory=list)
    parts: list[tuple[tuple[UpdateRef, ...], int, Board]] = field(default_factory=list)


def members_of(view: Prefix) -> Members:
    """The members as a view has them; found once per admission or retirement."""
    kept = _kept(view)
    epoch = bisect_left(kept.changes, view.size)
    found = kept.members.get(epoch)
    if found is None:
        peers = view.peers()
        found = kept.members[epoch] = Members(
            tuple(sorted(facts.number for facts in peers if facts.publishes)),
            frozenset(facts.number for facts in peers if facts.active and facts.roles & Role.ATTEST),
            tuple((facts.number, facts.retirement.index) for facts in peers if facts.retirement is not None),
            {facts.number: facts.site for facts in peers},
        )
    return found


def board_of(view: Prefix) -> Board:
    """The board of a view; an earlier one carried forward where there is one."""
    kept = _kept(view)
    found = max((board for board in kept.boards if board.size <= view.size), key=lambda b: b.size, default=None)
    if found is not None and found.size == view.size:
        return found
    found = _fresh(view) if found is None else _forward(view, found)
    kept.boards.append(found)
    del kept.boards[:-_BOARDS_KEPT]
    return found


def board_of_present(view: Prefix, present: tuple[UpdateRef, ...]) -> Board:
    """Of a view's board those updates that are among ``present``: what a synchronous round looks at."""
    kept = _kept(view)
    for refs, size, board in kept.parts:
        if refs is present and size == view.size:
            return board
    whole = board_of(view)
    latest = {}
    for ref in present:
        entry = whole.latest.get(ref.peer)
        if entry is not None and entry.ref == ref:
            latest[ref.peer] = entry
    part = Board(view.size, latest)
    kept.parts.append((present, view.size, part))
    del kept.parts[:-_BOARDS_KEPT]
    return part


def perhaps_objected(prefix: Prefix) -> set[UpdateRef]:
    """All updates that anybody objects to in this prefix, and maybe some that are objected to later in its log: who is
    not among them needs no look at the objections."""
    return _kept(prefix).objected


def _kept(view: Prefix) -> _Kept:
    kept: _Kept = view.derived.setdefault("members and boards", _Kept())
    if kept.scanned < view.size:
        for fact in view.facts(kept.scanned):
            if isinstance(fact.body, PeerAdmitted | PeerRetired):
                kept.changes.append(fact.index)
            elif isinstance(fact.body, UpdateObjected):
                kept.objected.add(fact.body.target)
        kept.scanned = view.size
    return kept


def _fresh(view: Prefix) -> Board:
    latest = {}
    for peer in members_of(view).publishing:
        entry = view.trained(peer)
        if entry is not None:
            latest[peer] = entry
    return Board(view.size, latest)


def _forward(view: Prefix, board: Board) -> Board:
    """What happened since. A retired peer writes nothing more, so all that an active one wrote counts."""
    latest = dict(board.latest)
    for fact in view.facts(board.size):
        if isinstance(fact.body, UpdatePublished) and not fact.body.update.flags & Flag.FINAL:
            peer, ref = fact.body.peer, fact.body.ref
            latest[peer] = view.update(ref)
        elif isinstance(fact.body, PeerRetired):
            latest.pop(fact.body.peer, None)
    return Board(view.size, latest)
