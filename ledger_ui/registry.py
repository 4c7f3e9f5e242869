"""The pages: what each is called, may be asked and answers. Routes, formats and the OpenAPI document follow from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ledger_ui.contexts import Context, Frame, NoQuery, Query
from ledger_ui.federation import Shown
from ledger_ui.urls import Urls


class PageError(Exception):
    """A page that cannot be given. ``title`` and ``detail`` say what was got, what is expected and what to do next."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


def not_here(what: str, frame: Frame) -> PageError:
    """404, with what the log does hold."""
    known = f"the log has {frame.size:,} entries" if frame.size else "the log is empty so far"
    return PageError(404, f"No {what}", f"There is no {what} in this federation: {known}.")


class Elsewhere(Exception):
    """Go to another page instead."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


@dataclass(frozen=True, slots=True)
class Here:
    """What a page is made from: one federation, one snapshot of its index."""

    shown: Shown
    db: sqlite3.Connection
    frame: Frame
    urls: Urls
    now: float


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that is also CSV and JSON lines.

    ``rows`` gives every row that matches, one by one, without the whole list in memory; ``columns`` are those of the
    CSV, by name of the row's fields.
    """

    row: type[Context]
    rows: Callable[[Here, Any], Iterator[Context]]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        rule: Flask rule below the federation's address, such as ``/updates/<ref>``; empty for the federation itself.
        context: what it shows; its fields are documented.
        query: what it may be asked.
        template: HTML template, which gets the context as ``page``.
        make: ``make(here, query, **path)`` gives the context, or raises :class:`PageError` or :class:`Elsewhere`.
        listing: where its rows are also CSV and JSON lines.
        path: description of each part of the rule.
        elsewhere: says of a context to which address a browser is sent on instead of showing it; JSON never is.
    """

    name: str
    rule: str
    summary: str
    context: type[Context]
    template: str
    make: Callable[..., Context]
    query: type[Query] = NoQuery
    listing: Listing | None = None
    path: dict[str, str] = field(default_factory=dict)
    elsewhere: Callable[[Any], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """An address of a federation that is no page: a stream, a file, something to POST to.

    Attributes:
        rule: Flask rule below the federation's address.
        view: ``view(shown, query, **path)`` answers.
        method: GET or POST.
        answers: media type (empty: no body of its own) and description, by status.
    """

    name: str
    rule: str
    summary: str
    view: Callable[..., Any]
    method: str = "GET"
    query: type[Query] = NoQuery
    path: dict[str, str] = field(default_factory=dict)
    answers: dict[int, tuple[str, str]] = field(default_factory=dict)


#: What is no page, by name, in the order in which it was added.
ROUTES: dict[str, Route] = {}


def add_route(route: Route) -> Route:
    """Register what is no page; see :func:`add`."""
    if route.name in ROUTES:
        raise ValueError(f"there is a route {route.name} already")
    ROUTES[route.name] = route
    return route


#: All pages of a federation, by name, in the order in which they were added.
PAGES: dict[str, Page] = {}


def add(page: Page) -> Page:
    """Register a page; the module that calls this must be imported by :mod:`ledger_ui.pages`."""
    if page.name in PAGES:
        raise ValueError(f"there is a page {page.name} already")
    PAGES[page.name] = page
    return page
