"""The OpenAPI 3.1 document of an explorer, from the same records as its pages, so that it says what they do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fl_node import __version__
from ledger_ui.admission import MOST_QUERY
from ledger_ui.contexts import Context, Frame, Query
from ledger_ui.registry import PAGES, ROUTES, Page, Route

VERSION: Final = "3.1.0"
PROBLEM: Final = "application/problem+json"
HTML: Final = "text/html"
#: Addresses whose errors are for programs; all others' are pages.
DATA: Final = (".json", ".csv", ".jsonl")
_SCHEMAS: Final = "#/components/schemas/"
_PART: Final = re.compile(r"<(?:(\w+):)?(\w+)>")
#: Parts of addresses that have one form only, by name.
_FORMS: Final[Mapping[str, dict[str, Any]]] = {
    "ref": {"type": "string", "pattern": "^(?:0|[1-9][0-9]{0,9})-(?:0|[1-9][0-9]{0,9})$"},
    "cid": {"type": "string", "pattern": "^b[a-z2-7]{58}$"},
}
_NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_LINES: Final = {"csv": "text/csv", "jsonl": "application/jsonl"}
_WORDS: Final = {
    400: "a parameter that there is not, was given twice, or has no such value",
    401: "the explorer's secret is wanted",
    403: "not from a page of this explorer",
    404: "there is nothing of this name; the detail says what there is",
    414: f"a query of more than {MOST_QUERY:,} bytes",
    421: "this explorer is not addressed by that name",
    503: "the index cannot be read at the moment",
}
DESCRIPTION: Final = """\
What the ledger of a federation says, with what others made of it. Every page is also JSON at the same address with \
`.json`, from the same record; lists are also CSV and JSON lines, whole and in the list's order.

- A score is its publisher's *claim* until other sites attest it.
- Scores and shares are in parts per million (`_ppm`), times in seconds since 1970 (`_s`), digests in hexadecimal.
- Names of sites, reasons and endpoints are strangers' text, as the ledger has it: escape it.
- Lists are cut by entry: `paging.next_url` names the next page and stays right while the log grows.
- Unknown parameters, and parameters given twice, are refused; an empty value is none.
- The weak ETag follows the log's root, what was fetched besides, and the address: ask with `If-None-Match`. It leaves \
out the last block looked at and the time.
- Nothing is ever written to the chain. No cookie is ever set.
"""


@dataclass(frozen=True, slots=True)
class Served:
    """What an explorer's document depends on.

    Attributes:
        slugs: federations that it shows.
        root: what a proxy puts before every address.
        secret: whether readers must know one.
        fixed: pages of the explorer itself: path, summary, and the record of its JSON, or the media type.
    """

    slugs: tuple[str, ...]
    root: str
    secret: bool
    fixed: tuple[tuple[str, str, type[Context] | str], ...]


class Problem(Context):
    """Why there is no answer (RFC 9457)."""

    title: str
    status: int
    detail: str


@lru_cache(maxsize=8)
def document(served: Served) -> dict[str, Any]:
    """The whole document, JSON-ready; not to be changed."""
    names, schemas = _schemas(served)
    paths: dict[str, Any] = {}
    for page in PAGES.values():
        paths |= _paths_of(page, names, served)
    for route in ROUTES.values():
        path, told = _route(route, served)
        paths.setdefault(path, {})[route.method.lower()] = told
    for path, summary, what in served.fixed:
        paths[path] = {"get": _fixed(path, summary, what, names, served)}
    told = {
        "openapi": VERSION,
        "info": {
            "title": "Ledger explorer",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": served.root or "/"}],
        "tags": [
            {"name": "pages", "description": "for people"},
            {"name": "data", "description": "the same for programs"},
            {"name": "actions", "description": "files, events, and what is done on request"},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "user and password, or the secret as password",
                },
                "bearer": {"type": "http", "scheme": "bearer", "description": "the secret"},
            },
        },
    }
    if served.secret:
        told["security"] = [{"basic": []}, {"bearer": []}]
    return told


# ---- schemas --------------------------------------------------------------------------------------------------------


def _schemas(served: Served) -> tuple[dict[type[BaseModel], str], dict[str, Any]]:
    """Names of the records' schemas, and the schemas; those of pages with the federation that every page is of."""
    pages: list[type[BaseModel]] = [page.context for page in PAGES.values()]
    rows: list[type[BaseModel]] = [page.listing.row for page in PAGES.values() if page.listing is not None]
    fixed: list[type[BaseModel]] = [what for _, _, what in served.fixed if not isinstance(what, str)]
    models: list[type[BaseModel]] = list(dict.fromkeys([Frame, Problem, *pages, *rows, *fixed]))
    known, told = models_json_schema([(one, "serialization") for one in models], ref_template=_SCHEMAS + "{model}")
    names = {model: known[model, "serialization"]["$ref"].removeprefix(_SCHEMAS) for model in models}
    schemas: dict[str, Any] = dict(told["$defs"])
    for page in pages:
        schemas[names[page]] = _with_federation(schemas[names[page]], names[Frame])
    return names, schemas


