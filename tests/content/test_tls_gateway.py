"""The gateway over TLS: certificates of its own and given ones, pins, rude clients, and the readers of others."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_node.content import ContentStore, cid_of, open_store
from fl_node.content import http_server as http_server_module
from fl_node.content import tls as tls_module
from fl_node.content.endpoints import Endpoint, parse_endpoint
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.tls import NO_PIN, ServerTls, generated
from fl_node.content.unixfs import CHUNK_BYTES
from fl_node.errors import ContentUnavailable, UsageError

from .helpers import node

LOOPBACK = ("127.0.0.0/8",)
DATA = os.urandom(3 * CHUNK_BYTES + 77)
SMALL = os.urandom(3000)


@pytest.fixture(params=["memory", "embedded"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    opened = open_store(request.param, tmp_path / "content")
    opened.add(DATA)
    opened.add(SMALL)
    yield opened
    opened.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ContentStore]:
    opened = open_store("embedded", tmp_path / "content")
    opened.add(DATA)
    opened.add(SMALL)
    yield opened
    opened.close()


def openssl_pin(certificate: Path) -> bytes:
    """The pin as somebody else's program computes it."""
    public = f"openssl x509 -noout -pubkey -in {certificate} | openssl pkey -pubin -outform der"
    return hashlib.sha256(subprocess.run(public, shell=True, check=True, capture_output=True).stdout).digest()


def pinned(gateway: Gateway, pin: bytes | None = None) -> Endpoint:
    return parse_endpoint(gateway.endpoint, gateway.tls_pin if pin is None else pin)


def test_a_generated_certificate_is_served_to_those_who_know_the_pin(store: ContentStore, tmp_path: Path) -> None:
    tls = generated(tmp_path / "tls", ["127.0.0.1"])
    with Gateway(store, tls=tls) as gateway, Fetcher(LOOPBACK) as fetcher:
        assert gateway.endpoint == f"https://127.0.0.1:{gateway.port}"
        assert gateway.tls_pin == openssl_pin(tmp_path / "tls" / "certificate.pem") != NO_PIN
        for data in (DATA, SMALL):
            assert fetcher.fetch(cid_of(data), len(data), [pinned(gateway)]) == data
        assert fetcher.has(cid_of(DATA), pinned(gateway))


def test_another_key_or_no_pin_is_refused_before_anything_is_sent(disk: ContentStore, tmp_path: Path) -> None:
    asked: list[str] = []
    tls = generated(tmp_path / "tls", [])
    other = generated(tmp_path / "other", [])
    with Gateway(disk, tls=tls) as gateway:
        handler = gateway._server._handler
        gateway._server._handler = lambda request: asked.append(request.path) or handler(request)  # type: ignore
        for pin, words in ((other.pin, "expected the announced"), (b"", "CERTIFICATE_VERIFY_FAILED")):
            with Fetcher(LOOPBACK) as fetcher, pytest.raises(ContentUnavailable, match=words):
                fetcher.fetch(cid_of(SMALL), 10_000, [pinned(gateway, pin)])
        assert asked == []
        with Fetcher(LOOPBACK) as fetcher:
            fetcher.fetch(cid_of(SMALL), 10_000, [pinned(gateway)])
        assert len(asked) == 1


def test_the_key_lies_where_nobody_else_reads_it(tmp_path: Path) -> None:
    generated(tmp_path / "state" / "tls", [])
    folder = tmp_path / "state" / "tls"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "key.pem": 0o600,
        "certificate.pem": 0o600,
    }
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(UsageError, match="others may read the key"):
        generated(folder, [])


def test_a_certificate_is_renewed_before_it_expires_with_the_same_key(
    disk: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_module, "_VALID_DAYS", 20)  # so it is due at once
    tls = generated(tmp_path / "tls", [])
    first, pin = (tmp_path / "tls" / "certificate.pem").read_bytes(), tls.pin
    with Gateway(disk, tls=tls) as gateway, Fetcher(LOOPBACK) as fetcher:
        monkeypatch.setattr(tls_module, "_VALID_DAYS", 398)
        monkeypatch.setattr(tls_module, "_LOOK_S", 0.0)
        assert fetcher.fetch(cid_of(SMALL), 10_000, [pinned(gateway)]) == SMALL
        shown = ssl.get_server_certificate(("127.0.0.1", gateway.port))
        assert gateway.tls_pin == pin
    second = (tmp_path / "tls" / "certificate.pem").read_bytes()
    assert second != first and ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(second.decode())
    end = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", tmp_path / "tls" / "certificate.pem"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    left = datetime.datetime.strptime(end.strip(), "notAfter=%b %d %H:%M:%S %Y GMT") - datetime.datetime.utcnow()
    assert 390 < left.days < 399
    again = generated(tmp_path / "tls", [])
    assert again.pin == pin and (tmp_path / "tls" / "certificate.pem").read_bytes() == second


