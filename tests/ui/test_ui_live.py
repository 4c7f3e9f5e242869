"""Server-sent events: at once, at every change, within bounds, and gone when the listener is."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_logs import Explored, closing, explored
from ui_scribe import Scribe

from fl_node.spec import parse_federation
from ledger_ui import Options
from ledger_ui.federation import Source
from ledger_ui.pages import live
from ledger_ui.pages.live import Listeners, events
from ledger_ui.serve import Explorer

SPEC = 'format = 1\nname = "told"\n'
THREADS = {"wsgi.multithread": True}


@pytest.fixture
def told() -> Scribe:
    one = Scribe(parse_federation(SPEC.encode()).digest)
    one.admit("north")
    return one


@pytest.fixture
def one(told: Scribe, tmp_path: Path) -> Iterator[Explored]:
    yield from closing(explored(tmp_path, told, SPEC.encode()))


def heads(stream: Iterator[str]) -> Iterator[dict[str, Any]]:
    """What the events named head say."""
    for event in stream:
        lines = dict(line.split(": ", 1) for line in event.strip().splitlines() if ": " in line)
        if lines.get("event") == "head":
            assert int(lines["id"]) == json.loads(lines["data"])["version"]
            yield json.loads(lines["data"])


def test_the_head_is_told_at_once_and_when_it_changes(one: Explored, told: Scribe) -> None:
    stream = events(one.shown, lambda: False)
    assert next(stream) == "retry: 3000\n\n"
    said = heads(stream)
    first = next(said)
    frame = one.json("/updates.json")["federation"]
    assert first["size"] == told.size and first["root"] == frame["root"]
    assert first.keys() == {"size", "root", "state", "detail", "block", "behind", "version"}
    threading.Timer(0.4, lambda: (told.admit("south"), one.look())).start()
    began = time.monotonic()
    for head in said:
        if head["size"] == told.size:
            break
    assert time.monotonic() - began < 2.0 and head["root"] != first["root"] and head["version"] > first["version"]


def test_not_more_than_four_a_second(one: Explored) -> None:
    stop = threading.Event()

    def change() -> None:
        for number in itertools.count():
            with one.shown.store.writing() as db:
                db.execute("INSERT OR REPLACE INTO ui_state VALUES ('version', ?)", (1000 + number,))
            one.shown.changed()
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=change)
    thread.start()
    began, many = time.monotonic(), 0
    for _ in heads(events(one.shown, lambda: time.monotonic() - began > 2.0)):
        many += 1
    stop.set()
    thread.join()
    assert 5 <= many <= 10, many


def test_silence_is_broken_by_a_heartbeat(one: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_HEARTBEAT_S", 0.5)
    monkeypatch.setattr(live, "_LOOK_S", 0.1)
    got = list(itertools.islice(events(one.shown, lambda: False), 4))
    assert got[2:] == [": still here\n\n"] * 2


def test_a_change_by_another_process_is_seen(one: Explored) -> None:
    said = heads(events(one.shown, lambda: False))
    first = next(said)
    with one.shown.store.writing() as db:  # as the process that keeps the index does; nobody wakes this one
        db.execute("UPDATE ui_state SET value = value + 1 WHERE key = 'version'")
    began = time.monotonic()
    assert next(said)["version"] == first["version"] + 1 and time.monotonic() - began < 3.0


def test_it_ends_with_the_explorer_and_after_a_while(one: Explored) -> None:
    assert len(list(events(one.shown, lambda: False, longest_s=0.2))) == 2
    threading.Timer(0.3, one.shown.end).start()
    began = time.monotonic()
    assert len(list(events(one.shown, lambda: False))) >= 2 and time.monotonic() - began < 2.0


def test_there_is_room_for_so_many_and_the_others_are_told_to_ask(told: Scribe, tmp_path: Path) -> None:
    one = explored(tmp_path, told, SPEC.encode(), listeners=2)
    open_ = [one.get("/live", environ_overrides=THREADS) for _ in range(2)]
    assert [answer.status_code for answer in open_] == [200, 200]
    assert open_[0].mimetype == "text/event-stream" and open_[0].headers["X-Accel-Buffering"] == "no"
    more = one.get("/live", environ_overrides=THREADS)
    assert more.status_code == 503 and more.headers["Retry-After"] == "10"
    open_[0].close()
    assert one.get("/live", environ_overrides=THREADS).status_code == 200
    one.stop()


def test_a_server_without_threads_has_no_room(one: Explored) -> None:
    assert one.get("/live").status_code == 503


def test_no_listeners_at_all() -> None:
    assert not Listeners(0).come()


# ---- under waitress ------------------------------------------------------------------------------------------------


@pytest.fixture
def served(told: Scribe, tmp_path: Path) -> Iterator[tuple[Explorer, int, str]]:
    file = explored(tmp_path, told, SPEC.encode(), look=False).file
    source = Source(file, connect=lambda: told)
    explorer = Explorer(Options(sources=(source,), harvest=False, verify=False, poll_s=0.1), "127.0.0.1", 0)
    stop = threading.Event()
    thread = threading.Thread(target=explorer.run, args=(stop.wait,))
    thread.start()
    yield explorer, int(explorer.url.rsplit(":", 1)[1].strip("/")), explorer.shown[0].slug
    stop.set()
    thread.join(5.0)
    assert not thread.is_alive()


def listen(port: int, slug: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", f"/{slug}/live", headers={"Last-Event-ID": "7"})
    return connection, connection.getresponse()


def lines(answer: http.client.HTTPResponse) -> Iterator[str]:
    while line := answer.readline():
        yield line.decode().rstrip("\n")


def until(said: Iterator[str], size: int) -> dict[str, Any]:
    for line in said:
        if line.startswith("data: "):
            head: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if head["size"] == size:
                return head
    raise AssertionError("the stream ended")


def test_waitress_sends_each_event_at_once(served: tuple[Explorer, int, str], told: Scribe) -> None:
    _, port, slug = served
    began = time.monotonic()
    connection, answer = listen(port, slug)
    assert answer.status == 200
    said = lines(answer)
    assert next(said) == "retry: 3000" and time.monotonic() - began < 1.0
    until(said, told.size)
    told.admit("south")
    began = time.monotonic()
    until(said, told.size)
    assert time.monotonic() - began < 1.5
    connection.close()


def test_listeners_that_left_make_room_and_pages_are_served_meanwhile(served: tuple[Explorer, int, str]) -> None:
    _, port, slug = served
    crowd = [listen(port, slug) for _ in range(25)]
    assert [answer.status for _, answer in crowd] == [200] * 24 + [503]
    page = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    page.request("GET", f"/{slug}/updates.json")
    assert page.getresponse().status == 200
    for connection, answer in crowd:
        answer.close()
        connection.close()
    deadline = time.monotonic() + 6
    statuses = []
    while time.monotonic() < deadline and statuses != [200] * 24:
        time.sleep(0.5)
        crowd = [listen(port, slug) for _ in range(24)]
        statuses = [answer.status for _, answer in crowd]
        for connection, answer in crowd:
            answer.close()
            connection.close()
    assert statuses == [200] * 24


def test_listeners_do_not_hold_up_the_end(served: tuple[Explorer, int, str]) -> None:
    explorer, port, slug = served
    crowd = [listen(port, slug) for _ in range(20)]
    began = time.monotonic()
    explorer.close()
    assert time.monotonic() - began < 2.5
    for connection, answer in crowd:
        answer.read()  # it has an end
        connection.close()
