"""Rate limits: the buckets, what a gateway says when they are empty, and how a fetch takes it."""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_node.content import Cid, cid_of, open_store
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import Request, Response, text
from fl_node.content.rates import BURST_S, RateLimits
from fl_node.content.unixfs import CHUNK_BYTES
from fl_node.errors import ContentUnavailable

LOOPBACK = ("127.0.0.0/8",)
SMALL = os.urandom(3000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_then_the_rate(clock: Clock) -> None:
    limits = RateLimits(2.0, 0.0, clock=clock)
    assert [limits.admit("192.0.2.1") for _ in range(round(2 * BURST_S))] == [0.0] * 40
    wait_s = limits.admit("192.0.2.1")
    assert wait_s == pytest.approx(0.5)
    assert limits.admit("192.0.2.2") == 0.0
    clock.now += wait_s
    assert limits.admit("192.0.2.1") == 0.0 and limits.admit("192.0.2.1") > 0
    clock.now += 1e6  # no more than a burst is saved up
    assert sum(limits.admit("192.0.2.1") == 0.0 for _ in range(100)) == 40


def test_a_rate_far_below_one_serves_once_in_a_while(clock: Clock) -> None:
    limits = RateLimits(0.01, 0.0, clock=clock)
    assert limits.admit("192.0.2.1") == 0.0
    assert limits.admit("192.0.2.1") == pytest.approx(100.0)
    clock.now += 100.0
    assert limits.admit("192.0.2.1") == 0.0 and limits.admit("192.0.2.1") > 0


def test_bytes_may_go_into_debt_that_is_paid_off(clock: Clock) -> None:
    limits = RateLimits(0.0, 100.0, clock=clock)
    assert limits.admit("192.0.2.1") == 0.0
    limits.charge("192.0.2.1", 10_000)
    assert limits.admit("192.0.2.1") == pytest.approx((10_000 - 100 * BURST_S + 1) / 100)
    limits.charge("192.0.2.1", -9_999)  # what was not sent after all
    assert limits.admit("192.0.2.1") == 0.0
    limits.charge("192.0.2.1", 10**15)
    assert limits.admit("192.0.2.1") == 3600.0


def test_zero_is_no_limit_and_some_networks_have_none(clock: Clock) -> None:
    none = RateLimits(0.0, 0.0, clock=clock)
    for _ in range(10_000):
        none.charge("192.0.2.1", 1 << 40)
        assert none.admit("192.0.2.1") == 0.0
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    some = RateLimits(0.01, 1.0, networks, clock=clock)
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "fd00::1%eth0"):
        for _ in range(100):
            some.charge(address, 1 << 40)
            assert some.admit(address) == 0.0
    assert len(some) == 0
    some.charge("11.1.2.3", 1 << 40)
    assert some.admit("11.1.2.3") > 0


def test_a_customers_ipv6_network_counts_as_one_and_memory_is_bounded(clock: Clock) -> None:
    limits = RateLimits(1.0, 0.0, clock=clock)
    assert sum(limits.admit(f"2001:db8:1:2::{host:x}") == 0.0 for host in range(1, 100)) == BURST_S
    assert limits.admit("2001:db8:1:3::1") == 0.0
    for number in range(100_000):
        limits.admit(str(ipaddress.IPv4Address(number)))
    assert len(limits) == 4096


# ---- over HTTP ---------------------------------------------------------------------------------------------------


def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    store = open_store("memory", Path())
    cid = store.add(SMALL)
    with Gateway(store, rates=RateLimits(0.1, 0.0)) as gateway:
        connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
        statuses = []
        for _ in range(4):  # on one connection: it stays open
            connection.request("GET", f"/ipfs/{cid}?format=raw")
            response = connection.getresponse()
            statuses.append(response.status)
            body = response.read()
        connection.close()
    assert statuses == [200, 200, 429, 429]
    assert 1 <= int(response.headers["Retry-After"]) <= 10 and b"too much from this address" in body


