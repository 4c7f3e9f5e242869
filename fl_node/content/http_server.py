"""A small HTTP/1.1 server that sends files from inside a training process.

Only GET and HEAD, only bodies of known length, one thread for each of a bounded number of connections, and a time
limit on everything a client can delay. Bytes go from the page cache to the socket (``sendfile``) without passing
through Python. Written for one purpose, so that nothing a stranger sends reaches more code than this file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from fl_node.content.protocol import Region
from fl_node.content.unixfs import Buffer
from fl_node.errors import ContentError, PortTaken

_MAX_HEAD_BYTES: Final = 16 << 10
_HEAD_S: Final = 10.0
_IDLE_S: Final = 60.0
# A part of a body is at most a block of 1 MiB or a CAR of one: a client slower than 35 kB/s is let go.
_PART_S: Final = 30.0
_REASONS: Final = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    412: "Precondition Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Part: TypeAlias = Buffer | Region


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for. Header names are lower case; ``query`` keeps the first of a repeated key."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. ``parts`` must add up to ``length_bytes``; they are not touched for HEAD."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Iterable[Part] = ()
    length_bytes: int = 0


Handler: TypeAlias = Callable[[Request], Response]


def text(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A short answer for people."""
    body = message.encode() + b"\n"
    standard = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return Response(status, {**standard, **(headers or {})}, (body,), len(body))


class HttpServer:
    """Serves ``handler`` on ``host:port`` from threads of this process, from construction until :meth:`close`.

    Args:
        port: 0 takes a free one; see :attr:`port`.
        max_connections: beyond it the longest idle connection is closed; if none is idle, the newcomer gets a 503.

    Raises:
        PortTaken: the address is in use, not allowed, or not this machine's.
    """

    def __init__(self, host: str, port: int, handler: Handler, *, max_connections: int = 256) -> None:
        self._handler = handler
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._idle: dict[socket.socket, None] = {}
        self._closed = False
        self._listener = _listen(host, port)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="content-accept", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening, end every connection and wait for the threads. Closing twice does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = dict(self._open)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *connections.values()):
            thread.join(timeout=5.0)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as cause:
                if self._closed or cause.errno == errno.EBADF:
                    return
                # Out of descriptors or an aborted handshake: the next one may do.
                time.sleep(0.05)
                continue
            with self._lock:
                full = len(self._open) >= self._max_connections
                if full and self._idle:
                    oldest = next(iter(self._idle))
                    del self._idle[oldest]
                    with contextlib.suppress(OSError):
                        oldest.shutdown(socket.SHUT_RDWR)
                    full = False
                if not full and not self._closed:
                    thread = threading.Thread(
                        target=self._converse, args=(connection,), name="content-serve", daemon=True
                    )
                    self._open[connection] = thread
                    # Idle from the start: its thread may be slow to come to it, and newcomers must not wait for that.
                    self._idle[connection] = None
                    thread.start()
                    continue
            self._refuse(connection)

    def _refuse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(1.0)
            body = b"too many connections; try again\n"
            connection.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pending = bytearray()
                while not self._closed:
                    with self._lock:
                        self._idle[connection] = None
                    head = _read_head(connection, pending, on_start=lambda: self._idle.pop(connection, None))
                    if head is None or not self._answer(connection, head):
                        return
        except OSError:
            # The client went away, was too slow, or this server is closing.
            pass
        finally:
            with self._lock:
                self._idle.pop(connection, None)
                self._open.pop(connection, None)

    def _answer(self, connection: socket.socket, head: bytes) -> bool:
        """Answer one request; whether the connection may carry another."""
        parsed = _parse(head)
        if isinstance(parsed, Response):
            _send(connection, parsed, "GET", keep=False)
            return False
        request, keep = parsed
        try:
            response = self._handler(request)
        except Exception as cause:
            response = text(500, f"cannot serve this now: {cause}" if isinstance(cause, ContentError) else "failed")
        try:
            _send(connection, response, request.method, keep)
        except ContentError:
            # A block on disk failed its check half way: the length already sent cannot be met, so hang up.
            return False
        return keep


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as cause:
        listener.close()
        raise PortTaken(
            f"cannot listen on {host}:{port}: {cause.strerror or cause}; expected a free port of this machine: "
            "choose another one (port 0 takes any) or stop the program that has it"
        ) from cause
    return listener


