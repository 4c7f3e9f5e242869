"""The WSGI application: federations, routes, and what every answer carries."""

from __future__ import annotations

import atexit
import hashlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from flask import Flask, Response, abort, current_app, redirect, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.routing import IntegerConverter
from werkzeug.wrappers import Response as BaseResponse

import ledger_ui.pages  # noqa: F401  registers the pages
from fl_node.times import duration
from ledger_ui import text
from ledger_ui.admission import NotAdmitted, admit
from ledger_ui.assets import Assets
from ledger_ui.charts.drawn import for_templates
from ledger_ui.contexts import Frame
from ledger_ui.federation import Shown, Source
from ledger_ui.openapi import DATA, braced, schema_words
from ledger_ui.options import Options
from ledger_ui.pages.api import views as explorer_views
from ledger_ui.pages.federation import all_federations
from ledger_ui.pages.live import Listeners
from ledger_ui.recent import Recent
from ledger_ui.registry import PAGES, ROUTES, Page, PageError, Route
from ledger_ui.respond import as_json, asked, frame_of, respond
from ledger_ui.urls import Urls, as_format

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


#: What a POST may bring; ours bring nothing.
_MOST_BODY: Final = 1 << 14


_NO_PAGE: Final = "Nothing here has this address: not a page of the explorer, nor one of its files."


class _Number(IntegerConverter):
    """A number in an address: in one spelling only, and small enough for the index."""

    regex = "(?:0|[1-9][0-9]{0,17})"


def create_app(options: Options | None = None, *, start: bool = True) -> Flask:
    """An explorer.

    Args:
        options: ``None`` takes them from the environment, see :meth:`Options.of_environment`.
        start: follow the chains; else only what the indexes hold is shown.

    Raises:
        SpecError: a federation file that is none.
        UsageError: the environment names nothing to show.
    """
    options = Options.of_environment() if options is None else options
    app = Flask("ledger_ui", root_path=str(HERE), static_folder=None)
    app.config["BUILD"] = _build()
    app.config["OPTIONS"] = options
    app.config["MAX_CONTENT_LENGTH"] = _MOST_BODY
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    app.url_map.converters["int"] = _Number
    app.extensions["assets"] = Assets(HERE / "static")
    shown = _opened(options)
    app.extensions["federations"] = shown
    app.extensions["recent"] = Recent()
    app.extensions["listeners"] = Listeners(options.listeners)
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        visible=text.visible,
        whole=text.whole,
        percent=text.percent,
        utc=text.utc,
        iso=text.iso,
        short=text.short,
        size=text.bytes_words,
        duration=duration,
        as_format=as_format,
        braced=braced,
        schema_words=schema_words,
    )
    app.jinja_env.globals.update(static=_static_url, options=options, charts=for_templates())
    _routes(app, shown, options)
    app.before_request(lambda: admit(options, request))
    app.after_request(partial(_guarded, options))
    app.register_error_handler(PageError, partial(_refused, shown))
    app.register_error_handler(NotAdmitted, _not_admitted)
    app.register_error_handler(sqlite3.Error, _unreadable)
    app.register_error_handler(HTTPException, partial(_refused_by_http, shown))
    if start:
        for one in shown.values():
            one.start()
            atexit.register(one.stop)
    return app


def _opened(options: Options) -> dict[str, Shown]:
    """Every federation file once, by its part of the addresses. Development chains give the same address to the first
    contract on each of them: then the later file has a number behind its name."""
    found: dict[str, Shown] = {}
    files: dict[Path, Source] = {}
    for source in options.sources:
        files.setdefault(source.file.resolve(), source)
    for source in files.values():
        one = Shown(source, options.poll_s, verify=options.verify, harvest=options.harvest, monitor=options.monitor)
        name, count = one.slug, 2
        while one.slug in found:
            one.slug, count = f"{name}-{count}", count + 1
        found[one.slug] = one
    return found


def _routes(app: Flask, federations: dict[str, Shown], options: Options) -> None:
    for page in PAGES.values():
        suffixes = ("", "json") if page.listing is None else ("", "json", "csv", "jsonl")
        for suffix in suffixes:
            rule = f"/<slug>{page.rule}" + (f".{suffix}" if suffix else "")
            app.add_url_rule(rule, f"{page.name}.{suffix or 'html'}", _view(page, suffix, federations))
    for route in ROUTES.values():
        app.add_url_rule(f"/<slug>{route.rule}", route.name, _plain(route, federations), methods=[route.method])
    app.add_url_rule("/", "index", partial(_index, federations))
    app.add_url_rule("/index.json", "index.json", partial(_index_json, federations))
    for path, view in explorer_views(federations, options).items():
        app.add_url_rule(path, path.strip("/"), view)
    app.add_url_rule("/static/<path:name>", "static", _static)


