"""What follows from log and spec together: what each update's publisher had to merge, whom it left out and why, which
updates do not count, and who was missing in which round.

The log is held in memory, folded, and every new update's selection is worked out again from it. What that gives never
changes, but for a retirement that takes back what its peer has written; so following a growing log costs what is new.
Logs beyond a bound are not replayed any further: see :mod:`ledger_ui.index.summed`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any, Final

from fl_node.completeness import round_now, why_ignored, why_late
from fl_node.completeness.choices import outcomes_of
from fl_node.completeness.merges import left_out_by
from fl_node.ledger.log_store import LogStore
from fl_node.merging.selection import selection_behind
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Entry, PeerRetired, UpdatePublished
from fl_node.spec import Spec
from ledger_ui.index.fold import bump, recount
from ledger_ui.index.summed import KeptRound, exactly, keep, summed

#: Entries that are replayed at most: each takes about a kilobyte of memory for as long as the explorer runs.
MOST_ENTRIES: Final = 60_000
_BUDGET_S: Final = 1.0
_READ: Final = 250
_READ_BARE: Final = 10_000
_TOO_LATE: Final = -1
#: Merges that left one update out are kept one by one up to about so many. Among a thousand peers that each draw a few,
#: there are a thousand times more of them than updates.
MOST_LEAVERS: Final = 100


@dataclass(frozen=True, slots=True)
class _Progress:
    """Where the tables stand: worked out up to entry ``done``, by replay up to ``exact`` (``None``: all of that)."""

    folded: int
    done: int
    exact: int | None
    trouble: str
    undone: int

    @classmethod
    def of(cls, db: sqlite3.Connection) -> _Progress:
        known = dict(db.execute("SELECT key, value FROM ui_state").fetchall())
        exact = known.get("replay_exact")
        return cls(
            int(known.get("folded") or 0),
            int(known.get("replayed") or 0),
            None if exact is None else int(exact),
            known.get("replay_trouble") or "",
            int(known.get("undone") or 0),
        )

    def save(self, db: sqlite3.Connection) -> None:
        values = (("replayed", self.done), ("replay_exact", self.exact), ("replay_trouble", self.trouble or None))
        db.executemany("INSERT OR REPLACE INTO ui_state VALUES (?, ?)", values)


@dataclass(slots=True)
class _Found:
    """What a stretch of the log gives, before it is written."""

    choices: list[tuple[int, str | None]] = field(default_factory=list)
    left_out: list[tuple[int, int, str, str]] = field(default_factory=list)
    ignored: dict[int, str] = field(default_factory=dict)
    retired: bool = False
    rounds: set[int] = field(default_factory=set)
    touched: set[int] = field(default_factory=set)
    trouble: str = ""

    def notice(self, what: str, cause: Exception) -> None:
        self.trouble = self.trouble or f"{what}: {type(cause).__name__}: {cause}"[:300]


class Replayed:
    """A step of the follower; see :meth:`ledger_ui.index.follower.Follower.after_fold`.

    Args:
        spec: of the federation.
        most: entries that are replayed at most.
        budget_s: how long one call may take, about; what is left is for the next.
    """

    def __init__(self, spec: Spec, most: int = MOST_ENTRIES, budget_s: float = _BUDGET_S) -> None:
        self._spec, self._most, self._budget_s = spec, most, budget_s
        self._prefix: Prefix | None = None
        self._undone: int | None = None
        self._open: set[int] = set()
        self._owed: set[int] = set()

    def __call__(self, log: LogStore, db: sqlite3.Connection) -> bool:
        """Work out what was folded since the last call; whether there is more to do."""
        until = time.monotonic() + self._budget_s
        at = _Progress.of(db)
        if at.undone != self._undone:
            at = self._begin(db, at)
        try:
            while at.done < at.folded or self._owed:
                at = self._replay(log, db, at, until) if at.exact is None else self._sum_up(db, at)
                if time.monotonic() > until:
                    break
        except sqlite3.Error:
            self._undone = None  # what is in memory may be ahead of the file: begin again from that
            raise
        return at.done < at.folded or bool(self._owed)

    # ---- below -----------------------------------------------------------------------------------------------------

    def _begin(self, db: sqlite3.Connection, at: _Progress) -> _Progress:
        """At the start, and after entries were undone."""
        exact, done, trouble = at.exact, at.done, at.trouble
        if exact is not None and (done < exact or (self._undone is None and (trouble or exact < self._most))):
            # Undone to before that; or another start, perhaps of another version, is worth another try.
            done, exact, trouble = min(done, exact), None, ""
        at = _Progress(at.folded, done, exact, trouble, at.undone)
        self._open = {row[0] for row in db.execute("SELECT round FROM rounds WHERE settled = 0")}
        self._owed = {
            row[0]
            for row in db.execute(
                "SELECT DISTINCT round FROM updates WHERE idx < ? AND round NOT IN (SELECT round FROM rounds)", (done,)
            )
        }
        self._undone = at.undone
        return at

    def _at(self, log: LogStore, size: int) -> Prefix:
        """The log folded up to entry ``size``."""
        prefix = self._prefix
        if prefix is None:
            prefix = Prefix()
        if prefix.size > size:
            prefix = prefix.upto(size)
        while prefix.size < size:
            prefix = prefix.extend(log.entries(prefix.size, min(size, prefix.size + _READ_BARE)))
        return prefix

    def _replay(self, log: LogStore, db: sqlite3.Connection, at: _Progress, until: float) -> _Progress:
        """Some entries by replay, all of them or nothing; or the end of it."""
        found, done, exact = _Found(rounds=set(self._owed)), at.done, at.exact
        prefix: Prefix | None = None
        try:
            prefix = self._at(log, done)
            for entry in log.entries(done, min(done + _READ, at.folded, self._most)):
                prefix = prefix.extend((entry,))
                self._look(prefix, entry, found)
                done = entry.index + 1
                if time.monotonic() > until:
                    break
        except sqlite3.Error:
            raise
        except Exception as cause:
            found.notice(f"entry {done}", cause)
            exact = done
        if done >= self._most and exact is None:
            exact = done
        rounds = self._rounds(db, prefix, found)
        after = _Progress(at.folded, done, exact, at.trouble or found.trouble, at.undone)
        with db:
            db.execute("BEGIN IMMEDIATE")
            self._write(db, found, rounds)
            after.save(db)
            bump(db)
        self._prefix = prefix if exact is None else None
        self._kept(rounds)
        return after

    def _look(self, prefix: Prefix, entry: Entry, found: _Found) -> None:
        """One entry, the last of ``prefix``."""
        if isinstance(entry.body, UpdatePublished):
            self._look_at_update(prefix, prefix.update(entry.body.ref), found)
        elif isinstance(entry.body, PeerRetired):
            found.retired = True
            for update in prefix.updates(entry.body.peer):
                why = why_ignored(self._spec, prefix, update) if update.index >= entry.body.from_index else None
                if why is not None:
                    found.rounds.add(update.round)
                    self._ignore(prefix, update, why, found)

    def _look_at_update(self, prefix: Prefix, update: UpdateEntry, found: _Found) -> None:
        spec, index = self._spec, update.index
        found.rounds |= {update.round, update.round - 1}
        outcomes: list[dict[str, Any]] | None = None
        left: list[tuple[int, int, str, str]] = []
        why = why_ignored(spec, prefix, update)
        try:
            chosen = selection_behind(spec, prefix, update)
            outcomes = outcomes_of(chosen, update)
            if why is None:
                for ref, outcome, reason in left_out_by(prefix, update, chosen):
                    left.append((prefix.update(ref).index, index, outcome, reason))
        except (ValueError, LookupError):
            pass  # it cannot follow from what it claims to have seen
        except Exception as cause:
            found.notice(f"update {update.ref}", cause)
        found.choices.append((index, None if outcomes is None else json.dumps(outcomes, ensure_ascii=False)))
        if why is not None:
            self._ignore(prefix, update, why, found)
            return
        late = why_late(spec, prefix, update)
        if late is not None:
            left.append((index, _TOO_LATE, "late", late))
        found.left_out += left

    def _ignore(self, prefix: Prefix, update: UpdateEntry, why: str, found: _Found) -> None:
        """An update does not count, nor what it merged."""
        found.ignored[update.index] = why
        found.touched.add(update.index)
        for parent in update.parents:
            try:
                found.touched.add(prefix.update(parent.ref).index)
            except LookupError:
                continue  # only a hostile contract takes a parent that is nowhere

    def _rounds(self, db: sqlite3.Connection, prefix: Prefix | None, found: _Found) -> list[KeptRound]:
        """The rounds that may be others now. An open one ends when any entry comes, in a synchronous federation; those
        after it have not begun."""
        wanted = found.rounds | (self._open if found.retired else set())
        told = {number: self._round(db, prefix, number, found) for number in sorted(wanted)}
        if self._spec.rounds.mode == "sync":
            for number in sorted(self._open):
                one = told[number] if number in told else self._round(db, prefix, number, found)
                told[number] = one
                if one is not None and one.open:
                    break
        return [one for one in told.values() if one is not None]

    def _round(self, db: sqlite3.Connection, prefix: Prefix | None, number: int, found: _Found) -> KeptRound | None:
        try:
            if prefix is None:
                return summed(db, number)
            one = round_now(self._spec, prefix, number)
            return None if one is None else exactly(one)
        except Exception as cause:
            found.notice(f"round {number}", cause)
            return summed(db, number)

    def _write(self, db: sqlite3.Connection, found: _Found, rounds: list[KeptRound]) -> None:
        db.executemany("INSERT OR REPLACE INTO choices VALUES (?, ?)", found.choices)
        left_out = _within(db, found.left_out)
        db.executemany("INSERT OR REPLACE INTO left_out VALUES (?, ?, ?, ?)", left_out)
        touched = found.touched | {row[0] for row in left_out}
        for index, why in found.ignored.items():
            db.execute("UPDATE updates SET ignored = ? WHERE idx = ?", (why, index))
            touched |= {row[0] for row in db.execute("SELECT update_idx FROM left_out WHERE by_idx = ?", (index,))}
            db.execute("DELETE FROM left_out WHERE by_idx = ?", (index,))
            db.execute("DELETE FROM left_out WHERE update_idx = ? AND by_idx = ?", (index, _TOO_LATE))
        for one in rounds:
            keep(db, one)
        recount(db, touched)

    def _kept(self, rounds: list[KeptRound]) -> None:
        self._owed.clear()
        for one in rounds:
            (self._open.add if one.open else self._open.discard)(one.number)

    def _sum_up(self, db: sqlite3.Connection, at: _Progress) -> _Progress:
        """Some entries without a replay."""
        stop = min(at.done + _READ_BARE, at.folded)
        span = (at.done, stop)
        fresh = {row[0] for row in db.execute("SELECT DISTINCT round FROM updates WHERE idx >= ? AND idx < ?", span)}
        wanted = self._owed | fresh | {number - 1 for number in fresh}
        retired = db.execute("SELECT peer, retired_from FROM peers WHERE retired >= ? AND retired < ?", span).fetchall()
        for who in retired:
            wanted |= self._open
            wanted |= {row[0] for row in db.execute("SELECT round FROM updates WHERE peer = ? AND idx >= ?", who)}
        rounds = [one for number in sorted(wanted) if (one := summed(db, number)) is not None]
        after = _Progress(at.folded, stop, at.exact, at.trouble, at.undone)
        with db:
            db.execute("BEGIN IMMEDIATE")
            for one in rounds:
                keep(db, one)
            after.save(db)
            bump(db)
        self._kept(rounds)
        return after


def _within(db: sqlite3.Connection, left_out: list[tuple[int, int, str, str]]) -> list[tuple[int, int, str, str]]:
    """Without those of updates that enough others have left out before."""
    targets = sorted({row[0] for row in left_out})
    full: set[int] = set()
    for at in range(0, len(targets), 500):
        some = targets[at : at + 500]
        query = f"SELECT idx FROM updates WHERE idx IN ({','.join('?' * len(some))}) AND left_out_by >= ?"  # noqa: S608
        full |= {row[0] for row in db.execute(query, (*some, MOST_LEAVERS))}
    return [row for row in left_out if row[0] not in full or row[1] == _TOO_LATE]
