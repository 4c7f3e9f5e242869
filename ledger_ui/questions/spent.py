"""Privacy that peers say they have spent, against the budget of the spec."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from fl_node.tables import PrivacySpec
from ledger_ui.contexts import Context, Ref

#: Reports of a peer that are looked at, the latest.
_LOOKED: Final = 200
_MOST_PEERS: Final = 200
#: What rounding may add to a figure that was within the budget.
_SLACK: Final = 1.0 + 1e-9

State = Literal["none", "unsaid", "within", "spent", "beyond"]
STATES: Final = (
    "none: the spec has no mechanism and nothing is said; unsaid: no report that tells of it is at hand; within: there "
    "is budget left; spent: another training like the last would go beyond it; beyond: more than the budget"
)


class Mechanism(Context):
    """Differential privacy as the spec has it."""

    mechanism: str = Field(description="none; example: of each row; update: of each whole update")
    words: str
    epsilon: float | None = Field(description="budget of each peer over the whole federation; none: no mechanism")
    delta: float | None
    scores: Literal["exact", "coarse", "withheld"] = Field(description="how scores are told")
    scores_words: str = Field(description="what that means for who reads scores; empty where they are exact")


class SpentPoint(Context):
    """What one update's report says was spent, that update included: its publisher's word."""

    update: Ref
    entry: int
    round: int
    epsilon: float
    delta: float | None
    mechanism: str = Field(description="a stranger's text")
    budget: float | None = Field(description="the budget as the report has it")


class Spent(Context):
    """One peer's privacy account, by its own word."""

    state: State = Field(description=STATES)
    words: str
    latest: SpentPoint | None
    points: list[SpentPoint] = Field(description="in the order of the log; the last 200")
    budget: float | None = Field(description="of the spec; none: it has no mechanism")


class PeerSpent(Context):
    """How much a peer says it has spent, in its last report."""

    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    point: SpentPoint
    state: State = Field(description=STATES)


def mechanism_of(spec: PrivacySpec) -> Mechanism:
    """The spec's privacy in words."""
    scores, words = scores_of(spec)
    if spec.mechanism == "none":
        told = "No differential privacy: what an update tells of the rows behind it has no bound."
        return Mechanism(mechanism="none", words=told, epsilon=None, delta=None, scores=scores, scores_words=words)
    whom = "each row (DP-SGD)" if spec.mechanism == "example" else "each whole update"
    told = (
        f"Differential privacy of {whom}: over the whole federation a peer may spend epsilon {spec.epsilon:g} at delta "
        f"{spec.delta:g}, and trains no more once that is spent. What was spent is each peer's own account."
    )
    return Mechanism(
        mechanism=spec.mechanism, words=told, epsilon=spec.epsilon, delta=spec.delta, scores=scores, scores_words=words
    )


def scores_of(spec: PrivacySpec) -> tuple[Literal["exact", "coarse", "withheld"], str]:
    """How scores are told, and what that means.

    >>> scores_of(PrivacySpec())
    ('exact', '')
    """
    if spec.mechanism == "none":
        return "exact", ""
    if spec.scores == "withheld":
        return "withheld", "Scores are withheld for privacy: peers record zero, which says nothing of their models."
    step = spec.score_step_ppm / 10_000
    return "coarse", f"Scores are coarse for privacy: each is rounded to a multiple of {step:g} %."


def spent(db: sqlite3.Connection, peer: int, spec: PrivacySpec) -> Spent:
    """What a peer's reports say."""
    rows = db.execute(
        "SELECT t.*, u.sequence FROM told t JOIN updates u ON u.idx = t.idx "
        "WHERE t.peer = ? AND t.epsilon IS NOT NULL ORDER BY t.idx DESC LIMIT ?",
        (peer, _LOOKED),
    ).fetchall()
    points = [_point(row) for row in reversed(rows)]
    budget = None if spec.mechanism == "none" else spec.epsilon
    state = state_of([point.epsilon for point in points], budget)
    return Spent(
        state=state,
        words=_words(state, points, budget),
        latest=points[-1] if points else None,
        points=points,
        budget=budget,
    )


def state_of(epsilons: Sequence[float], budget: float | None) -> State:
    """How an account stands.

    Args:
        epsilons: spent so far after each update, in their order.

    >>> state_of([2.0, 3.0], 8.0), state_of([6.0, 7.5, 7.5], 8.0), state_of([8.1], 8.0), state_of([], None)
    ('within', 'spent', 'beyond', 'none')
    """
    # The first training costs most: what the next one costs follows from later ones only.
    if not epsilons:
        return "none" if budget is None else "unsaid"
    if budget is None:
        return "within"
    if epsilons[-1] > budget * _SLACK:
        return "beyond"
    before = max((one for one in epsilons if one < epsilons[-1]), default=None)
    return "within" if before is None or 2 * epsilons[-1] - before <= budget * _SLACK else "spent"


def everybody(db: sqlite3.Connection, spec: PrivacySpec) -> list[PeerSpent]:
    """The last word of every active peer that has said something, who spent most first."""
    last = "(SELECT v.idx FROM told v WHERE v.peer = p.peer AND v.epsilon IS NOT NULL ORDER BY v.idx DESC LIMIT 1)"
    before = "(SELECT max(w.epsilon) FROM told w WHERE w.peer = p.peer AND w.epsilon < t.epsilon)"
    rows = db.execute(
        f"SELECT t.*, u.sequence, p.site, s.name AS site_name, {before} AS before FROM peers p "  # noqa: S608
        f"JOIN told t ON t.idx = {last} JOIN updates u ON u.idx = t.idx LEFT JOIN sites s ON s.site = p.site "
        "WHERE p.retired IS NULL ORDER BY t.epsilon DESC, p.peer LIMIT ?",
        (_MOST_PEERS,),
    )
    budget = None if spec.mechanism == "none" else spec.epsilon
    found = []
    for row in rows:
        steps = [row["epsilon"]] if row["before"] is None else [row["before"], row["epsilon"]]
        found.append(
            PeerSpent(
                peer=row["peer"],
                site=row["site"],
                site_name=row["site_name"],
                point=_point(row),
                state=state_of(steps, budget),
            )
        )
    return found


def _point(row: sqlite3.Row) -> SpentPoint:
    return SpentPoint(
        update=f"{row['peer']}#{row['sequence']}",
        entry=row["idx"],
        round=row["round"],
        epsilon=row["epsilon"],
        delta=row["delta"],
        mechanism=row["mechanism"] or "",
        budget=row["budget"],
    )


def _words(state: State, points: Sequence[SpentPoint], budget: float | None) -> str:
    if state == "none":
        return "The spec asks for no differential privacy, and no report tells of any."
    if state == "unsaid" or not points:
        return "No report of this peer that tells of privacy spent is at hand."
    last = points[-1]
    at = "" if last.delta is None else f" at delta {last.delta:.3g}"
    said = f"By its own word it has spent epsilon {last.epsilon:.4g}{at}, after {last.update}."
    if budget is None:
        return f"{said} The spec asks for none."
    if state == "beyond":
        return f"{said} That is more than the budget of {budget:g}: it should have stopped training before."
    if state == "spent":
        return f"{said} The budget is {budget:g}: another training like its last would go beyond it."
    return f"{said} The budget is {budget:g}."
