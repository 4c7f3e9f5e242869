"""Bases: the merge of a round's candidates as the spec says it, and anybody's recorded base made again from bytes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fl_node.errors import ContentError, MalformedWeights, StoreFull, StoreUnreachable, Unreadable
from fl_node.merging import weights
from fl_node.merging.aggregation import Merge, aggregate
from fl_node.merging.clipping import latest_own
from fl_node.merging.outcomes import Failure
from fl_node.merging.selection import Selection, other_parents, selection_behind
from fl_node.merging.standing import Standing
from fl_node.merging.weights import Tensors
from fl_node.peer import Peer
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.progress import Event
from fl_node.records import Reason, Rule, UpdateRef
from fl_node.supply import Supply, gather_quietly, object_to, tensors_of


class BaseDiffers(Exception):
    """A recorded base is not what the rules give from its recorded parents. The message says which."""


def combine(
    peer: Peer,
    view: Prefix,
    by: int,
    supply: Supply,
    standing: Mapping[UpdateRef, Standing],
    row: Mapping[int, int] | None = None,
) -> Merge:
    """Step 5: what was fetched, merged by the spec's rule for peer ``by``, whose log before the update is ``view``."""
    centre = partial(centre_of, peer, view, by)
    return aggregate(
        peer.spec,
        supply.entries,
        supply.tensors,
        peer.genesis,
        standing=standing,
        centre=centre,
        row=row,
        forget=supply.forget,
    )


def centre_of(peer: Peer, view: Prefix, by: int) -> Tensors:
    """What the rules clip around: the latest trained model of the peer that merges, or the genesis.

    One's own that nobody has any more is withdrawn on the ledger first, so that a reader knows why it is the genesis.

    Raises:
        ContentError, MalformedWeights: another peer's cannot be had.
    """
    latest = latest_own(view, by)
    if latest is None:
        return peer.genesis()
    try:
        return tensors_of(peer, latest)
    except (StoreFull, StoreUnreachable):
        raise
    except (ContentError, MalformedWeights, Unreadable) as error:
        if by != peer.number:
            raise
        peer.emit(Event("lost", f"the own update {latest.ref} is lost, clipping around the genesis: {error}", {}))
        object_to(peer, latest.ref, Failure(Reason.WITHDRAWN, str(error)))
        return peer.genesis()


def recorded_base(peer: Peer, entry: UpdateEntry, chosen: Selection) -> Tensors:
    """The base that an update records, made again from its parents' bytes, by the rules of the log before it.

    Args:
        chosen: of :func:`chosen_for`.

    Raises:
        ContentError, MalformedWeights: a parent's bytes, or what the rules clip around, cannot be had.
        BaseDiffers: they give another base than the one recorded.
    """
    known = None if peer.known_bases is None else peer.known_bases.get(entry.update.base)
    if known is not None:
        return known
    before = peer.prefix.upto(entry.index)
    supply = gather_quietly(peer, tuple(before.update(parent.ref) for parent in entry.parents))
    row = {parent.peer: parent.share_ppm for parent in entry.parents}
    try:
        merged = combine(peer, before, entry.ref.peer, supply, chosen.standing, row)
    except ValueError as cause:
        raise BaseDiffers(f"{entry.ref} has parents that its rules do not give: {cause}") from cause
    if merged.rule != entry.update.rule or merged.parents != entry.parents:
        rules = f"rule {Rule(merged.rule).name.lower()}"
        raise BaseDiffers(f"{entry.ref} records other shares than its parents give by {rules}")
    if (digest := weights.digest(merged.tensors)) != entry.update.base:
        raise BaseDiffers(
            f"{entry.ref} records the base {entry.update.base.hex()}, its parents give {digest.hex()}: it is not "
            "what it says"
        )
    if peer.known_bases is not None:
        peer.known_bases[digest] = merged.tensors
    return merged.tensors


def chosen_for(peer: Peer, entry: UpdateEntry) -> Selection:
    """The selection behind a recorded update, again: docs/replay-rules.md, section 9. Needs no bytes.

    Who records other parents is not to be believed: it could have others fetch whatever there is, or start from the
    genesis by its own word and shine by what it improved.

    Raises:
        BaseDiffers: the policy gives other parents than those recorded.
    """
    try:
        chosen = selection_behind(peer.spec, peer.prefix, entry)
    except (ValueError, LookupError) as cause:
        raise BaseDiffers(f"{entry.ref} cannot follow from the log that it had seen: {cause}") from cause
    if (trouble := other_parents(chosen, entry)) is not None:
        raise BaseDiffers(trouble)
    return chosen
