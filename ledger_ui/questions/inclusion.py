"""Is my site in? One answer from the log: what came of a site's updates in the last rounds."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from fl_node.completeness import State
from fl_node.merging.outcomes import ranges
from fl_node.records import Role
from ledger_ui.contexts import Context, Ref
from ledger_ui.questions.members import Member
from ledger_ui.questions.own import ref_of

#: So many of the federation's last rounds are looked at.
LAST_ROUNDS: Final = 10
_MOST_WORDS: Final = 1000
_NAMED: Final = 8

InOrOut = Literal["in", "waiting", "left-out", "not-lately", "never", "retired"]


class LeftOutBecause(Context):
    """Why others left updates out, from selections that were replayed."""

    outcome: str = Field(description="as in a report, such as outscored or stale; late: recorded after the cut")
    times: int = Field(description="merges that left one of these updates out for it")
    peers: list[int] = Field(description="who left them out; 8 at most")
    peers_many: int
    example: str = Field(description="the reason of one of them, in words")


class Inclusion(Context):
    """Whether a site's updates get into others' models."""

    standing: InOrOut = Field(
        description="in: others merged an update of the last rounds; waiting: published, nobody has looked at it yet; "
        "left-out: looked at and merged by nobody; not-lately: no update in the last rounds; never: no update at all; "
        "retired: all its peers were"
    )
    words: str = Field(description="the answer in one sentence")
    rounds: list[int] = Field(description="the federation's last rounds that hold updates, 10 at most, ascending")
    published: int = Field(description="its updates of these rounds that count and are not closing ones")
    merged: int = Field(description="of them, those that a peer of another site merged")
    left_out: int = Field(description="of the others, those that somebody left out")
    submitted: int = Field(description="of them, those that nobody has merged or left out so far")
    closed: bool = Field(description="it has published a closing update")
    last_update: Ref | None = Field(description="its last update that counts")
    last_round: int | None
    last_time_s: int | None = Field(description="block time of that, seconds since 1970")
    last_merged: Ref | None = Field(description="its last update that others merged")
    merged_by: list[int] = Field(description="peers of other sites that merged that; the first 64")
    merged_by_many: int
    others: int = Field(description="peers of other sites that may publish and are not retired")
    because: list[LeftOutBecause] = Field(description="why others left its updates of these rounds out")
    missing: list[int] = Field(description="of these rounds, those in which it was missing")
    awaited: bool = Field(description="nothing of it has come yet in an open round")


def inclusion(db: sqlite3.Connection, site: int, peers: Sequence[Member], rows: Sequence[sqlite3.Row]) -> Inclusion:
    """The answer for a site.

    Args:
        peers: the site's.
        rows: its last updates, as :func:`ledger_ui.questions.own.recent` gave them.
    """
    rounds = last_rounds(db)
    counting = [row for row in rows if row["ignored"] is None]
    lately = [row for row in counting if rounds and row["round"] >= rounds[0] and not row["final"]]
    states = Counter(_became(db, row, site) for row in lately)
    last = counting[0] if counting else None
    taken = next((row for row in counting if _became(db, row, site) == "merged"), None)
    by = _merged_by(db, taken["idx"], site) if taken is not None else []
    missing, awaited = _absent(db, [one.peer for one in peers], rounds, {row["round"] for row in counting})
    found = Inclusion(
        standing=_standing(peers, last, lately, states, taken is not None),
        words="",
        rounds=rounds,
        published=len(lately),
        merged=states["merged"],
        left_out=states["left-out"],
        submitted=states["submitted"],
        closed=any(row["final"] for row in counting),
        last_update=ref_of(last) if last is not None else None,
        last_round=last["round"] if last is not None else None,
        last_time_s=last["time_s"] if last is not None else None,
        last_merged=ref_of(taken) if taken is not None else None,
        merged_by=by[:64],
        merged_by_many=len(by),
        others=_others(db, site),
        because=_because(db, [row["idx"] for row in lately]),
        missing=missing,
        awaited=awaited,
    )
    return found.model_copy(update={"words": words_of(found)})


def last_rounds(db: sqlite3.Connection, most: int = LAST_ROUNDS) -> list[int]:
    """The federation's last rounds that hold updates that count, ascending."""
    found: list[int] = []
    below = 2**62
    while len(found) < most:
        query = "SELECT max(round) FROM updates WHERE ignored IS NULL AND round < ?"
        number = db.execute(query, (below,)).fetchone()[0]
        if number is None:
            break
        found.append(number)
        below = number
    return found[::-1]


def words_of(found: Inclusion) -> str:
    """The answer in one sentence."""
    if found.last_update is None:
        return "No: it has not published any update that counts."
    if found.standing == "retired":
        start = f"No longer: all its peers were retired, and its last update that counts is {found.last_update}"
    elif found.standing == "not-lately":
        last = f"{found.last_update} of round {found.last_round}"
        start = f"Not lately: its last update is {last}, before {_span(found.rounds)}"
    else:
        first = {"in": "Yes", "waiting": "Not yet", "left-out": "Published, but not merged"}[found.standing]
        span = _span(found.rounds)
        start = f"{first}: it has closed with {found.last_update} of round {found.last_round}, before {span}"
        if found.published:
            published = _many(found.published, "update")
            start = f"{first}: other sites merged {found.merged} of {published} that it published in {span}"
    closed = f"it has closed with {found.last_update}" if found.closed and found.published else ""
    return "; ".join(part for part in (start, _taken(found), _left_out(found), _missing(found), closed) if part) + "."


