"""One round: its updates side by side, who merged them, who was left out and why, who is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from fl_node.merging.encodings import name_of
from fl_node.records import Flag, rule_name
from ledger_ui.contexts import Context, Digest, Query, Ref
from ledger_ui.pages.rounds import RoundRow, listed
from ledger_ui.questions.merges import MOST_LINES, LeftOutReason, Matrix, is_nominal, left_out, matrix
from ledger_ui.questions.ranges import worked
from ledger_ui.questions.rounds import Told, neighbours, round_told
from ledger_ui.questions.traffic import part
from ledger_ui.registry import Here, Page, add, not_here
from ledger_ui.urls import asked

#: Updates that a round's page shows at once, and absent peers that it names.
_MOST_UPDATES: Final = MOST_LINES
_MOST_ABSENT: Final = 200
_HIGHEST: Final = 2**32


class RoundQuery(Query):
    """Which part of a large round is shown."""

    page: int = Field(1, ge=1, le=100_000, description="page of updates")
    merges: Literal["became", "made"] = Field(
        "became", description="became: who merged these updates; made: what these updates were made from"
    )
    rows: int = Field(1, ge=1, le=100_000, description="page of the matrix's rows")


class Given(Context):
    """An update that was merged, with its share."""

    update: Ref
    share_ppm: int = Field(description="0: considered, not merged")


class SideUpdate(Context):
    """One update of the round, beside the others."""

    update: Ref
    entry: int
    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    time_s: int
    final: bool = Field(description="a closing update: untrained, its weights are its base")
    state: str = Field(description="merged, submitted, left-out, closing or ignored")
    ignored: str | None = Field(description="why it does not count; none: it does")
    late: bool = Field(description="recorded after the next round's cut, so that nobody looked at it")
    claimed_ppm: int = Field(description="the publisher's claim")
    base_claimed_ppm: int = Field(description="the publisher's claim for the base")
    delta_ppm: int = Field(description="claimed score less that of the base")
    test_samples: int = Field(description="rows that the claims are said to be measured on")
    train_samples: int
    attested_ppm: int | None = Field(description="median over other sites of what they attest; none: nobody has")
    attested_sites: int
    base: Digest = Field(description="digest of the merged weights that the training started from")
    rule: str = Field(description="aggregation rule that made the base")
    nominal: bool = Field(description="shares of that rule do not say how much of each parent is in the base")
    parents: list[Given] = Field(description="by share, the largest first")
    merged_by: int = Field(description="other peers that merged it")
    left_out_by: int = Field(description="merges that looked at it and left it out; about a hundred at most")
    objections: int
    encoding: str = Field(description="how its bytes carry the weights, as int8-delta+zstd")
    encrypted: bool = Field(description="only members and auditors of its moment can read it")
    update_bytes: int | None = Field(description="its size, by its publisher's word; none: no report at hand says it")
    part_ppm: int | None = Field(description="published for each byte of plain weights, parts per million")
    epsilon: float | None = Field(description="privacy spent up to it, by its publisher's word; none: nothing is said")


class Absent(Context):
    """A peer without an update in the round."""

    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    state: str = Field(description="missing, awaited or retired")
    given_up: bool = Field(description="nobody waited for it any more: it had been silent for too long")


class RoundPage(Context):
    """One round."""

    summary: RoundRow
    mode: str = Field(description="async: nobody waits; sync: all look at the same cut of the log")
    updates: list[SideUpdate] = Field(description="in the order of the log")
    page: int
    pages: int
    all_updates: int
    merges: Literal["became", "made"]
    matrix: Matrix
    left_out: list[LeftOutReason] = Field(description="of the updates shown")
    absent: list[Absent] = Field(description="missing first")
    all_absent: int
    previous_round: int | None
    next_round: int | None
    caution: str = Field(description="what was not worked out, in words; empty where all was")

    def url(self, base: str, **changes: object) -> str:
        """This page with another part shown."""
        now = {"page": self.page, "merges": self.merges, "rows": self.matrix.page}
        told = {**now, **changes}
        return base + asked({name: value for name, value in told.items() if value not in (1, "became")})


def round_page(here: Here, query: RoundQuery, number: int) -> RoundPage:
    """One round, by number."""
    told = round_told(here.db, number) if number <= _HIGHEST else None
    if told is None:
        raise not_here(f"round {number}", here.frame)
    indices = [row[0] for row in here.db.execute("SELECT idx FROM updates WHERE round = ? ORDER BY idx", (number,))]
    pages = max(1, -(-len(indices) // _MOST_UPDATES))
    page = min(query.page, pages)
    shown = indices[(page - 1) * _MOST_UPDATES : page * _MOST_UPDATES]
    absent = _absent(here.db, told)
    before, after = neighbours(here.db, number)
    known = worked(here.db)
    caution = known.words(here.frame.size) if not told.exact or known.trouble or known.size <= told.last else ""
    return RoundPage(
        summary=listed(here, [told])[0],
        mode=here.shown.spec.rounds.mode,
        updates=_side_by_side(here.db, shown, told),
        page=page,
        pages=pages,
        all_updates=len(indices),
        merges=query.merges,
        matrix=matrix(here.db, shown, query.merges, query.rows),
        left_out=left_out(here.db, shown),
        absent=absent[:_MOST_ABSENT],
        all_absent=len(absent),
        previous_round=before,
        next_round=after,
        caution=caution,
    )


def _side_by_side(db: sqlite3.Connection, indices: Sequence[int], told: Told) -> list[SideUpdate]:
    marks = ",".join("?" * len(indices))
    query = (
        "SELECT u.*, s.name AS site_name, t.size_bytes, t.plain_bytes, t.epsilon FROM updates u "  # noqa: S608
        "LEFT JOIN sites s ON s.site = u.site LEFT JOIN told t ON t.idx = u.idx "
        f"WHERE u.idx IN ({marks}) ORDER BY u.idx"
    )
    rows = db.execute(query, list(indices)).fetchall()
    given: dict[int, list[Given]] = {row["idx"]: [] for row in rows}
    shares = f"SELECT child, peer, sequence, share_ppm FROM parents WHERE child IN ({marks})"  # noqa: S608
    for child, peer, sequence, share in db.execute(shares, list(indices)):
        given[child].append(Given(update=f"{peer}#{sequence}", share_ppm=share))
    late = set(told.late or ())
    return [_side(row, given[row["idx"]], late) for row in rows]


def _side(row: sqlite3.Row, parents: list[Given], late: set[str]) -> SideUpdate:
    name = f"{row['peer']}#{row['sequence']}"
    same = ("peer", "site", "site_name", "time_s", "state", "ignored", "test_samples", "train_samples", "attested_ppm")
    fields = {column: row[column] for column in (*same, "attested_sites", "merged_by", "left_out_by", "objections")}
    return SideUpdate(
        update=name,
        entry=row["idx"],
        final=bool(row["final"]),
        late=name in late,
        claimed_ppm=row["score_ppm"],
        base_claimed_ppm=row["base_score_ppm"],
        delta_ppm=row["score_ppm"] - row["base_score_ppm"],
        base=row["base"].hex(),
        rule=rule_name(row["rule"]),
        nominal=is_nominal(row["rule"]),
        encoding=name_of(row["encoding"]),
        encrypted=bool(row["flags"] & Flag.ENCRYPTED),
        update_bytes=row["size_bytes"],
        part_ppm=part(row["size_bytes"], row["plain_bytes"]),
        epsilon=row["epsilon"],
        parents=sorted(parents, key=lambda one: -one.share_ppm),
        **fields,
    )


def _absent(db: sqlite3.Connection, told: Told) -> list[Absent]:
    """Who has no update in the round and why, as kept, or as it follows from the round itself where nothing is yet."""
    rank = {"missing": 0, "awaited": 1, "retired": 2}
    states = {row[0]: row[1] for row in db.execute("SELECT peer, state FROM absences WHERE round = ?", (told.number,))}
    if not states:
        states = {**dict.fromkeys(told.missing, "missing"), **dict.fromkeys(told.awaited, "awaited")}
    given_up = set(told.given_up or ())
    found = []
    query = "SELECT p.site, s.name FROM peers p LEFT JOIN sites s ON s.site = p.site WHERE p.peer = ?"
    for peer, state in sorted(states.items(), key=lambda item: (rank.get(item[1], 3), item[0])):
        site, name = db.execute(query, (peer,)).fetchone() or (None, None)
        found.append(Absent(peer=peer, site=site, site_name=name, state=state, given_up=peer in given_up))
    return found


ROUND = add(
    Page(
        name="round",
        rule="/rounds/<int:number>",
        summary="One round: updates side by side, who merged what, who was left out and why, who is missing",
        context=RoundPage,
        template="round.html",
        make=round_page,
        query=RoundQuery,
        path={"number": "number of the round"},
    )
)
