"""How long content is kept: the spec's rounds, and whatever may still be merged or asked for as a final model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fl_node.content.names import cid_of_update
from fl_node.content.protocol import Collected, ContentStore
from fl_node.errors import ContentUnavailable
from fl_node.pacing import common_round
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import referred
from fl_node.spec import Spec

LATEST_LABEL = "latest"


def oldest_kept(spec: Spec, prefix: Prefix) -> int:
    """The first round whose content is still to be kept; 0 while everything is."""
    return max(0, common_round(prefix) - spec.content.retention_rounds + 1)


def collect(spec: Spec, prefix: Prefix, store: ContentStore, *, dry_run: bool = False) -> Collected:
    """Delete what the federation's retention no longer asks for.

    A slow peer's latest update may be many rounds old and still a candidate, and a closing update is somebody's final
    model; both count as of now, however old their round.

    Raises:
        ContentError: the store does not answer, or cannot be written.
    """
    oldest = oldest_kept(spec, prefix)
    if not oldest:
        return Collected((), 0)
    for facts in prefix.peers():
        for entry in {prefix.latest(facts.number), prefix.trained(facts.number)} - {None}:
            if entry is not None and facts.active:
                for needed in _with_references(prefix, entry):
                    with suppress(ContentUnavailable):
                        store.pin(cid_of_update(needed.update), LATEST_LABEL, max(oldest, entry.round))
    return store.gc(oldest, dry_run=dry_run)


def _with_references(prefix: Prefix, entry: UpdateEntry) -> Iterator[UpdateEntry]:
    """An update, and all without which it cannot be decoded."""
    at: UpdateEntry | None = entry
    while at is not None:
        yield at
        at = referred(prefix, at)
