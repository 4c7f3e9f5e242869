"""HTTP/1.1 requests and answers of the gateway: what they hold, and how a request is read. No IO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl

from fl_node.content.protocol import Region
from fl_node.content.unixfs import Buffer

Part: TypeAlias = Buffer | Region


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for. Header names are lower case; ``query`` keeps the first of a repeated key; ``address``
    is the numeric address that it came from."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. ``parts`` must add up to ``length_bytes``; they are not touched for HEAD. ``sent`` is told afterwards
    how many bytes of the body went out."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Iterable[Part] = ()
    length_bytes: int = 0
    sent: Callable[[int], None] | None = None


Handler: TypeAlias = Callable[[Request], Response]


def text(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A short answer for people."""
    body = message.encode() + b"\n"
    standard = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return Response(status, {**standard, **(headers or {})}, (body,), len(body))


def parse_request(head: bytes, address: str) -> tuple[Request, bool] | Response:
    """The request of this head and whether the connection may carry another one, or the answer to what is none."""
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
    return Request(method, path, query, headers, address), keep
