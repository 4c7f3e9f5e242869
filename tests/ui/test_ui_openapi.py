"""The OpenAPI document is valid, tells of every page, and holds what it says under schemathesis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from ui_logs import Explored, over, played

from fl_node.content.names import cid_of_update
from fl_node.records import UpdateRef
from ledger_ui.openapi import schema_words
from ledger_ui.registry import PAGES, ROUTES

#: One of three parameters is wanted there, which OpenAPI has no word for.
ONE_OF_THREE = ("GET /{federation}/audit/pack.zip", "positive_data_acceptance")


def documented(one: Explored) -> dict[str, Any]:
    answer = one.client.get("/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    told: dict[str, Any] = answer.get_json()
    return told


def failures(
    app: Callable[..., Iterable[bytes]],
    *,
    modes: tuple[GenerationMode, ...] = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE),
    examples: int = 3,
    but: str = "live$",
    parameters: dict[str, Any] | None = None,
) -> tuple[set[tuple[str, str, str]], list[tuple[str, int]]]:
    """What schemathesis finds, as operation, check and message; and the requests that it made, with their status."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app, config=SchemathesisConfig(seed=1))
    schema.validate()
    config = schema.config
    config.generation.deterministic = True
    config.generation.database = "none"
    config.generation.max_examples = examples
    config.generation.modes = list(modes)
    config.phases.stateful.enabled = False
    if parameters:
        config.parameters = parameters
    found: set[tuple[str, str, str]] = set()
    requests: list[tuple[str, int]] = []
    # Events never end: tests of the stream are elsewhere.
    for event in from_schema(schema.exclude(path_regex=but)).execute():
        assert not isinstance(event, NonFatalError | FatalError), event
        if isinstance(event, ScenarioFinished):
            for made in event.recorder.interactions.values():
                requests.append((event.label or "", made.response.status_code if made.response else 0))
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None and (event.label, check.name) != ONE_OF_THREE:
                        found.add((event.label or "", check.name, check.failure_info.failure.message))
    return found, requests


def test_every_page_and_route_is_in_it(world: Explored) -> None:
    told = documented(world)
    assert told["openapi"].startswith("3.1.")
    paths = told["paths"]
    operations = {one["operationId"] for path in paths.values() for one in path.values()}
    for page in PAGES.values():
        formats = ("html", "json") if page.listing is None else ("html", "json", "csv", "jsonl")
        assert {f"{page.name}_{suffix}" for suffix in formats} <= operations
    for route in ROUTES.values():
        assert route.name.replace("-", "_") in operations
    served = {rule.rule.replace("<slug>", "{federation}") for rule in world.app.url_map.iter_rules()}
    served = {rule.replace("<int:", "{").replace("<", "{").replace(">", "}") for rule in served}
    assert served - {"/static/{path:name}"} == set(paths)


def test_every_field_and_parameter_says_what_it_is(world: Explored) -> None:
    told = documented(world)
    for path, operations in told["paths"].items():
        for one in operations.values():
            assert one["summary"], path
            for parameter in one.get("parameters", ()):
                assert parameter.get("description"), (path, parameter["name"])
                assert "null" not in json.dumps(parameter["schema"]), (path, parameter["name"])


def test_it_tells_a_page_from_its_data(world: Explored) -> None:
    paths = documented(world)["paths"]
    page, data = paths["/{federation}/updates"]["get"], paths["/{federation}/updates.json"]["get"]
    assert list(page["responses"]["200"]["content"]) == ["text/html"]
    assert data["responses"]["200"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/UpdatesPage"}}
    }
    assert list(data["responses"]["404"]["content"]) == ["application/problem+json"]
    assert list(page["responses"]["404"]["content"]) == ["text/html"]
    assert {"304", "400", "414", "421", "503"} <= set(page["responses"])
    assert "text/csv" in paths["/{federation}/updates.csv"]["get"]["responses"]["200"]["content"]
    assert "302" in paths["/{federation}/search"]["get"]["responses"]
    assert "302" not in paths["/{federation}/search.json"]["get"]["responses"]
    assert set(paths["/{federation}/updates/{ref}/verify"]) == {"post"}