def _with_federation(schema: dict[str, Any], frame: str) -> dict[str, Any]:
    properties = {"federation": {"$ref": _SCHEMAS + frame}, **schema.get("properties", {})}
    required = ["federation", *(name for name in schema.get("required", ()) if name != "federation")]
    return {**schema, "properties": properties, "required": required}


# ---- pages ----------------------------------------------------------------------------------------------------------


def _paths_of(page: Page, names: Mapping[type[BaseModel], str], served: Served) -> Iterator[tuple[str, dict[str, Any]]]:
    path, parts = _path_of(page.rule, page.path, served)
    parameters = [*parts, *_parameters(page.query)]
    suffixes = ("", "json") if page.listing is None else ("", "json", *_LINES)
    for suffix in suffixes:
        tag = "data" if suffix else "pages"
        told = {
            "operationId": f"{page.name}_{suffix or 'html'}",
            "summary": page.summary + (f", as {suffix.upper()}" if suffix else ""),
            "tags": [tag],
            "parameters": parameters,
            "responses": _answers(page, suffix, names, served),
        }
        yield path + (f".{suffix}" if suffix else ""), {"get": told}


def _answers(page: Page, suffix: str, names: Mapping[type[BaseModel], str], served: Served) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    if suffix in _LINES and page.listing is not None:
        row = names[page.listing.row]
        schema = {"type": "string", "description": f"one {row} a line"}
        answers["200"] = {
            "description": "every row that matches, in the list's order"
            + ("; cells are never formulas" * (suffix == "csv")),
            "content": {_LINES[suffix]: {"schema": schema}},
        }
    else:
        body = {"$ref": _SCHEMAS + names[page.context]} if suffix else {"type": "string"}
        answers["200"] = {
            "description": "the page",
            "headers": {"ETag": {"required": True, "schema": {"type": "string", "pattern": '^W/"[0-9a-f]+"$'}}},
            "content": {"application/json" if suffix else HTML: {"schema": body}},
        }
        answers["304"] = {"description": "it is what the reader has, by If-None-Match"}
        if page.elsewhere is not None and not suffix:
            answers["302"] = {"description": "straight to the only page that it can be"}
    statuses = [404, 503] if page.query.model_fields == {} else [400, 404, 414, 503]
    return {**answers, **_refusals(statuses, bool(suffix), served)}


def _refusals(statuses: Sequence[int], problem: bool, served: Served, both: bool = False) -> dict[str, Any]:
    """Errors; every operation has those that come before any page."""
    every = {*statuses, 400, 414, 421, *((401,) if served.secret else ())}
    return {str(status): _refusal(_WORDS[status], problem, both) for status in sorted(every)}


