"""One round of one peer: ten numbered steps, from reading the log to recording an update.

    read log -> select -> fetch -> verify -> merge -> attest -> train -> evaluate -> publish bytes -> record

What costs something to repeat is in the journal before the next step begins. A crash therefore loses no finished step;
what it interrupts is done again from the ledger and the content store, and gives the same result.

:func:`play_round` is the whole of it. A simulation that plays many peers in lock-step calls the phases one by one, each
for all peers: :func:`attest_first` where :func:`fl_node.merging.attested.attests_first` says so (and then lets the
peers see the log), :func:`merge`, :func:`attest_merged`, :func:`train`, :func:`evaluate`, :func:`record`. To train many
at once, it does by itself what :func:`train` does in a round in which :func:`trains_in` says so: start from
``peer.whole(base, sequence - 1)``, and hand the whole trained models to :func:`keep_trained`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fl_node.attesting import attest, remember_base
from fl_node.choosing import chosen_now, gathered
from fl_node.content.cid import Cid
from fl_node.errors import (
    AlreadyRecorded,
    ContentError,
    FlNodeError,
    MalformedWeights,
    StoreUnreachable,
    Unreadable,
)
from fl_node.journal import Draft
from fl_node.merging import weights
from fl_node.merging.aggregation import Merge, same_parents
from fl_node.merging.attested import attestable, attests_first
from fl_node.merging.personal import published
from fl_node.merging.selection import Selection
from fl_node.merging.trust import check_row, recorded_trust
from fl_node.merging.weights import Tensors
from fl_node.peer import Moved, Peer
from fl_node.progress import Event
from fl_node.publishing import (
    as_entry,
    as_update,
    for_readers_now,
    publish_report,
    publish_weights,
    still_refers,
    with_published,
)
from fl_node.rebasing import combine
from fl_node.records import Rule, Update, UpdateRef
from fl_node.released import released
from fl_node.report import compose_report
from fl_node.supply import Supply, gather, stored, tensors_of
from fl_node.training_step import trained
from fl_node.training_step import trains_in as trains_in
from fl_node.trusting import learned_row


@dataclass(frozen=True, slots=True)
class Goal:
    """What a round is to make. ``final``: the untrained closing update, whose weights are its base."""

    sequence: int
    round: int
    final: bool


def play_round(peer: Peer, goal: Goal) -> Update:
    """Play one round, or finish the one that a crash interrupted. Returns the update as it stands on the ledger.

    Raises:
        FlNodeError: what stops this peer: the chain does not answer, the store is full, training failed. Nothing
            finished is lost. Another peer's bad or missing content never raises.
        Moved: the chain was reorganised under it; what there is to do must be found out again.
    """
    draft = unfinished(peer, goal)
    if draft is None or not draft.trained:
        if draft is None and attests_first(peer.spec):
            attest_first(peer, goal)  # 6 attest, before 2 where the policy looks at attested scores
        draft, base = merge(peer, goal, draft)  # 1 read, 2 select, 3 fetch, 4 verify, 5 merge
        peer.step_done()
        attest_merged(peer, draft)  # 6 attest
        draft = train(peer, draft, base)  # 7 train
        del base
        peer.step_done()
    if not draft.ready:
        draft = evaluate(peer, draft)  # 8 evaluate, 9 publish bytes
        peer.step_done()
    update = record(peer, _near(peer, draft))  # 10 record
    peer.journal.finish()
    return update


def unfinished(peer: Peer, goal: Goal) -> Draft | None:
    """The draft that a crash left, or that a reorganised chain dropped, where it can still be used for this goal."""
    now_s = peer.chain_time_s()
    peer.sync()
    draft = _draft_for(peer, goal)
    if draft is not None and not _still_stands(peer, draft):
        draft = _revised(peer, draft, now_s)
    if draft is None:
        peer.journal.discard()
        return None
    draft = _with_content(peer, draft)
    done = "ready to record" if draft.ready else "trained" if draft.trained else "merged"
    peer.emit(Event("resumed", f"round {draft.round}: going on where it stopped ({done})", {"round": draft.round}))
    return peer.journal.save(draft)


def merge(peer: Peer, goal: Goal, draft: Draft | None) -> tuple[Draft, Tensors]:
    """Steps 1 to 5. With a draft, the same parents are merged again instead of being chosen anew. Returns the draft and
    the base: the shared tensors, without personal ones."""
    if draft is not None:
        again = _merged_again(peer, draft)
        if again is not None:
            return draft, again
    with peer.watch.phase("read"):
        now_s = peer.chain_time_s()  # before the look at the chain: entries after it cannot be earlier
        peer.sync()  # 1 read
        seen, seen_root = peer.prefix.size, peer.index.root(peer.prefix.size)
    chosen, supply = gathered(peer, goal.round, now_s, seen)  # 2 select, 3 fetch, 4 verify
    row = _row(peer, supply, chosen, goal.sequence)
    with peer.watch.phase("merge"):
        merged = _merged(peer, supply, chosen, row)  # 5 merge
        base = weights.digest(merged.tensors)
    failures = supply.failures
    del supply
    if not merged.parents and goal.sequence > 1:
        text = f"round {goal.round}: no update qualifies for a merge, not even the own one; the base is the genesis"
        peer.emit(Event("nothing-merged", text, {"round": goal.round}))
    if peer.known_bases is not None:
        peer.known_bases[base] = merged.tensors
    with peer.watch.phase("evaluate"):
        found = peer.trainer.evaluate(peer.whole(merged.tensors, goal.sequence - 1))
    remember_base(peer, base, merged)
    draft = Draft(
        sequence=goal.sequence,
        round=goal.round,
        final=goal.final,
        seen=seen,
        seen_root=seen_root,
        parents=merged.parents,
        outcomes=chosen.outcomes_after(failures, merged.rejected),
        rule=merged.rule,
        base=base,
        base_score_ppm=released(peer.spec.privacy, found.score_ppm),
        left_out={str(ref): why for ref, why in merged.rejected.items()},
    )
    return peer.journal.save(draft), merged.tensors


def attest_first(peer: Peer, goal: Goal) -> None:
    """Step 6 where the policy looks at attested scores: say what others' updates are worth on the own validation rows,
    those that the spec has this peer look at in this round.

    Raises:
        Moved: a synchronous round whose cut is not there.
    """
    now_s = peer.chain_time_s()
    peer.sync()
    try:
        wanted = attestable(peer.spec, peer.prefix, peer.number, goal.round, now_s=now_s)
    except ValueError as cause:
        raise Moved(f"round {goal.round} must wait again: {cause}") from cause
    attest(peer, wanted)


def attest_merged(peer: Peer, draft: Draft) -> None:
    """Step 6 elsewhere: the same of what was selected and fetched for this round, as the spec asks for."""
    if peer.spec.attestation.mode == "none" or attests_first(peer.spec):
        return
    merged = [peer.prefix.update(parent.ref) for parent in draft.parents]
    now_s = peer.chain_time_s()
    try:
        wanted = attestable(
            peer.spec, peer.prefix, peer.number, draft.round, seen=draft.seen, now_s=now_s, candidates=merged
        )
    except ValueError as cause:
        raise Moved(f"round {draft.round} must wait again: {cause}") from cause
    attest(peer, wanted, merged=True)


def train(peer: Peer, draft: Draft, base: Tensors) -> Draft:
    """Step 7: train from the base and put the result's bytes into the content store, durable before it is noted.

    A closing update is the base itself, and so is that of a round in which nobody trains (:func:`trains_in`). The
    latter still counts for the rows that its publisher trains on: it stands for them in the merges to come.
    """
    start = peer.whole(base, draft.sequence - 1)
    if draft.final:
        return keep_trained(peer, draft, start, None)
    if not trains_in(peer.spec, draft.round):
        told = {"loss": None, "steps": 0, "samples": len(peer.trainer.splits.train), "from": "base", "untrained": True}
        return keep_trained(peer, draft, start, told)
    peer.emit(Event("training", f"round {draft.round}: training", {"round": draft.round}))
    with peer.watch.phase("train"):
        tensors, training = trained(peer, draft, start)
    return keep_trained(peer, draft, tensors, training)


def keep_trained(peer: Peer, draft: Draft, model: Tensors, training: dict[str, Any] | None) -> Draft:
    """The end of step 7: keep one's own personal tensors of a whole trained model, store what is published of it.

    Args:
        training: for the report: ``loss``, ``steps``, ``samples``, ``from``; ``None`` for a closing update.

    Raises:
        StoreFull: nothing is noted; the step is done again.
    """
    with peer.watch.phase("publish"):
        if peer.own_layers is not None:
            peer.own_layers.keep(draft.sequence, model)
        # What nobody trained is its base, to the bit.
        exact = training is None or bool(training.get("untrained"))
        made = publish_weights(peer, published(peer.spec, model), draft.sequence, draft.round, exact=exact)
        draft = with_published(draft, made)
    return peer.journal.save(replace(draft, train_samples=training["samples"] if training else 0, training=training))


def evaluate(peer: Peer, draft: Draft) -> Draft:
    """Steps 8 and 9: score the update on the test split and publish the report that explains the round."""
    with peer.watch.phase("evaluate"):
        tensors = tensors_of(peer, as_entry(peer, draft))
        found = peer.trainer.evaluate(peer.whole(tensors, draft.sequence), full=True)
        found = replace(found, score_ppm=released(peer.spec.privacy, found.score_ppm))
    with peer.watch.phase("publish"):
        spent = peer.trainer.privacy.told() if peer.trainer.privacy is not None else None
        traffic = peer.meter.table() if peer.meter is not None else None
        report = publish_report(peer, compose_report(peer.number, draft, found, spent, traffic), draft.round)
    return peer.journal.save(
        replace(draft, report=report.digest, score_ppm=found.score_ppm, test_samples=found.samples)
    )


def record(peer: Peer, draft: Draft) -> Update:
    """Step 10: the entry on the ledger. Finding it there already, after a crash, is as good as writing it."""
    update = as_update(peer, draft)
    with peer.watch.phase("record"):
        try:
            peer.ledger.publish(update, draft.parents)
        except AlreadyRecorded:
            return _already_there(peer, update)
    return update


def _near(peer: Peer, draft: Draft) -> Draft:
    """The draft, if the log that it saw is not further back than the spec allows an update's to be; brought up to the
    log as it is now where the policy still chooses the same parents. Half of the allowance is left for entries that
    come before the transaction does.

    Raises:
        Moved: others wrote so much meanwhile that the round has to be played again, or the log that it saw is gone.
    """
    _hold_to_log(peer, draft)
    if not still_refers(peer, draft):
        peer.journal.discard()
        raise Moved(f"the chain dropped the update that the one of round {draft.round} refers to")
    sealed = for_readers_now(peer, draft)
    if sealed is not draft:  # the report says how many bytes there are
        draft = peer.journal.save(evaluate(peer, sealed))
        _hold_to_log(peer, draft)  # that took its time
    lag, most = peer.prefix.size - draft.seen, peer.spec.rounds.max_lag
    if lag <= most // 2 and _covers_own(peer, draft):
        return draft
    revised = _revised(peer, draft, peer.chain_time_s())
    if revised is None:
        peer.journal.discard()
        raise Moved(
            f"{lag} entries were recorded since round {draft.round} began, at most {most} are allowed "
            "(rounds.max_lag), and the policy chooses other parents by now; if that comes again, training takes longer "
            "than the spec has room for"
        )
    draft = peer.journal.save(evaluate(peer, revised))
    _hold_to_log(peer, draft)
    return draft


def _hold_to_log(peer: Peer, draft: Draft) -> None:
    """Nothing is recorded about a log that is gone: what was dropped has been sent again by now, so the contract would
    take an update that saw another one.

    Raises:
        Moved: the log that the draft saw is not the beginning of the log any more.
    """
    peer.sync()
    if draft.seen > peer.prefix.size or peer.index.root(draft.seen) != draft.seen_root:
        raise Moved(f"the log that round {draft.round} saw is not the beginning of the log any more")


def _draft_for(peer: Peer, goal: Goal) -> Draft | None:
    """The journal's draft for a goal. One that is on the ledger already, because the crash came just after, is filed as
    such; one that the chain dropped from there is taken up again."""
    current = peer.journal.load()
    if current is not None and current.sequence <= peer.prefix.sequence(peer.number):
        there = peer.prefix.update(UpdateRef(peer.number, current.sequence))
        if there.content == current.content:
            peer.journal.finish()
        current = None
    for draft in (current, peer.journal.last()):
        if draft is not None and (draft.sequence, draft.round, draft.final) == (goal.sequence, goal.round, goal.final):
            return draft
    return None


def _still_stands(peer: Peer, draft: Draft) -> bool:
    """Whether the log that a draft saw is still the beginning of the log, and not further back than the spec allows."""
    if draft.seen > peer.prefix.size or peer.prefix.size - draft.seen > peer.spec.rounds.max_lag:
        return False
    return _covers_own(peer, draft) and peer.index.root(draft.seen) == draft.seen_root


def _covers_own(peer: Peer, draft: Draft) -> bool:
    """Whether the log that a draft saw has this peer's previous update: a reorganised chain may have it further on."""
    mine = peer.prefix.updates(peer.number)
    return not mine or mine[-1].index < draft.seen


