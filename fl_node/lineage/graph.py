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
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from fl_node.errors import InconsistentLog
from fl_node.lineage.kin import Lineage, OfSite, Relative, Relatives, Share, has_nominal_shares, merged_parents
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import PPM, Parent, Reason, UpdatePublished, UpdateRef

Direction: TypeAlias = Literal["ancestors", "descendants", "both"]

# Exact shares have 20 bits for each step of the longest way. Beyond these limits (seconds, and a hundred megabytes)
# they are counted in units of 2^-256 instead, always rounded down.
_MOST_BIT_WORK: Final = 2_000_000_000
_MOST_NUMBERS: Final = 50_000_000
_FINE: Final = 1 << 256


def trace(prefix: Prefix, ref: UpdateRef, direction: Direction = "both", levels: int = 0) -> Lineage:
    """What an update came from and what came of it.

    Args:
        levels: list updates at most so many steps away; 0: all. Shares and sites are over all of them in any case.

    Raises:
        LookupError: no such update.
        InconsistentLog: an update names a parent that is not before it.
    """
    root = prefix.update(ref)
    above = ancestors(prefix, ref) if direction != "descendants" else None
    below = descendants(prefix, [ref]) if direction != "ancestors" else None
    return Lineage((root,), "", _sites(prefix), above, below).within(levels)


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
    below = descendants(prefix, [entry.ref for entry in roots])
    return Lineage(tuple(roots), site, _sites(prefix), None, below).within(levels)


def ancestors(prefix: Prefix, ref: UpdateRef) -> Relatives:
    """All updates that this one came from, with the effective share of each in it.

    Time grows with the merges on the ways: a quarter of a million in about a second.
    """
    root = prefix.update(ref)
    entries, steps = {root.index: root}, {root.index: 0}
    links: dict[int, list[tuple[int, int]]] = {}
    queue = deque([root])
    while queue:
        child = queue.popleft()
        found = links[child.index] = []
        for parent in merged_parents(child):
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
    for parent in merged_parents(root):
        site = prefix.peer(parent.peer).site
        direct[site] = direct.get(site, 0) + parent.share_ppm
    return Relatives(
        _by_steps(relatives),
        _by_site(relatives, direct),
        0,
        genesis,
        min(steps[index] for index in ends) + 1,
        exact,
    )


def descendants(prefix: Prefix, refs: Iterable[UpdateRef]) -> Relatives:
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
        found = [(_before(prefix, child, parent).index, parent.share_ppm) for parent in merged_parents(child)]
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
        _by_steps(relatives),
        _by_site(relatives, direct, _latest(prefix)),
        0,
        None,
        0,
        exact,
    )


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


def _by_steps(relatives: Iterable[Relative]) -> tuple[Relative, ...]:
    return tuple(sorted(relatives, key=lambda relative: (relative.steps, relative.ref)))


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
