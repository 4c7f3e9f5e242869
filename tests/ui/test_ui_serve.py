"""The server: addresses that can and cannot be had, an end in time, and several processes over one index."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ui_demo import Left
from ui_logs import explored
from ui_scribe import Scribe

from fl_node.errors import SpecError, UsageError
from fl_node.spec import parse_federation
from ledger_ui import Options
from ledger_ui.federation import Source
from ledger_ui.serve import Explorer

SPEC = 'format = 1\nname = "served"\n'


@pytest.fixture
def told() -> Scribe:
    one = Scribe(parse_federation(SPEC.encode()).digest)
    one.admit("north")
    return one


@pytest.fixture
def source(told: Scribe, tmp_path: Path) -> Source:
    return Source(explored(tmp_path, told, SPEC.encode(), look=False).file, connect=lambda: told)


@contextmanager
def running(explorer: Explorer) -> Iterator[int]:
    """While this lasts, it serves; gives the port."""
    stop = threading.Event()
    thread = threading.Thread(target=explorer.run, args=(stop.wait,))
    thread.start()
    try:
        yield int(explorer.url.rsplit(":", 1)[1].strip("/"))
    finally:
        stop.set()
        thread.join(5.0)
    assert not thread.is_alive()


def ask(port: int, path: str, host: str = "127.0.0.1", method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def options(source: Source, **more: Any) -> Options:
    chosen: dict[str, Any] = {"harvest": False, "verify": False, "poll_s": 0.1, **more}
    return Options(sources=(source,), **chosen)


def test_it_serves_and_follows(source: Source, told: Scribe) -> None:
    explorer = Explorer(options(source), "127.0.0.1", 0)
    slug = explorer.shown[0].slug
    with running(explorer) as port:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            status, headers, body = ask(port, f"/{slug}/updates.json")
            if json.loads(body)["federation"]["size"] == told.size:
                break
            time.sleep(0.05)
        assert status == 200 and json.loads(body)["federation"]["size"] == told.size
        assert headers["Server"] == "fl-node" and "Set-Cookie" not in headers
        assert ask(port, "/")[1]["Location"] == f"/{slug}"
    with pytest.raises(OSError):
        ask(port, "/")


def test_a_port_that_is_taken_is_told_before_anything_is_opened(source: Source) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken"):
            Explorer(options(source), "127.0.0.1", port)


def test_an_address_of_another_machine(source: Source) -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(UsageError, match="is no address of this machine"):
            Explorer(options(source), host, 0)


def test_a_federation_file_that_is_none_leaves_the_port_free(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(SpecError):
        Explorer(options(Source(tmp_path / "none.toml")), "127.0.0.1", port)
    socket.create_server(("127.0.0.1", port)).close()


def test_all_addresses_of_a_name(source: Source) -> None:
    explorer = Explorer(options(source, hosts=()), "localhost", 0)
    with running(explorer) as port:
        assert ask(port, "/static/app.css", host="127.0.0.1")[0] == 200
        if len(explorer._sockets) > 1:
            assert ask(port, "/static/app.css", host="::1")[0] == 200


def test_only_names_of_ours_are_answered(source: Source) -> None:
    with running(Explorer(options(source), "127.0.0.1", 0)) as port:
        assert ask(port, "/static/app.css", Host="evil.example")[0] == 421
        assert ask(port, "/static/app.css", Host=f"localhost:{port}")[0] == 200


def test_large_requests_are_refused(source: Source) -> None:
    explorer = Explorer(options(source), "127.0.0.1", 0)
    with running(explorer) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", f"/{explorer.shown[0].slug}/audit/verify", body=b"x" * 200_000)
        assert connection.getresponse().status == 413
        connection.close()


def test_the_end_does_not_wait_for_a_chain_that_hangs(tmp_path: Path, told: Scribe) -> None:
    hang = threading.Event()

    def connect() -> Scribe:
        hang.wait(60)
        return told

    file = explored(tmp_path, told, SPEC.encode(), look=False).file
    explorer = Explorer(options(Source(file, connect=connect)), "127.0.0.1", 0)
    stop = threading.Event()
    thread = threading.Thread(target=explorer.run, args=(stop.wait,))
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    stop.set()
    thread.join(5.0)
    assert time.monotonic() - began < 3.0 and not thread.is_alive()
    hang.set()


def test_a_second_process_reads_what_the_first_one_keeps(left: Left, tmp_path: Path) -> None:
    """As with two workers of a WSGI server: the second takes questions, the first does the work."""
    source = Source(left.file, index=tmp_path / "explorer.sqlite")
    first = Explorer(options(source, verify=True), "127.0.0.1", 0)
    second = Explorer(options(source, verify=True), "127.0.0.1", 0)
    slug = first.shown[0].slug
    with running(first) as one:
        _until(one, slug, lambda page: page["chain"]["state"] == "following")
        with running(second) as other:
            page = _until(other, slug, lambda page: page["chain"]["state"] == "elsewhere")
            assert (
                page["federation"]["size"] == page["index"]["shown"] > 9
                and page["index"]["kept_by"] == "another process"
            )
            status, _, _ = ask(other, f"/{slug}/updates/1-1/verify", method="POST", Origin=f"http://127.0.0.1:{other}")
            assert status == 303
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                told = json.loads(ask(other, f"/{slug}/audit.json")[2])
                if told["recent"]:
                    break
                time.sleep(0.1)
            assert told["recent"][0]["state"] == "done" and told["audited"] == 1
            live = http.client.HTTPConnection("127.0.0.1", other, timeout=10)
            live.request("GET", f"/{slug}/live")
            answer = live.getresponse()
            assert answer.status == 200 and answer.readline() == b"retry: 3000\n"
            live.close()
        # The first goes on by itself.
        assert json.loads(ask(one, f"/{slug}/health.json")[2])["chain"]["state"] == "following"


def test_when_the_one_that_follows_is_gone_another_takes_over(left: Left, tmp_path: Path) -> None:
    source = Source(left.file, index=tmp_path / "explorer.sqlite")
    first = Explorer(options(source), "127.0.0.1", 0)
    second = Explorer(options(source), "127.0.0.1", 0)
    slug = first.shown[0].slug
    with running(second) as other:
        with running(first) as one:
            pair = [one, other]
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                states = sorted(json.loads(ask(port, f"/{slug}/health.json")[2])["chain"]["state"] for port in pair)
                if states == ["elsewhere", "following"]:
                    break
                time.sleep(0.1)
            assert states == ["elsewhere", "following"]
        _until(other, slug, lambda page: page["chain"]["state"] == "following")


def _until(port: int, slug: str, wanted: Any) -> Any:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        page = json.loads(ask(port, f"/{slug}/health.json")[2])
        if wanted(page):
            return page
        time.sleep(0.1)
    raise AssertionError(page)


def test_settings_from_the_environment(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("a long enough token\n")
    given = {
        "FL_NODE_UI_FEDERATIONS": "/a/one.toml:/b/two.toml",
        "FL_NODE_RPC": "http://127.0.0.1:8545",
        "FL_NODE_UI_HOSTS": "explorer.example, localhost",
        "FL_NODE_UI_SECRET_FILE": str(secret),
        "FL_NODE_UI_WITHOUT": "harvest",
        "FL_NODE_UI_MONITOR": "1",
        "FL_NODE_UI_LISTENERS": "3",
    }
    found = Options.of_environment(given)
    assert [str(source.file) for source in found.sources] == ["/a/one.toml", "/b/two.toml"]
    assert {source.rpc for source in found.sources} == {"http://127.0.0.1:8545"}
    assert found.hosts == ("explorer.example", "localhost") and found.secret == "a long enough token"
    assert (found.harvest, found.verify, found.monitor, found.listeners) == (False, True, True, 3)
    assert Options.of_environment({"FL_NODE_UI_FEDERATIONS": "a", "FL_NODE_UI_HOSTS": "*"}).hosts == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FL_NODE_UI_FEDERATIONS", ""),
        ("FL_NODE_UI_LISTENERS", "many"),
        ("FL_NODE_UI_LISTENERS", "-1"),
        ("FL_NODE_UI_WITHOUT", "audits"),
        ("FL_NODE_UI_SECRET_FILE", "/no/such/file"),
    ],
)
def test_settings_that_are_none(name: str, value: str) -> None:
    with pytest.raises(UsageError, match="FL_NODE_UI" if "SECRET" not in name else "cannot read the secret"):
        Options.of_environment({"FL_NODE_UI_FEDERATIONS": "a.toml", name: value})
