"""What audits that ran here found: in all, by check, and grouped by what they say."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from pydantic import Field

from fl_node.audit.verdicts import CHECKS, Result
from ledger_ui.contexts import Context, Digest, Ref

#: From the gravest to the mildest.
GRAVEST: Final = [result.value for result in reversed(Result)]
_RANK: Final = " ".join(f"WHEN '{result}' THEN {rank}" for rank, result in enumerate(GRAVEST))
_NUMBER: Final = " ".join(f"WHEN '{check.name}' THEN {check.number}" for check in CHECKS)
MOST_GROUPS: Final = 50
_MOST_REFS: Final = 12
_BATCH: Final = 500
#: What audits say in the data of a finding that they could not look into for want of a key.
_SEALED: Final = '"encrypted": true'
_ESSENTIAL: Final = ", ".join(f"'{check.name}'" for check in CHECKS if check.essential)
_UNKNOWN: Final = (
    "SELECT 1 FROM verdicts v WHERE v.idx = u.idx AND v.result = 'unknown' AND v.asked "  # noqa: S608
    f"AND v.check_name IN ({_ESSENTIAL}) AND instr(coalesce(v.data, ''), '{_SEALED}')"
)
#: Of an update ``u``: all that its last audit could not know and that decides, it could not for want of a key.
ONLY_SEALED: Final = f"(u.verdict = 'unknown' AND EXISTS ({_UNKNOWN} > 0) AND NOT EXISTS ({_UNKNOWN} = 0))"
SEALED_WORDS: Final = (
    "No fault: these bytes are encrypted, and this explorer has no keys by design. Members and auditors can check them "
    "with fl-node audit --identity FILE."
)


def is_sealed(result: str | None, data: str | None) -> bool:
    """Whether a finding is unknown only because the bytes are encrypted.

    Args:
        data: of the finding, as it is kept.

    >>> is_sealed("unknown", '{"encrypted": true}'), is_sealed("unknown", None)
    (True, False)
    """
    return result == Result.UNKNOWN and _SEALED in (data or "")


class AuditRun(Context):
    """One audit, or one evidence pack, that was asked for here."""

    scope: str = Field(description="all, or one update; of a pack: pack, what is in it, and whether with the weights")
    state: str = Field(description="queued, running, done or failed")
    size: int = Field(description="entries that the log had; while it is under way, when it was asked for")
    root: Digest | None
    asked_s: float = Field(description="local time, seconds since 1970")
    ended_s: float | None
    verdict: str | None = Field(description="one word for the whole; none: no result, or a pack")
    detail: str = Field(description="how it stands, or why there is no result")


class CheckCounts(Context):
    """One check, over the last audit of every update."""

    number: int
    check: str
    proves: str
    does_not_prove: str
    results: dict[str, int] = Field(description="how often it came to each result")


class Group(Context):
    """Findings that say the same of several updates, in the words of the first."""

    check: str
    result: str
    detail: str = Field(description="may quote strangers")
    asked: bool = Field(description="false: the means to answer were left out on purpose")
    repeat: str = Field(description="a command by which a person repeats the first; empty: there is none")
    updates: int
    first: list[Ref] = Field(description="the first of them")
    size: int | None = Field(description="entries that the log had when the first of them was audited")
    sealed: bool = Field(description="unknown only because the bytes are encrypted, and the audit had no key: no fault")


class FederationFinding(Context):
    """A finding of the last whole audit that is about the federation, not about one update."""

    check: str
    result: str
    detail: str
    asked: bool


class FindingRow(Context):
    """One finding about one update, in the list."""

    update: Ref
    entry: int
    site_name: str | None = Field(description="a stranger's text")
    check: str
    result: str
    asked: bool
    detail: str
    repeat: str
    size: int | None = Field(description="entries that the log had at that audit")


def any_sealed(db: sqlite3.Connection) -> bool:
    """Whether an audit that ran here could not know something for want of a key."""
    query = "SELECT 1 FROM verdicts WHERE result = 'unknown' AND instr(coalesce(data, ''), ?) LIMIT 1"
    return db.execute(query, (_SEALED,)).fetchone() is not None


def runs(db: sqlite3.Connection, condition: str, most: int) -> list[AuditRun]:
    """Audits and packs, the latest first. ``condition``: SQL of ours."""
    query = f"SELECT * FROM audits WHERE {condition} ORDER BY id DESC LIMIT ?"  # noqa: S608
    return [
        AuditRun(
            scope=row["scope"],
            state=row["state"],
            size=row["size"] or 0,
            root=row["root"].hex() if row["root"] else None,
            asked_s=row["asked_at"],
            ended_s=row["ended_at"],
            verdict=row["verdict"],
            detail=row["detail"] or "",
        )
        for row in db.execute(query, (most,))
    ]


def whole(db: sqlite3.Connection) -> tuple[list[FederationFinding], list[str]]:
    """What the last audit of the whole log found about the federation, the gravest first, and its notes."""
    row = db.execute(
        "SELECT told FROM audits WHERE scope = 'all' AND state = 'done' ORDER BY id DESC LIMIT 1"
    ).fetchone()
    told: dict[str, Any] = json.loads(row["told"]) if row is not None and row["told"] else {}
    found = [
        FederationFinding(
            check=str(one.get("check")),
            result=str(one.get("result")),
            detail=str(one.get("detail")),
            asked=bool(one.get("asked", True)),
        )
        for one in told.get("findings", ())
    ]
    order = {result: rank for rank, result in enumerate(GRAVEST)}
    found.sort(key=lambda one: order.get(one.result, len(order)))
    return found, [str(note) for note in told.get("notes", ())]


def counts(db: sqlite3.Connection) -> list[CheckCounts]:
    """Every check that was made of an update, in the order of the checks."""
    found: dict[str, dict[str, int]] = {}
    for check, result, many in db.execute(
        "SELECT check_name, result, count(*) FROM verdicts GROUP BY result, check_name"
    ):
        found.setdefault(check, {})[result] = many
    return [
        CheckCounts(
            number=check.number,
            check=check.name,
            proves=check.proves,
            does_not_prove=check.limits,
            results=found[check.name],
        )
        for check in CHECKS
        if check.name in found
    ]


def verdicts(db: sqlite3.Connection) -> dict[str, int]:
    """How many updates came to each verdict, the gravest first."""
    query = "SELECT verdict, count(*) FROM updates WHERE verdict IS NOT NULL GROUP BY verdict"
    found = dict(db.execute(query).fetchall())
    return {result: found[result] for result in GRAVEST if result in found}


def groups(db: sqlite3.Connection, result: str | None, check: str | None) -> tuple[list[Group], int]:
    """What is not ``ok``, or what was asked for, the gravest first; and how many groups there are beyond those."""
    where, values = _narrowed(result, check)
    rows = db.execute(
        f"SELECT result, check_name, alike, min(idx) AS first, count(*) AS many FROM verdicts{where} "  # noqa: S608
        f"GROUP BY result, check_name, alike ORDER BY CASE result {_RANK} END, CASE check_name {_NUMBER} END, first",
        values,
    ).fetchall()
    shown = [group for row in rows[:MOST_GROUPS] if (group := _group(db, row)) is not None]
    return shown, max(0, len(rows) - MOST_GROUPS)


def findings(db: sqlite3.Connection, result: str | None, check: str | None) -> Iterator[FindingRow]:
    """Every finding that is not ``ok``, or that was asked for, by entry."""
    where, values = _narrowed(result, check)
    query = (
        "SELECT v.*, u.peer, u.sequence, u.verdict_size, s.name AS site_name FROM verdicts v "  # noqa: S608
        f"JOIN updates u ON u.idx = v.idx LEFT JOIN sites s ON s.site = u.site{where} AND "
        "(v.idx, v.position) > (?, ?) ORDER BY v.idx, v.position LIMIT ?"
    )
    idx = position = -1
    while True:
        rows = db.execute(query, [*values, idx, position, _BATCH]).fetchall()
        for row in rows:
            yield FindingRow(
                update=f"{row['peer']}#{row['sequence']}",
                entry=row["idx"],
                site_name=row["site_name"],
                check=row["check_name"],
                result=row["result"],
                asked=bool(row["asked"]),
                detail=row["detail"],
                repeat=row["repeat"] or "",
                size=row["verdict_size"],
            )
        if len(rows) < _BATCH:
            return
        idx, position = rows[-1]["idx"], rows[-1]["position"]


def _narrowed(result: str | None, check: str | None) -> tuple[str, list[object]]:
    conditions: list[str] = ["alike IS NOT NULL"] if result is None else ["result = ?"]
    values: list[object] = [] if result is None else [result]
    if check is not None:
        conditions.append("check_name = ?")
        values.append(check)
    return f" WHERE {' AND '.join(conditions)}", values


def _group(db: sqlite3.Connection, row: sqlite3.Row) -> Group | None:
    """``None`` while the updates that it is about are being worked in anew."""
    same = (row["result"], row["check_name"], row["alike"])
    query = (
        "SELECT v.detail, v.data, v.asked, v.repeat, u.peer, u.sequence, u.verdict_size FROM verdicts v "
        "JOIN updates u ON u.idx = v.idx WHERE v.result = ? AND v.check_name = ? AND v.alike IS ? "
        "ORDER BY v.idx LIMIT ?"
    )
    some = db.execute(query, (*same, _MOST_REFS)).fetchall()
    if not some:
        return None
    first = some[0]
    return Group(
        check=row["check_name"],
        result=row["result"],
        detail=first["detail"],
        asked=bool(first["asked"]),
        repeat=first["repeat"] or "",
        updates=row["many"],
        first=[f"{one['peer']}#{one['sequence']}" for one in some],
        size=first["verdict_size"],
        sealed=is_sealed(row["result"], first["data"]),
    )