def _view(page: Page, suffix: str, federations: dict[str, Shown]) -> Callable[..., BaseResponse]:
    def view(slug: str, **path: Any) -> BaseResponse:
        return respond(page, suffix, _found(federations, slug), path)

    return view


def _plain(route: Route, federations: dict[str, Shown]) -> Callable[..., BaseResponse]:
    def view(slug: str, **path: Any) -> BaseResponse:
        answer: BaseResponse = route.view(_found(federations, slug), asked(route.query), **path)
        return answer

    return view


def _found(federations: dict[str, Shown], slug: str) -> Shown:
    if slug not in federations:
        known = ", ".join(federations) or "none"
        raise PageError(404, "No such federation", f"Got {text.visible(slug)}; this explorer shows: {known}.")
    return federations[slug]


def _index(federations: dict[str, Shown]) -> BaseResponse | str:
    if len(federations) == 1:
        return redirect(Urls(request.script_root, next(iter(federations))).federation())
    page = all_federations(federations, request.script_root)
    return render_template("index.html", page=page, urls=Urls(request.script_root, ""), frame=None, entry=None)


def _index_json(federations: dict[str, Shown]) -> BaseResponse:
    page = all_federations(federations, request.script_root)
    response = as_json(page.model_dump())
    response.add_etag()
    response.headers["Cache-Control"] = "private, no-cache"
    return response.make_conditional(request)


# ---- what every request and answer goes through ------------------------------------------------------------------


def _guarded(options: Options, response: Response) -> Response:
    headers = response.headers
    if options.secret:
        response.vary.add("Authorization")
    headers.setdefault("Content-Security-Policy", POLICY)  # downloads have a stricter one
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    # Not no-referrer: then browsers would not say of a form that it is one of ours.
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
    return response


# ---- errors --------------------------------------------------------------------------------------------------------


def _refused(federations: dict[str, Shown], error: PageError) -> BaseResponse:
    """An error's page, inside the frame of its federation where there is one."""
    slug = (request.view_args or {}).get("slug", "")
    if _wants_json() or slug not in federations:
        return _told(error)
    try:
        with federations[slug].store.reading() as db:
            frame = frame_of(federations[slug], db)
    except sqlite3.Error:
        return _told(error)
    return _told(error, frame, slug)


def _told(error: PageError, frame: Frame | None = None, slug: str = "") -> BaseResponse:
    if _wants_json():
        told = {"title": error.title, "status": error.status, "detail": error.detail}
        answer: BaseResponse = as_json(told, error.status, "application/problem+json")
    else:
        urls = Urls(request.script_root, slug)
        html = render_template("error.html", error=error, frame=frame, urls=urls, entry=None)
        answer = Response(html, error.status, mimetype="text/html")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _wants_json() -> bool:
    """Whether the address is of JSON, CSV or JSON lines; all others are for people."""
    address = request.path if request.url_rule is None else request.url_rule.rule
    return address.endswith(DATA)


def _refused_by_http(federations: dict[str, Shown], error: HTTPException) -> BaseResponse:
    if error.code is None or error.code < 400:
        return error.get_response()
    slug, _, rest = request.path.strip("/").partition("/")
    if error.code == 404 and request.method == "GET" and request.path.endswith("/") and slug in federations:
        # Some write a slash behind every address.
        return redirect(Urls(request.script_root, slug).federation() + quote(f"/{rest}" if rest else ""))
    known = PageError(error.code, error.name, _NO_PAGE if error.code == 404 else str(error.description))
    answer = _told(known) if error.code >= 500 else _refused(federations, known)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after"):
            answer.headers[name] = value
    return answer


def _not_admitted(error: NotAdmitted) -> BaseResponse:
    answer = _told(error)
    for name, value in error.headers:
        answer.headers.add(name, value)
    return answer


def _unreadable(error: sqlite3.Error) -> BaseResponse:
    """The index is being replaced, or its disk fails: no page follows from it now."""
    current_app.logger.warning("the index cannot be read: %s", error)
    detail = "The explorer's index cannot be read at the moment; the ledger itself is not touched by that. Try again."
    answer = _told(PageError(503, "The index cannot be read", detail))
    answer.headers["Retry-After"] = "5"
    return answer


# ---- static files --------------------------------------------------------------------------------------------------


def _static(name: str) -> BaseResponse:
    found = current_app.extensions["assets"].find(name)
    if found is None:
        abort(404)
    response = Response(found.body, content_type=found.kind)
    response.set_etag(found.digest[:24])
    asked_for = request.args.get("v", "")
    settled = asked_for and found.digest.startswith(asked_for)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if settled else "no-cache"
    return response.make_conditional(request)


def _static_url(name: str) -> str:
    """The address of a static file, with its digest, so that a changed one is fetched."""
    return Urls(request.script_root, "").static(name, current_app.extensions["assets"].version(name))


def _build() -> str:
    """A digest of templates, static files and code: pages made by another version are other pages."""
    found = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".html", ".css", ".js"):
            found.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]
