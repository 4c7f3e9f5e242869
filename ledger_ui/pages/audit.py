"""The audit page, "verify now", and evidence packs to download."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from flask import Response, jsonify, redirect, render_template, request, send_file
from pydantic import Field
from werkzeug.wrappers import Response as BaseResponse

from fl_node.audit.verdicts import BY_NAME
from fl_node.records import UpdateRef
from ledger_ui.contexts import Context, NoQuery, Query
from ledger_ui.federation import Shown
from ledger_ui.jobs import ALL, MOST_UPDATES, Asked, Busy, scope_of, stands
from ledger_ui.origin import check_not_another_site, check_own_page
from ledger_ui.packs import Pack
from ledger_ui.pages.verdicts import command_of
from ledger_ui.questions import audited
from ledger_ui.questions.audited import AuditRun, CheckCounts, FederationFinding, FindingRow, Group
from ledger_ui.registry import Here, Listing, Page, PageError, Route, add, add_route
from ledger_ui.respond import frame_of
from ledger_ui.text import visible
from ledger_ui.urls import Urls

#: Updates of one pack: with their weights, without.
MOST_PACKED: Final = {True: 500, False: 20_000}
#: A small pack is waited for.
_WAIT_S: Final = 2.5
_AGAIN_S: Final = 3
_REF: Final = re.compile(r"([0-9]{1,10})[-#]([0-9]{1,10})")

Verdict = Literal["ok", "outlier", "unknown", "contradicted", "suspicious", "failed"]
CheckName = Annotated[str, Field(pattern=f"^(?:{'|'.join(BY_NAME)})$")]


class AuditQuery(Query):
    """Which findings to show; both must hold."""

    result: Verdict | None = Field(None, description="of this result (default: all but ok)")
    check: CheckName | None = Field(None, description="of this check")


class AuditPage(Context):
    """What audits that ran here found, failures first."""

    last: AuditRun | None = Field(description="the last audit of the whole log; none: there was none")
    current: bool = Field(description="it was of the log as these pages show it now")
    audited: int = Field(description="updates that were audited here, by whichever audit")
    updates: int = Field(description="of so many")
    verdicts: dict[str, int] = Field(description="how many of them came to each verdict, the gravest first")
    checks: list[CheckCounts]
    groups: list[Group] = Field(description="findings about updates, the gravest first")
    sealed_words: str = Field(
        description="what to make of findings that are unknown because updates are encrypted; empty: there are none"
    )
    more: int = Field(description="groups beyond those; the list as CSV has every finding")
    federation_findings: list[FederationFinding] = Field(description="of the last audit of the whole log")
    notes: list[str] = Field(description="of the last audit of the whole log")
    under_way: list[AuditRun] = Field(description="audits and packs that wait or run, the first to be done last")
    recent: list[AuditRun] = Field(description="the latest that came to an end")
    verify_url: str = Field(description="POST here to have the whole log audited; empty where that is not done here")
    why_not: str = Field(description="why the whole log is not audited here; empty: it can be")
    pack_url: str = Field(description="evidence packs, by update, round or all; empty where none are made here")
    command: str = Field(description="audits the whole log on your own machine")


def audit(here: Here, query: AuditQuery) -> AuditPage:
    """The page."""
    db = here.db
    verdicts = audited.verdicts(db)
    found, more = audited.groups(db, query.result, query.check)
    last = next(iter(audited.runs(db, "scope = 'all' AND state = 'done'", 1)), None)
    federation_findings, notes = audited.whole(db)
    many = _updates(here)
    why_not = _why_not(here.shown, many)
    if not why_not and stands(db, ALL):
        why_not = "all was ok, and the log has not changed since: that result stands"
    return AuditPage(
        last=last,
        current=last is not None and last.root == here.frame.root,
        audited=sum(verdicts.values()),
        updates=many,
        verdicts=verdicts,
        checks=audited.counts(db),
        groups=found,
        sealed_words=audited.SEALED_WORDS if audited.any_sealed(db) else "",
        more=more,
        federation_findings=federation_findings,
        notes=notes,
        under_way=audited.runs(db, "state IN ('queued', 'running')", 20),
        recent=audited.runs(db, "state IN ('done', 'failed')", 10),
        verify_url="" if why_not else here.urls.verify(),
        why_not=why_not,
        pack_url=here.urls.pack() if here.shown.verifies else "",
        command=command_of(here),
    )


def every_finding(here: Here, query: AuditQuery) -> Iterator[FindingRow]:
    """All findings that match."""
    return audited.findings(here.db, query.result, query.check)


def _updates(here: Here) -> int:
    row = here.db.execute("SELECT entries FROM kinds WHERE kind = 'UpdatePublished'").fetchone()
    return row["entries"] if row else 0


def _why_not(shown: Shown, updates: int) -> str:
    if not shown.verifies:
        return "this explorer was told to run no audits (--no-verify)"
    if updates > MOST_UPDATES:
        return f"the log has {updates:,} updates, and at most {MOST_UPDATES:,} are audited at a time here"
    return ""


AUDIT = add(
    Page(
        name="audit",
        rule="/audit",
        summary="What audits found, failures first",
        context=AuditPage,
        template="audit.html",
        make=audit,
        query=AuditQuery,
        listing=Listing(FindingRow, every_finding, tuple(FindingRow.model_fields)),
    )
)


# ---- verify now ----------------------------------------------------------------------------------------------------


def verify_update(shown: Shown, query: NoQuery, ref: str) -> BaseResponse:
    """Have one update audited."""
    check_own_page(request)
    named = ref_of(ref)
    if not _is_there(shown, named):
        raise PageError(404, "No such update", f"There is no update {named} in this federation.")
    return _asked(shown, named)


def verify_log(shown: Shown, query: NoQuery) -> BaseResponse:
    """Have the whole log audited."""
    check_own_page(request)
    with shown.store.reading() as db:
        row = db.execute("SELECT entries FROM kinds WHERE kind = 'UpdatePublished'").fetchone()
    why_not = _why_not(shown, row["entries"] if row else 0)
    if why_not and shown.verifies:
        raise PageError(413, "Too long a log", f"Not audited here: {why_not}. Run fl-node audit on your own machine.")
    return _asked(shown, None)


def ref_of(text: str) -> UpdateRef:
    """An update as an address names it, ``3-12``.

    Raises:
        PageError: 404.
    """
    found = _REF.fullmatch(text)
    if found is None:
        raise PageError(404, "No such update", f"Got {visible(text)}; expected PEER-SEQUENCE, such as 3-12.")
    return UpdateRef(int(found[1]), int(found[2]))


def _is_there(shown: Shown, ref: UpdateRef) -> bool:
    with shown.store.reading() as db:
        query = "SELECT 1 FROM updates WHERE peer = ? AND sequence = ?"
        return db.execute(query, (ref.peer, ref.sequence)).fetchone() is not None


def _asked(shown: Shown, ref: UpdateRef | None) -> BaseResponse:
    """Queue it, and send the reader to where the result will be."""
    if not shown.verifies:
        raise PageError(403, "Not here", "This explorer was told to run no audits (--no-verify). Run fl-node audit.")
    urls = Urls(request.script_root, shown.slug)
    page = urls.audit() if ref is None else urls.update(ref)
    try:
        asked = shown.jobs.ask(scope_of(ref))
    except Busy as busy:
        return _busy(busy)
    if _wants_json():
        told = {"scope": scope_of(ref), "state": asked.state, "detail": asked.detail, "url": page}
        answer = jsonify(told)
        answer.status_code = 200 if asked.state == "done" else 202
        return answer
    return redirect(f"{page}#{'runs' if ref is None else 'verdicts'}", 303)


def _busy(busy: Busy) -> BaseResponse:
    answer = Response(f"not now: {busy}; try again in {busy.retry_s} s\n", 429, mimetype="text/plain")
    answer.headers["Retry-After"] = str(busy.retry_s)
    return answer


def _wants_json() -> bool:
    return request.accept_mimetypes.best_match(["text/html", "application/json"], "text/html") == "application/json"


# ---- evidence packs ------------------------------------------------------------------------------------------------


class PackQuery(Query):
    """What the pack is to hold: one of update, round and all."""

    update: str | None = Field(None, pattern=f"^{_REF.pattern}$", max_length=24, description="one update, such as 3-12")
    round: int | None = Field(None, ge=0, le=2**32 - 1, description="the updates of this round")
    all: Literal["1"] | None = Field(None, description="1: every update")
    blobs: Literal["1"] | None = Field(None, description="1: with the weights, so that merges can be checked")


def pack(shown: Shown, query: PackQuery) -> BaseResponse:
    """The pack, or the news that it is being made."""
    check_not_another_site(request)
    if not shown.verifies:
        raise PageError(403, "Not here", "This explorer was told to make no packs (--no-verify). Run fl-node export.")
    wanted = _wanted(shown, query)
    root = _root(shown)
    file = shown.jobs.packs.find(wanted, root)
    if file is None:
        try:
            asked = shown.jobs.ask(wanted.scope)
        except Busy as busy:
            return _busy(busy)
        file, asked = _waited(shown, wanted, root, asked)
        if file is None:
            return _not_yet(shown, wanted, asked)
    return send_file(
        file, "application/zip", as_attachment=True, download_name=f"{shown.slug}-{wanted.name}.zip", max_age=0
    )


def _wanted(shown: Shown, query: PackQuery) -> Pack:
    """The pack, if there can be such a one."""
    given = [name for name in ("update", "round", "all") if getattr(query, name) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        raise PageError(400, "What is to be in it?", f"Got {got}; expected one of update, round and all.")
    ref = ref_of(query.update) if query.update is not None else None
    wanted = Pack(ref, query.round, query.blobs is not None)
    if ref is not None:
        condition, values = "peer = ? AND sequence = ?", [ref.peer, ref.sequence]
    else:
        condition, values = ("1", []) if query.round is None else ("round = ?", [query.round])
    most = MOST_PACKED[wanted.blobs]
    with shown.store.reading() as db:
        some = f"SELECT 1 FROM updates WHERE {condition} LIMIT ?"  # noqa: S608
        many = db.execute(f"SELECT count(*) FROM ({some})", (*values, most + 1)).fetchone()[0]  # noqa: S608
    if many == 0:
        raise PageError(404, "Nothing to pack", f"The log has no update of that: {wanted.what}.")
    if many > most:
        told = f"It would hold more than {most:,} updates. Run fl-node export on your own machine."
        raise PageError(413, "Too large a pack", told)
    return wanted


def _waited(shown: Shown, wanted: Pack, root: bytes, asked: Asked) -> tuple[Path | None, Asked]:
    """A small one is made in a moment."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end and asked.state in ("queued", "running") and not shown.ended:
        time.sleep(0.1)
        with shown.store.reading() as db:
            row = db.execute("SELECT state, detail FROM audits WHERE id = ?", (asked.id,)).fetchone()
        if row is not None:
            asked = Asked(asked.id, row["state"], row["detail"] or "")
    return shown.jobs.packs.find(wanted, root), asked