def _read_head(connection: socket.socket, pending: bytearray, on_start: Callable[[], object]) -> bytes | None:
    """The next request's head, or None when the client is done. Bytes beyond it stay in ``pending``."""
    connection.settimeout(_IDLE_S)
    deadline: float | None = None
    while True:
        end = pending.find(b"\r\n\r\n")
        if end >= 0:
            on_start()
            head = bytes(pending[:end])
            del pending[: end + 4]
            return head
        if len(pending) > _MAX_HEAD_BYTES:
            _send(connection, text(431, f"expected at most {_MAX_HEAD_BYTES} bytes of headers"), "GET", keep=False)
            return None
        if pending and deadline is None:
            on_start()
            deadline = time.monotonic() + _HEAD_S
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(4096)
        if not received:
            return None
        pending += received


def _parse(head: bytes) -> tuple[Request, bool] | Response:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return text(400, "expected a request line such as GET /ipfs/{cid}?format=raw HTTP/1.1")
    method, target, version = words
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            return text(400, "expected header lines such as Accept: application/vnd.ipld.raw")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    if method not in ("GET", "HEAD"):
        return text(405, f"got {method[:20]}, expected GET or HEAD: this server is read-only", {"Allow": "GET, HEAD"})
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        return text(400, "expected a request without a body")
    path, _, query_text = target.partition("?")
    try:
        query = dict(reversed(parse_qsl(query_text, keep_blank_values=True, max_num_fields=20)))
    except ValueError:
        return text(400, "expected at most 20 query parameters")
    keep = version != "HTTP/1.0" and "close" not in headers.get("connection", "").lower()
    return Request(method, path, query, headers), keep


def _send(connection: socket.socket, response: Response, method: str, keep: bool) -> None:
    fields = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}"]
    fields += [f"{name}: {value}" for name, value in response.headers.items()]
    fields.append("X-Content-Type-Options: nosniff")
    if response.status != 304:
        fields.append(f"Content-Length: {response.length_bytes}")
    if not keep:
        fields.append("Connection: close")
    head = ("\r\n".join(fields) + "\r\n\r\n").encode("latin-1")
    if method == "HEAD" or response.status == 304:
        connection.settimeout(_PART_S)
        connection.sendall(head)
        return
    waiting = head
    for part in response.parts:
        if isinstance(part, Region):
            with contextlib.closing(_Descriptor(part.fd)):
                _send_bytes(connection, waiting, socket.MSG_MORE)
                _send_region(connection, part)
            waiting = b""
        elif len(part) < 4096:
            waiting += part
        else:
            _send_bytes(connection, waiting, socket.MSG_MORE)
            _send_bytes(connection, part, 0)
            waiting = b""
    _send_bytes(connection, waiting, 0)


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)


def _send_bytes(connection: socket.socket, data: Buffer, flags: int) -> None:
    if data:
        # The time limit of sendall is for the whole call.
        connection.settimeout(_PART_S)
        connection.sendall(data, flags)


def _send_region(connection: socket.socket, region: Region) -> None:
    deadline = time.monotonic() + _PART_S
    connection.settimeout(_PART_S)
    waiter = select.poll()
    waiter.register(connection, select.POLLOUT)
    offset, left = region.offset, region.length_bytes
    while left:
        try:
            sent = os.sendfile(connection.fileno(), region.fd, offset, left)
        except BlockingIOError:
            if not waiter.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                raise TimeoutError("the client reads too slowly") from None
            continue
        if not sent:
            raise ConnectionError("the stored file is shorter than it was")
        offset += sent
        left -= sent
