"""One connection to a stranger's gateway: asks for raw blocks and short documents, and bounds everything the stranger
can do.

No redirects, no content encodings, no chunks: a block has a length that is known first. The deadline covers the whole
exchange, not each packet, so that a byte a minute does not keep a peer waiting.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Final

from fl_node.causes import in_words
from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint, Network, Resolver, resolve
from fl_node.content.meter import HEADER
from fl_node.content.tls import client_context, spki_pin
from fl_node.errors import ContentMismatch, ContentUnavailable

_MAX_HEAD_BYTES: Final = 16 << 10
_CONNECT_S: Final = 5.0
_STALL_S: Final = 15.0
ABSENT: Final = (404, 410, 412)
BLOCK: Final = "application/vnd.ipld.raw"
#: "Not now": too much was asked, or too many ask.
_NOT_NOW: Final = (429, 503)
_LONGEST_PAUSE_S: Final = 3600
_PATH: Final = re.compile("/[!-~]*")


class NotHere(ContentUnavailable):
    """The provider answers, but has not got this block: no reason to think less of it."""


class NotNow(ContentUnavailable):
    """The provider answers, but asks to come again in ``wait_s`` seconds: no reason to think less of it."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Connection:
    """A keep-alive connection to one endpoint, at an address that was checked.

    Args:
        claim: number of the peer that asks, told with each request; 0 tells nothing.

    ``body_bytes`` counts what came in bodies, good or not. ``open``: it can carry another question.

    Raises (on construction):
        ContentUnavailable: denied, unreachable, or its certificate is not the announced one.
    """

    def __init__(
        self, endpoint: Endpoint, networks: Sequence[Network], resolver: Resolver, deadline: float, claim: int = 0
    ) -> None:
        self.endpoint = endpoint
        self.body_bytes = 0
        self.open = True
        self._claim = f"{HEADER}: {claim}\r\n" if claim else ""
        self.used_at = time.monotonic()
        self.fresh = True
        self._pending = b""
        self._socket = _connect(endpoint, resolve(endpoint, networks, resolver), deadline)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def block(self, cid: Cid, max_bytes: int, deadline: float, sink: memoryview | None = None) -> memoryview:
        """One block, its hash checked.

        Args:
            max_bytes: largest block accepted.
            deadline: on the monotonic clock, for the whole exchange.
            sink: where to put it; the block must be exactly as long. Without one, it gets memory of its own.

        Raises:
            NotHere: the provider says so.
            ContentUnavailable: no usable answer in time. The connection is no longer usable.
            ContentMismatch: other bytes, or another length. The connection is no longer usable.
        """
        view = self._get(_block_path(cid), BLOCK, str(cid), max_bytes, deadline, sink)
        if hashlib.sha256(view).digest() != cid.digest:
            raise ContentMismatch(f"{self.endpoint} gave other bytes for {cid}; its copy is altered")
        return view

    def has(self, cid: Cid, deadline: float) -> bool:
        """Whether the provider says that it has a block; nothing is transferred.

        Raises:
            ContentUnavailable: no usable answer in time. The connection is no longer usable.
        """
        try:
            self.length(cid, deadline)
        except NotHere:
            return False
        return True

    def length(self, cid: Cid, deadline: float) -> int:
        """How many bytes the provider says that a block has; nothing is transferred.

        Raises:
            NotHere: the provider says so.
            ContentUnavailable: no usable answer in time. The connection is no longer usable.
        """
        with self._exchange():
            self._request("HEAD", _block_path(cid), BLOCK, deadline)
            return self._response_length(str(cid), deadline, body=False)

    def document(self, path: str, max_bytes: int, deadline: float) -> memoryview:
        """What the gateway has at a path of its own, such as ``/checkpoint``: nothing but its length is checked.

        Raises:
            As :meth:`block`; ``ContentMismatch`` only for what is too long.
        """
        if not _PATH.fullmatch(path):
            raise ValueError(f"got the path {path!r}; expected / and printable ASCII")
        return self._get(path, "*/*", path, max_bytes, deadline)

    def _get(
        self, path: str, accept: str, what: str, max_bytes: int, deadline: float, sink: memoryview | None = None
    ) -> memoryview:
        with self._exchange():
            self._request("GET", path, accept, deadline)
            length = self._response_length(what, deadline)
            wanted = f"exactly {sink.nbytes}" if sink is not None else f"at most {max_bytes}"
            if length > max_bytes or (sink is not None and length != sink.nbytes):
                raise ContentMismatch(f"{self.endpoint} gave {length} bytes for {what}, expected {wanted}")
            view = memoryview(bytearray(length)) if sink is None else sink
            self._receive(view, deadline)
        return view

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """A question and its answer: trouble with the socket is the provider's."""
        try:
            yield
        except TimeoutError as cause:
            raise ContentUnavailable(f"{self.endpoint} was too slow") from cause
        except OSError as cause:
            raise ContentUnavailable(f"{self.endpoint} broke off: {in_words(cause)}") from cause
        self.used_at = time.monotonic()
        self.fresh = False

    def _request(self, method: str, path: str, accept: str, deadline: float) -> None:
        self._wait(deadline)
        self._socket.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: {self.endpoint.authority}\r\nAccept: {accept}\r\n"
            f"Accept-Encoding: identity\r\nUser-Agent: fl-node\r\n{self._claim}\r\n".encode()
        )

    def _response_length(self, what: str, deadline: float, *, body: bool = True) -> int:
        received = bytearray(self._pending)
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > _MAX_HEAD_BYTES:
                raise ContentUnavailable(f"{self.endpoint} sent more than {_MAX_HEAD_BYTES} bytes of headers")
            self._wait(deadline)
            more = self._socket.recv(4096)
            if not more:
                raise ConnectionError("the connection was closed before an answer")
            received += more
        self._pending = bytes(received[end + 4 :])
        status, headers = _parse_head(bytes(received[:end]), self.endpoint)
        self.open = headers.get("connection", "").lower() != "close"
        length = _length(headers, self.endpoint) if status in (200, *ABSENT, *_NOT_NOW) else 0
        if status in ABSENT:
            self._skip(length if body else 0, deadline)
            raise NotHere(f"{self.endpoint} has not got {what}")
        if status in _NOT_NOW:
            self._skip(length if body else 0, deadline)
            wait_s = _retry_after_s(headers)
            raise NotNow(f"{self.endpoint} answered {status}: come again in {wait_s:g} s", wait_s)
        if status != 200:
            what = "a redirect, which is never followed" if 300 <= status < 400 else "expected 200"
            raise ContentUnavailable(f"{self.endpoint} answered {status}: {what}")
        return length

    def _skip(self, length: int, deadline: float) -> None:
        if length > _MAX_HEAD_BYTES:
            raise ContentUnavailable(f"{self.endpoint} refuses, and says so in {length} bytes")
        self._receive(memoryview(bytearray(length)), deadline)
        self.used_at = time.monotonic()
        self.fresh = False

    def _receive(self, view: memoryview, deadline: float) -> None:
        start = min(len(self._pending), view.nbytes)
        view[:start] = self._pending[:start]
        self._pending = self._pending[start:]
        self.body_bytes += start
        while start < view.nbytes:
            self._wait(deadline)
            count = self._socket.recv_into(view[start:])
            if not count:
                raise ConnectionError(f"the connection was closed after {start} of {view.nbytes} bytes")
            start += count
            self.body_bytes += count

    def _wait(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, _STALL_S))


