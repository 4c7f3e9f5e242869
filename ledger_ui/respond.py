"""One page in whichever format it was asked for, with its ETag."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import Response, current_app, redirect, render_template, request
from pydantic import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from ledger_ui.contexts import Context, Frame, Query
from ledger_ui.federation import Shown
from ledger_ui.lists import asked_of
from ledger_ui.questions.spent import scores_of
from ledger_ui.recent import Given, Recent
from ledger_ui.registry import Elsewhere, Here, Listing, Page, PageError
from ledger_ui.text import visible
from ledger_ui.urls import Urls, as_format

#: Where some spreadsheet begins a formula or a macro, in half and full width, and the field mark of old ones.
_FORMULA: Final = frozenset("=+-@|%\uff1d\uff0b\uff0d\uff20\u2212\ufe63\ufe62\ufe66\ufe6b")
#: What many readers take for the end of a line, in a line of JSON.
_LINE_ENDS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
#: Pages that are made at a time: more would only take turns on one interpreter, and all of them be late.
_MAKING: Final = threading.BoundedSemaphore(2)
_CHUNK: Final = 500


def respond(page: Page, suffix: str, shown: Shown, path: Mapping[str, Any]) -> BaseResponse:
    """Answer a request for a page.

    Args:
        suffix: empty for HTML, or ``json``, ``csv``, ``jsonl``.
    """
    query = asked(page.query)
    urls = Urls(request.script_root, shown.slug)
    if suffix in ("csv", "jsonl") and page.listing is not None:
        return _listed(page.listing, suffix, shown, urls, query, page.name)
    with shown.store.reading() as db:
        here = Here(shown, db, frame_of(shown, db), urls, time.time())
        tag = _tag(here, db)
        if not request.if_none_match.star_tag and request.if_none_match.contains_weak(tag):
            return _tagged(Response(status=304), tag)
        recent: Recent = current_app.extensions["recent"]
        answer: Given | BaseResponse | None = recent.get(tag)
        if answer is None:
            with recent.alone(tag), _MAKING:
                answer = recent.get(tag) or _made(page, suffix, here, query, path)
                if isinstance(answer, Given):
                    recent.keep(tag, answer)
    if isinstance(answer, Given):
        return _tagged(Response(answer.body, mimetype=answer.mimetype), tag)
    return answer


def _made(page: Page, suffix: str, here: Here, query: Query, path: Mapping[str, Any]) -> Given | BaseResponse:
    """A page's body, or the way to another one."""
    try:
        context = page.make(here, query, **path)
    except Elsewhere as other:
        return redirect(as_format(other.url, suffix) if suffix else other.url)
    if suffix == "json":
        told = as_json({"federation": here.frame.model_dump(), **context.model_dump()})
        return Given(told.get_data(), "application/json")
    url = page.elsewhere(context) if page.elsewhere is not None else None
    if url is not None:
        return redirect(url)
    shown = {"page": context, "here": here, "frame": here.frame, "urls": here.urls, "entry": page}
    html = render_template(page.template, query=query, asked=_filters(query), **shown)
    return Given(html.encode(), "text/html")


def _filters(query: Query) -> dict[str, Any]:
    """What a list was narrowed to, for the address of all of it in another format."""
    return {name: value for name, value in asked_of(query).items() if name not in ("after", "limit")}


