"""An endpoint that sends without end, or too slowly, takes neither memory nor time without end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fl_node.errors import ChainUnavailable, LedgerError
from fl_node.ledger import bounded, transport
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, RpcError
from fl_node.spec import Deployment

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def endpoint(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.02)


def breaking_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def test_no_answer_is_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_ANSWER_BYTES", 1 << 20)
    with endpoint(endless) as url:
        rpc = Rpc(url)
        with pytest.raises(RpcError, match="more than 1048576 bytes"):
            rpc.call("eth_blockNumber")
        answers = rpc.batch([("eth_chainId", []), ("eth_getCode", [])])
        assert [type(answer) for answer in answers] == [RpcError, RpcError]
        with pytest.raises(LedgerError):
            RpcReader(Deployment(chain_id=1, contract="0x" + "11" * 20, first_block=0, rpc=url), None)


def test_no_answer_takes_longer_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_ANSWER_S", 0.1)
    with endpoint(dripping) as url:
        began = time.monotonic()
        with pytest.raises(ChainUnavailable):
            Rpc(url).call("eth_blockNumber")
        assert time.monotonic() - began < 5


def test_an_answer_that_breaks_off_is_an_outage() -> None:
    with endpoint(breaking_off) as url, pytest.raises(ChainUnavailable):
        Rpc(url).call("eth_blockNumber")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("loopback", [True, False])
def test_a_redirect_is_told_and_never_followed(status: int, loopback: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        body = b'{"jsonrpc": "2.0", "id": 0, "result": "0x1"}'
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    if not loopback:  # the session that is used for chains elsewhere
        monkeypatch.setattr(transport, "_LOOPBACK", frozenset())
    with endpoint(elsewhere) as target:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Location", f"{target}/v3/hush-1?key=hush-1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with endpoint(redirect) as url:
            for ask in (lambda rpc: rpc.call("eth_chainId"), lambda rpc: rpc.batch([("eth_chainId", [])] * 2)):
                with pytest.raises(ChainUnavailable, match=f"redirects to {target};.*never followed") as caught:
                    ask(Rpc(url))
                assert "hush" not in str(caught.value)
    assert asked == []
