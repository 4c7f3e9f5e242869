"""The WSGI application: federations, routes, and what every answer carries."""

from __future__ import annotations

import atexit
import hashlib
import json
import secrets
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, abort, redirect, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

import ledger_ui.pages  # noqa: F401  registers the pages
from ledger_ui import text
from ledger_ui.charts.drawn import for_templates
from ledger_ui.federation import Shown
from ledger_ui.options import Options
from ledger_ui.registry import PAGES, ROUTES, Page, PageError, Route
from ledger_ui.respond import asked, frame_of, respond
from ledger_ui.urls import Urls, as_format

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def create_app(options: Options | None = None, *, start: bool = True) -> Flask:
    """An explorer.

    Args:
        options: ``None`` takes them from the environment, see :meth:`Options.of_environment`.
        start: follow the chains; else only what the indexes hold is shown.

    Raises:
        SpecError: a federation file that is none.
        UsageError: nothing to show, or the same federation twice.
    """
    options = Options.of_environment() if options is None else options
    app = Flask("ledger_ui", root_path=str(HERE), static_folder=None)
    app.config["BUILD"] = _build()
    app.config["OPTIONS"] = options
    shown = _opened(options)
    app.extensions["federations"] = shown
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        visible=text.visible,
        percent=text.percent,
        utc=text.utc,
        iso=text.iso,
        short=text.short,
        size=text.bytes_words,
        duration=text.duration,
        as_format=as_format,
    )
    app.jinja_env.globals.update(static=_static_url, options=options, charts=for_templates())
    _routes(app, shown)
    app.before_request(partial(_admitted, options))
    app.after_request(_guarded)
    app.register_error_handler(PageError, partial(_refused, shown))
    app.register_error_handler(HTTPException, partial(_refused_by_http, shown))
    if start:
        for one in shown.values():
            one.start()
            atexit.register(one.stop)
    return app


def _opened(options: Options) -> dict[str, Shown]:
    found: dict[str, Shown] = {}
    for source in options.sources:
        one = Shown(source, options.poll_s)
        found.setdefault(one.slug, one)
    return found


def _routes(app: Flask, federations: dict[str, Shown]) -> None:
    for page in PAGES.values():
        suffixes = ("", "json") if page.listing is None else ("", "json", "csv", "jsonl")
        for suffix in suffixes:
            rule = f"/<slug>{page.rule}" + (f".{suffix}" if suffix else "")
            app.add_url_rule(rule, f"{page.name}.{suffix or 'html'}", _view(page, suffix, federations))
    for route in ROUTES.values():
        app.add_url_rule(f"/<slug>{route.rule}", route.name, _plain(route, federations), methods=[route.method])
    app.add_url_rule("/", "index", partial(_index, federations))
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
    cards = []
    for one in federations.values():
        with one.store.reading() as db:
            cards.append((frame_of(one, db), Urls(request.script_root, one.slug).federation()))
    return render_template("index.html", cards=cards, urls=Urls(request.script_root, ""), frame=None, entry=None)


# ---- what every request and answer goes through ------------------------------------------------------------------


def _admitted(options: Options) -> BaseResponse | None:
    host = request.host.rsplit(":", 1)[0].strip("[]") if request.host.count(":") != 1 else request.host.split(":")[0]
    if options.hosts and host not in options.hosts:
        allowed = ", ".join(options.hosts)
        return Response(
            f"got host {text.visible(host)}; expected one of {allowed}: see --allow-host\n", 421, mimetype="text/plain"
        )
    if options.secret and not _knows(options.secret):
        answer = Response(
            "expected the explorer's secret: basic authentication, or a bearer token\n", 401, mimetype="text/plain"
        )
        answer.headers["WWW-Authenticate"] = 'Basic realm="ledger explorer", charset="UTF-8"'
        return answer
    return None


def _knows(secret: str) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        said = given.strip()
    elif kind.lower() == "basic":
        try:
            said = b64decode(given, validate=True).decode()
        except (BadBase64, UnicodeDecodeError, ValueError):
            return False
        if ":" not in secret:  # a token: whoever the user calls themselves
            said = said.partition(":")[2]
    else:
        return False
    return secrets.compare_digest(said.encode(), secret.encode())


def _guarded(response: Response) -> Response:
    headers = response.headers
    headers["Content-Security-Policy"] = POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
    return response


# ---- errors --------------------------------------------------------------------------------------------------------


def _refused(federations: dict[str, Shown], error: PageError) -> BaseResponse:
    wants_html = "." not in request.path.rsplit("/", 1)[-1]
    if not wants_html:
        told = {"title": error.title, "status": error.status, "detail": error.detail}
        return Response(json.dumps(told), error.status, mimetype="application/problem+json")
    slug = (request.view_args or {}).get("slug", "")
    frame = None
    if slug in federations:
        with federations[slug].store.reading() as db:
            frame = frame_of(federations[slug], db)
    urls = Urls(request.script_root, slug if slug in federations else "")
    html = render_template("error.html", error=error, frame=frame, urls=urls, entry=None)
    return Response(html, error.status, mimetype="text/html")


def _refused_by_http(federations: dict[str, Shown], error: HTTPException) -> BaseResponse:
    if error.code is None or error.code < 400:
        return error.get_response()
    answer = _refused(federations, PageError(error.code, error.name, str(error.description)))
    for name, value in error.get_headers():
        if name.lower() == "allow":
            answer.headers[name] = value
    return answer


# ---- static files --------------------------------------------------------------------------------------------------

_KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
}


def _files() -> dict[str, Path]:
    static = HERE / "static"
    return {path.relative_to(static).as_posix(): path for path in sorted(static.rglob("*")) if path.is_file()}


def _static(name: str) -> BaseResponse:
    path = _files().get(name)
    if path is None or path.suffix not in _KINDS:
        abort(404)
    raw = path.read_bytes()
    response = Response(raw, content_type=_KINDS[path.suffix])
    response.set_etag(hashlib.sha256(raw).hexdigest()[:24])
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if request.args.get("v") else "no-cache"
    return response.make_conditional(request)


def _static_url(name: str) -> str:
    """The address of a static file, with its digest, so that a changed one is fetched."""
    return Urls(request.script_root, "").static(name, _digest_of(name))


def _digest_of(name: str) -> str:
    path = HERE / "static" / name
    stat = path.stat()
    key = (name, stat.st_mtime_ns, stat.st_size)
    if key not in _DIGESTS:
        _DIGESTS[key] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return _DIGESTS[key]


_DIGESTS: dict[tuple[str, int, int], str] = {}


def _build() -> str:
    """A digest of templates, static files and code: pages made by another version are other pages."""
    found = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".html", ".css", ".js"):
            found.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]
