"""Fetching from strangers: honest ones, dead ones, and every kind of hostile one."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.content import Cid, ContentStore, cid_of, open_store
from fl_node.content import http_client as http_client_module
from fl_node.content.endpoints import Endpoint, parse_endpoint, parse_networks, permitted
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import text
from fl_node.content.unixfs import CHUNK_BYTES, Child, write_node
from fl_node.errors import ContentMalformed, ContentMismatch, ContentUnavailable, UsageError

LOOPBACK = ("127.0.0.0/8",)
LARGE = 5 * CHUNK_BYTES + 77
DATA = os.urandom(LARGE)
SMALL = os.urandom(3000)

Behaviour = Callable[[socket.socket, bytes], None]


@pytest.fixture
def honest() -> Iterator[Gateway]:
    store = open_store("memory", Path())
    store.add(DATA)
    store.add(SMALL)
    with Gateway(store) as gateway:
        yield gateway


@contextlib.contextmanager
def stranger(behaviour: Behaviour) -> Iterator[str]:
    """A server that reads each request and then does as it likes. Gives its endpoint."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := connection.recv(4096):
                behaviour(connection, request)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def answer(body: bytes, *extra: str, status: str = "200 OK", length: int | None = None) -> bytes:
    fields = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *extra]
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body


def saying(reply: bytes) -> Behaviour:
    return lambda connection, _: connection.sendall(reply)


def cut_short(connection: socket.socket, _: bytes) -> None:
    connection.sendall(answer(SMALL)[:-1])
    connection.close()


def endless_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def endless_head(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def silent(connection: socket.socket, _: bytes) -> None:
    time.sleep(30)


def dripping_head(connection: socket.socket, _: bytes) -> None:
    for byte in answer(SMALL):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def dripping_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(answer(b"", length=len(SMALL)))
    for byte in SMALL:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


ALTERED = bytes([SMALL[0] ^ 1]) + SMALL[1:]
HOSTILE: dict[str, tuple[Behaviour, type[Exception], str]] = {
    "truncated": (cut_short, ContentUnavailable, "closed after"),
    "altered": (saying(answer(ALTERED)), ContentMismatch, "other bytes"),
    "other bytes of the right length": (saying(answer(os.urandom(len(SMALL)))), ContentMismatch, "other bytes"),
    "empty": (saying(answer(b"")), ContentMismatch, "other bytes"),
    "too long": (saying(answer(bytes(CHUNK_BYTES + 1))), ContentMismatch, "expected at most"),
    "a length of terabytes": (saying(answer(b"", length=10**13)), ContentMismatch, "expected at most"),
    "a negative length": (saying(answer(b"", length=-5)), ContentUnavailable, "known length"),
    "an absurd length": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        ContentUnavailable,
        "known length",
    ),
    "redirect": (
        saying(answer(b"", "Location: http://169.254.169.254/", status="302 Found")),
        ContentUnavailable,
        "redirect",
    ),
    "no length, endless": (endless_body, ContentUnavailable, "known length"),
    "endless headers": (endless_head, ContentUnavailable, "headers"),
    "chunked": (
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ContentUnavailable,
        "length",
    ),
    "compressed": (saying(answer(SMALL, "Content-Encoding: gzip")), ContentUnavailable, "plain"),
    "an error": (saying(answer(b"oops", status="500 Broken")), ContentUnavailable, "500"),
    "not there": (saying(answer(b"no", status="404 Not Found")), ContentUnavailable, "has not got"),
    "not there, at length": (saying(answer(bytes(50_000), status="404 No")), ContentUnavailable, "50000 bytes"),
    "another protocol": (saying(b"220 mail.example ESMTP\r\n\r\n"), ContentUnavailable, "HTTP"),
    "hangs up": (lambda connection, _: connection.close(), ContentUnavailable, "broke off"),
    "silent": (silent, ContentUnavailable, "too slow"),
    "dripping headers": (dripping_head, ContentUnavailable, "too slow"),
    "dripping body": (dripping_body, ContentUnavailable, "too slow"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_provider_is_named_and_does_no_harm(kind: str) -> None:
    behaviour, error, words = HOSTILE[kind]
    with stranger(behaviour) as endpoint, Fetcher(LOOPBACK, timeout_s=1.0) as fetcher:
        started = time.monotonic()
        with pytest.raises(error, match=words) as caught:
            fetcher.fetch(cid_of(SMALL), 10_000, [endpoint])
        assert endpoint in str(caught.value)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_honest_provider_makes_up_for_a_hostile_one(kind: str, honest: Gateway) -> None:
    with stranger(HOSTILE[kind][0]) as endpoint, Fetcher(LOOPBACK, timeout_s=2.0) as fetcher:
        assert fetcher.fetch(cid_of(SMALL), 10_000, [endpoint, honest.endpoint]) == SMALL


HASHED = ("altered", "other bytes of the right length", "empty")


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind not in HASHED])
def test_a_hostile_provider_of_documents_does_no_harm(kind: str) -> None:
    behaviour, error, words = HOSTILE[kind]
    with stranger(behaviour) as endpoint, Fetcher(LOOPBACK) as fetcher:
        started = time.monotonic()
        with pytest.raises(error, match=words) as caught:
            fetcher.document("/checkpoint", 10_000, endpoint, timeout_s=1.0)
        assert endpoint in str(caught.value)
        assert time.monotonic() - started < 10


