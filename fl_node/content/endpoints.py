"""Which endpoints on the ledger may be talked to, and at which addresses.

An endpoint is a string that some member wrote: it may point at this machine's own services, at the hospital's inner
network, or at a name that resolves differently the second time. So: http or https only, no user, path or query; the
name is resolved once, and the address that was checked is the address that is connected to.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from fl_node.errors import ContentUnavailable, UsageError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[..., list[tuple[Any, ...]]]

_MAX_CHARACTERS: Final = 512
_HOST: Final = re.compile(r"[0-9A-Za-z._:-]{1,253}")
#: Where people put keys: before an @, after a question mark.
_SECRETS: Final = re.compile(r"(?<=//)[^/?#]*(?=@)|(?<=\?).+")
# IPv6 ranges that lead to an IPv4 address: NAT64, 6to4, Teredo, IPv4-compatible.
_TUNNELS: Final = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)


#: For endpoints that nobody but whoever runs this program named.
ANYWHERE: Final[tuple[Network, ...]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A gateway as announced. ``tls_pin``: SHA-256 of the public key (SubjectPublicKeyInfo) that its certificate must
    hold over https; empty: any certificate that this system trusts for that name."""

    scheme: str
    host: str
    port: int
    tls_pin: bytes = b""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, tls_pin: bytes = b"") -> Endpoint:
    """Read an announced endpoint, ``http://host:port`` or ``https://host:port``.

    Raises:
        ContentUnavailable: anything else; the message names the endpoint.
    """
    shown = repr(without_secrets(text)[:100])
    try:
        if len(text) > _MAX_CHARACTERS or not text.isascii() or not text.isprintable() or "\\" in text:
            raise ValueError("not a short printable ASCII URL")
        parts = urlsplit(text)
        port = parts.port
    except ValueError as cause:
        raise ContentUnavailable(f"cannot use the endpoint {shown}: {cause}; expected http://host:port") from cause
    host = parts.hostname or ""
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(host)
        or "@" in parts.netloc
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or port == 0
    ):
        raise ContentUnavailable(
            f"cannot use the endpoint {shown}: expected http://host:port or https://host:port and nothing else"
        )
    return Endpoint(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), tls_pin)


def as_announced(text: str, tls_pin: bytes) -> str | Endpoint:
    """An announced endpoint with its pin (32 bytes, zeros: none); the bare text of one that cannot be used, so that
    whoever asks there is told why."""
    try:
        return parse_endpoint(text, tls_pin if any(tls_pin) else b"")
    except ContentUnavailable:
        return text


def without_secrets(text: str) -> str:
    """A URL as it may be shown: without what stands before an @ and after a question mark."""
    return _SECRETS.sub("...", text)


def parse_networks(texts: Sequence[str], key: str = "content.allow_networks") -> tuple[Network, ...]:
    """Read CIDR ranges such as ``10.1.0.0/16``, the value of ``key``. Raises UsageError."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as cause:
        raise UsageError(f"{key}: {cause}; expected CIDR ranges such as 10.1.0.0/16") from cause


def permitted(address: Address, allow_networks: Sequence[Network]) -> bool:
    """Whether bytes may be fetched from this address: public, or in a range that the spec allows."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return permitted(address.ipv4_mapped, allow_networks)
    if any(address.version == network.version and address in network for network in allow_networks):
        return True
    if any(address.version == network.version and address in network for network in _TUNNELS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def resolve(endpoint: Endpoint, allow_networks: Sequence[Network], resolver: Resolver) -> list[tuple[int, str]]:
    """The permitted addresses of an endpoint: family and numeric address.

    Raises:
        ContentUnavailable: the name does not resolve, or only to addresses that are denied.
    """
    try:
        found = resolver(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as cause:
        raise ContentUnavailable(f"{endpoint}: the name does not resolve: {cause}") from cause
    good: list[tuple[int, str]] = []
    denied: list[str] = []
    for family, _, _, _, where in found:
        # A zone (fe80::1%eth0) only comes with link-local addresses, which are denied.
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if permitted(address, allow_networks):
            good.append((family, str(address)))
        else:
            denied.append(str(address))
    if not good:
        raise ContentUnavailable(
            f"{endpoint}: its address {', '.join(denied) or '(none)'} is not public; "
            "private networks are denied unless the spec's content.allow_networks names them"
        )
    return good