def _refusal(words: str, problem: bool, both: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if problem or both:
        content[PROBLEM] = {"schema": {"$ref": f"{_SCHEMAS}Problem"}}
    if not problem or both:
        content[HTML] = {"schema": {"type": "string"}}
    return {"description": words, "content": content}


# ---- what is no page ------------------------------------------------------------------------------------------------


def _route(route: Route, served: Served) -> tuple[str, dict[str, Any]]:
    path, parts = _path_of(route.rule, route.path, served)
    problem = route.rule.endswith(DATA)
    answers: dict[str, Any] = {}
    for status, (media, words) in route.answers.items():
        if status >= 400 and media in (HTML, PROBLEM):
            answers[str(status)] = _refusal(words, problem)
        else:
            content = {media: {"schema": {} if media.endswith("json") else {"type": "string"}}} if media else None
            answers[str(status)] = {"description": words, **({"content": content} if content else {})}
    if route.method == "POST":
        answers.setdefault("303", {"description": "for browsers: to the page that will have the result"})
    told = {
        "operationId": route.name.replace("-", "_"),
        "summary": route.summary,
        "tags": ["actions"],
        "parameters": [*parts, *_parameters(route.query)],
        "responses": {**_refusals([404, 503], problem, served), **answers},
    }
    return path, told


def _fixed(
    path: str, summary: str, what: type[Context] | str, names: Mapping[type[BaseModel], str], served: Served
) -> dict[str, Any]:
    if isinstance(what, str):
        content = {what: {"schema": {} if what.endswith("json") else {"type": "string"}}}
    else:
        content = {"application/json": {"schema": {"$ref": _SCHEMAS + names[what]}}}
    answers: dict[str, Any] = {
        "200": {"description": "the page", "content": content},
        "304": {"description": "as before"},
    }
    if path == "/":
        answers["302"] = {"description": "to the only federation that is shown"}
    return {
        "operationId": f"explorer_{re.sub('[^a-z]+', '_', path.strip('/')) or 'index'}",
        "summary": summary,
        "tags": ["data" if "." in path else "pages"],
        "responses": {**answers, **_refusals([503], path.endswith(DATA), served)},
    }


# ---- parameters -----------------------------------------------------------------------------------------------------


def _path_of(rule: str, words: Mapping[str, str], served: Served) -> tuple[str, list[dict[str, Any]]]:
    """A Flask rule as a path, and its parameters."""
    slug: dict[str, Any] = {"type": "string"}
    if served.slugs:
        slug["enum"] = list(served.slugs)
    parameters = [_in_path("federation", slug, "a federation that this explorer shows, by its part of every address")]
    for kind, name in _PART.findall(rule):
        schema = _NUMBER if kind == "int" else _FORMS.get(name, {"type": "string", "minLength": 1})
        parameters.append(_in_path(name, dict(schema), words.get(name, "")))
    return f"/{{federation}}{braced(rule)}", parameters


def braced(rule: str) -> str:
    """A Flask rule as OpenAPI writes it.

    >>> braced("/entries/<int:index>")
    '/entries/{index}'
    """
    return _PART.sub(r"{\2}", rule)


def schema_words(schema: Mapping[str, Any]) -> str:
    """A parameter's schema, for people.

    >>> schema_words({"type": "integer", "minimum": 1, "maximum": 500, "default": 50})
    'integer from 1 to 500; 50 if not given'
    """
    if "enum" in schema:
        words = ", ".join(map(str, schema["enum"]))
    elif "const" in schema:
        words = str(schema["const"])
    else:
        words = str(schema.get("type", "text"))
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']:,} to {schema['maximum']:,}"
    default = schema.get("default")
    return words if default in (None, "") else f"{words}; {default} if not given"


def _in_path(name: str, schema: dict[str, Any], words: str) -> dict[str, Any]:
    told = {"name": name, "in": "path", "required": True, "schema": schema}
    return {**told, "description": words} if words else told


def _parameters(query: type[Query]) -> list[dict[str, Any]]:
    """A query record as parameters; nothing that may be left out is null in an address."""
    schema = query.model_json_schema()
    found = []
    for name, one in schema.get("properties", {}).items():
        told = {key: value for key, value in one.items() if key not in ("title", "description", "anyOf")}
        if told.get("default", ...) is None:
            del told["default"]
        options = [option for option in one.get("anyOf", ()) if option.get("type") != "null"]
        if len(options) == 1:
            told = {**options[0], **told}
        elif options:
            told["anyOf"] = options
        if "$ref" in told:
            told |= schema["$defs"][told.pop("$ref").rsplit("/", 1)[-1]]
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": told}
        parameter["allowEmptyValue"] = True
        if one.get("description"):
            parameter["description"] = one["description"]
        found.append(parameter)
    return found
