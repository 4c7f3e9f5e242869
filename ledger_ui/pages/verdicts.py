"""What an audit found about one update, as other pages show it: a panel with a badge for each check."""

from __future__ import annotations

import shlex
import sqlite3
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from fl_node.audit.verdicts import BY_NAME, CHECKS, Check, Result
from fl_node.records import UpdateRef
from ledger_ui.contexts import Context, Digest, Ref
from ledger_ui.jobs import scope_of, stands, waiting_before
from ledger_ui.questions.audited import SEALED_WORDS, is_sealed
from ledger_ui.registry import Here

#: Where an audit of one update stands.
STATES: Final = ("none", "queued", "running", "done", "failed")


class CheckBadge(Context):
    """One check of one update, with what it can show and what not."""

    number: int = Field(description="as the audit counts its checks")
    check: str
    result: str | None = Field(
        description="ok, outlier, unknown, contradicted, suspicious or failed; none: not checked here yet"
    )
    detail: str = Field(description="why; may quote strangers")
    asked: bool = Field(description="false: the means to answer were left out on purpose, so that it does not count")
    essential: bool = Field(description="an unknown result leaves a gap in the record itself")
    proves: str = Field(description="what ok shows")
    does_not_prove: str
    repeat: str = Field(description="a command by which a person repeats it; empty while there is none")
    sealed: bool = Field(description="unknown only because the bytes are encrypted, and the audit had no key: no fault")


class VerdictPanel(Context):
    """The last audit of an update that this explorer ran."""

    update: Ref
    state: str = Field(description="none (not audited here), queued, running, done or failed (no result)")
    result: str | None = Field(description="the worst result of its last audit; none: not audited here")
    size: int | None = Field(description="entries that the log had at that audit")
    root: Digest | None = Field(description="the log's root then")
    ended_s: float | None = Field(description="local time at which that audit ended, seconds since 1970")
    checks: list[CheckBadge]
    detail: str = Field(description="how far a new audit is, or why there is none; empty when there is nothing to say")
    command: str = Field(description="audits the update on your own machine")
    verify_url: str = Field(
        description="POST here to have it audited; empty where this explorer does not, or the result stands"
    )
    stands: bool = Field(description="all was ok, and the log has not changed since")
    only_sealed: bool = Field(description="all that is unknown and decides is so for want of a key")
    sealed_words: str = Field(
        description="what to make of checks that are unknown because the update is encrypted; empty: there are none"
    )


@dataclass(frozen=True, slots=True)
class _Update:
    ref: UpdateRef
    index: int
    verdict: str | None
    size: int | None


def verdict_of(here: Here, idx: int) -> VerdictPanel:
    """What is known of an update, by its entry index. Show it with the template ``_verdicts.html``, as ``panel``.

    Raises:
        LookupError: there is no update at this entry.
    """
    row = here.db.execute("SELECT peer, sequence, verdict, verdict_size FROM updates WHERE idx = ?", (idx,)).fetchone()
    if row is None:
        raise LookupError(f"entry {idx} is no update")
    here.shown.harvester.looked(idx)
    update = _Update(UpdateRef(row["peer"], row["sequence"]), idx, row["verdict"], row["verdict_size"])
    found = here.db.execute("SELECT * FROM verdicts WHERE idx = ? ORDER BY position", (idx,)).fetchall()
    audit = _audit_of(here.db, found)
    state, detail = _under_way(here.db, update.ref)
    for_good = not state and stands(here.db, scope_of(update.ref))
    checks = _badges(found)
    return VerdictPanel(
        update=str(update.ref),
        state=state or ("none" if update.verdict is None else "done"),
        result=update.verdict,
        size=update.size,
        root=audit["root"].hex() if audit is not None and audit["root"] else None,
        ended_s=audit["ended_at"] if audit is not None else None,
        checks=checks,
        detail=detail,
        command=command_of(here, idx),
        verify_url=here.urls.verify(update.ref) if here.shown.verifies and not for_good else "",
        stands=for_good,
        only_sealed=_only_sealed(update.verdict, checks),
        sealed_words=SEALED_WORDS if any(badge.sealed for badge in checks) else "",
    )


def command_of(here: Here, idx: int | None = None) -> str:
    """The audit of one update, by its entry, or of the whole log, as a command for the reader's own machine."""
    file = shlex.quote(here.shown.source.file.name)
    scope = "" if idx is None else f" --from {idx} --to {idx + 1}"
    return f"fl-node audit --federation {file}{scope}"


def badge_of(check: Check, row: sqlite3.Row | None = None) -> CheckBadge:
    """A check, with what a row of the table ``verdicts`` says of it."""
    return CheckBadge(
        number=check.number,
        check=check.name,
        result=None if row is None else row["result"],
        detail="" if row is None else row["detail"],
        asked=row is None or bool(row["asked"]),
        essential=check.essential,
        proves=check.proves,
        does_not_prove=check.limits,
        repeat="" if row is None else row["repeat"] or "",
        sealed=row is not None and is_sealed(row["result"], row["data"]),
    )


def _badges(rows: list[sqlite3.Row]) -> list[CheckBadge]:
    """Every finding, and the checks of an update that have none."""
    had = {row["check_name"] for row in rows}
    found = [badge_of(BY_NAME[row["check_name"]], row) for row in rows if row["check_name"] in BY_NAME]
    # The opening is about the federation, not about one update.
    found += [badge_of(check) for check in CHECKS if check.name not in had and check.name != "opening"]
    return sorted(found, key=lambda badge: badge.number)


def _only_sealed(result: str | None, checks: list[CheckBadge]) -> bool:
    unknown = [badge for badge in checks if badge.result == Result.UNKNOWN and badge.asked and badge.essential]
    return result == Result.UNKNOWN and bool(unknown) and all(badge.sealed for badge in unknown)


def _audit_of(db: sqlite3.Connection, rows: list[sqlite3.Row]) -> sqlite3.Row | None:
    if not rows:
        return None
    found: sqlite3.Row | None = db.execute("SELECT * FROM audits WHERE id = ?", (rows[0]["audit"],)).fetchone()
    return found


def _under_way(db: sqlite3.Connection, ref: UpdateRef) -> tuple[str, str]:
    """State and words of an audit that was asked for after the last one that gave a result; empty: there is none."""
    row = db.execute(
        "SELECT id, state, detail FROM audits WHERE scope IN ('all', ?) ORDER BY id DESC LIMIT 1", (f"update {ref}",)
    ).fetchone()
    if row is None or row["state"] == "done":
        return "", ""
    before = waiting_before(db, row["id"]) if row["state"] == "queued" else 0
    return row["state"], f"{before} before it" if before else row["detail"] or ""