def test_damaged_files_are_named(tmp_path: Path) -> None:
    generated(tmp_path / "tls", [])
    (tmp_path / "tls" / "key.pem").write_text("nothing of the kind")
    with pytest.raises(UsageError, match="delete the folder to make a new key"):
        generated(tmp_path / "tls", [])
    with pytest.raises(UsageError, match="expected a PEM file"):
        ServerTls(tmp_path / "absent.pem", tmp_path / "absent.key")


# ---- given certificates ------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with an authority (ca.pem) and a certificate that it signed (site.pem, site.key) for 127.0.0.1."""
    folder = tmp_path / "ca"
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca "
        "-addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=site -keyout site.key -out site.csr",
        "x509 -req -in site.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out site.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    (folder / "site.key").chmod(0o600)
    return folder


def test_a_given_certificate_is_verified_as_everywhere(
    disk: ContentStore, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ServerTls(authority / "site.pem", authority / "site.key")
    with Gateway(disk, tls=tls) as gateway:
        assert gateway.tls_pin == NO_PIN
        with Fetcher(LOOPBACK) as fetcher, pytest.raises(ContentUnavailable, match="VERIFY_FAILED"):
            fetcher.fetch(cid_of(SMALL), 10_000, [gateway.endpoint])
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        with Fetcher(LOOPBACK) as fetcher:
            assert fetcher.fetch(cid_of(DATA), len(DATA), [gateway.endpoint]) == DATA
            wrong_name = f"https://localhost:{gateway.port}"
            with pytest.raises(ContentUnavailable, match="not valid for 'localhost'"):
                fetcher.fetch(cid_of(DATA), len(DATA), [wrong_name])


def test_a_given_certificate_can_be_pinned(disk: ContentStore, authority: Path) -> None:
    tls = ServerTls(authority / "site.pem", authority / "site.key", pinned=True)
    assert tls.pin == openssl_pin(authority / "site.pem")
    with Gateway(disk, tls=tls) as gateway, Fetcher(LOOPBACK) as fetcher:
        assert fetcher.fetch(cid_of(DATA), len(DATA), [pinned(gateway)]) == DATA
    # One that signed itself has no other way to be known.
    assert ServerTls(authority / "ca.pem", _private(authority / "ca.key")).pin == openssl_pin(authority / "ca.pem")


def _private(path: Path) -> Path:
    path.chmod(0o600)
    return path


def test_a_replaced_certificate_comes_into_force_and_a_bad_one_does_not(
    disk: ContentStore, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    tls = ServerTls(authority / "site.pem", authority / "site.key", pinned=True, tell=told.append)
    old = tls.pin
    monkeypatch.setattr(tls_module, "_LOOK_S", 0.0)
    with Gateway(disk, tls=tls) as gateway, Fetcher(LOOPBACK) as fetcher:
        good = (authority / "site.pem").read_bytes()
        (authority / "site.pem").write_text("half a file")
        assert fetcher.fetch(cid_of(SMALL), 10_000, [pinned(gateway, old)]) == SMALL
        assert told and "goes on with the certificate that it has" in told[0]
        (authority / "site.pem").write_bytes(good)
        made = generated(tmp_path / "new", [])
        for name, source in (("site.key", "key.pem"), ("site.pem", "certificate.pem")):
            (authority / name).write_bytes((tmp_path / "new" / source).read_bytes())
        with Fetcher(LOOPBACK) as newcomer:
            assert newcomer.fetch(cid_of(SMALL), 10_000, [pinned(gateway, made.pin)]) == SMALL
        assert gateway.tls_pin == made.pin != old


def test_curl_reads_it(disk: ContentStore, authority: Path) -> None:
    with Gateway(disk, tls=ServerTls(authority / "site.pem", authority / "site.key")) as gateway:
        url = f"{gateway.endpoint}/ipfs/{cid_of(SMALL)}?format=raw"
        curl = [
            "curl",
            "-sS",
            "--max-time",
            "20",
            "--cacert",
            str(authority / "ca.pem"),
            "-w",
            "%{http_code} %{ssl_verify_result}",
        ]
        done = subprocess.run([*curl, "-o", str(authority / "got"), url], check=True, capture_output=True, text=True)
        assert done.stdout == "200 0" and (authority / "got").read_bytes() == SMALL
        for old in ("1.0", "1.1"):
            refused = subprocess.run(
                [*curl, "--tls-max", old, "--tlsv1.0", url], capture_output=True, text=True, timeout=30
            )
            assert refused.returncode == 35, refused.stderr
        assert subprocess.run(["curl", "-sS", "--max-time", "20", url], capture_output=True).returncode == 60


def test_helia_reads_it(judges: Path, disk: ContentStore, authority: Path) -> None:
    with Gateway(disk, tls=ServerTls(authority / "site.pem", authority / "site.key")) as gateway:
        command = node(judges / "helia_fetch.mjs", gateway.endpoint, str(cid_of(DATA)))
        trusting = {**os.environ, "NODE_EXTRA_CA_CERTS": str(authority / "ca.pem")}
        done = subprocess.run(command, env=trusting, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"length": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
        assert subprocess.run([*command, "4"], capture_output=True, timeout=60).returncode == 3


# ---- rude clients ------------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(disk: ContentStore, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(disk, tls=generated(tmp_path / "tls", []), max_connections=4) as opened:
        yield opened


def works(gateway: Gateway) -> bool:
    with Fetcher(LOOPBACK, connections=1) as fetcher:
        return bytes(fetcher.fetch(cid_of(SMALL), 10_000, [pinned(gateway)])) == SMALL


def test_silent_clients_give_way(gateway: Gateway) -> None:
    """They hold all connections in the middle of a handshake, and still a newcomer is served."""
    idle = [socket.create_connection((gateway.host, gateway.port)) for _ in range(12)]
    for one in idle[::2]:
        with contextlib.suppress(OSError):
            one.sendall(b"\x16\x03\x01")
    assert works(gateway)
    for one in idle:
        one.close()


def test_a_slow_handshake_ends(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server_module, "_HEAD_S", 0.3)
    for said in (b"", b"\x16\x03\x01\x02\x00"):
        with socket.create_connection((gateway.host, gateway.port), timeout=20) as connection:
            connection.sendall(said)
            assert connection.recv(10) == b""


def test_plain_http_is_told_to_use_tls(gateway: Gateway) -> None:
    with socket.create_connection((gateway.host, gateway.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400") and b"expected https://" in answer


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_garbage_ends_the_connection_and_nothing_else(gateway: Gateway, capfd: pytest.CaptureFixture[str]) -> None:
    def hello() -> bytes:
        outgoing = ssl.MemoryBIO()
        context = ssl.create_default_context()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x").do_handshake()
        return outgoing.read()

    for said in (
        b"\x16",
        b"\x16\x03\x01\x00\x05hello",
        os.urandom(5000),
        hello(),
        hello()[:100],
        hello() + os.urandom(99),
    ):
        with contextlib.suppress(OSError), socket.create_connection((gateway.host, gateway.port), timeout=5) as one:
            one.sendall(said)
            one.shutdown(socket.SHUT_WR)
            while one.recv(4096):
                pass
    assert works(gateway)
    assert capfd.readouterr().err == ""


def test_a_reader_that_stalls_over_tls_is_let_go(
    disk: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server_module, "_PART_S", 0.3)
    cid = disk.add(os.urandom(30 * CHUNK_BYTES), durable=False)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        Gateway(disk, max_connections=1, tls=generated(tmp_path / "tls", [])) as gateway,
        socket.create_connection((gateway.host, gateway.port), timeout=10) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(f"GET /ipfs/{cid}?format=car HTTP/1.1\r\n\r\n".encode())
        assert connection.recv(8) == b"HTTP/1.1"
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(ContentUnavailable):
                if works(gateway):
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_closing_ends_tls_connections_and_threads(disk: ContentStore, tmp_path: Path) -> None:
    before = threading.active_count()
    gateway = Gateway(disk, tls=generated(tmp_path / "tls", []))
    with Fetcher(LOOPBACK) as fetcher, socket.create_connection((gateway.host, gateway.port)):
        assert fetcher.fetch(cid_of(SMALL), 10_000, [pinned(gateway)]) == SMALL
        gateway.close()
    assert threading.active_count() == before


def test_tls_is_loaded_only_where_it_is_used() -> None:
    code = (
        "import sys; import fl_node.content.gateway, fl_node.content.fetch; "
        "sys.exit(int('cryptography' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