def test_documents_are_bounded_and_come_from_permitted_addresses_only() -> None:
    page = {"/page": lambda request: text(200, request.path)}
    with Gateway(open_store("memory", Path()), routes=page) as gateway, Fetcher(LOOPBACK) as fetcher:
        assert fetcher.document("/page", 6, gateway.endpoint) == b"/page\n"
        assert fetcher.document("/page", 6, gateway.endpoint) == b"/page\n"
        with pytest.raises(ContentMismatch, match="expected at most 5"):
            fetcher.document("/page", 5, gateway.endpoint)
        with pytest.raises(ContentUnavailable, match="has not got /other"):
            fetcher.document("/other", 5, gateway.endpoint)
        for path in ("page", "/a b", "/a\r\nHost: b", "/ä"):
            with pytest.raises(ValueError, match="printable"):
                fetcher.document(path, 5, gateway.endpoint)
        with pytest.raises(ContentUnavailable, match="not public"):
            Fetcher().document("/page", 6, gateway.endpoint)
    with pytest.raises(ContentUnavailable, match="cannot use the endpoint"):
        Fetcher(LOOPBACK).document("/page", 6, "file:///etc/passwd")


def in_the_middle(good: Gateway, bad_block: int, reply: bytes | None) -> Behaviour:
    """An honest relay but for one request, which it answers with ``reply`` or by hanging up."""
    count = 0

    def behave(connection: socket.socket, request: bytes) -> None:
        nonlocal count
        count += 1
        if count == bad_block:
            if reply is None:
                connection.close()
            else:
                connection.sendall(reply)
            return
        with socket.create_connection((good.host, good.port)) as relay:
            relay.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            while part := relay.recv(1 << 20):
                connection.sendall(part)

    return behave


@pytest.mark.parametrize("bad_block", [1, 2, 4, 7])
@pytest.mark.parametrize("reply", [None, answer(bytes(CHUNK_BYTES)), answer(bytes(77)), answer(b"no", status="404 No")])
def test_a_provider_that_fails_in_the_middle_is_replaced(honest: Gateway, bad_block: int, reply: bytes | None) -> None:
    with stranger(in_the_middle(honest, bad_block, reply)) as endpoint, Fetcher(LOOPBACK) as fetcher:
        assert fetcher.fetch(cid_of(DATA), LARGE, [endpoint, honest.endpoint]) == DATA
    if reply is None:
        # Hanging up between two requests is any server's right: the one that did is asked once more.
        return
    with (
        stranger(in_the_middle(honest, bad_block, reply)) as endpoint,
        Fetcher(LOOPBACK) as fetcher,
        pytest.raises((ContentUnavailable, ContentMismatch)),
    ):
        fetcher.fetch(cid_of(DATA), LARGE, [endpoint])


