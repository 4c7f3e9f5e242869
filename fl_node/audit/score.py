"""Check 11, score: whether a claim is a possible one, and what other sites measured.

Possible is what can be told from the ledger alone. Both scores are at most 1,000,000, and of as many test rows as are
named. An accuracy is a number of right answers, k of n, rounded down. Where an update's weights are its base, which its
commitment shows, both scores are of the same weights and rows, and so the same. Of macro-F1, AUC and Dice the bounds
are all that follows.

Everything else is advice: :mod:`fl_node.audit.claims` says when a claim is too far above what others measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from fl_node.audit.claims import (
    FAR,
    IMPROVEMENT,
    LEVEL,
    WINDOW,
    Judgement,
    Kind,
    Measured,
    beside,
    judge,
    over_rounds,
    worked_out,
)
from fl_node.audit.verdicts import Finding, Result
from fl_node.merging import weights
from fl_node.merging.outcomes import percent
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import PPM
from fl_node.released import is_released
from fl_node.spec import Spec

NAME: Final = "score"
#: By so much may two scores of the same weights and rows differ that are no accuracies.
_ROUNDING_PPM: Final = 1_000


@dataclass(slots=True)
class _Looked:
    """What was found out, for the machines, as it is."""

    data: dict[str, Any] = field(default_factory=dict)

    def finding(self, result: Result, detail: str) -> Finding:
        return Finding(NAME, result, detail, self.data)


def score_finding(spec: Spec | None, prefix: Prefix, entry: UpdateEntry) -> Finding:
    """What the ledger says of an update's claim.

    Args:
        spec: ``None`` where it could not be had: nothing but the bounds can be checked then.
        prefix: the whole log as it is known, attestations and later rounds included.

    Returns:
        ``failed`` for an impossible claim; ``unknown`` where no other site measured it, or where nothing tells whether
        it is too high; ``outlier`` where it is far above what others measured; else ``ok``.
    """
    update, looked = entry.update, _Looked()
    looked.data |= {
        "claim_ppm": update.score_ppm,
        "base_claim_ppm": update.base_score_ppm,
        "test_samples": update.test_samples,
    }
    fault = impossible(spec, prefix, entry)
    if fault is not None:
        return looked.finding(Result.FAILED, fault)
    claim = f"a claim: {percent(update.score_ppm)} (its base {percent(update.base_score_ppm)}) on {_rows(entry)}"
    if spec is None:
        return looked.finding(Result.UNKNOWN, f"{claim}; without the spec nobody knows what it measures")
    looked.data["metric"] = spec.task.metric
    if spec.privacy.mechanism != "none" and spec.privacy.scores == "withheld":
        return looked.finding(Result.UNKNOWN, "no claim: the spec withholds scores (privacy.scores)")
    if not update.test_samples:
        return looked.finding(Result.UNKNOWN, f"{claim}: nothing was measured")
    mine = beside(spec, prefix, entry)
    looked.data["attested"] = [
        {"site": said.site, "score_ppm": round(said.score * PPM), "base_score_ppm": round(said.base * PPM)}
        for said in mine.said
    ]
    if not mine.said:
        return looked.finding(Result.UNKNOWN, f"{claim}: nobody but its publisher measured it{_why(spec, entry)}")
    return _beside(spec, prefix, mine, claim, looked)


def impossible(spec: Spec | None, prefix: Prefix, entry: UpdateEntry) -> str | None:
    """Why a claim cannot be true, from the ledger alone; ``None`` where it may be."""
    update = entry.update
    claims = (("score", update.score_ppm), ("base score", update.base_score_ppm))
    for name, ppm in claims:
        if not 0 <= ppm <= PPM:
            return f"the {name} {ppm:,} is out of bounds; expected at most {PPM:,}"
        if ppm and not update.test_samples:
            return f"it claims a {name} of {percent(ppm)}, measured on no test rows; expected 0"
    if spec is None:
        return None
    if spec.privacy.mechanism != "none":
        for name, ppm in claims:
            if not is_released(spec.privacy, ppm):
                told = f"a multiple of {spec.privacy.score_step_ppm:,}" if spec.privacy.scores == "coarse" else "0"
                return f"it records a {name} of {ppm:,} ppm; expected {told}, by the spec's privacy.scores"
        return _two_scores(spec, prefix, entry)
    for name, ppm in claims if spec.task.metric == "accuracy" else ():
        if right_answers(ppm, update.test_samples) is None:
            most = ppm * update.test_samples // PPM
            near = " or ".join(
                f"{percent(k * PPM // update.test_samples)} ({k})" for k in (most, most + 1) if k <= update.test_samples
            )
            return f"no number of right answers among {_rows(entry)} gives a {name} of {percent(ppm)}; nearest: {near}"
    return _two_scores(spec, prefix, entry)


def right_answers(score_ppm: int, rows: int) -> int | None:
    """The least k with floor(k * 1,000,000 / rows) = ``score_ppm``; ``None`` where there is none.

    >>> right_answers(666_666, 3), right_answers(666_667, 3), right_answers(0, 0)
    (2, None, 0)
    """
    if not rows:
        return 0 if score_ppm == 0 else None
    least = -(-score_ppm * rows // PPM)
    return least if least <= rows and least * PPM // rows == score_ppm else None


def _two_scores(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str | None:
    """Where the weights are the base: why the two scores cannot both be true.

    A tie between two classes may fall another way on another machine, so one right answer more or less is no fault.
    Personal tensors are no part of either, and training changes them.
    """
    update = entry.update
    untrained = entry.final or (entry.round - 1) % spec.training.every
    if spec.merging.personal and not untrained:
        return None
    opened = prefix.opened
    same = weights.commitment(opened.chain_id, opened.ledger, entry.ref.peer, entry.ref.sequence, update.base)
    one_row = -(-PPM // update.test_samples) + 1 if update.test_samples else 0
    allowed = one_row if spec.task.metric == "accuracy" else _ROUNDING_PPM
    if spec.privacy.mechanism != "none":
        allowed = spec.privacy.score_step_ppm * (1 + allowed // spec.privacy.score_step_ppm)
    if update.weights != same or abs(update.score_ppm - update.base_score_ppm) <= allowed:
        return None
    return (
        f"its weights are its base, and of the same weights on the same {_rows(entry)} it claims two scores: "
        f"{percent(update.score_ppm)} and {percent(update.base_score_ppm)}"
    )


def _beside(spec: Spec, prefix: Prefix, mine: Measured, claim: str, looked: _Looked) -> Finding:
    """The claim beside what other sites measured."""
    judgements = [judge(kind, spec, prefix, mine) for kind in (LEVEL, IMPROVEMENT)]
    level, improvement = judgements
    lasting = _over_rounds(spec, prefix, mine, improvement)
    looked.data |= {
        "data_alike": level.alike,
        "tests": {one.kind.name: _numbers(one) for one in judgements},
        "over_rounds": None if lasting is None else {"gap_ppm": _ppm(lasting[0]), "noise_ppm": _ppm(lasting[1])},
    }
    measured_by = f"{len(mine.said)} other site{'s' * (len(mine.said) > 1)} measured {_range(mine, LEVEL)}"
    far = [_how_far(one) for one in judgements if one.far]
    if lasting is not None and lasting[0] > FAR * lasting[1]:
        points = f"{_points(lasting[0])} above what others measured, where chance gives {_points(FAR * lasting[1])}"
        far.append(f"the improvements that this peer claims are, over rounds, {points} at most")
    if far:
        return looked.finding(Result.OUTLIER, f"{claim}; {measured_by}: {'; '.join(far)}")
    if any(one.open for one in judgements):
        words = "above that by more than chance; data of the sites differ, and too few others publish to compare with"
        return looked.finding(Result.UNKNOWN, f"{claim}; {measured_by}: {words}")
    return looked.finding(Result.OK, f"{claim}; {measured_by}")


def _over_rounds(spec: Spec, prefix: Prefix, mine: Measured, now: Judgement) -> tuple[float, float] | None:
    """How far this peer's improvements, up to this update, are above what others measured."""
    if not now.alike:
        return None
    cache: dict[int, Judgement | None] = worked_out(spec, prefix, "improvements")
    before = []
    for entry in prefix.updates(mine.entry.ref.peer)[: mine.entry.ref.sequence - 1][1 - WINDOW :]:
        if entry.index not in cache:
            there = beside(spec, prefix, entry)
            judged = there.said and there.rows and not entry.final
            cache[entry.index] = judge(IMPROVEMENT, spec, prefix, there) if judged else None
        found = cache[entry.index]
        if found is not None and found.alike:
            before.append(found)
    return over_rounds([*before, now])


