"""Step 7 of a round: in which rounds a peer trains, and where from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fl_node.errors import BudgetSpent, ContentError, MalformedWeights, TrainingDiverged, Unreadable
from fl_node.journal import Draft, Journal
from fl_node.merging import weights
from fl_node.merging.weights import Tensors
from fl_node.peer import Peer
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.progress import Event
from fl_node.spec import Spec
from fl_node.supply import tensors_of


def trains_in(spec: Spec, round_number: int) -> bool:
    """Whether peers train in a round: in rounds 1, 1 + k, 1 + 2 k, ... with ``training.every`` = k. In those between,
    they publish what they merged."""
    return (round_number - 1) % spec.training.every == 0


def trainings_of(spec: Spec, prefix: Prefix, number: int) -> tuple[int, ...]:
    """Sequences of a peer's updates of rounds that train, as the ledger has them."""
    own = prefix.updates(number)
    return tuple(entry.ref.sequence for entry in own if not entry.final and trains_in(spec, entry.round))


def trainings_drafted(spec: Spec, journal: Journal) -> tuple[int, ...]:
    """The same of updates that the journal has trained, on the ledger or not."""
    drafts = [draft for draft in (journal.last(), journal.load()) if draft is not None and draft.trained]
    return tuple(draft.sequence for draft in drafts if not draft.final and trains_in(spec, draft.round))


def trained(peer: Peer, draft: Draft, start: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """Train from the base, made whole; where that diverges and others' updates are in it, from the own latest one, else
    from the genesis. The recorded base stays what the rules give, and the report says where training started: one
    member whose weights nobody can train on must not stop the others.

    Where the privacy budget does not allow another training, it is the base itself that comes back, untrained.

    Raises:
        TrainingDiverged: from everywhere.
        TrainingFailed: the user's own loop raised.
    """
    starts: list[tuple[str, Callable[[], Tensors]]] = [("base", lambda: start)]
    if any(parent.share_ppm and parent.peer != peer.number for parent in draft.parents):
        own = peer.prefix.trained(peer.number)
        if own is not None:
            starts.append((str(own.ref), partial(_own_update, peer, own)))
        starts.append(("genesis", lambda: peer.whole(peer.genesis(), 0)))
    for name, weights_of in starts:
        try:
            tensors, told = peer.trainer.train(weights_of(), draft.sequence)
            _check_own(peer, tensors)
        except (TrainingDiverged, ContentError, MalformedWeights, Unreadable) as error:
            if name == starts[-1][0]:
                raise
            text = f"round {draft.round}: cannot train from {name}, trying from elsewhere: {error}"
            peer.emit(Event("diverged", text, {"round": draft.round, "from": name}))
            continue
        except BudgetSpent as error:
            # What diverged before has spent its part, and is not there to be published.
            return start, _untrained(peer, draft, error)
        # A loss is of the rows trained on, and no accountant counts what it tells of them.
        loss = told.loss if peer.spec.privacy.mechanism == "none" else None
        return tensors, {"loss": loss, "steps": told.steps, "samples": told.samples, "from": name}
    raise AssertionError("there is always the base")


def _untrained(peer: Peer, draft: Draft, error: BudgetSpent) -> dict[str, Any]:
    peer.emit(Event("budget-spent", f"round {draft.round}: not training: {error}", {"round": draft.round}))
    samples = len(peer.trainer.splits.train)
    why = "privacy budget spent"
    return {"loss": None, "steps": 0, "samples": samples, "from": "base", "untrained": True, "why": why}


def _own_update(peer: Peer, own: UpdateEntry) -> Tensors:
    return peer.whole(tensors_of(peer, own), own.ref.sequence)


def _check_own(peer: Peer, tensors: Tensors) -> None:
    """What the others would call malformed is not published."""
    try:
        weights.check_magnitude(tensors, peer.spec.merging.max_magnitude)
    except MalformedWeights as cause:
        raise TrainingDiverged(
            f"training diverged: {cause}; lower training.learning_rate in a new federation"
        ) from cause