def test_a_provider_that_is_merely_slow_leaves_time_for_the_others(honest: Gateway) -> None:
    def crawl(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.3)
        in_the_middle(honest, 0, None)(connection, request)

    with stranger(crawl) as slow, Fetcher(LOOPBACK, timeout_s=1.0, connections=1) as fetcher:
        assert fetcher.fetch(cid_of(DATA), LARGE, [slow, honest.endpoint]) == DATA


def test_a_lie_counts_for_more_than_silence(honest: Gateway) -> None:
    with (
        stranger(saying(answer(ALTERED))) as liar,
        Fetcher(LOOPBACK) as fetcher,
        pytest.raises(ContentMismatch, match="2 endpoints"),
    ):
        fetcher.fetch(cid_of(SMALL), 10_000, [liar, "http://127.0.0.1:1"])


def test_nobody_to_ask() -> None:
    with pytest.raises(ContentUnavailable, match="no endpoint"):
        Fetcher().fetch(cid_of(SMALL), 10_000, [])


def test_one_that_failed_lately_is_asked_last(honest: Gateway) -> None:
    asked: list[bytes] = []

    def refuse(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(answer(b"", status="500 No"))

    with stranger(refuse) as bad, Fetcher(LOOPBACK) as fetcher:
        for _ in range(3):
            fetcher.fetch(cid_of(SMALL), 10_000, [bad, honest.endpoint])
    assert len(asked) == 1


def test_connections_are_kept_and_survive_a_server_that_closed_them() -> None:
    store = open_store("memory", Path())
    cid = store.add(SMALL)
    gateway = Gateway(store)
    with Fetcher(LOOPBACK) as fetcher:
        assert fetcher.fetch(cid, 10_000, [gateway.endpoint]) == SMALL
        gateway.close()
        with Gateway(store, port=gateway.port) as again:
            assert fetcher.fetch(cid, 10_000, [again.endpoint]) == SMALL


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE])
def test_fetched_content_is_served_on(tmp_path: Path, size: int) -> None:
    data = DATA[:size]
    source = open_store("embedded", tmp_path / "source")
    cid = source.add(data)
    mine = open_store("embedded", tmp_path / "mine")
    with Gateway(source) as gateway, Fetcher(LOOPBACK) as fetcher:
        assert fetcher.fetch_into(mine, cid, size, [gateway.endpoint], label="update 3#1", round=2) == data
    assert [(pin.cid, pin.label, pin.round) for pin in mine.pins()] == [(cid, "update 3#1", 2)]
    with Gateway(mine) as gateway, Fetcher(LOOPBACK) as fetcher:
        assert fetcher.fetch(cid, size, [gateway.endpoint]) == data


def test_a_file_of_equal_blocks_asks_for_each_once() -> None:
    store = open_store("memory", Path())
    data = bytes(6 * CHUNK_BYTES) + b"end"
    cid = store.add(data)
    asked: list[bytes] = []
    with Gateway(store) as gateway:
        relay = in_the_middle(gateway, 0, None)

        def count(connection: socket.socket, request: bytes) -> None:
            asked.append(request)
            relay(connection, request)

        with stranger(count) as endpoint, Fetcher(LOOPBACK) as fetcher:
            assert fetcher.fetch(cid, len(data), [endpoint]) == data
    assert len(asked) == 3


@pytest.mark.parametrize("size", [3000, LARGE])
def test_more_than_expected_is_malformed_and_the_publishers_fault(honest: Gateway, size: int) -> None:
    with Fetcher(LOOPBACK) as fetcher, pytest.raises(ContentMalformed, match=f"at most {size - 1}"):
        fetcher.fetch(cid_of(SMALL if size == 3000 else DATA), size - 1, [honest.endpoint])


