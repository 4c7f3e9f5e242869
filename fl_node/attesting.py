"""Step 6 of a round: score what others published, and its base, on one's own validation rows, and say so on the ledger.

Validation rows, never test rows: attestations steer choices, and what steers a choice makes no claim. Scores are told
coarsened, in one batch a round, as the spec says. The evidence field is zero: what an attestation says stands in the
entry, and a report on it could only tell more about the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fl_node.errors import (
    AlreadyRecorded,
    ContentError,
    EntryRejected,
    MalformedWeights,
    StoreFull,
    StoreUnreachable,
    Unreadable,
)
from fl_node.merging.aggregation import Merge
from fl_node.merging.attested import MOST_ATTESTED
from fl_node.merging.outcomes import Failure
from fl_node.merging.weights import Tensors
from fl_node.peer import Peer
from fl_node.prefix import UpdateEntry
from fl_node.progress import Event
from fl_node.rebasing import BaseDiffers, chosen_for, recorded_base
from fl_node.records import ZERO32, Attestation, Parent, Reason, Role, Rule, UpdateRef
from fl_node.released import attested_step
from fl_node.released import coarsened as coarsened
from fl_node.supply import gather, object_to

#: Bases whose score is remembered: those of a few rounds, in a federation of many.
_MOST_BASES: Final = 256


def attest(peer: Peer, wanted: Sequence[UpdateEntry], *, merged: bool = False) -> tuple[UpdateRef, ...]:
    """Score these updates of others and their bases, and record it in one entry.

    An update whose bytes cannot be had gets an objection, as in every round. So does one whose recorded base is not
    what its parents give, as a digest mismatch: anybody can check that. One whose base cannot be made again, because a
    parent's bytes are gone, is not attested. Where the policy waits for attestations, that is an objection as well,
    for this round: who serves its update, but not what is needed to judge it, must not hold up everybody.

    Args:
        wanted: what is to be attested now (:func:`fl_node.merging.attested.attestable`): nothing that this peer
            attested or objected to before, so that doing it again after a crash does nothing twice.
        merged: they are in this round's base already. Then nothing is objected to, only told: a reader would not find
            them among the candidates of the update to come.

    Returns:
        Those that this call recorded.

    Raises:
        ChainUnavailable: try again.
        NotAMember: this peer was retired.
    """
    if not wanted or not peer.prefix.peer(peer.number).roles & Role.ATTEST:
        return ()
    supply = gather(peer, wanted, frozenset(entry.ref for entry in wanted) if merged else frozenset())
    items = []
    step = attested_step(peer.spec.attestation, peer.spec.privacy)
    for entry, tensors in zip(supply.entries, supply.tensors, strict=True):
        base_ppm = _base_score(peer, entry, merged)
        if base_ppm is not None:
            scores = coarsened(_validated(peer, tensors), step), coarsened(base_ppm, step)
            items.append(Attestation(entry.ref.peer, entry.ref.sequence, *scores))
    supply.forget()
    for start in range(0, len(items), MOST_ATTESTED):
        _record(peer, items[start : start + MOST_ATTESTED])
    peer.sync()
    return tuple(UpdateRef(item.peer, item.sequence) for item in items)


def remember_base(peer: Peer, digest: bytes, merged: Merge) -> None:
    """Score one's own base for attestations to come: in a synchronous round others' updates have the same one."""
    if peer.spec.attestation.mode != "none" and peer.prefix.peer(peer.number).roles & Role.ATTEST:
        key = _key(peer, peer.number, digest, merged.rule, merged.parents)
        _remember(peer, key, _validated(peer, merged.tensors))


def _base_score(peer: Peer, entry: UpdateEntry, merged: bool) -> int | None:
    """The validation score of an update's base; ``None`` where the base cannot be made again, or is another one."""
    update = entry.update
    key = _key(peer, entry.ref.peer, update.base, update.rule, entry.parents)
    try:
        chosen = chosen_for(peer, entry)
        found = peer.base_scores.get(key)
        if found is not None:
            return found
        base = recorded_base(peer, entry, chosen)
    except (StoreFull, StoreUnreachable):
        raise
    except (ContentError, MalformedWeights, Unreadable) as error:
        text = f"cannot attest {entry.ref}: its base cannot be made again: {error}"
        peer.emit(Event("not-attested", text, {"update": str(entry.ref)}))
        if not merged:
            object_to(peer, entry.ref, Failure(Reason.UNAVAILABLE, text))
        return None
    except BaseDiffers as error:
        peer.emit(Event("base-differs", str(error), {"update": str(entry.ref)}))
        if not merged:
            object_to(peer, entry.ref, Failure(Reason.DIGEST_MISMATCH, str(error)))
        return None
    return _remember(peer, key, _validated(peer, base))


def _key(peer: Peer, by: int, digest: bytes, rule: int, parents: Sequence[Parent]) -> bytes:
    """What a base's score depends on, and what makes it that base: by its digest alone, one could pass off the base of
    others, or the genesis, as what one's own parents gave."""
    numbers = [rule]
    for parent in parents:
        numbers += [parent.peer, parent.sequence, parent.share_ppm]
    if peer.spec.merging.clip != "none" or rule == Rule.CENTRED_CLIPPING:
        numbers.append(by)  # it is clipped around a model of its own
    if peer.spec.merging.personal:
        numbers.append(peer.prefix.sequence(peer.number))  # one's own personal tensors change with each update
    return digest + b"".join(number.to_bytes(4, "big") for number in numbers)


def _remember(peer: Peer, key: bytes, score_ppm: int) -> int:
    while len(peer.base_scores) >= _MOST_BASES:
        del peer.base_scores[next(iter(peer.base_scores))]
    peer.base_scores[key] = score_ppm
    return score_ppm


def _validated(peer: Peer, shared: Tensors) -> int:
    """The score on the own validation rows, with one's own latest personal tensors."""
    with peer.watch.phase("attest"):
        found = peer.trainer.validate(peer.whole(shared, peer.prefix.sequence(peer.number)))
    assert found is not None, "a spec that asks for attestations sets validation rows aside"
    return found.score_ppm


def _record(peer: Peer, items: Sequence[Attestation]) -> None:
    with peer.watch.phase("record"):
        try:
            peer.ledger.attest(ZERO32, items)
        except AlreadyRecorded:
            return  # said before a crash, and not yet in the log as seen
        except EntryRejected as error:
            peer.emit(Event("attestation-refused", f"the ledger refused the attestations: {error}", {}))
            return
    text = f"attested {len(items)} update{'' if len(items) == 1 else 's'} of others"
    peer.emit(Event("attested", text, {"updates": [f"{item.peer}#{item.sequence}" for item in items]}))
