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


def past_retention(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str:
    """Why peers need not have an update's content any more, and who may; empty for one that they are to keep."""
    oldest = oldest_kept(spec, prefix)
    if entry.round >= oldest:
        return ""
    return (
        f"is of round {entry.round}, past content.retention_rounds = {spec.content.retention_rounds}: peers keep "
        f"content from round {oldest} on, and trying again will not bring it back. An archive (archive = true), or "
        "whoever kept the bytes, may have it: name the state folder of one with --state, or take a later update"
    )


def collect(spec: Spec, prefix: Prefix, store: ContentStore, *, dry_run: bool = False) -> Collected:
    """Delete what the federation's retention no longer asks for.

    A slow peer's latest update may be many rounds old and still a candidate, and a closing update is somebody's final
    model; both count as of now, however old their round. What is kept and refers to an older update needs that one.

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
                    _pin(store, needed, max(oldest, entry.round))
        for needed in _older_references(prefix, facts.number, oldest):
            _pin(store, needed, oldest)
    return store.gc(oldest, dry_run=dry_run)


def _pin(store: ContentStore, entry: UpdateEntry, round_number: int) -> None:
    with suppress(ContentUnavailable):
        store.pin(cid_of_update(entry.update), LATEST_LABEL, round_number)


def _older_references(prefix: Prefix, peer: int, oldest: int) -> Iterator[UpdateEntry]:
    """Updates of rounds before ``oldest`` that a peer's updates since then cannot be decoded without."""
    found = set()
    for entry in reversed(prefix.updates(peer)):  # their rounds rise
        if entry.round < oldest:
            return
        for needed in _with_references(prefix, entry):
            if needed.ref in found:
                break  # and what that refers to
            found.add(needed.ref)
            if needed.round < oldest:
                yield needed


def _with_references(prefix: Prefix, entry: UpdateEntry) -> Iterator[UpdateEntry]:
    """An update, and all without which it cannot be decoded."""
    at: UpdateEntry | None = entry
    while at is not None:
        yield at
        at = referred(prefix, at)