class Blocks(type(open_store("memory", Path()))):  # type: ignore[misc]
    """A store that gives single blocks, whatever they are."""

    def __init__(self, *blocks: bytes) -> None:
        super().__init__()
        self.given = {cid_of(block).digest: block for block in blocks}

    def block(self, cid: Cid) -> bytes:
        return self.given[cid.digest]

    def block_size(self, cid: Cid) -> int | None:
        block = self.given.get(cid.digest)
        return None if block is None else len(block)


def test_roots_made_to_hurt_are_malformed() -> None:
    leaf = os.urandom(CHUNK_BYTES)
    full = Child(cid_of(leaf), CHUNK_BYTES, CHUNK_BYTES)
    # The same block once as a whole chunk and once as a shorter one; a node that is no node; one that links itself.
    two_lengths = write_node([full, Child(cid_of(leaf), 5, 5)])
    inner = Child(Cid("dag-pb", bytes(32)), 1 << 30, 1 << 30)
    blocks = (leaf, two_lengths, b"not a node", write_node([inner] * 1024), bytes(60_000))
    with Gateway(Blocks(*blocks)) as gateway, Fetcher(LOOPBACK) as fetcher:
        for block in blocks[1:]:
            root = Cid("dag-pb", cid_of(block).digest)
            with pytest.raises(ContentMalformed):
                fetcher.fetch(root, 1 << 25, [gateway.endpoint])


# ---- endpoints and addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "ftp://example.org",
        "gopher://example.org:70",
        "http://user:secret@example.org",
        "http://example.org@127.0.0.1/",
        "http://example.org/some/path",
        "http://example.org?x=1",
        "http://example.org#x",
        "http://example.org:99999",
        "http://example.org:0",
        "http://example.org:port",
        "http://",
        "http:///x",
        "http://exa mple.org",
        "http://example.org\r\nX: y",
        "http://example.org\\@127.0.0.1",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "http://bücher.example",
        "//example.org",
        "example.org:80",
        "",
        "http://" + "a" * 600,
    ],
)
def test_other_endpoints_are_refused(text: str) -> None:
    with pytest.raises(ContentUnavailable, match="expected http"):
        parse_endpoint(text)
    with pytest.raises(ContentUnavailable):
        Fetcher(LOOPBACK).fetch(cid_of(SMALL), 10_000, [text])


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_unavailable(text: str) -> None:
    try:
        assert parse_endpoint(str(parse_endpoint(text))) == parse_endpoint(text)
    except ContentUnavailable:
        pass


def test_endpoints_are_read() -> None:
    assert parse_endpoint("http://example.org") == Endpoint("http", "example.org", 80)
    assert parse_endpoint("https://example.org/") == Endpoint("https", "example.org", 443)
    assert parse_endpoint("http://[2606:4700::1]:8080").authority == "[2606:4700::1]:8080"


DENIED = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *(
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
    ),
    *("fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "::127.0.0.1"),
]


@pytest.mark.parametrize("text", DENIED)
def test_private_addresses_are_denied_unless_allowed(text: str) -> None:
    import ipaddress

    address = ipaddress.ip_address(text)
    assert not permitted(address, ())
    assert not permitted(address, parse_networks(["203.0.113.0/24", "2606:4700::/32"]))
    plain = getattr(address, "ipv4_mapped", None) or address
    assert permitted(address, parse_networks([str(plain)]))


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_permitted(text: str) -> None:
    import ipaddress

    assert permitted(ipaddress.ip_address(text), ())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_loopback_gets_through(host: str, honest: Gateway) -> None:
    with Fetcher() as fetcher, pytest.raises(ContentUnavailable, match=r"not public|does not resolve"):
        fetcher.fetch(cid_of(SMALL), 10_000, [f"http://{host}:{honest.port}"])


