"""Check 12, originality: whether an update's weights are another peer's, or look like a copy of them.

An exact copy is a fact: the same tensors, published before by another site. A likeness is not: two honest peers of like
data make like models. So how alike two updates may be is taken from other pairs of the same round, none of which the
later publisher has a part in; and the verdict is *suspicious*, never *failed*.

Compared with are the updates that the publisher could have seen before its own was recorded: those of other sites in
the same round, and each one's latest of a round before. Older ones are found only where the copy is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_node.audit.known import Floats, Known
from fl_node.audit.likeness import FEWEST_PAIRS, Likeness, Limits, Models, compare, limits
from fl_node.audit.verdicts import Finding, Result
from fl_node.merging import weights
from fl_node.merging.board import members_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef
from fl_node.spec import Spec

NAME: Final = "originality"
#: Rounds before and after one that has too few pairs, at most.
_AROUND: Final = 8
#: Commitments that are worked out at most, about a second and a half.
_MOST_COMMITMENTS: Final = 500_000
#: Pairs of a round from which a limit is taken, about so many at most.
_MOST_REFERENCES: Final = 4096
#: Pairs that are kept at a time, some 100 MB.
_MOST_KEPT: Final = 2_000_000
_MEASURES: Final = ("distance", "angle", "predictions")


def originality_findings(
    spec: Spec, prefix: Prefix, wanted: Sequence[UpdateEntry], known: Mapping[UpdateRef, Known]
) -> dict[UpdateRef, Finding]:
    """What can be said of where each wanted update's weights come from.

    Args:
        prefix: the whole log as it is known.
        known: what the replay knows of updates' bytes; of all updates, if thresholds are to be taken from all pairs.

    Returns:
        ``suspicious`` for an exact copy of another site's earlier update, for its own base published as trained while
        others trained, and for what looks like a copy; ``unknown`` where its bytes, those of an update that it could be
        a copy of, or enough other pairs are not known; else ``ok``.
    """
    look = _Look(spec, prefix, known, wanted)
    return {entry.ref: look.finding(entry) for entry in wanted}


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of a later update (by its row) and an earlier one of another site (by its column): places [pairs], sites
    by number [pairs, 2], and measures [pairs]."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    sites: NDArray[np.int32]
    measures: Mapping[str, Floats]
    earlier: Sequence[UpdateEntry]
    inputs: int

    def without(self, site: int) -> list[Floats]:
        """The measures of the pairs in which a site has no part; of very many, of every k-th."""
        some = slice(None, None, max(1, len(self.rows) // _MOST_REFERENCES))
        others = (self.sites[some] != site).all(axis=1)
        return [self.measures[name][some][others] for name in _MEASURES]

    def of(self, row: int) -> NDArray[np.intp]:
        """The pairs of one later update."""
        return np.flatnonzero(self.rows == row)


@dataclass(frozen=True, slots=True)
class _Round:
    """The trained updates of a round whose bytes are known; pairs within it, and with the rounds before."""

    rows: Mapping[UpdateRef, int]
    within: _Pairs
    before: _Pairs
    moving: int

    @property
    def pairs(self) -> int:
        return len(self.within.rows) + len(self.before.rows)


class _Look:
    """One look at the updates of a log."""

    def __init__(
        self, spec: Spec, prefix: Prefix, known: Mapping[UpdateRef, Known], wanted: Sequence[UpdateEntry]
    ) -> None:
        self.spec, self.prefix, self.known = spec, prefix, known
        self._site_names = members_of(prefix).sites
        numbers = {name: number for number, name in enumerate(sorted(set(self._site_names.values())))}
        self._sites = {peer: numbers[name] for peer, name in self._site_names.items()}
        #: Trained updates by publisher, by entry.
        self._trained = {
            peer: [entry for entry in prefix.updates(peer) if self._trains(entry)] for peer in self._site_names
        }
        everything = [entry for peer in self._site_names for entry in prefix.updates(peer)]
        everything.sort(key=attrgetter("index"))
        self._by_digest: dict[bytes, list[UpdateEntry]] = defaultdict(list)
        for entry in everything:
            if entry.ref in known:
                self._by_digest[known[entry.ref].digest].append(entry)
        self._unknown = [entry for entry in everything if entry.ref not in known]
        self._unknown_at = [entry.index for entry in self._unknown]
        self._each = _MOST_COMMITMENTS // max(1, len(wanted))
        self._rounds: dict[int, _Round | None] = {}

    # ---- one update ----

    def finding(self, entry: UpdateEntry) -> Finding:
        mine = self.known.get(entry.ref)
        if mine is None:
            return Finding(NAME, Result.UNKNOWN, "its bytes are not known")
        if not self._trains(entry):
            if mine.digest == entry.update.base:
                what = "a closing update" if entry.final else "an update of a round in which nobody trains"
                return Finding(NAME, Result.OK, f"{what} is its base, and others' may be the same")
            return Finding(NAME, Result.UNKNOWN, "it should be its base and is not, so nothing is to be compared with")
        there = self._round(entry.round)
        idle = mine.digest == entry.update.base
        if idle and there is not None and not there.moving:
            return Finding(NAME, Result.OK, "its weights are its base, as in this round those of all others are theirs")
        first = self._first(entry, mine)
        if self._site(first) != self._site(entry):
            data = {"original": str(first.ref), "original_entry": first.index, "copy": "exact"}
            text = f"its weights are those of {first.ref}, published before it at entry {first.index}, to the bit"
            return Finding(NAME, Result.SUSPICIOUS, text, data)
        if idle:
            text = "its weights are its base: nothing was trained, while others trained"
            return Finding(NAME, Result.SUSPICIOUS, text, {"original": "base", "copy": "exact"})
        return self._alike(entry, None if first.ref == entry.ref else first)

    def _first(self, entry: UpdateEntry, mine: Known) -> UpdateEntry:
        """Who published these tensors first. Where bytes are not known, commitments are: to have been given these
        tensors, an update must have committed to them."""
        first = self._by_digest[mine.digest][0]
        opened = self.prefix.opened
        for other in self._unknown_before(first.index):
            ref = other.ref
            found = weights.commitment(opened.chain_id, opened.ledger, ref.peer, ref.sequence, mine.digest)
            if found == other.update.weights:
                return other
        return first

    def _unknown_before(self, index: int) -> Sequence[UpdateEntry]:
        """The latest updates before an entry whose bytes are not known, as many as there is time for."""
        end = bisect_left(self._unknown_at, index)
        return self._unknown[max(0, end - self._each) : end]

    def _alike(self, entry: UpdateEntry, repeat: UpdateEntry | None) -> Finding:
        """What looks like a copy."""
        there = self._round(entry.round)
        if there is None:
            return Finding(NAME, Result.UNKNOWN, "nothing is known of its round")
        row, site = there.rows[entry.ref], self._site(entry)
        candidates = [*self._earlier_in_round(entry), *self._latest_before(entry)]
        unseen = [other.ref for other in candidates if other.ref not in self.known]
        found: list[_Match] = []
        lacking = 0
        data: dict[str, Any] = {"compared": len(candidates) - len(unseen)}
        for name, pairs in (("same round", there.within), ("rounds before", there.before)):
            own = pairs.of(row)
            if not len(own):
                continue
            limit = self._limits(entry.round, site, name)
            if limit.distance is None:
                lacking += len(own)
                continue
            data[name.replace(" ", "_")] = _told(limit)
            found += _matches(pairs, own, limit)
        found.sort(key=lambda match: match.ratio)
        if found:
            data["nearest"] = found[0].as_json()
        if found and found[0].near:
            best = found[0]
            same = [match for match in found if match.near and match.earlier.ref == best.earlier.ref]
            data |= {"original": str(best.earlier.ref), "original_entry": best.earlier.index, "copy": "near"}
            data["signs"] = [match.as_json() for match in same]
            signs = "; ".join(match.words for match in same)
            where = f"{best.earlier.ref}, published before it at entry {best.earlier.index}"
            return Finding(NAME, Result.SUSPICIOUS, f"it looks like a copy of {where}: {signs}", data)
        if repeat is not None:
            data["repeats"] = str(repeat.ref)
        said = f"; its weights are those of {repeat.ref}, of its own site, again" if repeat is not None else ""
        older = bisect_left(self._unknown_at, entry.index) - len(self._unknown_before(entry.index))
        if older:
            said += f"; not held against the commitments of {older} older updates"
        if unseen:
            names = ", ".join(map(str, unseen[:5])) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
            text = f"it could be a copy of {names}, whose bytes are not known{said}"
            return Finding(NAME, Result.UNKNOWN, text, data)
        if lacking:
            text = f"fewer than {FEWEST_PAIRS} pairs of others' updates show how alike honest ones are{said}"
            return Finding(NAME, Result.UNKNOWN, text, data)
        if not candidates:
            return Finding(NAME, Result.OK, f"no other site had published anything before it{said}", data)
        text = f"none of {len(candidates)} updates that it could be a copy of is as near as copies are{said}"
        if len(candidates) == 1:
            text = f"the one update that it could be a copy of is further away than copies are{said}"
        return Finding(NAME, Result.OK, text, data)

    # ---- rounds ----

    def _limits(self, number: int, site: int, name: str) -> Limits:
        """How alike copies are, from the pairs of a round in which a site has no part; where they are too few, from
        those of the rounds around it as well, the nearest first."""
        parts: list[list[Floats]] = []
        inputs = 0
        for away in range(_AROUND + 1):
            for each in {number - away, number + away}:
                there = self._round(each)
                if there is not None:
                    pairs = there.within if name == "same round" else there.before
                    parts.append(pairs.without(site))
                    inputs = max(inputs, pairs.inputs)
            if sum(int(np.isfinite(part[0]).sum()) for part in parts) >= FEWEST_PAIRS:
                break
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.empty(0)] * 3
        return limits(columns[0], columns[1], columns[2], inputs)

    def _round(self, number: int) -> _Round | None:
        if number not in self._rounds:
            made = self._made(number)
            kept = sum(there.pairs for there in self._rounds.values() if there is not None)
            if made is not None and kept + made.pairs > _MOST_KEPT:
                self._rounds.clear()
            self._rounds[number] = made
        return self._rounds[number]

    def _made(self, number: int) -> _Round | None:
        entries = [one for one in self.prefix.of_round(number) if self._trains(one) and one.ref in self.known]
        if not entries:
            return None
        later = Models.of([self.known[entry.ref] for entry in entries])
        places = {entry.ref: place for place, entry in enumerate(entries)}
        within = [
            (row, places[other.ref])
            for row, one in enumerate(entries)
            for other in self._earlier_in_round(one)
            if other.ref in places
        ]
        columns: dict[UpdateRef, int] = {}
        earlier: list[UpdateEntry] = []
        before = []
        for row, one in enumerate(entries):
            for other in self._latest_before(one):
                if other.ref in self.known:
                    if other.ref not in columns:
                        columns[other.ref] = len(earlier)
                        earlier.append(other)
                    before.append((row, columns[other.ref]))
        likeness = compare(later, Models.of([self.known[other.ref] for other in earlier])) if earlier else None
        moving = sum(self.known[entry.ref].digest != entry.update.base for entry in entries)
        return _Round(
            places,
            self._pairs(within, entries, entries, compare(later, later)),
            self._pairs(before, entries, earlier, likeness),
            moving,
        )

    def _pairs(
        self,
        places: Iterable[tuple[int, int]],
        later: Sequence[UpdateEntry],
        earlier: Sequence[UpdateEntry],
        likeness: Likeness | None,
    ) -> _Pairs:
        both = np.array(list(places), np.int32).reshape(-1, 2)
        rows, columns = both[:, 0], both[:, 1]
        own = np.array([self._site(entry) for entry in later], np.int32)
        others = np.array([self._site(entry) for entry in earlier], np.int32)
        sites = np.stack([own[rows], others[columns]], axis=1) if len(both) else np.empty((0, 2), np.int32)
        measures = {
            name: getattr(likeness, name)[rows, columns] if likeness is not None else np.empty(0) for name in _MEASURES
        }
        return _Pairs(rows, columns, sites, measures, earlier, likeness.inputs if likeness else 0)

    def _earlier_in_round(self, entry: UpdateEntry) -> list[UpdateEntry]:
        """What other sites had published in the same round."""
        return [
            other
            for other in self.prefix.of_round(entry.round)
            if other.index < entry.index and self._site(other) != self._site(entry) and self._trains(other)
        ]

    def _latest_before(self, entry: UpdateEntry) -> list[UpdateEntry]:
        """Each peer's latest update of a round before, of those of other sites."""
        found = []
        for peer, updates in self._trained.items():
            if self._sites[peer] == self._site(entry):
                continue
            at = bisect_left(updates, entry.index, key=attrgetter("index"))
            while at and updates[at - 1].round >= entry.round:
                at -= 1
            if at:
                found.append(updates[at - 1])
        return found

    def _trains(self, entry: UpdateEntry) -> bool:
        """Whether an update is of a round in which everybody trains, and not its base by rule."""
        return not entry.final and (entry.round - 1) % self.spec.training.every == 0

    def _site(self, entry: UpdateEntry) -> int:
        return self._sites[entry.ref.peer]


