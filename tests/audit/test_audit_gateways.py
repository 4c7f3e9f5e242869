"""Gateways that cost an audit time, and gateways that strangers announce."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fl_node.audit import gateways
from fl_node.audit.gateways import GatewayBlobs
from fl_node.content import providers
from fl_node.content.endpoints import Endpoint, parse_endpoint
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.content.unixfs import cid_of
from fl_node.errors import ContentUnavailable, SpecError
from fl_node.spec import parse_federation
from fl_node.tables import ContentSpec

MANY = [cid_of(b"nobody's %d" % number) for number in range(60)]


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """Takes connections and never says a word."""
    monkeypatch.setattr(providers, "_COSTLY_S", 0.05)
    monkeypatch.setattr(gateways, "_PROBE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield parse_endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}")


@pytest.fixture
def served() -> Iterator[Endpoint]:
    store = MemoryStore()
    store.add(b"here")
    with Gateway(store) as gateway:
        yield parse_endpoint(gateway.endpoint)


def test_a_gateway_that_never_answers_costs_a_bounded_time(mute: Endpoint) -> None:
    blobs = GatewayBlobs(given=[mute], timeout_s=0.2)
    began, said = time.monotonic(), []
    for cid in MANY:
        with pytest.raises(ContentUnavailable) as caught:
            blobs.hold(cid, 100)
        said.append(str(caught.value))
    assert time.monotonic() - began < 2.0
    assert "was too slow" in said[0] and f"{mute} left several questions unanswered" in said[-1]
    assert blobs.where(MANY[0]) == ""
    blobs.close()


def test_nor_does_it_when_it_is_asked_who_has_what(mute: Endpoint) -> None:
    blobs = GatewayBlobs(announced={1: mute}, allow_networks=["127.0.0.0/8"])
    began = time.monotonic()
    answers = [blobs.asked(cid) for cid in MANY]
    assert time.monotonic() - began < 2.0
    assert all(answer is not None and answer.silent == (f"peer 1 {mute}",) for answer in answers)
    assert blobs.documents("/checkpoint", 100) == {}
    blobs.close()


def test_many_that_never_answer_have_little_time_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "_PROBE_S", 0.1)
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128)) for _ in range(8)]
        mutes = [parse_endpoint(f"http://127.0.0.1:{one.getsockname()[1]}") for one in listening]
        blobs = GatewayBlobs(given=mutes, announced=dict(enumerate(mutes, 1)), timeout_s=0.4)
        began = time.monotonic()
        for cid in MANY:
            with pytest.raises(ContentUnavailable):
                blobs.hold(cid, 100)
            holders = blobs.asked(cid)
            assert holders is not None and len(holders.silent) == 8
        assert time.monotonic() - began < 8 * 3 * 0.1 + 3 * 0.4 + 2.0
        blobs.close()


def test_one_that_answers_now_and_then_goes_on_to_be_asked(mute: Endpoint, served: Endpoint) -> None:
    blobs = GatewayBlobs(given=[served, mute], timeout_s=0.4)
    for cid in MANY[:4]:
        with pytest.raises(ContentUnavailable, match=rf"{served} has not got"):
            blobs.hold(cid, 100)
    assert bytes(blobs.hold(cid_of(b"here"), 100).data) == b"here"
    blobs.close()


def test_naming_one_private_address_opens_no_other(served: Endpoint) -> None:
    with Gateway(MemoryStore()) as empty:
        blobs = GatewayBlobs(given=[parse_endpoint(empty.endpoint)], announced={1: served})
        with pytest.raises(ContentUnavailable, match="has not got"):
            blobs.hold(cid_of(b"here"), 100)
        found = blobs.asked(cid_of(b"here"))
        assert found is not None and found.silent and not found.having and not found.lacking
        # What the spec allows is allowed.
        blobs.follow(ContentSpec(allow_networks=("127.0.0.0/8",)))
        assert bytes(blobs.hold(cid_of(b"here"), 100).data) == b"here"
        blobs.close()


def test_it_is_told_why_nobody_is_asked(served: Endpoint) -> None:
    nobody, one = GatewayBlobs(), GatewayBlobs(announced={1: served})
    with pytest.raises(
        ContentUnavailable, match=r"and there is no gateway to ask; name one that has it with --content"
    ):
        nobody.hold(MANY[0], 100)
    with pytest.raises(ContentUnavailable, match=r"none of 1 gateways answers: .* 127\.0\.0\.1 is not public"):
        one.hold(MANY[0], 100)


@pytest.mark.parametrize("network", ["here", "10.1.0.1/16", "10.0.0.0/33"])
def test_a_spec_that_allows_no_network_is_malformed(network: str) -> None:
    with pytest.raises(SpecError, match=r"content\.allow_networks"):
        parse_federation(f'format = 1\n[content]\nallow_networks = ["{network}"]\n'.encode())