def resolver(*rounds: list[str]) -> tuple[Callable[..., list[tuple[Any, ...]]], list[str]]:
    """A name server of our own: what it answers the first time, the second time, ... and what it was asked."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        found = rounds[min(len(asked), len(rounds) - 1)]
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in found
        ]

    return resolve, asked


def test_a_name_that_points_inside_is_denied(honest: Gateway) -> None:
    resolve, _ = resolver(["127.0.0.1"])
    with Fetcher(resolver=resolve) as fetcher, pytest.raises(ContentUnavailable, match=r"127\.0\.0\.1 is not public"):
        fetcher.fetch(cid_of(SMALL), 10_000, [f"http://rebinding.example:{honest.port}"])


def test_the_address_that_was_checked_is_the_one_that_is_used(honest: Gateway) -> None:
    """A name that is allowed when checked and points elsewhere a moment later: it is asked only once."""
    resolve, asked = resolver(["127.0.0.1"], ["10.0.0.1"])
    with Fetcher(LOOPBACK, resolver=resolve) as fetcher:
        assert fetcher.fetch(cid_of(SMALL), 10_000, [f"http://rebinding.example:{honest.port}"]) == SMALL
    assert asked == ["rebinding.example"]


def test_only_the_permitted_addresses_of_a_name_are_used(honest: Gateway) -> None:
    resolve, _ = resolver(["10.0.0.1", "169.254.169.254", "127.0.0.1"])
    with Fetcher(LOOPBACK, resolver=resolve, timeout_s=3) as fetcher:
        assert fetcher.fetch(cid_of(SMALL), 10_000, [f"http://mixed.example:{honest.port}"]) == SMALL


def test_a_bad_network_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="CIDR"):
        Fetcher(["10.0.0.1/8"])


# ---- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=peer"
    subprocess.run(
        [*make.split(), "-keyout", str(path.with_suffix(".key")), "-out", str(path)], check=True, capture_output=True
    )
    return path


def test_tls_with_the_announced_certificate_only(certificate: Path) -> None:
    import hashlib

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                while secured.recv(4096):
                    secured.sendall(answer(SMALL))

    threading.Thread(target=serve, daemon=True).start()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    public = "openssl x509 -noout -pubkey -in {} | openssl pkey -pubin -outform der"
    key = subprocess.run(public.format(certificate), shell=True, check=True, capture_output=True).stdout
    pin = hashlib.sha256(key).digest()
    try:
        with Fetcher(LOOPBACK) as fetcher:
            assert fetcher.fetch(cid_of(SMALL), 10_000, [parse_endpoint(url, pin)]) == SMALL
        for bad, words in ((bytes(31) + b"1", "expected the announced"), (b"", "cannot be reached")):
            with Fetcher(LOOPBACK) as fetcher, pytest.raises(ContentUnavailable, match=words):
                fetcher.fetch(cid_of(SMALL), 10_000, [parse_endpoint(url, bad)])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


# ---- processes ---------------------------------------------------------------------------------------------------

SERVE = """
import sys
from pathlib import Path
from fl_node.content.blockstore import Blockstore
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import text
gateway = Gateway(Blockstore(Path(sys.argv[1])))
print(gateway.endpoint, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_publisher_that_is_killed_while_serving_is_replaced(tmp_path: Path) -> None:
    """Two processes hold a file; the one that is being read from dies."""
    data = os.urandom(60 * CHUNK_BYTES)
    stores: list[ContentStore] = [open_store("embedded", tmp_path / name) for name in ("one", "two")]
    cid, _ = (store.add(data, durable=False) for store in stores)
    with serving(tmp_path / "one") as (first, victim), serving(tmp_path / "two") as (second, _):
        calls = 0
        original = http_client_module.Connection.block

        def counting(self: Any, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 10:
                victim.kill()
            return original(self, *arguments)

        with pytest.MonkeyPatch.context() as patch, Fetcher(LOOPBACK, timeout_s=20) as fetcher:
            patch.setattr(http_client_module.Connection, "block", counting)
            assert fetcher.fetch(cid, len(data), [first, second]) == data
        assert victim.wait(10) != 0