def _how_far(one: Judgement) -> str:
    what = "the score" if one.kind is LEVEL else "the improvement on its base"
    because = "chance gives" if one.alike else "chance and unlike data, as they show in the others' claims, give"
    centre = percent(_ppm(one.centre)) if one.kind is LEVEL else _points(one.centre)
    return (
        f"{what} is claimed {_points(one.gap)} above their median of {centre}, where {because} "
        f"{_points(one.allowed or 0.0)} at most"
    )


def _numbers(one: Judgement) -> dict[str, int | bool | None]:
    return {
        "gap_ppm": _ppm(one.gap),
        "noise_ppm": _ppm(one.noise),
        "median_ppm": _ppm(one.centre),
        "usual_gap_ppm": _ppm(one.usual),
        "allowed_gap_ppm": None if one.allowed is None else _ppm(one.allowed),
        "far": one.far,
    }


def _range(mine: Measured, kind: Kind) -> str:
    values = sorted(_ppm(kind.word(said)) for said in mine.said)
    return percent(values[0]) if values[0] == values[-1] else f"{percent(values[0])} to {percent(values[-1])}"


def _why(spec: Spec, entry: UpdateEntry) -> str:
    if spec.attestation.mode == "none":
        return ", and the spec asks nobody to"
    return ", as is usual of closing updates, which nobody merges" if entry.final else ""


def _rows(entry: UpdateEntry) -> str:
    count = entry.update.test_samples
    return f"{count:,} test row{'s' * (count != 1)}"


def _ppm(value: float) -> int:
    return round(value * PPM)


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
