"""The graph of updates and their parents: ancestors and descendants of an update, with effective shares.

**What an effective share means.** A base is an average of its parents, each with its share. Follow an update's parents,
and theirs, multiply the shares along each way and sum over all ways: that is the weight with which an ancestor's
weights enter this model *as an average*. Training changes the weights at each step on the way. So an effective share
is a share of starting points: it says from whose models this one set out, and how much each counted there. It is no
measure of how much a site's data influence what the model predicts.

Where all ways to an ancestor are of one length, as in synchronous rounds, the shares of one generation sum to 1, less
what had ended at the genesis before. Shares of several generations must not be added up: they lie on the same ways.

Through a rule whose shares only name the candidates (median, trimmed mean, geometric median, centred clipping), an
effective share is *nominal*: it says that there is a way, not how much came along it. Where the spec clips models
before they are averaged (``merging.clip``), shares are of the clipped ones.

An update that was considered and not merged (share 0) is no parent here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

from fl_node.errors import InconsistentLog
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import PPM, Parent, Reason, Rule, UpdatePublished, UpdateRef

Direction: TypeAlias = Literal["ancestors", "descendants", "both"]

NOMINAL_RULES: Final = frozenset(
    {Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.GEOMETRIC_MEDIAN, Rule.CENTRED_CLIPPING},
)
_KNOWN_RULES: Final = frozenset(Rule)

# Exact shares have 20 bits for each step of the longest way. Beyond these limits (seconds, and a hundred megabytes)
# they are counted in units of 2^-256 instead, always rounded down.
_MOST_BIT_WORK: Final = 2_000_000_000
_MOST_NUMBERS: Final = 50_000_000
_FINE: Final = 1 << 256


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
        updates: by steps, then by name; no farther away than was asked for.
        sites: over all of them, however far away; by name.
        farther: how many lie farther away than was asked for.
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


def trace(prefix: Prefix, ref: UpdateRef, direction: Direction = "both", levels: int = 0) -> Lineage:
    """What an update came from and what came of it.

    Args:
        levels: list updates at most so many steps away; 0: all. Shares and sites are over all of them in any case.

    Raises:
        LookupError: no such update.
        InconsistentLog: an update names a parent that is not before it.
    """
    root = prefix.update(ref)
    above = ancestors(prefix, ref, levels) if direction != "descendants" else None
    below = descendants(prefix, [ref], levels) if direction != "ancestors" else None
    return Lineage((root,), "", _sites(prefix), above, below)


def trace_site(prefix: Prefix, site: str, levels: int = 0) -> Lineage:
    """What came of all updates of a site, of whichever of its peers: what is tainted if it withdraws.

    Raises:
        LookupError: no member of that site, or it has published nothing.
        InconsistentLog: an update names a parent that is not before it.
    """
    members = [facts.number for facts in prefix.peers() if facts.site == site]
    if not members:
        raise LookupError(f"no member is of site {site}")
    roots = sorted((entry for peer in members for entry in prefix.updates(peer)), key=lambda entry: entry.index)
    if not roots:
        raise LookupError(f"site {site} has published no update")
    below = descendants(prefix, [entry.ref for entry in roots], levels)
    return Lineage(tuple(roots), site, _sites(prefix), None, below)


def ancestors(prefix: Prefix, ref: UpdateRef, levels: int = 0) -> Relatives:
    """All updates that this one came from, with the effective share of each in it. See :func:`trace`.

    Time grows with the merges on the ways: a quarter of a million in about a second.
    """
    root = prefix.update(ref)
    entries, steps = {root.index: root}, {root.index: 0}
    links: dict[int, list[tuple[int, int]]] = {}
    queue = deque([root])
    while queue:
        child = queue.popleft()
        found = links[child.index] = []
        for parent in _merged(child):
            entry = _before(prefix, child, parent)
            found.append((entry.index, parent.share_ppm))
            if entry.index not in entries:
                entries[entry.index], steps[entry.index] = entry, steps[child.index] + 1
                queue.append(entry)
    order = sorted(entries, reverse=True)
    longest = dict.fromkeys(order, 0)
    nominal = dict.fromkeys(order, False)
    for index in order:
        through = nominal[index] or has_nominal_shares(entries[index])
        for parent_index, _ in links[index]:
            longest[parent_index] = max(longest[parent_index], longest[index] + 1)
            nominal[parent_index] |= through
    whole, exact = _whole(longest.values(), sum(map(len, links.values())))
    parts = dict.fromkeys(order, 0)
    parts[root.index] = whole
    for index in order:
        # Divisible: the longest way to this update is shorter than that to its parents.
        part = parts[index] // PPM
        for parent_index, share_ppm in links[index]:
            parts[parent_index] += part * share_ppm
    ends = [index for index in order if not links[index]]
    genesis = Share(sum(parts[index] for index in ends), whole)
    relatives = [
        _relative(prefix, entries[index], steps[index], Share(parts[index], whole), nominal[index])
        for index in order
        if index != root.index
    ]
    direct: dict[str, int] = {}
    for parent in _merged(root):
        site = prefix.peer(parent.peer).site
        direct[site] = direct.get(site, 0) + parent.share_ppm
    return Relatives(
        _nearest(relatives, levels),
        _by_site(relatives, direct),
        sum(1 for relative in relatives if 0 < levels < relative.steps),
        genesis,
        min(steps[index] for index in ends) + 1,
        exact,
    )


def descendants(prefix: Prefix, refs: Iterable[UpdateRef], levels: int = 0) -> Relatives:
    """All updates that merged one of these, directly or not, with the effective share that these have in each.

    Of several updates it is the part of the starting points that came through any of them: a way that meets two of
    them counts once. So the share of a whole site is never above 1.

    Raises:
        LookupError: no such update.
        InconsistentLog: an update names a parent that is not before it.
    """
    roots = {entry.index: entry for entry in map(prefix.update, refs)}
    entries, steps, longest = dict(roots), dict.fromkeys(roots, 0), dict.fromkeys(roots, 0)
    nominal = dict.fromkeys(roots, False)
    links: dict[int, list[tuple[int, int]]] = {}
    for fact in prefix.facts(min(roots, default=prefix.size)):
        if not isinstance(fact.body, UpdatePublished) or fact.index in roots:
            continue
        child = prefix.update(fact.body.ref)
        found = [(_before(prefix, child, parent).index, parent.share_ppm) for parent in _merged(child)]
        found = [(index, share_ppm) for index, share_ppm in found if index in entries]
        if found:
            above = [index for index, _ in found]
            entries[child.index], links[child.index] = child, found
            steps[child.index] = min(steps[index] for index in above) + 1
            longest[child.index] = max(longest[index] for index in above) + 1
            nominal[child.index] = has_nominal_shares(child) or any(nominal[index] for index in above)
    whole, exact = _whole(longest.values(), sum(map(len, links.values())))
    # Kept divided by a million once: each is used for many children.
    parts, parted = dict.fromkeys(roots, whole), dict.fromkeys(roots, whole // PPM)
    for index, found in links.items():
        parts[index] = sum(parted[parent_index] * share_ppm for parent_index, share_ppm in found)
        parted[index] = parts[index] // PPM
    relatives = [
        _relative(prefix, entries[index], steps[index], Share(parts[index], whole), nominal[index]) for index in links
    ]
    direct: dict[str, int] = {}
    for index, found in links.items():
        site = prefix.peer(entries[index].ref.peer).site
        given = sum(share_ppm for parent_index, share_ppm in found if parent_index in roots)
        direct[site] = max(direct.get(site, 0), given)
    return Relatives(
        _nearest(relatives, levels),
        _by_site(relatives, direct, _latest(prefix)),
        sum(1 for relative in relatives if 0 < levels < relative.steps),
        None,
        0,
        exact,
    )


def has_nominal_shares(entry: UpdateEntry) -> bool:
    """Whether the shares that an update records do not say how much of each parent is in its base. Of a rule that this
    version does not know, nobody can say that they do."""
    return entry.update.rule in NOMINAL_RULES or entry.update.rule not in _KNOWN_RULES


def as_json(lineage: Lineage) -> dict[str, Any]:
    """JSON-ready: ``roots``, ``site``, ``ancestors``, ``descendants`` (or null), ``edges``. Effective shares are the
    doubles nearest to the exact ones."""
    return {
        "roots": [{**_entry_json(entry), "site": lineage.sites[entry.ref.peer]} for entry in lineage.roots],
        "site": lineage.site or None,
        "ancestors": _relatives_json(lineage.ancestors),
        "descendants": _relatives_json(lineage.descendants),
        "edges": [
            {
                "child": str(edge.child),
                "parent": "genesis" if edge.parent is None else str(edge.parent),
                "share_ppm": edge.share_ppm,
                "nominal": edge.nominal,
            }
            for edge in lineage.edges()
        ],
    }


def _relatives_json(found: Relatives | None) -> dict[str, Any] | None:
    if found is None:
        return None
    told: dict[str, Any] = {
        "updates": [
            {
                **_entry_json(relative.entry),
                "site": relative.site,
                "steps": relative.steps,
                "effective_share": float(relative.share),
                "nominal": relative.nominal,
                "withdrawn": relative.withdrawn,
                "counts": relative.counts,
            }
            for relative in found.updates
        ],
        "sites": [
            {
                "site": item.site,
                "direct_share_ppm": item.direct_ppm,
                "updates": item.updates,
                "first_round": item.first_round,
                "last_round": item.last_round,
                "largest_effective_share": float(item.largest),
                "nominal": item.nominal,
                "latest_effective_share": None if item.latest is None else float(item.latest),
            }
            for item in found.sites
        ],
        "farther": found.farther,
        "exact": found.exact,
    }
    if found.genesis is not None:
        told["genesis"] = {"effective_share": float(found.genesis), "steps": found.genesis_steps}
    return told


def _entry_json(entry: UpdateEntry) -> dict[str, Any]:
    return {
        "update": str(entry.ref),
        "peer": entry.ref.peer,
        "round": entry.round,
        "entry": entry.index,
        "time_s": entry.time_s,
        "final": entry.final,
        "content": entry.content.hex(),
        "claimed_score_ppm": entry.update.score_ppm,
    }


def _merged(entry: UpdateEntry) -> Iterator[Parent]:
    return (parent for parent in entry.parents if parent.share_ppm)


def _edges(child: UpdateEntry, known: Container[UpdateRef]) -> Iterator[Edge]:
    nominal = has_nominal_shares(child)
    for parent in _merged(child):
        if parent.ref in known:
            yield Edge(child.ref, parent.ref, parent.share_ppm, nominal)


def _before(prefix: Prefix, child: UpdateEntry, parent: Parent) -> UpdateEntry:
    """A parent's entry, which any contract of ours makes sure lies before its child's: so no way goes in a circle."""
    try:
        entry = prefix.update(parent.ref)
    except LookupError:
        entry = None
    if entry is None or entry.index >= child.index:
        raise InconsistentLog(
            f"update {child.ref} at entry {child.index} names the parent {parent.ref}, which is not before it: this is "
            "no contract's log"
        )
    return entry


def _whole(longest: Iterable[int], links: int) -> tuple[int, bool]:
    """What 1 is counted in, and whether that is exact: a million for each step of the longest way."""
    lengths = list(longest)
    most = max(lengths, default=0)
    exact = most * links <= _MOST_BIT_WORK and most * len(lengths) <= _MOST_NUMBERS
    return (PPM**most if exact else _FINE), exact


def _relative(prefix: Prefix, entry: UpdateEntry, steps: int, share: Share, nominal: bool) -> Relative:
    peer = entry.ref.peer
    words = prefix.objections(entry.ref)
    withdrawn = any(word.peer == peer and word.reason is Reason.WITHDRAWN for word in words)
    return Relative(entry, prefix.peer(peer).site, steps, share, nominal, withdrawn, prefix.counts(peer, entry.index))


def _nearest(relatives: Sequence[Relative], levels: int) -> tuple[Relative, ...]:
    near = (relative for relative in relatives if not levels or relative.steps <= levels)
    return tuple(sorted(near, key=lambda relative: (relative.steps, relative.ref)))


def _by_site(
    relatives: Iterable[Relative], direct: Mapping[str, int], latest: Mapping[str, frozenset[UpdateRef]] | None = None
) -> tuple[OfSite, ...]:
    found: dict[str, OfSite] = {}
    for relative in relatives:
        item = OfSite(
            relative.site,
            direct.get(relative.site, 0),
            1,
            relative.entry.round,
            relative.entry.round,
            relative.share,
            relative.nominal,
            relative.share if latest is not None and relative.ref in latest[relative.site] else None,
        )
        known = found.get(relative.site)
        found[relative.site] = item if known is None else _joined(known, item)
    return tuple(found[site] for site in sorted(found))


def _joined(one: OfSite, other: OfSite) -> OfSite:
    newest = [share for share in (one.latest, other.latest) if share is not None]
    return replace(
        one,
        updates=one.updates + other.updates,
        first_round=min(one.first_round, other.first_round),
        last_round=max(one.last_round, other.last_round),
        largest=max(one.largest, other.largest, key=lambda share: share.part),
        nominal=one.nominal or other.nominal,
        latest=max(newest, key=lambda share: share.part, default=None),
    )


def _latest(prefix: Prefix) -> dict[str, frozenset[UpdateRef]]:
    """The latest updates of each site's peers."""
    found: dict[str, set[UpdateRef]] = {}
    for facts in prefix.peers():
        refs = found.setdefault(facts.site, set())
        sequence = prefix.sequence(facts.number)
        if sequence:
            refs.add(UpdateRef(facts.number, sequence))
    return {site: frozenset(refs) for site, refs in found.items()}


def _sites(prefix: Prefix) -> dict[int, str]:
    return {facts.number: facts.site for facts in prefix.peers()}