def as_json(told: object, status: int = 200, mimetype: str = "application/json") -> Response:
    """An answer in JSON; a stranger's text as it is, in UTF-8."""
    body = json.dumps(told, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(body, status, mimetype=mimetype)


def asked(kind: type[Query]) -> Any:
    """The request's query string as the page's own record.

    Raises:
        PageError: 400, with the parameter, what was got and what is expected.
    """
    given: dict[str, str] = {}
    names = [field.alias or name for name, field in kind.model_fields.items()]
    for key, values in request.args.lists():
        if len(values) > 1:
            raise PageError(400, "Asked twice", f"{visible(key)} was given {len(values)} times; expected once.")
        if key not in names:
            known = ", ".join(names) or "none"
            raise PageError(400, "Unknown parameter", f"Got {visible(key)}; expected one of: {known}.")
        if values[0] != "":  # forms send the fields that nobody filled in
            given[key] = values[0]
    try:
        return kind.model_validate(given, strict=False)
    except ValidationError as cause:
        error = cause.errors(include_url=False, include_context=False)[0]
        name = visible(".".join(str(part) for part in error["loc"]) or "the query")
        got = visible(str(error.get("input")))
        raise PageError(400, "Not a value for this", f"{name}: got {got}: {error['msg']}.") from None


def frame_of(shown: Shown, db: sqlite3.Connection) -> Frame:
    """The federation as a snapshot of its index has it."""
    known = dict(db.execute("SELECT key, value FROM ui_state").fetchall())
    log_size = db.execute("SELECT value FROM meta WHERE key = 'size'").fetchone()
    now, folded = shown.follower.now, int(known.get("folded") or 0)
    root = known.get("folded_root")
    scores, scores_words = scores_of(shown.spec.privacy)
    return Frame(
        slug=shown.slug,
        name=shown.spec.name,
        chain_id=shown.deployment.chain_id,
        contract=shown.deployment.contract,
        spec_digest=shown.federation.digest.hex(),
        size=folded,
        root=root.hex() if root else None,
        state=now.state,
        detail=now.detail,
        since_s=now.since,
        block=now.block,
        behind=max(0, (log_size[0] if log_size else 0) - folded),
        encrypts=shown.spec.privacy.encrypt,
        scores=scores,
        scores_words=scores_words,
    )


def csv_cell(value: object) -> str:
    """A value as a cell that no spreadsheet takes for a formula, with whatever invisible characters it may begin. Only
    numbers of ours begin with a sign.

    >>> csv_cell("=1+1"), csv_cell(" \\u200b@SUM(1)"), csv_cell(-3), csv_cell(None)
    ("'=1+1", "' \\u200b@SUM(1)", '-3', '')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        first = next((one for one in value if unicodedata.category(one)[0] not in "CZM"), "")
        begins = first in _FORMULA if first else value != ""
        return f"'{value}" if begins or value[:1] in ("\t", "\r", "\n", "'") else value
    return json.dumps(value) if isinstance(value, bool | list | tuple | dict) else str(value)


def _listed(listing: Listing, suffix: str, shown: Shown, urls: Urls, query: Query, name: str) -> Response:
    def lines() -> Iterator[str]:
        with shown.store.reading() as db:
            here = Here(shown, db, frame_of(shown, db), urls, time.time())
            rows = listing.rows(here, query)
            if suffix == "csv":
                yield _csv_line(listing.columns)
            chunk: list[str] = []
            for row in rows:
                chunk.append(_line(row, suffix, listing.columns))
                if len(chunk) >= _CHUNK:
                    yield "".join(chunk)
                    chunk.clear()
            yield "".join(chunk)

    kind = "text/csv" if suffix == "csv" else "application/jsonl"
    response = Response(lines(), mimetype=kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{shown.slug}-{name}.{suffix}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _line(row: Context, suffix: str, columns: tuple[str, ...]) -> str:
    told = row.model_dump()
    if suffix == "jsonl":
        return json.dumps(told, ensure_ascii=False).translate(_LINE_ENDS) + "\n"
    return _csv_line([csv_cell(told[column]) for column in columns])


def _csv_line(cells: Any) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()


def _tag(here: Here, db: sqlite3.Connection) -> str:
    """Of what a page follows from: the log's root, what was fetched besides, the chain's state, and the address. Not of
    the time, nor of the last block looked at: such tags are weak."""
    version = db.execute("SELECT value FROM ui_state WHERE key = 'version'").fetchone()
    frame = here.frame
    parts = [current_app.config["BUILD"], frame.root, version[0] if version else 0, frame.state, frame.behind]
    parts += [frame.detail, request.script_root, request.full_path]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:24]


def _tagged(response: Response, tag: str) -> Response:
    response.set_etag(tag, weak=True)
    response.headers["Cache-Control"] = "private, no-cache"
    return response
