"""How much each remote address may ask for: token buckets of requests and of bytes.

A bucket holds what :data:`BURST_S` seconds allow, and one token at least. Whoever has tokens is served, also where one
answer takes more than there are; then it waits until the debt is paid. So an honest reader of large files is slowed to
the rate, not refused.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fl_node.content.endpoints import Network

BURST_S: Final = 20.0
_MOST_ADDRESSES: Final = 4096
_LONGEST_WAIT_S: Final = 3600.0


@dataclass(slots=True)
class _Bucket:
    requests: float
    num_bytes: float
    at: float


class RateLimits:
    """Safe to share between threads. Knows at most 4,096 addresses (IPv6 by /64); the longest silent one is forgotten.

    Args:
        requests_per_s: for one address; 0: no limit.
        bytes_per_s: of bodies, for one address; 0: no limit.
        exempt: networks that are never limited.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        requests_per_s: float,
        bytes_per_s: float,
        exempt: Sequence[Network] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests_per_s = requests_per_s
        self._bytes_per_s = bytes_per_s
        self._exempt = tuple(exempt)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def admit(self, address: str) -> float:
        """Count a request; 0 if it may be served, otherwise the seconds after which to come again."""
        with self._lock:
            bucket = self._bucket(address)
            if bucket is None:
                return 0.0
            wait_s = max(_debt(bucket.requests, self._requests_per_s), _debt(bucket.num_bytes, self._bytes_per_s))
            if wait_s <= 0:
                bucket.requests -= 1.0
            return min(max(0.0, wait_s), _LONGEST_WAIT_S)

    def charge(self, address: str, num_bytes: int) -> None:
        """Count bytes of a body; negative ones give back."""
        with self._lock:
            bucket = self._bucket(address)
            if bucket is not None:
                bucket.num_bytes -= num_bytes

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, address: str) -> _Bucket | None:
        """The bucket of this address as of now; None: it is never limited."""
        parsed = _parsed(address)
        if any(parsed.version == network.version and parsed in network for network in self._exempt):
            return None
        now, key = self._clock(), _key(parsed)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(_burst(self._requests_per_s), _burst(self._bytes_per_s), now)
            if len(self._buckets) > _MOST_ADDRESSES:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key)
        passed_s, bucket.at = now - bucket.at, now
        bucket.requests = _filled(bucket.requests, self._requests_per_s, passed_s)
        bucket.num_bytes = _filled(bucket.num_bytes, self._bytes_per_s, passed_s)
        return bucket


def _burst(per_s: float) -> float:
    return max(1.0, BURST_S * per_s)


def _filled(tokens: float, per_s: float, passed_s: float) -> float:
    return min(_burst(per_s), tokens + passed_s * per_s)


def _debt(tokens: float, per_s: float) -> float:
    """Seconds until there is a token again; 0 where there is one, or no limit."""
    return max(1.0 - tokens, 0.0) / per_s if per_s else 0.0


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _key(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
