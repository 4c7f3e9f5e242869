"""The peer's data plane: its content store as a read-only IPFS *trustless gateway*.

``GET`` or ``HEAD /ipfs/{cid}?format=raw`` gives one block, ``format=car`` a file as CARv1 (``dag-scope`` all, entity or
block). Kubo, Helia and anyone who can hash reads it. Source: specs.ipfs.tech/http-gateways/trustless-gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.http_messages import Handler, Part, Request, Response, text
from fl_node.content.http_server import HttpServer
from fl_node.content.meter import HEADER, PATHS, Kind, Meter, claimed, kind_of
from fl_node.content.protocol import ContentStore, Labelled
from fl_node.content.rates import RateLimits
from fl_node.content.tls import NO_PIN, ServerTls
from fl_node.content.unixfs import Dag, assemble
from fl_node.errors import ContentError, ContentUnavailable, UsageError

RAW: Final = "application/vnd.ipld.raw"
CAR: Final = "application/vnd.ipld.car"
PREFIX: Final = "/ipfs/"
# The empty identity CID: clients ask for it to find out whether this is a gateway. It stands for no bytes.
_PROBE: Final = "bafkqaaa"
_IMMUTABLE: Final = "public, max-age=29030400, immutable"
_SCOPES: Final = ("all", "entity", "block")
_MAX_DAG_BYTES: Final = 1 << 40


class Gateway:
    """Serves a store on ``host:port`` until :meth:`close`.

    Args:
        routes: further paths, such as ``/healthz``, and who answers them; ``/tile/`` stands for all that begin so.
        tls: the certificate to speak TLS with; without one, plain HTTP.
        rates: how much each remote address may ask for.
        meter: counts what goes out, by who says that it asks.

    Raises:
        PortTaken: the address cannot be listened on.
    """

    def __init__(
        self,
        store: ContentStore,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        routes: Mapping[str, Handler] | None = None,
        max_connections: int = 256,
        tls: ServerTls | None = None,
        rates: RateLimits | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._routes = dict(routes or {})
        self._tls = tls
        self._meter = meter
        handler = self.answer if meter is None else self._metered
        self._server = HttpServer(host, port, handler, max_connections=max_connections, tls=tls, rates=rates)
        self.host = host
        self.port = self._server.port

    @property
    def endpoint(self) -> str:
        """The URL under which this machine reaches it."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}://{self.host}:{self.port}"

    @property
    def tls_pin(self) -> bytes:
        """What to announce beside :attr:`endpoint`: SHA-256 of the public key that its certificate holds; 32 zero bytes
        where there is no TLS, or authorities vouch for the certificate. Changes if that is replaced with another key.
        """
        return NO_PIN if self._tls is None else self._tls.pin

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, request: Request) -> Response:
        """The response to one request: pure apart from reading the store."""
        first_part = request.path[: request.path.find("/", 1) + 1]
        route = self._routes.get(request.path) or self._routes.get(first_part)
        if route is not None:
            return route(request)
        if not request.path.startswith(PREFIX):
            return text(404, "expected /ipfs/{cid}?format=raw or format=car")
        name = request.path[len(PREFIX) :].removesuffix("/")
        wanted = _format(request)
        if wanted is None:
            return text(406, f"expected format=raw or format=car, or Accept: {RAW} or {CAR}", {"Vary": "Accept"})
        if wanted == "raw" and name == _PROBE:
            return Response(200, _headers(name, "raw", RAW, f'"{name}.raw"'))
        try:
            cid = Cid.parse(name)
        except UsageError as cause:
            return text(400, str(cause))
        try:
            return self._raw(cid, request) if wanted == "raw" else self._car(cid, request)
        except ContentUnavailable:
            status = 412 if "only-if-cached" in request.headers.get("cache-control", "") else 404
            return text(status, f"{cid} is not here; ask another provider")
        except ContentError as cause:
            return text(500, f"cannot serve {cid}: {cause}")

    def _metered(self, request: Request) -> Response:
        response, meter = self.answer(request), self._meter
        if meter is None or not response.length_bytes:
            return response

        def sent(num_bytes: int) -> None:
            claim = claimed(request.headers.get(HEADER))
            meter.sent(request.address, claim, self._kind(request) if response.status == 200 else "other", num_bytes)

        return replace(response, sent=sent)

    def _kind(self, request: Request) -> Kind:
        """What was served at this path."""
        if not request.path.startswith(PREFIX):
            return next((kind for start, kind in PATHS if request.path.startswith(start)), "other")
        if not isinstance(self._store, Labelled):
            return "other"
        try:
            return kind_of(self._store.label(Cid.parse(request.path[len(PREFIX) :].removesuffix("/"))))
        except (ContentError, UsageError):
            return "other"

    def _raw(self, cid: Cid, request: Request) -> Response:
        size = self._store.block_size(cid)
        if size is None:
            raise ContentUnavailable(f"{cid} is not here")
        headers = _headers(str(cid), "raw", RAW, f'"{cid}.raw"')
        if _unchanged(request, headers):
            return Response(304, headers)
        if request.method == "HEAD":
            return Response(200, headers, (), size)
        return Response(200, headers, (self._leaf(cid),), size)

    def _car(self, cid: Cid, request: Request) -> Response:
        scope = request.query.get("dag-scope", "all")
        parameters = {**_parameters(request.headers.get("accept", "")), **_car_query(request.query)}
        problem = _unsupported(scope, parameters, request.query)
        if problem:
            return text(400, problem)
        dag = self._dag(cid)
        blocks = [next(dag.walk())] if scope == "block" else list(dag.walk())
        content_type = f"{CAR}; version=1; order=dfs; dups=n"
        etag = f'"{cid}.car.{"block" if scope == "block" else "all"}"'
        headers = _headers(str(cid), "car", content_type, etag)
        if _unchanged(request, headers):
            return Response(304, headers)
        return Response(200, headers, self._sections(dag, blocks), car.length(dag, blocks))

    def _sections(self, dag: Dag, blocks: Iterable[tuple[Cid, int]]) -> Iterator[Part]:
        yield car.header(dag.root)
        for cid, leaf in blocks:
            if leaf < 0:
                yield car.section_head(cid, len(dag.nodes[cid])) + dag.nodes[cid]
            else:
                yield car.section_head(cid, dag.leaf_span(leaf)[1])
                yield self._leaf(cid)

    def _leaf(self, cid: Cid) -> Part:
        return self._store.region(cid) or self._store.block(cid)

    def _dag(self, cid: Cid) -> Dag:
        """The file of this root: one that the store holds as such, or a part of one."""
        if self._store.has(cid):
            return self._store.dag(cid)
        if cid.codec == "raw":
            size = self._store.block_size(cid)
            if size is None:
                raise ContentUnavailable(f"{cid} is not here")
            return Dag(cid, size, (cid.digest,), {})
        return assemble(cid, lambda node: bytes(self._store.block(node)), _MAX_DAG_BYTES)


