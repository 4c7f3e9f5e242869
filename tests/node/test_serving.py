"""How a peer's settings become a gateway: TLS modes, limits, whose endpoints are whose."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_node.config import NodeConfig, load_config
from fl_node.content.endpoints import Endpoint
from fl_node.content.fetch import Fetcher
from fl_node.content.memory import MemoryStore
from fl_node.content.tls import NO_PIN
from fl_node.errors import ContentUnavailable, SpecError, UsageError
from fl_node.serving import Announced, gateway_of, rates_of, tls_mode, tls_of
from fl_node.spec import parse_federation

SPEC = parse_federation(b'format = 1\nname = "x"\n[content]\nallow_networks = ["10.0.0.0/8"]\n').spec


def config(tmp_path: Path, **values: Any) -> NodeConfig:
    return load_config({"state": str(tmp_path), **values}, {})


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, "off"),
        ({"host": "localhost"}, "off"),
        ({"host": "::1"}, "off"),
        ({"host": "127.0.0.1", "endpoint": "https://fl.example"}, "off"),  # behind a proxy
        ({"host": "10.1.2.3"}, "generated"),
        ({"host": "peer.example"}, "generated"),
        ({"host": "10.1.2.3", "endpoint": "http://10.1.2.3:4001"}, "off"),
        ({"host": "0.0.0.0", "endpoint": "https://fl.example"}, "off"),
        ({"host": "0.0.0.0", "endpoint": "https://fl.example", "tls": "generated"}, "generated"),
        ({"tls": "generated"}, "generated"),
        ({"tls_cert": "a.pem", "tls_key": "a.key"}, "files"),
        ({"tls_cert": "a.pem", "tls_key": "a.key", "tls": "off"}, "off"),
    ],
)
def test_modes(tmp_path: Path, given: dict[str, str], mode: str) -> None:
    assert tls_mode(config(tmp_path, **given)) == mode


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tls": "files"}, "expected both files"),
        ({"tls_cert": "a.pem"}, "expected both files"),
        ({"tls": "generated", "endpoint": "http://10.1.2.3:4001"}, "expected https://"),
        ({"tls_cert": "a.pem", "tls_key": "a.key"}, "cannot read a.pem"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path: Path, given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tls_of(config(tmp_path, **given))


def test_a_mode_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="tls"):
        config(tmp_path, tls="on")


def test_a_gateway_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    store = MemoryStore()
    cid = store.add(b"x")
    told: list[Any] = []
    settings = config(tmp_path, tls="generated", endpoint="https://fl.example:4001")
    with gateway_of(settings, SPEC, store, told.append) as gateway, Fetcher(("127.0.0.0/8",)) as fetcher:
        assert gateway.endpoint.startswith("https://127.0.0.1:") and gateway.tls_pin != NO_PIN
        where = Endpoint("https", "127.0.0.1", gateway.port, gateway.tls_pin)
        assert fetcher.fetch(cid, 10, [where]) == b"x"
        first = gateway.tls_pin
    with gateway_of(settings, SPEC, store, told.append) as gateway:
        assert gateway.tls_pin == first
    with gateway_of(config(tmp_path), SPEC, store, told.append) as plain:
        assert plain.tls_pin == NO_PIN and plain.endpoint.startswith("http://")
    assert told == []


def test_limits_leave_this_machine_and_the_members_networks_alone(tmp_path: Path) -> None:
    limits = rates_of(config(tmp_path, rate_requests=1.0), SPEC)
    for address in ("127.0.0.1", "::1", "10.200.0.1"):
        assert [limits.admit(address) for _ in range(1000)] == [0.0] * 1000
    assert sum(limits.admit("192.0.2.1") == 0.0 for _ in range(1000)) == 20
    strict = rates_of(config(tmp_path, rate_requests=1.0, rate_exempt=""), SPEC)
    assert sum(strict.admit("127.0.0.1") == 0.0 for _ in range(1000)) == 20
    with pytest.raises(UsageError, match="rate_exempt"):
        rates_of(config(tmp_path, rate_exempt="here"), SPEC)


# ---- who announced what ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    endpoint: str
    tls_pin: bytes = NO_PIN


@dataclass(frozen=True)
class Facts:
    number: int
    announcement: Said | None
    active: bool = True


class Log:
    """As much of a prefix as is asked."""

    def __init__(self, *facts: Facts) -> None:
        self._facts = facts

    def peers(self) -> tuple[Facts, ...]:
        return self._facts


def test_whose_endpoint_it_is_and_with_which_pins() -> None:
    mine, theirs = b"\x01" * 32, b"\x02" * 32
    log = Log(
        Facts(1, None),
        Facts(2, Said("https://fl.example", mine)),
        Facts(3, Said("https://fl.example:443/", theirs)),  # says that it is there, too
        Facts(4, Said("http://10.0.0.4:80")),
        Facts(5, Said("nonsense")),
        Facts(6, Said("http://10.0.0.6:80"), active=False),
    )
    known = Announced(lambda: log)  # type: ignore[arg-type, return-value]
    assert [known.whose(url) for url in ("https://fl.example:443", "http://10.0.0.4:80", "http://10.0.0.6:80")] == [
        2,
        4,
        None,
    ]
    assert [endpoint.tls_pin for endpoint in known.at("https://fl.example")] == [mine, theirs]
    assert list(known.at("http://10.0.0.4")) == [Endpoint("http", "10.0.0.4", 80)]
    with pytest.raises(ContentUnavailable):
        known.at("nonsense")
    log = Log(Facts(4, Said("https://fl.example", theirs)))
    assert known.whose("https://fl.example:443") == 4


def test_it_may_be_asked_by_many_threads_while_the_log_grows() -> None:
    logs = [Log(Facts(n, Said("http://10.0.0.4:80"))) for n in range(1, 200)]
    at = 0
    known = Announced(lambda: logs[at])  # type: ignore[arg-type, return-value]
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(500):
            number = known.whose("http://10.0.0.4:80")
            if number is None or not 1 <= number <= 199:
                wrong.append(number)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        at = min(at + 1, 198)
    assert wrong == []