def test_only_what_was_sent_is_charged() -> None:
    """Questions about sizes cost no bytes, and neither does what a client did not take."""
    store = open_store("memory", Path())
    cid = store.add(os.urandom(40 * CHUNK_BYTES))
    charged: list[int] = []

    class Watched(RateLimits):
        def charge(self, address: str, num_bytes: int) -> None:
            charged.append(num_bytes)
            super().charge(address, num_bytes)

    with Gateway(store, rates=Watched(0.0, 1e9)) as gateway:
        connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
        connection.request("HEAD", f"/ipfs/{cid}?format=car")
        length = int(connection.getresponse().headers["Content-Length"])
        assert sum(charged) == 0 and length > 40 * CHUNK_BYTES
        connection.close()
        with socket.create_connection((gateway.host, gateway.port), timeout=10) as leaving:
            leaving.sendall(f"GET /ipfs/{cid}?format=car HTTP/1.1\r\n\r\n".encode())
            leaving.recv(1000)
        deadline = time.monotonic() + 20
        while len(charged) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert charged[0] == length and 0 <= sum(charged) < length


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[Gateway, Cid, bytes, list[int]]]:
    """A gateway over a file of 12 blocks that says "not now" to every third question, and what it said."""
    data = os.urandom(11 * CHUNK_BYTES + 5)
    store = open_store("embedded", tmp_path / "source")
    cid = store.add(data, durable=False)
    said: list[int] = []
    lock = threading.Lock()
    with Gateway(store) as gateway:
        answer = gateway._server._handler

        def sometimes(request: Request) -> Response:
            with lock:
                busy = len(said) % 3 == 2
                said.append(429 if busy else 200)
            return text(429, "come again", {"Retry-After": "1"}) if busy else answer(request)

        gateway._server._handler = sometimes
        yield gateway, cid, data, said


def test_a_fetch_comes_again_and_thinks_no_less_of_the_provider(limited: tuple[Gateway, Cid, bytes, list[int]]) -> None:
    gateway, cid, data, said = limited
    with Fetcher(LOOPBACK, timeout_s=60.0, connections=1) as fetcher:
        assert fetcher.fetch(cid, len(data), [gateway.endpoint]) == data
        assert said.count(200) == 13 and said.count(429) >= 5
        assert not fetcher.silent(next(iter(fetcher._providers._records)))
        assert all(record.failed_at == float("-inf") for record in fetcher._providers._records.values())


def test_meanwhile_others_are_asked(limited: tuple[Gateway, Cid, bytes, list[int]], tmp_path: Path) -> None:
    gateway, cid, data, said = limited
    store = open_store("memory", tmp_path)
    store.add(data)
    with Gateway(store) as second, Fetcher(LOOPBACK, timeout_s=60.0, connections=1) as fetcher:
        assert fetcher.fetch(cid, len(data), [gateway.endpoint, second.endpoint]) == data
    assert 429 in said


@pytest.mark.parametrize("status", [429, 503])
def test_not_now_until_the_time_is_over(status: int) -> None:
    page = {"/page": lambda request: text(status, "come again", {"Retry-After": "7"})}
    with Gateway(open_store("memory", Path()), routes=page) as gateway, Fetcher(LOOPBACK, timeout_s=1.0) as fetcher:
        with pytest.raises(ContentUnavailable, match=f"answered {status}: come again in 7 s"):
            fetcher.document("/page", 100, gateway.endpoint)
        gateway._server._handler = page["/page"]
        began = time.monotonic()
        with pytest.raises(ContentUnavailable, match=f"answered {status}: come again in 7 s"):
            fetcher.fetch(cid_of(SMALL), 10_000, [gateway.endpoint])
        assert time.monotonic() - began < 6.0  # not after the pause that it was told
        assert all(record.failed_at == float("-inf") for record in fetcher._providers._records.values())


def test_a_limited_peer_gets_its_file_all_the_same(tmp_path: Path) -> None:
    """Real limits: 21 blocks where a burst allows 20 and each further second one more."""
    data = os.urandom(20 * CHUNK_BYTES + 5)
    store = open_store("embedded", tmp_path)
    cid = store.add(data, durable=False)
    with Gateway(store, rates=RateLimits(1.0, 0.0)) as gateway, Fetcher(LOOPBACK, timeout_s=60.0) as fetcher:
        assert fetcher.fetch(cid, len(data), [gateway.endpoint]) == data
