"""An update's relatives: what it was made from, what was looked at and left out, and what was made from it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from pydantic import Field

from fl_node.records import UpdatePublished, UpdateRef
from ledger_ui.contexts import Context, Hex, Ref
from ledger_ui.questions.merges import is_nominal
from ledger_ui.text import storable

#: Rows of each kind on one page; a contract takes 64 parents.
MOST_PARENTS: Final = 256
MOST: Final = 50


class ParentRow(Context):
    """One update that was considered for the base."""

    update: Ref
    entry: int | None = Field(description="its entry; none: the log has no such update before this one")
    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    round: int | None
    share_ppm: int = Field(description="its part of the base, parts per million; 0: considered, not merged")
    own: bool = Field(description="the publisher's own")
    tag: Hex = Field(description="start of its content's digest, as this update recorded it")
    tag_agrees: bool | None = Field(
        description="whether that update's content begins so; none: there is no such update"
    )
    claimed_ppm: int | None
    test_samples: int | None
    attested_ppm: int | None
    attested_sites: int | None
    state: str | None


class LeftOutRow(Context):
    """A peer, or several that fared alike, whose update was not merged."""

    update: Ref | None = Field(description="which; none: it had none, or several peers fared alike")
    peers: str = Field(description="numbers and ranges, such as 1-40,45")
    count: int = Field(description="how many peers")
    outcome: str = Field(description="as a report calls it")
    reason: str = Field(description="may quote strangers")


class Choice(Context):
    """What the policy made of the log that the publisher had seen, worked out again here."""

    state: str = Field(
        description="replayed, not-replayed, or follows-nothing: the policy gives nothing for what it says it had seen"
    )
    words: str = Field(description="why there is none, or what was found")
    left_out: list[LeftOutRow]


class ChildRow(Context):
    """One update that was made from this one."""

    update: Ref
    entry: int
    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    round: int
    share_ppm: int
    own: bool = Field(description="of the same peer")
    nominal: bool = Field(description="made by a rule whose shares do not say how much of this one is in the base")
    counts: bool = Field(description="false: it does not count itself")


class LeftOutBy(Context):
    """A merge that looked at this update and left it out."""

    update: Ref | None = Field(
        description="the update that was made from that merge; none: nobody looked at it in time"
    )
    entry: int | None
    outcome: str
    reason: str


class Kin(Context):
    """All relatives of one update."""

    parents: list[ParentRow] = Field(description="largest share first; those without a share last")
    parents_total: int
    nominal: bool = Field(description="made by a rule whose shares do not say how much of each parent is in the base")
    choice: Choice
    children: list[ChildRow] = Field(description="newest first")
    children_total: int
    left_out_by: list[LeftOutBy] = Field(description="newest first")
    left_out_by_total: int


def kin_of(db: sqlite3.Connection, index: int, body: UpdatePublished) -> Kin:
    """The relatives of the update at an entry."""
    counted = db.execute("SELECT children, left_out_by FROM updates WHERE idx = ?", (index,)).fetchone()
    return Kin(
        parents=_parents(db, index, body),
        parents_total=len(body.parents),
        nominal=is_nominal(body.update.rule),
        choice=_choice(db, index),
        children=_children(db, index, body.peer),
        children_total=counted["children"],
        left_out_by=_left_out_by(db, index),
        left_out_by_total=counted["left_out_by"],
    )


def _parents(db: sqlite3.Connection, index: int, body: UpdatePublished) -> list[ParentRow]:
    rows = db.execute(
        "SELECT p.position, p.parent, p.peer, p.sequence, p.share_ppm, u.site, s.name, u.round, u.score_ppm, "
        "u.test_samples, u.attested_ppm, u.attested_sites, u.state, u.content FROM parents p "
        "LEFT JOIN updates u ON u.idx = p.parent LEFT JOIN sites s ON s.site = u.site "
        "WHERE p.child = ? ORDER BY p.share_ppm DESC, p.position LIMIT ?",
        (index, MOST_PARENTS),
    )
    found = []
    for row in rows:
        tag = body.parents[row["position"]].tag
        content = row["content"]
        found.append(
            ParentRow(
                update=f"{row['peer']}#{row['sequence']}",
                entry=row["parent"],
                peer=row["peer"],
                site=row["site"],
                site_name=row["name"],
                round=row["round"],
                share_ppm=row["share_ppm"],
                own=row["peer"] == body.peer,
                tag=tag.hex(),
                tag_agrees=None if content is None else content[:4] == tag,
                claimed_ppm=row["score_ppm"],
                test_samples=row["test_samples"],
                attested_ppm=row["attested_ppm"],
                attested_sites=row["attested_sites"],
                state=row["state"],
            )
        )
    return found


def _choice(db: sqlite3.Connection, index: int) -> Choice:
    row = db.execute("SELECT outcomes FROM choices WHERE idx = ?", (index,)).fetchone()
    if row is None:
        words = (
            "The choice of its parents has not been worked out again here. On your own machine, fl-node show does it."
        )
        return Choice(state="not-replayed", words=words, left_out=[])
    if row["outcomes"] is None:
        words = (
            "The policy gives nothing for what this update claims to have seen, so that it cannot be said who should "
            "have been merged, or was left out."
        )
        return Choice(state="follows-nothing", words=words, left_out=[])
    items = [item for item in json.loads(row["outcomes"]) if item["outcome"] != "merged"]
    left = [_left_out(item) for item in items[:MOST_PARENTS]]
    words = "Worked out again from the log that the publisher had seen, by the federation’s own rules."
    return Choice(state="replayed", words=words, left_out=left)


def _left_out(item: dict[str, Any]) -> LeftOutRow:
    sequence = item.get("sequence")
    return LeftOutRow(
        update=None if sequence is None else str(UpdateRef(item["peer"], sequence)),
        peers=str(item["peers"] if "peers" in item else item["peer"]),
        count=item.get("count", 1),
        outcome=item["outcome"],
        reason=storable(item["reason"]),
    )


def _children(db: sqlite3.Connection, index: int, peer: int) -> list[ChildRow]:
    rows = db.execute(
        "SELECT p.child, p.share_ppm, u.peer, u.sequence, u.site, s.name, u.round, u.rule, u.ignored FROM parents p "
        "JOIN updates u ON u.idx = p.child LEFT JOIN sites s ON s.site = u.site "
        "WHERE p.parent = ? AND p.share_ppm > 0 ORDER BY p.child DESC LIMIT ?",
        (index, MOST),
    )
    return [
        ChildRow(
            update=f"{row['peer']}#{row['sequence']}",
            entry=row["child"],
            peer=row["peer"],
            site=row["site"],
            site_name=row["name"],
            round=row["round"],
            share_ppm=row["share_ppm"],
            own=row["peer"] == peer,
            nominal=is_nominal(row["rule"]),
            counts=row["ignored"] is None,
        )
        for row in rows
    ]


def _left_out_by(db: sqlite3.Connection, index: int) -> list[LeftOutBy]:
    rows = db.execute(
        "SELECT l.by_idx, l.outcome, l.reason, u.peer, u.sequence FROM left_out l "
        "LEFT JOIN updates u ON u.idx = l.by_idx WHERE l.update_idx = ? ORDER BY l.by_idx DESC LIMIT ?",
        (index, MOST),
    )
    return [
        LeftOutBy(
            update=None if row["peer"] is None else f"{row['peer']}#{row['sequence']}",
            entry=row["by_idx"] if row["by_idx"] >= 0 else None,
            outcome=row["outcome"],
            reason=storable(row["reason"] or ""),
        )
        for row in rows
    ]
