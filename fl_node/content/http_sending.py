"""How an answer goes out: from the page cache to the socket (``sendfile``) without passing through Python, or through
TLS; each part within a time limit that the reader cannot stretch."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from dataclasses import dataclass
from typing import Final

from fl_node.content.http_messages import Response
from fl_node.content.protocol import Region
from fl_node.content.unixfs import Buffer

_SMALL_BYTES: Final = 4096
#: What is read at a time of a file that goes through TLS.
_READ_BYTES: Final = 256 << 10
_REASONS: Final = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    412: "Precondition Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(slots=True)
class Sender:
    """The sending side of one connection.

    Args:
        connection: open; over TLS if ``secured``.
        part_s: seconds for one part of a body, at most a block of 1 MiB or a CAR of one.

    ``body_bytes``: how much of the last answer's body went out, also where sending it failed.
    """

    connection: socket.socket
    secured: bool
    part_s: float
    body_bytes: int = 0

    def send(self, response: Response, method: str, keep: bool) -> None:
        """Send an answer.

        Raises:
            OSError: the client went away or reads too slowly.
            ContentError: a part could not be had; the length already sent cannot be met.
        """
        head = _head(response, keep)
        self.body_bytes = -len(head)
        try:
            if method == "HEAD" or response.status == 304:
                self._bytes(head, last=True)
            else:
                self._body(head, response)
        finally:
            self.body_bytes = max(0, self.body_bytes)

    def _body(self, head: bytes, response: Response) -> None:
        waiting = head
        for part in response.parts:
            if isinstance(part, Region):
                with contextlib.closing(_Descriptor(part.fd)):
                    self._bytes(waiting, last=False)
                    self._region(part)
                waiting = b""
            elif len(part) < _SMALL_BYTES:
                waiting += part
            else:
                self._bytes(waiting, last=False)
                self._bytes(part, last=True)
                waiting = b""
        self._bytes(waiting, last=True)

    def _bytes(self, data: Buffer, last: bool) -> None:
        if not data:
            return
        if self.secured:
            self._through_tls(memoryview(data), time.monotonic() + self.part_s)
            return
        # The time limit of sendall is for the whole call.
        self.connection.settimeout(self.part_s)
        self.connection.sendall(data, 0 if last else socket.MSG_MORE)
        self.body_bytes += len(data)

    def _through_tls(self, view: memoryview, deadline: float) -> None:
        # Not sendall: its time limit is for each record.
        while view.nbytes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the client reads too slowly")
            self.connection.settimeout(left)
            count = self.connection.send(view)
            self.body_bytes += count
            view = view[count:]

    def _region(self, region: Region) -> None:
        deadline = time.monotonic() + self.part_s
        offset, left = region.offset, region.length_bytes
        if self.secured:
            while left:
                data = os.pread(region.fd, min(left, _READ_BYTES), offset)
                if not data:
                    raise ConnectionError("the stored file is shorter than it was")
                self._through_tls(memoryview(data), deadline)
                offset += len(data)
                left -= len(data)
            return
        self.connection.settimeout(self.part_s)
        waiter = select.poll()
        waiter.register(self.connection, select.POLLOUT)
        while left:
            try:
                sent = os.sendfile(self.connection.fileno(), region.fd, offset, left)
            except BlockingIOError:
                if not waiter.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                    raise TimeoutError("the client reads too slowly") from None
                continue
            if not sent:
                raise ConnectionError("the stored file is shorter than it was")
            self.body_bytes += sent
            offset += sent
            left -= sent


def _head(response: Response, keep: bool) -> bytes:
    fields = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}"]
    fields += [f"{name}: {value}" for name, value in response.headers.items()]
    fields.append("X-Content-Type-Options: nosniff")
    if response.status != 304:
        fields.append(f"Content-Length: {response.length_bytes}")
    if not keep:
        fields.append("Connection: close")
    return ("\r\n".join(fields) + "\r\n\r\n").encode("latin-1")


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)