def _became(db: sqlite3.Connection, row: sqlite3.Row, site: int) -> str:
    """What other sites made of an update: what a site's own peers merge brings it into nobody else's model."""
    query = (
        "SELECT 1 FROM parents p JOIN updates c ON c.idx = p.child WHERE p.parent = ? AND p.share_ppm > 0 "
        "AND c.ignored IS NULL AND c.site IS NOT ? LIMIT 1"
    )
    if row["merged_by"] and db.execute(query, (row["idx"], site)).fetchone():
        return "merged"
    return "left-out" if row["left_out_by"] else "submitted"


def _standing(
    peers: Sequence[Member],
    last: sqlite3.Row | None,
    lately: Sequence[sqlite3.Row],
    states: Counter[str],
    ever_merged: bool,
) -> InOrOut:
    if last is None:
        return "never"
    if peers and all(one.standing == "retired" for one in peers):
        return "retired"
    if not lately and not last["final"]:
        return "not-lately"
    if states["merged"] or (not lately and ever_merged):
        return "in"
    return "left-out" if states["left-out"] else "waiting"


def _merged_by(db: sqlite3.Connection, update: int, site: int) -> list[int]:
    """Peers of other sites that merged an update."""
    query = (
        "SELECT DISTINCT c.peer FROM parents p JOIN updates c ON c.idx = p.child WHERE p.parent = ? "
        "AND p.share_ppm > 0 AND c.ignored IS NULL AND c.site IS NOT ? LIMIT ?"
    )
    return sorted(row[0] for row in db.execute(query, (update, site, _MOST_WORDS)))


def _others(db: sqlite3.Connection, site: int) -> int:
    query = "SELECT count(*) FROM peers WHERE site IS NOT ? AND retired IS NULL AND roles & ?"
    return int(db.execute(query, (site, int(Role.PUBLISH))).fetchone()[0])


def _because(db: sqlite3.Connection, updates: Sequence[int]) -> list[LeftOutBecause]:
    query = (
        "SELECT l.outcome, l.reason, c.peer FROM json_each(?) j CROSS JOIN left_out l ON l.update_idx = j.value "
        "LEFT JOIN updates c ON c.idx = l.by_idx LIMIT ?"
    )
    times: Counter[str] = Counter()
    who: dict[str, set[int]] = {}
    example: dict[str, str] = {}
    for outcome, reason, peer in db.execute(query, (json.dumps(list(updates)), _MOST_WORDS)):
        times[outcome] += 1
        example.setdefault(outcome, reason or "")
        who.setdefault(outcome, set()).update([] if peer is None else [peer])
    return [
        LeftOutBecause(
            outcome=outcome,
            times=many,
            peers=sorted(who[outcome])[:_NAMED],
            peers_many=len(who[outcome]),
            example=example[outcome],
        )
        for outcome, many in sorted(times.items(), key=lambda item: (-item[1], item[0]))
    ]


def _absent(
    db: sqlite3.Connection, peers: Sequence[int], rounds: Sequence[int], there: set[int]
) -> tuple[list[int], bool]:
    """A site is missing where a peer of it is, and none has an update."""
    if not rounds or not peers:
        return [], False
    query = (
        "SELECT DISTINCT a.round, a.state FROM json_each(?) j CROSS JOIN absences a ON a.peer = j.value "
        "WHERE a.round BETWEEN ? AND ?"
    )
    absent = db.execute(query, (json.dumps(list(peers)), rounds[0], rounds[-1])).fetchall()
    missing = {row[0] for row in absent if row[1] == State.MISSING} - there
    return sorted(missing), any(row[1] == State.AWAITED and row[0] not in there for row in absent)


# ---- pieces of the sentence ------------------------------------------------------------------------------------------


def _span(rounds: Sequence[int]) -> str:
    if not rounds:
        return "no round"
    if len(rounds) == 1:
        return f"round {rounds[0]}"
    return f"the last {len(rounds)} rounds ({ranges(rounds)})"


def _taken(found: Inclusion) -> str:
    if not found.others and found.last_merged is None:
        return "there is no peer of another site that could merge them"
    if found.last_merged is None:
        return "no other site has merged any of those that were looked at" if found.standing != "waiting" else ""
    of = f" of {found.others:,}" if found.merged_by_many <= found.others else ""
    return f"the last to be merged, {found.last_merged}, by {found.merged_by_many:,}{of} peers of other sites"


def _left_out(found: Inclusion) -> str:
    if not found.because:
        return ""
    peers = sorted({peer for one in found.because for peer in one.peers})
    many = max(one.peers_many for one in found.because)
    who = f"peers {ranges(peers)}" if many <= _NAMED else f"{many:,} peers"
    why = ", ".join(f"{one.outcome} {_times(one.times)}" for one in found.because[:3])
    return f"left out by {who}: {why}" if peers else f"left out: {why}"


def _missing(found: Inclusion) -> str:
    rounds = "round" if len(found.missing) == 1 else "rounds"
    words = f"missing in {rounds} {ranges(found.missing)}" if found.missing else ""
    waited = "not there yet in the open round" if found.awaited else ""
    return "; ".join(part for part in (words, waited) if part)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _many(number: int, one: str) -> str:
    return f"{number:,} {one if number == 1 else one + 's'}"
