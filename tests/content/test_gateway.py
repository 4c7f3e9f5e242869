"""The gateway as clients see it: the protocol to the letter, rude clients, Helia."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_node.content import Cid, ContentStore, car, cid_of, open_store
from fl_node.content import http_server as http_server_module
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import Request, text
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import PortTaken

from .helpers import node

LARGE = 3 * CHUNK_BYTES + 77
RAW = "application/vnd.ipld.raw"
CAR = "application/vnd.ipld.car"


@pytest.fixture(params=["memory", "embedded"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    opened = open_store(request.param, tmp_path / "content")
    yield opened
    opened.close()


@pytest.fixture
def gateway(store: ContentStore) -> Iterator[Gateway]:
    routes = {
        "/healthz": lambda request: text(200, f"well, {request.method}"),
        "/shelf/": lambda request: text(200, request.path),
    }
    with Gateway(store, routes=routes) as opened:
        yield opened


def ask(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, LARGE])
def test_raw_blocks(store: ContentStore, gateway: Gateway, size: int) -> None:
    data = os.urandom(size)
    dag = build(data)
    store.put(dag, data)
    for cid, leaf in dag.walk():
        offset, length = dag.leaf_span(max(leaf, 0))
        wanted = dag.nodes[cid] if leaf < 0 else data[offset : offset + length]
        for response, body in (
            ask(gateway, f"/ipfs/{cid}?format=raw"),
            ask(gateway, f"/ipfs/{cid}", Accept=f"text/html, {RAW};q=0.9"),
            ask(gateway, f"/ipfs/{cid}/", Accept=RAW),
        ):
            assert (response.status, body) == (200, wanted)
        assert response.headers["Content-Type"] == RAW
        assert response.headers["Content-Length"] == str(len(wanted))
        assert response.headers["ETag"] == f'"{cid}.raw"'
        assert response.headers["Cache-Control"] == "public, max-age=29030400, immutable"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Ipfs-Path"] == f"/ipfs/{cid}"
        assert response.headers["Content-Disposition"] == f'attachment; filename="{cid}.bin"'
        head, nothing = ask(gateway, f"/ipfs/{cid}?format=raw", "HEAD")
        assert (head.status, nothing, dict(head.headers)) == (200, b"", dict(response.headers))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, LARGE])
def test_cars(store: ContentStore, gateway: Gateway, size: int) -> None:
    data = os.urandom(size)
    cid = store.add(data)
    for response, body in (
        ask(gateway, f"/ipfs/{cid}?format=car"),
        ask(gateway, f"/ipfs/{cid}?format=car&dag-scope=entity&entity-bytes=0:*"),
        ask(gateway, f"/ipfs/{cid}", Accept=f"{CAR}; version=1; order=dfs; dups=n, text/html"),
    ):
        assert response.status == 200
        assert car.read(body, LARGE) == (build(data), data)
    assert response.headers["Content-Type"] == f"{CAR}; version=1; order=dfs; dups=n"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{cid}.car"'
    head, nothing = ask(gateway, f"/ipfs/{cid}?format=car", "HEAD")
    assert (head.status, nothing, head.headers["Content-Length"]) == (200, b"", str(len(body)))
    block, body = ask(gateway, f"/ipfs/{cid}?format=car&dag-scope=block")
    assert body.startswith(car.header(cid))
    assert len(body) == len(car.header(cid)) + len(car.section_head(cid, 0)) + len(store.block(cid)) + (
        len(car.section_head(cid, len(store.block(cid)))) - len(car.section_head(cid, 0))
    )
    assert block.headers["ETag"] != response.headers["ETag"]


def test_a_leaf_of_a_file_is_a_car_too(store: ContentStore, gateway: Gateway) -> None:
    data = os.urandom(LARGE)
    store.add(data)
    leaf = Cid("raw", build(data).leaves[1])
    _, body = ask(gateway, f"/ipfs/{leaf}?format=car")
    assert car.read(body, LARGE)[1] == data[CHUNK_BYTES : 2 * CHUNK_BYTES]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ipfs/{absent}?format=raw", 404),
        ("/ipfs/{absent}?format=car", 404),
        ("/ipfs/{absent_file}?format=car", 404),
        ("/ipfs/nonsense?format=raw", 400),
        ("/ipfs/?format=raw", 400),
        ("/ipfs/{here}/path?format=raw", 400),
        ("/ipfs/bafkqablimvwgy3y?format=raw", 400),
        ("/ipfs/{here}", 406),
        ("/ipfs/{here}?format=tar", 406),
        ("/ipfs/{here}?format=car&dag-scope=some", 400),
        ("/ipfs/{here}?format=car&entity-bytes=5:9", 400),
        ("/ipfs/{here}?format=car&car-version=2", 400),
        ("/ipfs/{here}?format=car&car-dups=y", 400),
        ("/ipfs/{here}?format=car&car-order=random", 400),
        ("/ipfs/{here}?" + "&".join(f"a{n}=1" for n in range(30)), 400),
        ("/", 404),
        ("/ipns/x?format=raw", 404),
        ("/../../etc/passwd", 404),
        ("/ipfs/bafkqaaa?format=raw", 200),
        ("/healthz", 200),
        ("/healthz/", 404),
        ("/shelf", 404),
        ("/shelf/", 200),
        ("/shelf/1/2.p/3", 200),
        ("/else/shelf/1", 404),
    ],
)
def test_statuses(store: ContentStore, gateway: Gateway, path: str, status: int) -> None:
    names = {"here": store.add(b"here"), "absent": cid_of(b"absent"), "absent_file": cid_of(bytes(LARGE))}
    response, body = ask(gateway, path.format(**names))
    assert response.status == status
    assert len(body) == int(response.headers["Content-Length"])
    head, nothing = ask(gateway, path.format(**names), "HEAD")
    assert (head.status, nothing) == (status, b"")


def test_conditions(store: ContentStore, gateway: Gateway) -> None:
    cid = store.add(b"here")
    for tag in (f'"{cid}.raw"', f'W/"{cid}.raw"', f'"x", "{cid}.raw"', "*"):
        response, body = ask(gateway, f"/ipfs/{cid}?format=raw", If_None_Match=tag)
        assert (response.status, body) == (304, b"")
    assert ask(gateway, f"/ipfs/{cid}?format=raw", If_None_Match=f'"{cid}.car.all"')[0].status == 200
    response, _ = ask(gateway, f"/ipfs/{cid_of(b'no')}?format=raw", Cache_Control="only-if-cached")
    assert response.status == 412


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_read_only(gateway: Gateway, method: str) -> None:
    response, _ = ask(gateway, "/ipfs/x?format=raw", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_many_requests_on_one_connection(store: ContentStore, gateway: Gateway) -> None:
    cid = store.add(b"here")
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
    for _ in range(20):
        for path in (f"/ipfs/{cid}?format=raw", "/nowhere", f"/ipfs/{cid}?format=car"):
            connection.request("GET", path)
            assert connection.getresponse().read()
    connection.close()
    with socket.create_connection((gateway.host, gateway.port)) as pipelined:
        request = f"GET /ipfs/{cid}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        pipelined.sendall(request * 3 + request.replace(b"Host: x", b"Connection: close"))
        assert pipelined.makefile("rb").read().count(b"\r\n\r\nhere") == 4


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET ipfs HTTP/1.1\r\n\r\n",
        b"GET http://elsewhere/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_a_request_ends_the_connection(gateway: Gateway, sent: bytes) -> None:
    with socket.create_connection((gateway.host, gateway.port), timeout=10) as connection:
        connection.sendall(sent)
        try:
            answer = connection.makefile("rb").read()
        except ConnectionResetError:
            # It closed before it had read all of an oversized request.
            answer = b"HTTP/1.1 4"
    assert answer.startswith(b"HTTP/1.1 4")
    assert ask(gateway, "/healthz")[1] == b"well, GET\n"


def test_a_slow_client_is_let_go(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server_module, "_HEAD_S", 0.2)
    with socket.create_connection((gateway.host, gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /")
        assert connection.recv(10) == b""


def test_a_client_that_does_not_read_is_let_go(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server_module, "_PART_S", 0.3)
    cid = store.add(os.urandom(30 * CHUNK_BYTES))
    with (
        Gateway(store, max_connections=1) as gateway,
        socket.create_connection((gateway.host, gateway.port), timeout=10) as connection,
    ):
        connection.sendall(f"GET /ipfs/{cid}?format=car HTTP/1.1\r\n\r\n".encode())
        assert connection.recv(8) == b"HTTP/1.1"
        assert ask(gateway, "/")[0].status == 503
        deadline = time.monotonic() + 20
        while ask(gateway, "/")[0].status == 503:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_connections_are_bounded_and_idle_ones_give_way(store: ContentStore) -> None:
    with Gateway(store, max_connections=4) as gateway:
        idle = [socket.create_connection((gateway.host, gateway.port), timeout=10) for _ in range(12)]
        try:
            assert ask(gateway, "/")[0].status == 404
        finally:
            for connection in idle:
                connection.close()


def test_when_all_are_busy_a_newcomer_is_told_so(store: ContentStore) -> None:
    release = threading.Event()
    waiting = threading.Semaphore(0)

    def wait(_: Request) -> http_server_module.Response:
        waiting.release()
        release.wait(10)
        return text(200, "done")

    with Gateway(store, max_connections=2, routes={"/wait": wait}) as gateway:
        busy = [threading.Thread(target=ask, args=(gateway, "/wait")) for _ in range(2)]
        for thread in busy:
            thread.start()
        assert all(waiting.acquire(timeout=10) for _ in busy)
        assert ask(gateway, "/")[0].status == 503
        release.set()
        for thread in busy:
            thread.join()


def test_a_taken_port_is_named(gateway: Gateway, store: ContentStore) -> None:
    with pytest.raises(PortTaken, match=f"127.0.0.1:{gateway.port}"):
        Gateway(store, port=gateway.port)
    with pytest.raises(PortTaken):
        Gateway(store, host="192.0.2.1")


def test_closing_frees_the_port_and_the_threads(store: ContentStore) -> None:
    before = threading.active_count()
    gateway = Gateway(store)
    with socket.create_connection((gateway.host, gateway.port)):
        ask(gateway, "/")
        gateway.close()
        gateway.close()
    Gateway(store, port=gateway.port).close()
    assert threading.active_count() == before


def test_a_block_altered_on_disk_is_not_served(tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    cid = open_store("embedded", tmp_path).add(data)
    with (tmp_path / "objects" / str(cid)).open("r+b") as file:
        file.seek(CHUNK_BYTES + 3)
        file.write(bytes([data[CHUNK_BYTES + 3] ^ 1]))
    leaf = Cid("raw", build(data).leaves[1])
    with Gateway(open_store("embedded", tmp_path)) as gateway:
        response, body = ask(gateway, f"/ipfs/{leaf}?format=raw")
        assert response.status == 500 and b"altered" in body
        assert ask(gateway, f"/ipfs/{cid}?format=raw")[0].status == 404


@pytest.mark.parametrize("size", [0, 100_000, LARGE, 40 * CHUNK_BYTES])
def test_helia_fetches_and_verifies(judges: Path, tmp_path: Path, size: int) -> None:
    store = open_store("embedded", tmp_path)
    block = os.urandom(CHUNK_BYTES)
    data = [block] * (size // CHUNK_BYTES) + [block[: size % CHUNK_BYTES]]
    cid = store.add(data, durable=False)
    with Gateway(store) as gateway:
        done = subprocess.run(
            node(judges / "helia_fetch.mjs", gateway.endpoint, str(cid)), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256()
    for part in data:
        digest.update(part)
    assert json.loads(done.stdout) == {"length": size, "sha256": digest.hexdigest()}


def test_helia_refuses_what_the_gateway_altered(judges: Path) -> None:
    """That the judge above can say no."""

    class Altering(type(open_store("memory", Path()))):  # type: ignore[misc]
        def block(self, cid: Cid) -> bytes:
            return bytes(super().block(cid))[:-1] + b"!"

    store = Altering()
    cid = store.add(b"honest bytes")
    with Gateway(store) as gateway:
        done = subprocess.run(
            node(judges / "helia_fetch.mjs", gateway.endpoint, str(cid), "4"),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 3
