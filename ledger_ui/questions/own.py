"""A peer's, or a site's, updates lately, and how their claims compare with what others attest."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from fl_node.records import PPM
from ledger_ui.contexts import Context, Ref
from ledger_ui.questions.members import Whose
from ledger_ui.questions.scores import ScoreLine, point_of

#: As many of the last updates are looked at.
WINDOW: Final = 200
#: As many peers of one site are drawn one by one.
_MOST_LINES: Final = 12

_COLUMNS: Final = (
    "u.idx, u.peer, u.sequence, u.site, s.name, u.round, u.time_s, u.final, u.score_ppm, u.base_score_ppm, "
    "u.test_samples, u.attested_ppm, u.attested_sites, u.considered, u.merged, u.children, u.merged_by, u.left_out_by, "
    "u.objections, u.state, u.ignored"
)


class Ignored(Context):
    """An update that does not count."""

    update: Ref
    entry: int
    why: str


class Calibration(Context):
    """Claims beside what others attest of the same updates."""

    pairs: int = Field(description="of the last updates, those that others have attested")
    mean_difference_ppm: float | None = Field(
        description="mean of claimed less attested, parts per million; none: no pairs"
    )
    higher: int = Field(description="of these, claims above what others attest")
    lower: int = Field(description="and below")
    words: str = Field(description="what that means, and what it does not")


class Own(Context):
    """Updates lately."""

    window: int = Field(description="updates that were looked at: the last ones, 200 at most")
    first_round: int | None = Field(description="lowest round among them that counts; none of none")
    last_round: int | None
    merged: int = Field(description="of those that count and are not closing ones, merged by another peer")
    left_out: int = Field(description="looked at, or late, and merged by nobody else")
    submitted: int = Field(description="neither, so far")
    closing: int
    ignored: list[Ignored] = Field(description="updates among them that do not count; the last 20")
    ignored_many: int
    lines: list[ScoreLine] = Field(description="scores by peer and round; of a site the 12 peers with most updates")
    impossible: int = Field(description="claims above 100 % among them, which no chart shows")
    calibration: Calibration


def recent(db: sqlite3.Connection, whose: Whose, most: int = WINDOW) -> list[sqlite3.Row]:
    """The last updates, newest first, those that do not count among them."""
    query = (
        f"SELECT {_COLUMNS} FROM updates u LEFT JOIN sites s ON s.site = u.site "  # noqa: S608
        f"WHERE u.{whose.column} = ? ORDER BY u.idx DESC LIMIT ?"
    )
    return db.execute(query, (whose.number, most)).fetchall()


def own(rows: Sequence[sqlite3.Row]) -> Own:
    """What :func:`recent` gave, in figures."""
    counting = [row for row in rows if row["ignored"] is None]
    states = [row["state"] for row in counting]
    ignored = [row for row in rows if row["ignored"] is not None]
    rounds = [row["round"] for row in counting]
    return Own(
        window=len(rows),
        first_round=min(rounds, default=None),
        last_round=max(rounds, default=None),
        merged=states.count("merged"),
        left_out=states.count("left-out"),
        submitted=states.count("submitted"),
        closing=states.count("closing"),
        ignored=[Ignored(update=ref_of(row), entry=row["idx"], why=row["ignored"]) for row in ignored[:20]],
        ignored_many=len(ignored),
        lines=_lines(counting),
        impossible=sum(1 for row in counting if row["score_ppm"] > PPM),
        calibration=_calibration(counting),
    )


def ref_of(row: sqlite3.Row) -> str:
    """An update's name."""
    return f"{row['peer']}#{row['sequence']}"


def _lines(rows: Sequence[sqlite3.Row]) -> list[ScoreLine]:
    by_peer: dict[int, list[sqlite3.Row]] = {}
    for row in rows:
        by_peer.setdefault(row["peer"], []).append(row)
    shown = sorted(by_peer, key=lambda peer: (-len(by_peer[peer]), peer))[:_MOST_LINES]
    return [
        ScoreLine(
            peer=peer,
            site=by_peer[peer][0]["site"],
            site_name=by_peer[peer][0]["name"],
            points=[point_of(row) for row in sorted(by_peer[peer], key=lambda row: (row["round"], row["idx"]))],
        )
        for peer in sorted(shown)
    ]


def _calibration(rows: Sequence[sqlite3.Row]) -> Calibration:
    differences = [
        row["score_ppm"] - row["attested_ppm"]
        for row in rows
        if row["attested_ppm"] is not None and max(row["score_ppm"], row["attested_ppm"]) <= PPM
    ]
    mean = sum(differences) / len(differences) if differences else None
    return Calibration(
        pairs=len(differences),
        mean_difference_ppm=mean,
        higher=sum(1 for one in differences if one > 0),
        lower=sum(1 for one in differences if one < 0),
        words=calibration_words(mean, len(differences)),
    )


def calibration_words(mean_ppm: float | None, pairs: int) -> str:
    """What a mean difference means, and what it does not."""
    if mean_ppm is None:
        return "Others have attested none of these updates: there is nothing to compare the claims with."
    points = abs(mean_ppm) * 100 / PPM
    over = f"over {pairs} updates" if pairs != 1 else "for the one update that was attested"
    if points < 0.005:
        said = f"On average its claims and what other sites attest are the same, {over}."
    else:
        way = "above" if mean_ppm > 0 else "below"
        said = f"On average its claims are {points:.2f} percentage points {way} what other sites attest, {over}."
    return (
        f"{said} A claim is measured on the publisher's own test rows, an attestation on others' validation rows: a "
        "difference may come from easier data, from a model that fits its own site better, or from a claim that is not "
        "honest. The figures cannot tell which, and no difference does not prove a claim."
    )
