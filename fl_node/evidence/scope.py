"""What belongs to a scope: the updates that a pack is about, the entries that bear on them, the bytes they need."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fl_node.audit.means import Means
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.errors import UsageError
from fl_node.evidence.layout import Scope
from fl_node.merging.clipping import latest_own
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import bad_reference, referred
from fl_node.records import (
    ZERO32,
    OwnerChanged,
    PeerAdmitted,
    PeerRetired,
    UpdatePublished,
    UpdateRef,
)

#: The most that any spec allows.
_MOST_LINKS: Final = 1000


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a pack holds besides the log, the spec and the genesis.

    Attributes:
        updates: those that it is about, by entry.
        entries: indices of entries whose transactions and inclusion proofs it holds, ascending.
        needed: those updates, what their bases were merged from, and what the bytes of all these refer to, by entry:
            their reports and weights.
    """

    updates: tuple[UpdateEntry, ...]
    entries: tuple[int, ...]
    needed: tuple[UpdateEntry, ...]


def choose(means: Means, scope: Scope) -> Chosen:
    """What a pack of this scope holds.

    Raises:
        UsageError: no such update, or none in that round.
    """
    every = updates_of(means.prefix)
    if scope.kind == "all":
        return Chosen(every, tuple(range(len(means.entries))), every)
    updates = tuple(update for update in every if in_scope(scope, update))
    if not updates:
        raise UsageError(
            f"{scope}: none is among the {len(means.entries)} entries of the ledger; `fl-node log` shows what there is"
        )
    most = _MOST_LINKS if means.federation is None else means.federation.spec.encoding.full_every
    needed = {
        one.ref: one
        for update in updates
        for entry in behind(means.prefix, update)
        for one in referred_to(means.prefix, entry, most)
    }
    ordered = tuple(sorted(needed.values(), key=lambda entry: entry.index))
    return Chosen(updates, tuple(sorted(_bearing(means, ordered))), ordered)


def in_scope(scope: Scope, update: UpdateEntry) -> bool:
    """Whether a pack of this scope is about this update."""
    if scope.kind == "all":
        return True
    return update.ref == scope.update if scope.kind == "update" else update.round == scope.round


def updates_of(prefix: Prefix) -> tuple[UpdateEntry, ...]:
    """All updates, by entry."""
    return tuple(prefix.update(fact.body.ref) for fact in prefix.facts() if isinstance(fact.body, UpdatePublished))


def behind(prefix: Prefix, update: UpdateEntry) -> Iterable[UpdateEntry]:
    """An update, its parents, and its publisher's own latest before it, around which some rules clip."""
    yield update
    before = prefix.upto(update.index)
    for parent in update.parents:
        with suppress(LookupError):  # no contract of ours takes such a parent: the audit says so
            yield before.update(parent.ref)
    centre = latest_own(before, update.ref.peer)
    if centre is not None:
        yield centre


def referred_to(prefix: Prefix, entry: UpdateEntry, most_links: int) -> Iterable[UpdateEntry]:
    """An update, and what its bytes refer to, step by step, as far as the rules allow."""
    yield entry
    if bad_reference(prefix, entry, most_links) is not None:
        return
    while (before := referred(prefix, entry)) is not None:
        yield before
        entry = before


def _bearing(means: Means, needed: Iterable[UpdateEntry]) -> set[int]:
    """The opening and changes of owner; these updates and all that speaks of them; who wrote any of it: admissions,
    retirements."""
    entries = {0}
    peers = set()
    for update in needed:
        entries.add(update.index)
        peers.add(update.ref.peer)
        for entry in means.log.mentions(update.ref):
            entries.add(entry.index)
            peers.add(getattr(entry.body, "peer", update.ref.peer))
    for entry in means.log.entries(kinds=("OwnerChanged", "PeerAdmitted", "PeerRetired")):
        body = entry.body
        if isinstance(body, OwnerChanged) or (isinstance(body, PeerAdmitted | PeerRetired) and body.peer in peers):
            entries.add(entry.index)
    return entries


def report_cids(updates: Iterable[UpdateEntry]) -> dict[Cid, UpdateRef]:
    """Reports by CID, and one update that each is of."""
    found: dict[Cid, UpdateRef] = {}
    for update in updates:
        if update.update.report != ZERO32:
            found.setdefault(Cid("raw", update.update.report), update.ref)
    return found


def weights_cids(updates: Iterable[UpdateEntry]) -> dict[Cid, UpdateRef]:
    """Weights by CID, and one update that each is the content of."""
    found: dict[Cid, UpdateRef] = {}
    for update in updates:
        found.setdefault(cid_of_update(update.update), update.ref)
    return found
