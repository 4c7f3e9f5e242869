"""A small HTTP/1.1 server that sends files from inside a training process.

Only GET and HEAD, only bodies of known length, one thread for each of a bounded number of connections, and a time
limit on everything a client can delay, a TLS handshake included. Written for one purpose, so that nothing a stranger
sends reaches more code than this file and those that read requests and send answers.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from fl_node.content.http_messages import Handler, Part, Request, Response, parse_request, text
from fl_node.content.http_sending import Sender
from fl_node.content.rates import RateLimits
from fl_node.content.tls import ServerTls
from fl_node.errors import ContentError, PortTaken

__all__ = ["Handler", "HttpServer", "Part", "Request", "Response", "text"]

_MAX_HEAD_BYTES: Final = 16 << 10
# For a request's head, and for a TLS handshake.
_HEAD_S: Final = 10.0
_IDLE_S: Final = 60.0
# A part of a body is at most a block of 1 MiB or a CAR of one: a client slower than 35 kB/s is let go.
_PART_S: Final = 30.0
_TLS_HANDSHAKE: Final = b"\x16"


class HttpServer:
    """Serves ``handler`` on ``host:port`` from threads of this process, from construction until :meth:`close`.

    Args:
        port: 0 takes a free one; see :attr:`port`.
        max_connections: beyond it the longest idle connection is closed; if none is idle, the newcomer gets a 503
            (over TLS: is hung up on).
        tls: the certificate to speak TLS with; without one, plain HTTP.
        rates: how much each remote address may ask for; beyond it, it gets a 429 that says when to come again.

    Raises:
        PortTaken: the address is in use, not allowed, or not this machine's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        *,
        max_connections: int = 256,
        tls: ServerTls | None = None,
        rates: RateLimits | None = None,
    ) -> None:
        self._handler = handler
        self._max_connections = max_connections
        self._tls = tls
        self._rates = rates
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
            _hang_up(connection)
        for thread in (self._acceptor, *connections.values()):
            thread.join(timeout=5.0)

    def _accept(self) -> None:
        while True:
            try:
                accepted, where = self._listener.accept()
            except OSError as cause:
                if self._closed or cause.errno == errno.EBADF:
                    return
                # Out of descriptors or an aborted handshake: the next one may do.
                time.sleep(0.05)
                continue
            try:
                # Wrapped here, so that one object stands for the connection; its thread shakes hands.
                connection = self._tls.wrap(accepted) if self._tls is not None else accepted
            except (OSError, ValueError):
                accepted.close()
                continue
            with self._lock:
                full = len(self._open) >= self._max_connections
                if full and self._idle:
                    oldest = next(iter(self._idle))
                    del self._idle[oldest]
                    _hang_up(oldest)
                    full = False
                if not full and not self._closed:
                    thread = threading.Thread(
                        target=self._converse, args=(connection, str(where[0])), name="content-serve", daemon=True
                    )
                    self._open[connection] = thread
                    # Idle from the start: its thread may be slow to come to it, and newcomers must not wait for that.
                    self._idle[connection] = None
                    thread.start()
                    continue
            self._refuse(connection)

    def _refuse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                return  # a handshake would take this thread's time
            connection.settimeout(1.0)
            body = b"too many connections; try again\n"
            connection.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )

    def _converse(self, connection: socket.socket, address: str) -> None:
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None and not self._greeted(connection):
                    return
                sender = Sender(connection, self._tls is not None, _PART_S)
                pending = bytearray()
                while not self._closed:
                    with self._lock:
                        self._idle[connection] = None
                    head = self._read_head(connection, pending, sender)
                    if head is None or not self._answer(sender, head, address):
                        return
        except (OSError, ValueError):
            # The client went away, was too slow, or broke TLS (an OSError too), or this server is closing.
            pass
        finally:
            with self._lock:
                self._idle.pop(connection, None)
                self._open.pop(connection, None)

    def _greeted(self, connection: socket.socket) -> bool:
        """Shake hands; whoever speaks plain HTTP is told, in plain HTTP. Idle all the while, so it gives way."""
        deadline = time.monotonic() + _HEAD_S
        connection.settimeout(_HEAD_S)
        first = socket.socket.recv(connection, 1, socket.MSG_PEEK)
        if not first:
            return False
        if first != _TLS_HANDSHAKE:
            socket.socket.recv(connection, _MAX_HEAD_BYTES)  # what is not read would have the answer dropped
            body = b"this gateway speaks TLS; expected https://\n"
            said = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            socket.socket.sendall(connection, said + body)
            return False
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        shake = getattr(connection, "do_handshake")  # noqa: B009  of an SSLSocket, whose type would load OpenSSL here
        shake()
        return True

    def _read_head(self, connection: socket.socket, pending: bytearray, sender: Sender) -> bytes | None:
        return _read_head(connection, pending, sender, on_start=lambda: self._idle.pop(connection, None))

    def _answer(self, sender: Sender, head: bytes, address: str) -> bool:
        """Answer one request; whether the connection may carry another."""
        wait_s = self._rates.admit(address) if self._rates is not None else 0.0
        parsed = parse_request(head, address)
        if isinstance(parsed, Response):
            sender.send(parsed, "GET", keep=False)
            return False
        request, keep = parsed
        try:
            response = _too_many(wait_s) if wait_s else self._handler(request)
        except Exception as cause:
            response = text(500, f"cannot serve this now: {cause}" if isinstance(cause, ContentError) else "failed")
        # Before it is sent: whoever asks over many connections at once is told in time.
        charged = response.length_bytes if request.method == "GET" else 0
        self._charge(address, charged)
        try:
            sender.send(response, request.method, keep)
        except ContentError:
            # A block on disk failed its check half way: the length already sent cannot be met, so hang up.
            return False
        finally:
            self._charge(address, sender.body_bytes - charged)
            if response.sent is not None:
                response.sent(sender.body_bytes)
        return keep

    def _charge(self, address: str, num_bytes: int) -> None:
        if self._rates is not None and num_bytes:
            self._rates.charge(address, num_bytes)


def _too_many(wait_s: float) -> Response:
    seconds = math.ceil(wait_s)
    return text(429, f"too much from this address; come again in {seconds} s", {"Retry-After": str(seconds)})


def _hang_up(connection: socket.socket) -> None:
    """End a connection that another thread may be using. Of a TLS socket, the socket below: its own ``shutdown`` would
    have that thread go on in the clear."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


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


def _read_head(
    connection: socket.socket, pending: bytearray, sender: Sender, on_start: Callable[[], object]
) -> bytes | None:
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
            sender.send(text(431, f"expected at most {_MAX_HEAD_BYTES} bytes of headers"), "GET", keep=False)
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