def _block_path(cid: Cid) -> str:
    return f"/ipfs/{cid}?format=raw"


def _connect(endpoint: Endpoint, addresses: list[tuple[int, str]], deadline: float) -> socket.socket:
    trouble: Exception | None = None
    for family, address in addresses[:3]:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.settimeout(min(left, _CONNECT_S))
            opened.connect((address, endpoint.port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _secured(endpoint, opened) if endpoint.scheme == "https" else opened
        except (OSError, ValueError) as cause:  # the latter of a name that TLS cannot ask for
            trouble = cause
            opened.close()
        except BaseException:
            opened.close()
            raise
    raise ContentUnavailable(
        f"{endpoint} cannot be reached: {in_words(trouble) if trouble else 'no time left'}"
    ) from trouble


def _secured(endpoint: Endpoint, plain: socket.socket) -> socket.socket:
    """TLS over a connected socket. With a pin, the pin alone decides: members sign their own certificates. Nothing is
    sent before it was compared."""
    context = client_context(pinned=bool(endpoint.tls_pin))
    secured = context.wrap_socket(plain, server_hostname=endpoint.host)
    if endpoint.tls_pin:
        try:
            shown = spki_pin(secured.getpeercert(binary_form=True) or b"")
        except ValueError as cause:
            secured.close()
            raise ContentUnavailable(f"{endpoint} shows a certificate without a usable key: {cause}") from cause
        if shown != endpoint.tls_pin:
            secured.close()
            raise ContentUnavailable(
                f"{endpoint} shows a certificate with the key {shown.hex()}, expected the announced "
                f"{endpoint.tls_pin.hex()}; somebody answers in its place, or it has a new key and is to announce it"
            )
    return secured


def _parse_head(head: bytes, endpoint: Endpoint) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not (words[1].isdecimal() and len(words[1]) == 3):
        raise ContentUnavailable(f"{endpoint} does not speak HTTP: got {first[:60]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers


def _length(headers: dict[str, str], endpoint: Endpoint) -> int:
    length = headers.get("content-length", "")
    encoded = headers.get("content-encoding", "identity") != "identity" or "transfer-encoding" in headers
    if encoded or not (length.isascii() and length.isdecimal() and len(length) <= 15):
        raise ContentUnavailable(f"{endpoint} sent no plain body of a known length; expected Content-Length")
    return int(length)


def _retry_after_s(headers: dict[str, str]) -> float:
    """Seconds of a Retry-After header; a second where it says none."""
    said = headers.get("retry-after", "")
    if not (said.isascii() and said.isdecimal() and len(said) <= 6):
        return 1.0
    return float(min(max(1, int(said)), _LONGEST_PAUSE_S))