def test_secrets_are_wanted_only_where_there_is_one(world: Explored, tmp_path: Any) -> None:
    assert "security" not in documented(world)
    shut = over(played(), tmp_path, secret="a long enough secret")
    try:
        answer = shut.client.get("/openapi.json", headers={"Authorization": "Bearer a long enough secret"})
        told = answer.get_json()
        assert told["security"] == [{"basic": []}, {"bearer": []}]
        for operations in told["paths"].values():
            assert all("401" in one["responses"] for one in operations.values())
    finally:
        shut.stop()


def test_schemas_in_words() -> None:
    assert schema_words({"enum": ["asc", "desc"], "default": "desc"}) == "asc, desc; desc if not given"
    assert schema_words({"type": "string"}) == "string"


def test_it_holds_over_hostile_hands(hostile: Explored) -> None:
    """Every parameter at its limits and beyond, every method, some random ones."""
    found, requests = failures(hostile.app)
    assert not found
    assert len(requests) > 3000


def test_it_holds_over_a_federation(world: Explored) -> None:
    """With names of things that there are."""
    ref = UpdateRef(3, 2)
    assert world.world is not None
    cid = str(cid_of_update(world.world.prefix.update(ref).update))
    real = {"path.ref": "3-2", "path.index": 20, "path.number": 1, "path.cid": cid}
    found, requests = failures(world.app, modes=(GenerationMode.POSITIVE,), parameters=real, but="live$|jsonl$")
    assert not found
    answered = {label for label, status in requests if status == 200}
    assert answered >= {label for label, _ in requests if label.endswith((".json", ".csv"))}
    assert {"GET /{federation}/updates/{ref}", "GET /{federation}/entries/{index}"} <= answered


@pytest.mark.parametrize("which", ["empty", "unseen"])
def test_it_holds_where_there_is_nothing(which: str, request: pytest.FixtureRequest) -> None:
    one: Explored = request.getfixturevalue(which)
    found, requests = failures(one.app, modes=(GenerationMode.POSITIVE,), examples=1, but="live$|csv$|jsonl$")
    assert not found
    assert len(requests) > 200


def test_a_page_that_breaks_its_word_is_found(lonely: Explored) -> None:
    """The test above can fail: a document that says something else does."""

    def altered(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/openapi.json":
            return lonely.app(environ, start_response)
        told = documented(lonely)
        told["components"]["schemas"]["UpdateRow"]["properties"]["peer"] = {"type": "string"}
        told["paths"]["/{federation}/updates"]["get"]["responses"]["200"]["content"] = {"text/plain": {}}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(told).encode()]

    found, _ = failures(
        altered,
        modes=(GenerationMode.POSITIVE,),
        examples=1,
        but="live$|csv$|jsonl$|entries|peers|sites|rounds|audit|trust",
    )
    assert {(label, check) for label, check, _ in found} == {
        ("GET /{federation}.json", "response_schema_conformance"),
        ("GET /{federation}/updates.json", "response_schema_conformance"),
        ("GET /{federation}/updates", "content_type_conformance"),
    }


def test_people_read_what_may_be_asked(world: Explored) -> None:
    page = world.client.get("/api").text
    for one in PAGES.values():
        assert one.summary in page
        for name, field in one.query.model_fields.items():
            assert f"<dt><code>{field.alias or name}</code></dt>" in page
    assert all(route.rule.replace("<", "&lt;").replace(">", "&gt;") in page for route in ROUTES.values())
    assert "/openapi.json" in page and f"/{world.shown.slug}/updates.json?limit=3" in page


def test_what_it_is_made_of(world: Explored) -> None:
    told = world.client.get("/about.json").get_json()
    assert told["licence"] == "Apache-2.0" and {"Python", "SQLite", "flask"} <= {
        one["name"] for one in told["packages"]
    }
    page = world.client.get("/about").text
    assert told["vendored"]
    for one in told["vendored"]:
        assert one["name"] in page and one["licence"] in page and one["sha256"] in page
        for name in (one["file"], one["licence_file"]):
            assert world.client.get(f"/static/vendor/{name}").status_code == 200
    for path in ("/api", "/about", "/about.json", "/openapi.json"):
        tag = world.client.get(path).headers["ETag"]
        assert world.client.get(path, headers={"If-None-Match": tag}).status_code == 304
