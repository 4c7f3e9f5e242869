"""Pages of the explorer itself: what it can be asked, for people and as an OpenAPI document, and what it is made of."""

from __future__ import annotations

import hashlib
import platform
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import Any, Final

from flask import Response, current_app, render_template, request
from pydantic import Field
from werkzeug.wrappers import Response as BaseResponse

from fl_node import __version__
from ledger_ui.contexts import Context
from ledger_ui.federation import Shown
from ledger_ui.openapi import Served, document
from ledger_ui.options import Options
from ledger_ui.pages.federation import IndexPage
from ledger_ui.registry import PAGES, ROUTES
from ledger_ui.respond import as_json
from ledger_ui.urls import Urls
from ledger_ui.vendored import Vendored, vendored

#: Packages that serve the pages.
_PACKAGES: Final = ("flask", "werkzeug", "jinja2", "pydantic", "waitress")
_LICENCE: Final = "Apache-2.0"


class PackageVersion(Context):
    """One package and its version here."""

    name: str
    version: str
    licence: str = Field(description="as its own metadata say; empty: they do not")


class AboutPage(Context):
    """What this explorer is made of."""

    version: str = Field(description="of fl-node")
    licence: str
    build: str = Field(description="start of a digest of its code, templates and static files")
    packages: list[PackageVersion]
    vendored: list[Vendored] = Field(description="libraries that pages load, from this explorer and nowhere else")


#: The explorer's own pages: path, summary, and what they answer.
FIXED: Final[tuple[tuple[str, str, type[Context] | str], ...]] = (
    ("/", "All federations that are shown here; where it is one, a way to it", "text/html"),
    ("/index.json", "The same as JSON", IndexPage),
    ("/api", "What may be asked, for people", "text/html"),
    ("/openapi.json", "This document", "application/json"),
    ("/about", "Versions, and licences of what pages load", "text/html"),
    ("/about.json", "The same as JSON", AboutPage),
)

View = Callable[[], BaseResponse]


def views(federations: Mapping[str, Shown], options: Options) -> dict[str, View]:
    """The views of this module, by path."""
    return {
        "/api": partial(_api, federations, options),
        "/openapi.json": partial(_openapi, federations, options),
        "/about": _about,
        "/about.json": _about_json,
    }


def about() -> AboutPage:
    """What this explorer is made of."""
    found = [
        PackageVersion(name="Python", version=platform.python_version(), licence="PSF-2.0"),
        PackageVersion(name="SQLite", version=sqlite3.sqlite_version, licence="public domain"),
    ]
    for name in _PACKAGES:
        try:
            told = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        known = told.get_all("Classifier") or []
        classes = [one.rpartition(" :: ")[2] for one in known if one.startswith("License ::")]
        licence = (told.get_all("License-Expression") or classes or [""])[0]
        found.append(PackageVersion(name=name, version=metadata.version(name), licence=licence))
    return AboutPage(
        version=__version__,
        licence=_LICENCE,
        build=current_app.config["BUILD"],
        packages=found,
        vendored=list(vendored()),
    )


def _served(federations: Mapping[str, Shown], options: Options) -> Served:
    return Served(tuple(federations), request.script_root, bool(options.secret), FIXED)


def _api(federations: Mapping[str, Shown], options: Options) -> BaseResponse:
    told = document(_served(federations, options))
    html = render_template(
        "api.html", **_frameless(), told=told, pages=PAGES.values(), routes=ROUTES.values(), slugs=list(federations)
    )
    return _kept(Response(html, mimetype="text/html"))


def _openapi(federations: Mapping[str, Shown], options: Options) -> BaseResponse:
    return _kept(as_json(document(_served(federations, options))))


def _about() -> BaseResponse:
    return _kept(Response(render_template("about.html", **_frameless(), page=about()), mimetype="text/html"))


def _about_json() -> BaseResponse:
    return _kept(as_json(about().model_dump(by_alias=True)))


def _frameless() -> dict[str, Any]:
    return {"urls": Urls(request.script_root, ""), "frame": None, "entry": None}


def _kept(response: Response) -> BaseResponse:
    response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:24])
    response.headers["Cache-Control"] = "private, no-cache"
    return response.make_conditional(request)
