"""One peer's row of trust for a round: from what it recorded last, along the gradient of its own validation loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite

from fl_node.merging.trust import bounded_row, moved, recorded_trust, reference_row, slope
from fl_node.merging.weights import Tensors
from fl_node.peer import Peer
from fl_node.progress import Event
from fl_node.supply import Supply


def learned_row(
    peer: Peer, supply: Supply, merged: Callable[[Mapping[int, int]], Tensors], sequence: int
) -> dict[int, int]:
    """The shares in ppm, by peer number, that the candidates have in the base of one's update ``sequence``.

    Each of ``trust.steps`` steps merges by the row so far, takes one backward pass over the own validation rows there,
    and moves the row (:mod:`fl_node.merging.trust`). The same log and bytes give the same row again, so there is
    nothing for a crash to lose.

    Args:
        merged: the base of a row.
    """
    spec = peer.spec
    entries = {entry.ref.peer: entry for entry in supply.entries}
    if not entries:
        return {}
    reference = row = reference_row(spec, recorded_trust(peer.prefix, peer.number), entries)
    if len(row) == 1:
        return row
    models = {entry.ref.peer: tensors for entry, tensors in zip(supply.entries, supply.tensors, strict=True)}
    samples = {number: entry.update.train_samples for number, entry in entries.items()}
    for step in range(spec.trust.steps):
        base = merged(row)
        gradient, loss = peer.trainer.validation_gradient(peer.whole(base, sequence - 1))
        slopes = {number: slope(gradient, model, base) for number, model in models.items()}
        supply.forget()
        if not all(map(isfinite, (loss, *slopes.values()))):
            text = "the validation loss of the merged model has no finite gradient; trust stays as it was"
            peer.emit(Event("trust-stays", text, {"sequence": sequence}))
            break
        # The prior pulls once in a round, however many steps it has.
        weights = moved(spec, row, slopes, loss, samples, pull=None if step == 0 else 0.0)
        row = bounded_row(spec, weights, reference)
    return row
