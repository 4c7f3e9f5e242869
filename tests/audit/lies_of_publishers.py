"""Tamperings by who publishes: merges and shares, selection, pace, weights, scores, copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from given import Given, given
from playing import Lie, Model, Play
from signed_ledger import key
from small_nets import Scored, train
from tampering import begun, case, ref, told

from fl_node.content.cid import Cid
from fl_node.ledger import calls
from fl_node.merging.aggregation import Merge, aggregate, aggregate_recorded, order_key
from fl_node.merging.weights import Tensors
from fl_node.prefix import UpdateEntry
from fl_node.records import Parent, Rule

MERGES, CHOICES, PACE = "Merges and shares", "Whose updates", "Membership and pace"
WEIGHTS, SCORES, COPIES = "Weights", "Scores", "Copies"
DIFFERS = "the recorded parents and shares give the base"

Base = Callable[[Sequence[UpdateEntry], Sequence[Tensors], Merge], Tensors]


# ---- merges --------------------------------------------------------------------------------------------------------


def by_shares(shares: Callable[[tuple[Parent, ...]], tuple[Parent, ...]]) -> Base:
    """A base by these shares of the candidates."""

    def base(entries: Sequence[UpdateEntry], models: Sequence[Tensors], merged: Merge) -> Tensors:
        parents = shares(merged.parents)
        named = {parent.ref for parent in parents}
        kept = [k for k, entry in enumerate(entries) if entry.ref in named]
        return aggregate_recorded(
            Play().spec, [entries[k] for k in kept], [models[k] for k in kept], dict, parents, merged.rule
        ).tensors

    return base


def nudged(parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
    """One millionth from the first parent to the last."""
    first, *between, last = parents
    return replace(first, share_ppm=first.share_ppm - 1), *between, replace(last, share_ppm=last.share_ppm + 1)


@case(MERGES, "a share off by one in the record", "selection", "failed", "records the shares", on="2#2")
def share_recorded() -> Given:
    return told({"2#2": Lie(base=by_shares(nudged), parents=nudged)})


@case(MERGES, "a share off by one in the merge", "merge", "failed", DIFFERS, on="2#2")
def share_merged() -> Given:
    return told({"2#2": Lie(base=by_shares(nudged))})


@case(MERGES, "a listed parent left out of the merge", "merge", "failed", DIFFERS, on="2#2")
def parent_left_out() -> Given:
    def without(parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
        first, second, *rest = parents
        return replace(second, share_ppm=first.share_ppm + second.share_ppm), *rest

    return told({"2#2": Lie(base=by_shares(without))})


@case(MERGES, "an update merged that is not listed", "merge", "failed", DIFFERS, on="3#2")
def unlisted_merged() -> Given:
    def base(entries: Sequence[UpdateEntry], models: Sequence[Tensors], merged: Merge) -> Tensors:
        play = begun()
        older = play.update("1#1")
        return aggregate(play.spec, [*entries, older], [*models, play.models[older.ref]], dict).tensors

    return told({"3#2": Lie(base=base)})


@case(MERGES, "an older update merged in place of the one listed", "merge", "failed", DIFFERS, on="3#2")
def older_merged() -> Given:
    def base(entries: Sequence[UpdateEntry], models: Sequence[Tensors], merged: Merge) -> Tensors:
        play = begun()
        changed = [play.models[ref("1#1")] if e.ref.peer == 1 else m for e, m in zip(entries, models, strict=True)]
        return aggregate(play.spec, entries, changed, dict).tensors

    return told({"3#2": Lie(base=base)})


@case(MERGES, "float32 accumulation instead of float64", "merge", "failed", DIFFERS, on="2#2")
def single_precision() -> Given:
    def base(entries: Sequence[UpdateEntry], models: Sequence[Tensors], merged: Merge) -> Tensors:
        share = {parent.ref: np.float32(parent.share_ppm) for parent in merged.parents}
        found = {name: np.zeros_like(array) for name, array in merged.tensors.items()}
        for entry, model in sorted(zip(entries, models, strict=True), key=lambda pair: order_key(pair[0])):
            for name in found:
                found[name] = found[name] + model[name] * share[entry.ref]
        return {name: array / np.float32(1_000_000) for name, array in found.items()}

    return told({"2#2": Lie(base=base)})


@case(MERGES, "another rule than the spec's", "selection", "failed", "records rule 5, the spec gives 1", on="2#2")
def other_rule() -> Given:
    def base(entries: Sequence[UpdateEntry], models: Sequence[Tensors], merged: Merge) -> Tensors:
        return aggregate_recorded(Play().spec, entries, models, dict, merged.parents, Rule.MEDIAN).tensors

    return told({"2#2": Lie(base=base, draft=lambda draft: replace(draft, rule=Rule.MEDIAN))})


@case(MERGES, "a closing update that was trained", "merge", "failed", "a closing update is its base", on="1#3")
def trained_closing() -> Given:
    return told({"1#3": Lie(model=lambda model: {name: array + 1 for name, array in model.items()})})


# ---- whose updates -------------------------------------------------------------------------------------------------


def but(peer: int) -> Lie:
    """Everybody's update but one peer's."""
    return Lie(chosen=lambda given_: [entry for entry in given_ if entry.ref.peer != peer])


@case(
    CHOICES,
    "a rival dropped from the selection",
    "selection",
    "failed",
    "records 2#1, 3#1, 4#1; the policy gives 1#1, 2#1, 3#1, 4#1",
    on="4#2",
    also=["4#2 report"],
)
def rival_dropped() -> Given:
    play = begun(lies={"4#2": but(1)})
    play.turn(4, 2)
    return given(play)


@case(
    CHOICES,
    "under top-k: oneself alone",
    "selection",
    "failed",
    "records 2#1; the policy gives 2#1, 3#1, 4#1",
    on="2#2",
    also=["2#2 report"],
)
def top_k_ignored() -> Given:
    alone = Lie(chosen=lambda given_: [entry for entry in given_ if entry.ref.peer == 2])
    play = begun(lies={"2#2": alone}, selection="top-k", attesting="none")
    play.turn(2, 2)
    return given(play)


@case(
    CHOICES,
    "in a synchronous round: an update of the same round merged",
    "selection",
    "failed",
    "the policy gives 1#1, 2#1, 3#1, 4#1",
    on="4#2",
    also=["4#2 report"],
)
def same_round_merged() -> Given:
    play = begun(mode="sync")
    play.turn(1, 2)
    swap = Lie(chosen=lambda given_: [play.update("1#2") if e.ref.peer == 1 else e for e in given_])
    play.lies["4#2"] = swap
    play.turn(4, 2)
    return given(play)


# ---- membership and pace -------------------------------------------------------------------------------------------


@case(
    PACE,
    "a convenient `seen`, further back than the spec allows",
    "membership",
    "failed",
    "it had seen 17 entries, 17 before its own; the spec allows 12",
    on="5#1",
)
def far_behind() -> Given:
    play = begun(max_lag=12)
    newcomer = play.ledger.admit(key("newcomer"), "site-new")
    admitted = len(play.ledger.entries)
    for peer in (1, 2, 3, 4):
        play.turn(peer, 2)
    for peer in (1, 2, 3, 4):
        play.turn(peer, 3)
    play.lies["5#1"] = Lie(seen=lambda _: admitted)
    play.turn(newcomer, 3)
    return given(play)


@case(
    PACE,
    "a `seenRoot` of another history",
    "consistent",
    "failed",
    "it is not the history that was signed",
    on="3#2",
)
def other_history() -> Given:
    elsewhere = begun(2, seed=2).ledger
    return told({"3#2": Lie(seen_root=lambda _: elsewhere.root(20))})


@case(PACE, "an update after its publisher's retirement", "membership", "failed", "PeerIsRetired", on="2#2")
def after_retirement() -> Given:
    play = begun()
    play.turn(1, 2)
    play.ledger.retire(2, len(play.ledger.entries))
    play.turn(2, 2, force=True)
    return given(play)


@case(PACE, "a skipped sequence", "membership", "failed", "SequenceNotNext")
def skipped_sequence() -> Given:
    play = begun(lies={"3#2": Lie(update=lambda update: replace(update, sequence=3))})
    play.turn(3, 2, force=True)
    return given(play)


@case(PACE, "a round out of range", "membership", "failed", "RoundOutOfRange", on="3#2", also=["3#2 report"])
def round_out_of_range() -> Given:
    play = begun(lies={"3#2": Lie(update=lambda update: replace(update, round=2**32 - 1))})
    play.turn(3, 2, force=True)
    return given(play)


def shares_halved(parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
    return tuple(replace(parent, share_ppm=parent.share_ppm // 2) for parent in parents)


@case(
    PACE,
    "shares that do not sum to the whole",
    "membership",
    "failed",
    "SharesNotWhole",
    on="3#2",
    also=["3#2 selection", "3#2 merge"],
)
def shares_not_whole() -> Given:
    play = begun(lies={"3#2": Lie(parents=shares_halved)})
    play.turn(3, 2, force=True)
    return given(play)


@case(
    PACE,
    "a parent with the tag of other content",
    "membership",
    "failed",
    "TagMismatch",
    on="3#2",
    also=["3#2 selection"],
)
def wrong_tag() -> Given:
    def retagged(parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
        return replace(parents[0], tag=b"else"), *parents[1:]

    play = begun(lies={"3#2": Lie(parents=retagged)})
    play.turn(3, 2, force=True)
    return given(play)


@case(
    PACE,
    "a parent that does not exist",
    "membership",
    "failed",
    "UnknownUpdate",
    on="3#2",
    also=["3#2 selection", "3#2 merge", "3#2 report"],
)
def parent_nowhere() -> Given:
    def invented(parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
        return replace(parents[0], sequence=77), *parents[1:]

    play = begun(lies={"3#2": Lie(parents=invented)})
    play.turn(3, 2, force=True)
    return given(play)


@case(PACE, "an update signed with another member's key", "canonical", "failed", "signed by 0xFD0803B5f6e51e", on="3#2")
def stolen_name() -> Given:
    return told({"3#2": Lie(signer=key("peer 1"))})


@case(
    PACE,
    "a transaction whose call data say something else than the entry",
    "canonical",
    "failed",
    "asks for something else than this UpdatePublished entry says",
    on="3#2",
)
def other_call() -> Given:
    return told({"3#2": Lie(data=lambda update, parents: calls.publish(replace(update, score_ppm=1), parents))})


# ---- weights -------------------------------------------------------------------------------------------------------


@case(WEIGHTS, "another's content named as one's own", "commitment", "failed", "give the commitment", on="4#1")
def content_of_another() -> Given:
    play = Play()
    for peer in (1, 2, 3):
        play.turn(peer, 1)
    theirs = play.update("1#1").update.content
    play.stores[4].add(play.stores[1].get(Cid("raw", theirs), 1 << 20))
    play.lies["4#1"] = Lie(update=lambda update: replace(update, content=theirs))
    play.turn(4, 1)
    for peer in (1, 2, 3):
        play.turn(peer, 2)
    return given(play)


@case(
    WEIGHTS, "other weights published than were committed to", "commitment", "failed", "give the commitment", on="2#2"
)
def other_weights() -> Given:
    def weightless(blob: bytes) -> bytes:
        return blob[:-4] + np.float32(0.125).tobytes()

    return told({"2#2": Lie(blob=weightless)})


@case(
    WEIGHTS,
    "a weight that is not a number",
    "well-formed",
    "failed",
    "expected finite values only",
    on="2#2",
    also=["2#2 commitment"],
)
def not_a_number() -> Given:
    return told({"2#2": Lie(blob=lambda blob: blob[:-4] + np.float32("nan").tobytes())})


@case(
    WEIGHTS,
    "a file cut short by its publisher",
    "well-formed",
    "failed",
    "bytes of data, expected 112",
    on="2#2",
    also=["2#2 commitment"],
)
def cut_short() -> Given:
    return told({"2#2": Lie(blob=lambda blob: blob[:-8])})


@case(
    WEIGHTS,
    "weights beyond all training",
    "well-formed",
    "failed",
    "merging.max_magnitude",
    on="2#2",
    also=["2#2 commitment"],
)
def enormous() -> Given:
    return told({"2#2": Lie(model=lambda model: {name: array + np.float32(1e9) for name, array in model.items()})})


# ---- scores --------------------------------------------------------------------------------------------------------


def claimed(ppm: int) -> Callable[[Scored], Scored]:
    return lambda found: replace(found, score_ppm=ppm)


@case(
    SCORES,
    "a score that is no number of right answers among the test rows",
    "score",
    "failed",
    "no number of right answers among 250 test rows gives a score of",
    on="2#2",
    also=["2#2 report"],
)
def no_fraction() -> Given:
    return told({"2#2": Lie(scored=claimed(640_001))})


@case(
    SCORES,
    "a score above 1,000,000",
    "score",
    "failed",
    "out of bounds",
    on="2#2",
    also=["2#2 report", "2#2 membership"],
)
def out_of_bounds() -> Given:
    play = begun(lies={"2#2": Lie(scored=claimed(1_004_000))})
    play.turn(2, 2, force=True)
    return given(play)


@case(
    SCORES,
    "a score that the report's own confusion matrix does not give",
    "report",
    "failed",
    "the report's confusion matrix gives",
    on="2#2",
)
def other_confusion() -> Given:
    return told({"2#2": Lie(scored=lambda found: replace(found, score_ppm=found.score_ppm + 4_000))})


def better(points: float) -> Callable[[Scored], Scored]:
    """As much better as nobody can see from the claim itself: the confusion matrix is made to fit."""

    def boast(found: Scored) -> Scored:
        table = [list(row) for row in found.confusion]
        wanted = round(points / 100 * found.samples)
        for k, row in enumerate(table):
            for j in range(len(row)):
                moved = min(row[j], wanted) if j != k else 0
                row[j], row[k], wanted = row[j] - moved, row[k] + moved, wanted - moved
        right = sum(row[k] for k, row in enumerate(table))
        fitting = tuple(map(tuple, table))
        return replace(found, score_ppm=right * 1_000_000 // found.samples, confusion=fitting)

    return boast


@case(
    SCORES,
    "a score inflated by 10 points, on data of one kind, attested by others",
    "score",
    "outlier",
    "above their median",
    on="3#2",
)
def inflated() -> Given:
    return told({"3#2": Lie(scored=better(10.0))}, rows=(80, 800, 1000))


# ---- copies --------------------------------------------------------------------------------------------------------


def copied(change: Callable[[Model, Model, Model], Model], model: str = "logistic") -> Given:
    """Peer 6 publishes in round 2 what it makes of 1#2. ``change`` is given that, what it was trained from, and the
    base of peer 6."""
    play = begun(peers=6, model=model)
    for peer in range(1, 6):
        play.turn(peer, 2)
    theirs, base = play.models[ref("1#2")], dict(play.bases[ref("1#2")])
    play.lies["6#2"] = Lie(model=lambda _: change(theirs, base, dict(play.bases[ref("6#2")])))
    play.turn(6, 2)
    for peer in range(1, 7):
        play.turn(peer, 3)
    return given(play)


@case(COPIES, "an exact copy under one's own name", "originality", "suspicious", "1#2", on="6#2")
def exact_copy() -> Given:
    return copied(lambda theirs, base, own: theirs)


def noisy(share: float) -> Callable[[Model, Model, Model], Model]:
    """Every weight changed by about this share of itself."""
    dice = np.random.default_rng(5)

    def change(theirs: Model, base: Model, own: Model) -> Model:
        return {
            name: (array * (1 + share * dice.normal(size=array.shape))).astype(np.float32)
            for name, array in theirs.items()
        }

    return change


@case(COPIES, "a copy with noise of 0.1 %", "originality", "suspicious", "it looks like a copy of 1#2", on="6#2")
def noisy_copy() -> Given:
    return copied(noisy(0.001))


@case(COPIES, "a copy with noise of 10 %", "originality", "ok", "is as near as copies are", on="6#2")
def very_noisy_copy() -> Given:
    return copied(noisy(0.1))


@case(
    COPIES, "a copy whose change is scaled by 1.3", "originality", "suspicious", "it looks like a copy of 1#2", on="6#2"
)
def scaled_copy() -> Given:
    def scaled(theirs: Model, base: Model, own: Model) -> Model:
        return {name: (own[name] + 1.3 * (array - base[name])).astype(np.float32) for name, array in theirs.items()}

    return copied(scaled)


@case(
    COPIES,
    "a copy whose neurons are put into another order",
    "originality",
    "suspicious",
    "it looks like a copy of 1#2",
    on="6#2",
)
def permuted_copy() -> Given:
    def permuted(theirs: Model, base: Model, own: Model) -> Model:
        order = np.random.default_rng(5).permutation(len(theirs["hidden1.bias"]))
        return {
            **theirs,
            "hidden1.weight": theirs["hidden1.weight"][order],
            "hidden1.bias": theirs["hidden1.bias"][order],
            "linear.weight": np.ascontiguousarray(theirs["linear.weight"][:, order]),
        }

    return copied(permuted, "mlp")


@case(COPIES, "a copy trained on for as long again", "originality", "ok", "is as near as copies are", on="6#2")
def trained_on() -> Given:
    rows = Play(peers=6).splits[5].train
    return copied(lambda theirs, base, own: train(theirs, rows, 99))
