"""Weights of encrypted updates in the clear, for a pack that is to be checked without keys.

The ledger's commitment is to the decoded tensors, so a canonical file of these is as good as what was published, and
needs neither a key nor the updates that the published bytes refer to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fl_node.audit import opening
from fl_node.audit.means import Means
from fl_node.audit.opened import first_trouble
from fl_node.audit.reading import Reader
from fl_node.audit.shelf import Shelf
from fl_node.content.unixfs import Buffer
from fl_node.merging import weights
from fl_node.prefix import UpdateEntry
from fl_node.records import Flag


def encrypted(updates: Iterable[UpdateEntry]) -> list[UpdateEntry]:
    """Those of these updates that are encrypted."""
    return [update for update in updates if update.update.flags & Flag.ENCRYPTED]


def in_clear(means: Means, updates: Iterable[UpdateEntry]) -> Iterator[tuple[UpdateEntry, list[Buffer] | str]]:
    """Each update's weights as a canonical file, in buffers; or why there are none, in words. Only such as are
    well-formed and committed to."""
    wanted = list(updates)
    _, genesis = opening.genesis(means)
    if means.federation is None or genesis is None:
        what = "the spec" if means.federation is None else "the genesis"
        yield from ((update, f"without {what} they cannot be decoded") for update in wanted)
        return
    opened = means.prefix.opened
    reader = Reader(
        *(means.federation.spec, means.prefix, means.blobs, genesis), opener=means.opener, in_clear=means.in_clear
    )
    shelf = Shelf(reader, means.prefix, Counter(update.ref for update in wanted))
    for update in wanted:
        (found,) = shelf.take([update])
        try:
            if found.good and found.tensors is not None:
                origin = weights.origin(opened.chain_id, opened.ledger, update.ref.peer, update.ref.sequence)
                yield update, weights.encode(found.tensors, origin)
            else:
                trouble = first_trouble(found)
                yield update, f"{trouble.check}: {trouble.detail}"
        finally:
            shelf.give_back([update])
