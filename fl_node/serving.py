"""The gateway of a peer as its settings ask for it: TLS, rate limits, a count of bytes; and those of the others."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from fl_node.config import WILDCARDS, NodeConfig
from fl_node.content.endpoints import Endpoint, as_announced, parse_endpoint, parse_networks
from fl_node.content.gateway import Gateway
from fl_node.content.http_messages import Handler
from fl_node.content.meter import Meter
from fl_node.content.protocol import ContentStore
from fl_node.content.rates import RateLimits
from fl_node.content.tls import FOLDER_NAME, ServerTls, generated
from fl_node.errors import ContentUnavailable, UsageError
from fl_node.prefix import Prefix
from fl_node.progress import Emit, Event
from fl_node.spec import Spec

#: Pins that are tried at one endpoint, where several peers announced it.
_MOST_PINS: Final = 4


def gateway_of(
    config: NodeConfig,
    spec: Spec,
    store: ContentStore,
    emit: Emit,
    *,
    routes: Mapping[str, Handler] | None = None,
    meter: Meter | None = None,
) -> Gateway:
    """Open a peer's gateway.

    Raises:
        UsageError: the settings do not go together, or the certificate cannot be used.
        PortTaken: the address cannot be listened on.
    """
    tls = tls_of(config, lambda text: emit(Event("tls-stale", text, {})))
    return Gateway(store, config.host, config.port, routes=routes, tls=tls, rates=rates_of(config, spec), meter=meter)


def tls_mode(config: NodeConfig) -> Literal["off", "generated", "files"]:
    """How the gateway speaks. ``auto``: with given files if there are any; with a certificate of its own where it
    listens on an address that others reach and nobody says at which URL; else in the clear: on loopback it is for this
    machine, or for a proxy that does TLS.

    Raises:
        UsageError: the settings do not go together.
    """
    mode = config.tls
    if mode == "auto":
        given = bool(config.tls_cert or config.tls_key)
        own = not config.endpoint and not loopback(config.host) and config.host not in WILDCARDS
        mode = "files" if given else "generated" if own else "off"
    if mode == "files" and not (config.tls_cert and config.tls_key):
        raise UsageError(
            f"got tls_cert = {config.tls_cert!r}, tls_key = {config.tls_key!r}; expected both files for TLS with a "
            'certificate of yours, or tls = "generated" for one that this peer makes'
        )
    if mode != "off" and config.endpoint.startswith("http:"):
        raise UsageError(
            f'got endpoint = {config.endpoint!r}, but the gateway speaks TLS; expected https://..., or tls = "off"'
        )
    return mode


def tls_of(config: NodeConfig, tell: Callable[[str], None] = lambda text: None) -> ServerTls | None:
    """The gateway's certificate, or None where it speaks plain HTTP. Raises as :func:`gateway_of`."""
    mode = tls_mode(config)
    if mode == "off":
        return None
    if mode == "files":
        return ServerTls(Path(config.tls_cert), Path(config.tls_key), pinned=config.tls_pinned, tell=tell)
    hosts = [] if config.host in WILDCARDS else [config.host]
    if config.endpoint:
        with suppress(ContentUnavailable):
            hosts.append(parse_endpoint(config.endpoint).host)
    return generated(config.state_path / FOLDER_NAME, hosts, tell)


def rates_of(config: NodeConfig, spec: Spec) -> RateLimits:
    """Limits for everybody but the networks that the settings or the spec name: the latter are the members' own.

    Raises:
        UsageError: ``rate_exempt`` holds what is no network.
    """
    named = [text.strip() for text in config.rate_exempt.split(",") if text.strip()]
    exempt = (*parse_networks(named, "rate_exempt"), *parse_networks(spec.content.allow_networks))
    return RateLimits(config.rate_requests, config.rate_bytes, exempt)


class Announced:
    """The gateways that active peers announce now. Safe to share between threads.

    Args:
        prefix: the log as of now.
    """

    def __init__(self, prefix: Callable[[], Prefix]) -> None:
        self._prefix = prefix
        self._folded: tuple[Prefix, dict[str, list[tuple[int, Endpoint]]]] | None = None

    def whose(self, endpoint: str) -> int | None:
        """The peer that announced this endpoint; the first by number, where several say that it is theirs."""
        found = self._now().get(endpoint)
        return found[0][0] if found else None

    def at(self, text: str) -> Sequence[Endpoint]:
        """The endpoint that somebody announced by this text, with each pin that goes with it.

        Raises:
            ContentUnavailable: it is none.
        """
        plain = parse_endpoint(text)
        pinned = dict.fromkeys(endpoint for _, endpoint in self._now().get(str(plain), ()))
        return list(pinned)[:_MOST_PINS] or [plain]

    def _now(self) -> Mapping[str, list[tuple[int, Endpoint]]]:
        prefix = self._prefix()
        known = self._folded
        if known is not None and known[0] is prefix:
            return known[1]
        found: dict[str, list[tuple[int, Endpoint]]] = {}
        for facts in prefix.peers():
            said = facts.announcement
            endpoint = as_announced(said.endpoint, said.tls_pin) if facts.active and said is not None else ""
            if isinstance(endpoint, Endpoint):
                found.setdefault(str(endpoint), []).append((facts.number, endpoint))
        self._folded = prefix, found
        return found


def loopback(host: str) -> bool:
    """Whether nobody but this machine reaches what listens on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
