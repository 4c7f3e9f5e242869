"""Endpoints and gateways that lie, in front of honest ones."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fl_node.ledger import codec, tree
from fl_node.ledger.views import state_call

Log = dict[str, Any]
Tamper = Callable[[str, list[Any], Any], Any]


# ---- an endpoint ---------------------------------------------------------------------------------------------------


def topics_of(log: Log) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(topic[2:]) for topic in log["topics"])


def data_of(log: Log) -> bytes:
    return bytes.fromhex(log["data"][2:])


def says(log: Log) -> tuple[int, Any]:
    """Block time and body."""
    _, time_s, body = codec.decode(topics_of(log), data_of(log))
    return time_s, body


def rewritten(log: Log, index: int, body: Any) -> Log:
    """The log saying something else."""
    topics, data = codec.encode(index, says(log)[0], body)
    return {**log, "topics": ["0x" + topic.hex() for topic in topics], "data": "0x" + data.hex()}


@dataclass
class OtherLog:
    """Shows other logs than the chain has. ``fitting``: with size and root of those, told as the contract's."""

    logs: Sequence[Log]
    fitting: bool = False
    asked: list[str] = field(default_factory=list)

    def __call__(self, method: str, params: list[Any], result: Any) -> Any:
        self.asked.append(method)
        if method == "eth_getLogs":
            low, high = (int(params[0][key], 16) for key in ("fromBlock", "toBlock"))
            return [log for log in self.logs if low <= int(log["blockNumber"], 16) <= high]
        if method == "eth_call" and self.fitting and params[0]["data"].endswith(state_call().hex()):
            root = tree.root([tree.entry_leaf(topics_of(log), data_of(log)) for log in self.logs])
            answer = bytes.fromhex(result[2:])
            return "0x" + (len(self.logs).to_bytes(32, "big") + root + answer[64:]).hex()
        return result


def only(method: str, change: Callable[[Any], Any], **wanted: Any) -> Tamper:
    """Changes one method's answers, where the first parameter is what is wanted."""

    def tamper(called: str, params: list[Any], result: Any) -> Any:
        if called != method or (wanted and params[0] != wanted["first"]):
            return result
        return change(result)

    return tamper


# ---- a gateway -----------------------------------------------------------------------------------------------------

Spoil = Callable[[BaseHTTPRequestHandler, bytes], None]


class LyingGateway:
    """Asks an honest gateway and then does something else. Listens on 127.0.0.1."""

    def __init__(self, honest: str, spoil: Spoil) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    with urllib.request.urlopen(honest + self.path, timeout=10) as answer:
                        body = answer.read()
                except urllib.error.HTTPError as refusal:
                    _answer(self, b"", status=refusal.code)
                    return
                try:
                    spoil(self, body)
                except OSError:
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(handler: BaseHTTPRequestHandler, body: bytes, length: int | None = None, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def flips(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _answer(handler, body[:-1] + bytes([body[-1] ^ 1]))


def cuts_short(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _answer(handler, body[:-7])


def breaks_off(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _answer(handler, body[: len(body) // 2], len(body))
    handler.close_connection = True


def promises_a_terabyte(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _answer(handler, body, 1 << 40)
    handler.close_connection = True


def has_nothing(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _answer(handler, b"", status=404)


def fails(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    _answer(handler, b"oh", status=500)


def sends_elsewhere(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:1/")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def babbles(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.wfile.write(b"\x00\xffHTTP/9 \r\n" * 5000)
    handler.close_connection = True


def never_ends_its_headers(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-More: yes\r\n" * 200_000)
    handler.close_connection = True


def hangs_up(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.close_connection = True