def _not_yet(shown: Shown, wanted: Pack, asked: Asked) -> BaseResponse:
    if asked.state == "failed":
        detail = f"{visible(asked.detail, 600)}. What these pages say stays as it is; try again later."
        raise PageError(503, "The pack could not be made", detail)
    if _wants_json():
        answer = jsonify({"scope": wanted.scope, "state": asked.state, "detail": asked.detail})
    else:
        with shown.store.reading() as db:
            frame = frame_of(shown, db)
        urls = Urls(request.script_root, shown.slug)
        answer = Response(render_template("making.html", pack=wanted, asked=asked, frame=frame, urls=urls, entry=AUDIT))
    answer.status_code = 202
    answer.headers["Refresh"] = answer.headers["Retry-After"] = str(_AGAIN_S)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _root(shown: Shown) -> bytes:
    with shown.store.reading() as db:
        row = db.execute("SELECT value FROM ui_state WHERE key = 'folded_root'").fetchone()
    if row is None or not row["value"]:
        raise PageError(503, "Not yet", "The index is being made; there is nothing to pack yet. Try again in a while.")
    return bytes(row["value"])


_ANSWERS: Final = {
    202: ("application/json", "it is being done; for browsers 303, to the page that will have the result"),
    403: ("text/html", "not asked for by a page of this explorer, or it does no such thing"),
    404: ("text/html", "there is nothing like it"),
    429: ("text/plain", "too much is under way; see Retry-After"),
}
VERIFY_UPDATE = add_route(
    Route(
        name="verify-update",
        rule="/updates/<ref>/verify",
        summary="Have one update audited, in the background; asked again at the same root, the result is kept",
        view=verify_update,
        method="POST",
        path={"ref": "an update, such as 3-12"},
        answers={200: ("application/json", "there is a result for this root already"), **_ANSWERS},
    )
)
VERIFY_LOG = add_route(
    Route(
        name="verify-log",
        rule="/audit/verify",
        summary="Have the whole log audited, in the background",
        view=verify_log,
        method="POST",
        answers={
            200: ("application/json", "there is a result for this root already"),
            **_ANSWERS,
            413: ("text/html", "the log is too long for that"),
        },
    )
)
PACK = add_route(
    Route(
        name="pack",
        rule="/audit/pack.zip",
        summary="An evidence pack: everything that it takes to check updates without a chain",
        view=pack,
        query=PackQuery,
        answers={
            200: ("application/zip", "the pack, as fl-node verify reads it"),
            202: ("text/html", "it is being made; see Retry-After"),
            400: ("text/html", "none, or more than one, of update, round and all"),
            **{status: _ANSWERS[status] for status in (403, 404, 429)},
            413: ("text/html", "it would be too large"),
            503: ("text/html", "it could not be made, or there is no log yet"),
        },
    )
)