def _format(request: Request) -> str | None:
    """raw, car, or None. The query wins over the header."""
    if "format" in request.query:
        asked = request.query["format"]
        return asked if asked in ("raw", "car") else None
    for item in request.headers.get("accept", "").split(","):
        kind = item.partition(";")[0].strip().lower()
        if kind in (RAW, CAR):
            return "raw" if kind == RAW else "car"
    return None


def _parameters(accept: str) -> dict[str, str]:
    """The parameters of the CAR media type in an Accept header."""
    for item in accept.split(","):
        kind, *fields = item.split(";")
        if kind.strip().lower() == CAR:
            pairs = (field.partition("=") for field in fields)
            return {name.strip().lower(): value.strip().strip('"').lower() for name, _, value in pairs}
    return {}


def _car_query(query: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("car-"): query[name] for name in ("car-version", "car-order", "car-dups") if name in query
    }


def _unsupported(scope: str, parameters: Mapping[str, str], query: Mapping[str, str]) -> str:
    if scope not in _SCOPES:
        return f"got dag-scope={scope[:20]}, expected one of {', '.join(_SCOPES)}"
    if parameters.get("version", "1") != "1":
        return f"got CAR version {parameters['version'][:20]}, expected 1"
    if parameters.get("order", "dfs") not in ("dfs", "unk"):
        return f"got order={parameters['order'][:20]}, expected dfs or unk"
    if parameters.get("dups", "n") != "n":
        return f"got dups={parameters['dups'][:20]}, expected n: each block is sent once"
    if query.get("entity-bytes", "0:*") != "0:*":
        return "got entity-bytes, expected none: ask for the raw blocks of the range instead"
    return ""


def _headers(name: str, kind: str, content_type: str, etag: str) -> dict[str, str]:
    return {
        "Content-Type": content_type,
        "Content-Disposition": f'attachment; filename="{name}.{"bin" if kind == "raw" else "car"}"',
        "Cache-Control": _IMMUTABLE,
        "ETag": etag,
        "Vary": "Accept",
        "X-Ipfs-Path": PREFIX + name,
        "X-Ipfs-Roots": name,
    }


def _unchanged(request: Request, headers: Mapping[str, str]) -> bool:
    given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return headers["ETag"] in given or given == ["*"]