def _with_content(peer: Peer, draft: Draft) -> Draft:
    """The draft less those steps whose bytes are no longer in the store: what nobody can read is not published."""
    if not draft.trained:
        return draft
    cid = Cid("dag-pb" if draft.dag_pb else "raw", draft.content)
    try:
        kept = stored(peer, cid) and still_refers(peer, draft)
        kept = kept and weights.digest(tensors_of(peer, as_entry(peer, draft))) == draft.weights
        kept = kept and (peer.own_layers is None or peer.own_layers.has(draft.sequence))
    except StoreUnreachable:
        raise
    except (ContentError, MalformedWeights, Unreadable):
        kept = False
    if not kept:
        text = f"round {draft.round}: the trained weights {cid} are no longer in the content store; training again"
        peer.emit(Event("lost", text, {"cid": str(cid)}))
        return replace(draft, content=b"", report=b"")
    if draft.ready and not stored(peer, Cid("raw", draft.report)):
        return replace(draft, report=b"")
    return draft


def _merged_again(peer: Peer, draft: Draft) -> Tensors | None:
    """The draft's base, from the store; ``None`` (and no draft any more) where it cannot be had again, or where the
    publisher of a parent has been retired since: what it gave need not be trained on."""
    entries = tuple(peer.prefix.update(parent.ref) for parent in draft.parents)
    supply = gather(peer, entries)
    if not supply.failures and all(peer.prefix.peer(entry.ref.peer).active for entry in entries):
        row = {parent.peer: parent.share_ppm for parent in draft.parents}
        try:
            chosen = chosen_now(peer, draft.round, peer.chain_time_s(), draft.seen)
            with peer.watch.phase("merge"):
                merged = _merged(peer, supply, chosen, row)
        except (Moved, ValueError):  # what it was chosen by is not there any more
            merged = None
        if merged is not None and weights.digest(merged.tensors) == draft.base:
            return merged.tensors
    peer.journal.discard()
    return None


