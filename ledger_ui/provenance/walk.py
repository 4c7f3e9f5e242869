"""The walk over merges, from the index, bounded by the number of merges that are looked at.

An update's parents have lower entry indices than it has. So updates are taken in the order of the log, away from the
root: when one is taken, all ways between it and the root are known, and its effective share is whole. Where the walk is
cut, whatever was taken has its whole share; what waits beyond the cut has been reached, and has at least its share.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from fl_node.records import PPM
from ledger_ui.questions.merges import is_nominal

_BATCH: Final = 400

#: One merge as the index has it: the end nearer to the root, the farther one, the share in ppm.
Merge: TypeAlias = tuple[int, int, int]


class Facts(NamedTuple):
    """What a walk needs to know of an update. ``merged``: parents with a share, as recorded; ``children``: updates that
    list it with one; ``site`` is ``None`` where its publisher is no member."""

    idx: int
    rule: int
    round: int
    site: int | None
    peer: int
    sequence: int
    merged: int
    children: int


_FACTS: Final = (
    "SELECT idx, rule, round, site, peer, sequence, merged, children FROM updates "
    "WHERE idx IN (SELECT value FROM json_each(?))"
)


class Walk:
    """All ancestors, or all descendants, of an update, as far as they were followed. Updates are named by entry.

    Attributes:
        upward: towards ancestors.
        shares: effective share of each relative in the root, or of the root in it; the root's own is 1.
        steps: merges between it and the root, by the shortest way.
        nominal: those with a way through a rule whose shares are nominal.
        links: of each that was taken, the merges that lead on from it.
        waiting: reached and not taken: their shares are at least as told, and nothing is known of what is beyond.
        facts: what the log says of the root and of each relative.
        looked: merges that were looked at.
        genesis, genesis_steps: of ancestors, the share that started at the genesis; steps to it, 0: not reached.
        unsound: some update names a parent that the log does not have before it: only a contract that is none of ours
            takes such. ``lost``: the effective share of those, where shares sum to 1.
    """

    def __init__(self, db: sqlite3.Connection, root: int, *, upward: bool) -> None:
        """From an update, by its entry, that is in the index; nothing is followed yet."""
        self.root, self.upward = root, upward
        self.shares: dict[int, float] = {root: 1.0}
        self.steps: dict[int, int] = {root: 0}
        self.nominal: set[int] = set()
        self.links: dict[int, Sequence[Merge]] = {}
        self.waiting, self.looked = {root}, 0
        self.genesis, self.genesis_steps = 0.0, 0
        self.unsound, self.lost = False, 0.0
        # Rows are tuples here: of thousands of them, that is felt.
        self._db = db.cursor()
        self._db.row_factory = None
        self.facts: dict[int, Facts] = {}
        self._learn([root])

    def go(self, most: int) -> Walk:
        """Follow on, looking at so many merges at most."""
        sign = -1 if self.upward else 1
        heap = [sign * idx for idx in self.waiting]
        heapq.heapify(heap)
        found: dict[int, Sequence[Merge]] = {}
        while heap:
            idx = sign * heap[0]
            if idx not in found:
                nearest = [sign * key for key in heapq.nsmallest(_BATCH, heap)]
                most -= self._fetch(found, [one for one in nearest if one not in found], most)
                if idx not in found:
                    break
            heapq.heappop(heap)
            self._take(idx, found.pop(idx), heap, sign)
        self.waiting = {sign * key for key in heap}
        self._learn([idx for idx in self.waiting if idx not in self.facts])
        if len(self.facts) < len(self.shares):
            self._forget([idx for idx in self.shares if idx not in self.facts])
        return self

    @property
    def relatives(self) -> list[int]:
        """All that were reached, the root not among them."""
        return [idx for idx in self.shares if idx != self.root]

    @property
    def beyond(self) -> float:
        """Of ancestors, the share that lies in or behind those that wait."""
        return min(1.0, sum(self.shares[idx] for idx in self.waiting)) if self.upward else 0.0

    # ---- below -----------------------------------------------------------------------------------------------------

    def _take(self, idx: int, merges: Sequence[Merge], heap: list[int], sign: int) -> None:
        """Hand an update's share on to the next ones, away from the root."""
        facts = self.facts.get(idx)
        if facts is None:
            return
        shares, steps, step = self.shares, self.steps, self.steps[idx] + 1
        # No model holds more than all of another; only a contract that is none of ours writes such shares.
        whole = shares[idx] = min(1.0, shares[idx])
        part = whole / PPM
        self.links[idx] = merges
        for _, other, share_ppm in merges:
            known = shares.get(other)
            if known is None:
                shares[other], steps[other] = part * share_ppm, step
                heapq.heappush(heap, sign * other)
            else:
                shares[other] = known + part * share_ppm
                if step < steps[other]:
                    steps[other] = step
        named = is_nominal(facts.rule)
        if not self.upward and named and idx != self.root:
            self.nominal.add(idx)
        if idx in self.nominal or (self.upward and named):
            self.nominal.update(other for _, other, _ in merges)
        if self.upward and len(merges) != facts.merged:
            self.unsound = True
            self.lost = min(1.0, self.lost + max(0.0, whole - part * sum(share_ppm for *_, share_ppm in merges)))
        elif self.upward and not merges:
            self.genesis = min(1.0, self.genesis + whole)
            self.genesis_steps = min(self.genesis_steps or step, step)

    def _fetch(self, found: dict[int, Sequence[Merge]], wanted: list[int], most: int) -> int:
        """Look up where the ways go on from these, given in the order of the walk; how many merges that were. Of those
        at the end nothing is found if that would be more merges than ``most``."""
        here, there, way = ("child", "parent", "DESC") if self.upward else ("parent", "child", "ASC")
        query = (
            f"SELECT {here}, {there}, share_ppm FROM parents WHERE {here} IN (SELECT value FROM json_each(?)) "  # noqa: S608
            f"AND share_ppm > 0 AND parent < child ORDER BY {here} {way} LIMIT ?"
        )
        rows: list[Merge] = self._db.execute(query, (json.dumps(wanted), most + 1)).fetchall()
        looked = len(rows)
        if looked > most:
            last = rows[-1][0]
            wanted = wanted[: wanted.index(last)]
            rows = [row for row in rows if row[0] != last]
            looked = most  # what is left would not do
        self._learn([idx for idx in wanted if idx not in self.facts])
        start = 0
        for idx in wanted:
            end = self._end(rows, start, idx)
            found[idx] = rows[start:end]
            start = end
        self.looked += looked
        return looked

    def _end(self, rows: Sequence[Merge], start: int, idx: int) -> int:
        """Where the rows of an update end. Its counts say it; they are wrong where no contract of ours wrote them."""
        facts = self.facts.get(idx)
        end = start + (0 if facts is None else facts.merged if self.upward else facts.children)
        whole = len(rows)
        if end > whole or (end > start and rows[end - 1][0] != idx) or (end < whole and rows[end][0] == idx):
            end = start
            while end < whole and rows[end][0] == idx:
                end += 1
        return end

    def _forget(self, strangers: Sequence[int]) -> None:
        """Leave out what is no update in the index: entries that say again what is another update's name."""
        for idx in strangers:
            del self.shares[idx], self.steps[idx]
            self.links.pop(idx, None)
            self.waiting.discard(idx)
            self.nominal.discard(idx)
        for idx, merges in self.links.items():
            if any(other not in self.facts for _, other, _ in merges):
                self.links[idx] = [merge for merge in merges if merge[1] in self.facts]

    def _learn(self, wanted: Sequence[int]) -> None:
        if wanted:
            rows = self._db.execute(_FACTS, (json.dumps(wanted),)).fetchall()
            self.facts.update((row[0], Facts._make(row)) for row in rows)
