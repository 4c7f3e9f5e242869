"""The records of a lineage: roots, relatives with their effective shares, and the merges between them.

:mod:`fl_node.lineage.graph` makes them, and says what an effective share means.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from fl_node.prefix import UpdateEntry
from fl_node.records import PPM, Parent, Rule, UpdateRef

NOMINAL_RULES: Final = frozenset(
    {Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.GEOMETRIC_MEDIAN, Rule.CENTRED_CLIPPING},
)
_KNOWN_RULES: Final = frozenset(Rule)


@dataclass(frozen=True, slots=True)
class Share:
    """``part / whole``, exact. The integers may have thousands of digits: ``float`` gives the nearest double."""

    part: int
    whole: int

    def __float__(self) -> float:
        return self.part / self.whole

    @property
    def fraction(self) -> Fraction:
        return Fraction(self.part, self.whole)


@dataclass(frozen=True, slots=True)
class Relative:
    """An update that the root came from, or that came of it.

    Attributes:
        site: the organisation behind its publisher.
        steps: merges between it and the root, by the shortest way.
        share: effective share: of this update in the root, or of the root in this update.
        nominal: some way between the two goes through a rule whose shares are nominal.
        withdrawn: its publisher has withdrawn it.
        counts: whether it counts, its publisher's retirement considered.
    """

    entry: UpdateEntry
    site: str
    steps: int
    share: Share
    nominal: bool
    withdrawn: bool
    counts: bool

    @property
    def ref(self) -> UpdateRef:
        return self.entry.ref


@dataclass(frozen=True, slots=True)
class OfSite:
    """What one site has to do with the root.

    Attributes:
        direct_ppm: of ancestors, the sum of the shares with which the root merged updates of this site; of descendants,
            the largest share that one of its updates gave the roots, all of them together. 0: none directly.
        updates: how many of its updates are ancestors, or descendants.
        largest: the largest effective share among them.
        latest: of descendants, the effective share in the latest update that this site has (of several peers, the
            largest); ``None`` for ancestors, and where the site has gone on without.
    """

    site: str
    direct_ppm: int
    updates: int
    first_round: int
    last_round: int
    largest: Share
    nominal: bool
    latest: Share | None = None


@dataclass(frozen=True, slots=True)
class Relatives:
    """All ancestors, or all descendants.

    Attributes:
        updates: by steps, then by name.
        sites: over all of them, however far away; by name.
        farther: how many lie too far away to be listed.
        genesis: share of the genesis: where updates without parents started. ``None`` for descendants.
        genesis_steps: fewest merges between the genesis and the root; 1 where the root itself has no parents.
        exact: whether shares are exact; else each is at most a tiny part of 2^-200 too small.
    """

    updates: tuple[Relative, ...]
    sites: tuple[OfSite, ...]
    farther: int
    genesis: Share | None
    genesis_steps: int
    exact: bool

    def within(self, levels: int) -> Relatives:
        """The same, listing updates at most so many steps away; 0: all that are listed."""
        near = tuple(relative for relative in self.updates if not levels or relative.steps <= levels)
        return replace(self, updates=near, farther=self.farther + len(self.updates) - len(near))


@dataclass(frozen=True, slots=True)
class Edge:
    """``child`` merged ``parent`` with this share; ``parent`` is ``None`` for the genesis."""

    child: UpdateRef
    parent: UpdateRef | None
    share_ppm: int
    nominal: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """What one update, or all updates of one site, came from and what came of it.

    Attributes:
        roots: the update that was asked about; all of the site's, by entry, where ``site`` is not empty.
        sites: the site of each root and relative, by peer.
        ancestors, descendants: ``None`` where not asked for.
    """

    roots: tuple[UpdateEntry, ...]
    site: str
    sites: Mapping[int, str]
    ancestors: Relatives | None
    descendants: Relatives | None

    def within(self, levels: int) -> Lineage:
        """The same, listing relatives at most so many steps away; 0: all. Shares and sites stay what they are."""
        above, below = self.ancestors, self.descendants
        return replace(
            self,
            ancestors=None if above is None else above.within(levels),
            descendants=None if below is None else below.within(levels),
        )

    def entries(self) -> dict[UpdateRef, UpdateEntry]:
        """Roots and relatives, by entry."""
        relatives = [*(self.ancestors.updates if self.ancestors else ())]
        relatives += self.descendants.updates if self.descendants else ()
        entries = [*self.roots, *(relative.entry for relative in relatives)]
        return {entry.ref: entry for entry in sorted(entries, key=lambda entry: entry.index)}

    def relatives(self) -> dict[UpdateRef, Relative]:
        """What is known of each relative."""
        found = [*(self.ancestors.updates if self.ancestors else ())]
        found += self.descendants.updates if self.descendants else ()
        return {relative.ref: relative for relative in found}

    def edges(self) -> Iterator[Edge]:
        """The merges on the ways between roots and relatives, by the child's entry; the starts at the genesis, too."""
        roots = [entry.ref for entry in self.roots]
        if self.ancestors is not None:
            updates = {relative.ref: relative.entry for relative in self.ancestors.updates}
            children = sorted([*updates.values(), *self.roots], key=lambda entry: entry.index)
            for child in children:
                if not any(parent.share_ppm for parent in child.parents):
                    yield Edge(child.ref, None, PPM, nominal=False)
                yield from _edges(child, updates)
        if self.descendants is not None:
            updates = {relative.ref: relative.entry for relative in self.descendants.updates}
            known = updates.keys() | set(roots)
            # Of a whole site, its own updates are roots that may have merged one another.
            children = [*updates.values(), *(self.roots if len(roots) > 1 else ())]
            for child in sorted(children, key=lambda entry: entry.index):
                yield from _edges(child, known)


def has_nominal_shares(entry: UpdateEntry) -> bool:
    """Whether the shares that an update records do not say how much of each parent is in its base. Of a rule that this
    version does not know, nobody can say that they do."""
    return entry.update.rule in NOMINAL_RULES or entry.update.rule not in _KNOWN_RULES


def merged_parents(entry: UpdateEntry) -> Iterator[Parent]:
    """The parents that have a share in an update's base."""
    return (parent for parent in entry.parents if parent.share_ppm)


def _edges(child: UpdateEntry, known: Container[UpdateRef]) -> Iterator[Edge]:
    nominal = has_nominal_shares(child)
    for parent in merged_parents(child):
        if parent.ref in known:
            yield Edge(child.ref, parent.ref, parent.share_ppm, nominal)