def _row(peer: Peer, supply: Supply, chosen: Selection, sequence: int) -> Mapping[int, int] | None:
    """This round's row of trust, where the spec asks for one."""
    if peer.spec.merging.aggregation != "trust":
        return None
    with peer.watch.phase("trust"):
        return learned_row(peer, supply, lambda row: _merged(peer, supply, chosen, row).tensors, sequence)


def _merged(peer: Peer, supply: Supply, chosen: Selection, row: Mapping[int, int] | None) -> Merge:
    return combine(peer, peer.prefix, peer.number, supply, chosen.standing, row)


def _revised(peer: Peer, draft: Draft, now_s: int) -> Draft | None:
    """The chain was reorganised below what this draft had seen, or has left it far behind. If the policy chooses the
    same parents from the log as it is now, only what was seen changes, and the report that says so; the training
    stands. Otherwise ``None``."""
    try:
        chosen = chosen_now(peer, draft.round, now_s)
    except Moved:
        return None
    row = {parent.peer: parent.share_ppm for parent in draft.parents}
    if not same_parents(peer.spec, chosen.candidates, draft.parents, standing=chosen.standing, row=row):
        return None
    if draft.rule == Rule.TRUST and check_row(peer.spec, recorded_trust(peer.prefix, peer.number), draft.parents):
        return None
    size = peer.prefix.size
    outcomes = chosen.outcomes_after({}, draft.rejected)
    return replace(draft, seen=size, seen_root=peer.index.root(size), outcomes=outcomes, report=b"")


def _already_there(peer: Peer, update: Update) -> Update:
    """The entry under this sequence, if it is this update. The contract is asked, for the log as seen may lag.

    Raises:
        Moved: the chain dropped it, or has one that this peer made before a reorganisation.
    """
    ref = UpdateRef(peer.number, update.sequence)
    try:
        content = peer.ledger.update(ref).content
    except LookupError as cause:
        raise Moved(f"the chain had update {ref} and dropped it") from cause
    last = peer.journal.last()
    if content == update.content:
        return update
    if last is not None and content == last.content:
        raise Moved(f"the chain has update {ref} as this peer made it before a reorganisation")
    raise FlNodeError(
        f"the ledger has another update under {ref} than the one this peer made (content {content.hex()}, "
        f"expected {update.content.hex()}): somebody else signs with this key, or this state folder is a copy. "
        "Retire the key with `fl-node retire` and have a new one admitted"
    )
