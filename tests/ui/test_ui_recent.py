from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ui_logs import SPEC, Explored, explored
from ui_scribe import Scribe

from fl_node.spec import parse_federation
from ledger_ui.recent import Given, Recent


@pytest.fixture
def told() -> Scribe:
    one = Scribe(parse_federation(SPEC.encode()).digest)
    one.admit("a")
    one.publish(1, 1, 1)
    return one


@pytest.fixture
def one(told: Scribe, tmp_path: Path) -> Iterator[Explored]:
    found = explored(tmp_path, told)
    yield found
    found.stop()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made of pages, template by template."""
    seen: list[str] = []
    from ledger_ui import respond

    render = respond.render_template

    def counted(name: str, **told: object) -> str:
        seen.append(name)
        return render(name, **told)

    monkeypatch.setattr(respond, "render_template", counted)
    return seen


def test_the_same_is_made_once(one: Explored, told: Scribe, made: list[str]) -> None:
    first, again = one.get("/updates"), one.get("/updates")
    assert made == ["updates.html"] and first.data == again.data and dict(first.headers) == dict(again.headers)
    one.get("/updates?peer=1")
    assert len(made) == 2, "another address is another page"
    told.publish(1, 2, 2)
    one.look()
    assert one.get("/updates").data != first.data and len(made) == 3, "and so is another log"
    assert one.json("/updates.json") == one.json("/updates.json")
    assert one.get("/updates.json").content_type == "application/json"


def test_what_is_old_is_made_again(one: Explored, made: list[str]) -> None:
    one.app.extensions["recent"] = Recent(fresh_s=0)
    one.get("/updates")
    one.get("/updates")
    assert len(made) == 2


def test_no_more_is_kept_than_fits() -> None:
    few = Recent(most_bytes=100)
    for number in range(9):
        few.keep(str(number), Given(bytes(30), "text/html"))
    assert [number for number in range(9) if few.get(str(number))] == [6, 7, 8]
    few.keep("large", Given(bytes(101), "text/html"))
    assert few.get("large") is None and few.get("8") is None
    few.keep("8", Given(bytes(60), "text/html"))
    few.keep("8", Given(bytes(80), "text/html"))
    found = few.get("8")
    assert found is not None and len(found.body) == 80 and few._bytes == 80


def test_errors_are_not_kept(one: Explored, told: Scribe) -> None:
    assert one.get("/entries/3").status_code == 404
    told.publish(1, 2, 2)
    one.look()
    assert one.get("/entries/3").status_code == 200


def test_those_who_ask_at_once_have_it_made_once(one: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    from ledger_ui import respond

    made, render = [], respond.render_template

    def slow(name: str, **told: object) -> str:
        made.append(name)
        time.sleep(0.2)
        return render(name, **told)

    monkeypatch.setattr(respond, "render_template", slow)
    with ThreadPoolExecutor(6) as pool:
        bodies = list(pool.map(lambda _: one.app.test_client().get(f"/{one.shown.slug}/updates").data, range(6)))
    assert made == ["updates.html"] and len(set(bodies)) == 1