@dataclass(frozen=True, slots=True)
class _Match:
    """One measure of an update and an earlier one, beside what copies come to."""

    earlier: UpdateEntry
    measure: str
    value: float
    limit: float

    @property
    def near(self) -> bool:
        return self.value <= self.limit

    @property
    def ratio(self) -> tuple[bool, float]:
        """The smaller, the more it looks like a copy."""
        return not self.near, self.value / self.limit if self.limit else self.value

    @property
    def words(self) -> str:
        return f"{self.measure} {_short(self.value)}, of honest pairs above {_short(self.limit)}"

    def as_json(self) -> dict[str, Any]:
        return {
            "update": str(self.earlier.ref),
            "measure": self.measure,
            "value": _short(self.value),
            "limit": _short(self.limit),
        }


def _matches(pairs: _Pairs, own: NDArray[np.intp], limit: Limits) -> Iterable[_Match]:
    """By each measure, of these pairs: those as near as copies are, and the nearest."""
    for name in _MEASURES:
        most, values = getattr(limit, name), pairs.measures[name][own]
        if most is None or not np.isfinite(values).any():
            continue
        places = {int(np.nanargmin(values)), *np.flatnonzero(values <= most).tolist()}
        for place in sorted(places):
            earlier = pairs.earlier[int(pairs.columns[own[place]])]
            yield _Match(earlier, name, float(values[place]), most)


def _told(limit: Limits) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: None if getattr(limit, name) is None else _short(getattr(limit, name)) for name in _MEASURES
    }
    return found | {"pairs": limit.pairs, "data_alike": limit.alike}


def _short(value: float) -> float:
    """To three digits: the others depend on the machine."""
    return float(f"{value:.3g}")
