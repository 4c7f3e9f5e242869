"""Connecting: the right chain, the right contract, the right spec, or a clear refusal."""

from __future__ import annotations

import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from relay import Relay
from worlds import SPEC, World, chain_world

from fl_node.chains import DevChain
from fl_node.errors import ChainUnavailable, LedgerError, WrongLedger
from fl_node.ledger.deploy import check_code, committed_artifact
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, RpcError, backoff, patiently, without_credentials
from fl_node.records import Role
from fl_node.spec import Deployment


@pytest.fixture(scope="module")
def world(chains: Any) -> World:
    return chain_world(chains("anvil"), (Role.ALL,))


def deployment(world: World, **changes: Any) -> Deployment:
    assert world.deployed is not None
    return world.deployed.deployment.model_copy(update=changes)


class _Forbidden(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(403)

    def log_message(self, *args: object) -> None: ...


@pytest.mark.parametrize("secret", ["/v2/hush-1", "/?apikey=hush-1", "/hush-1?x=hush-1"])
def test_keys_in_the_url_are_not_told(secret: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forbidden) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for place in (f"127.0.0.1:{server.server_address[1]}", "127.0.0.1:1", "nowhere.invalid:1"):
            with pytest.raises(ChainUnavailable) as caught:
                Rpc(f"http://me:hush-1@{place}{secret}", timeout_s=5.0).call("eth_chainId")
            assert f"http://{place} does not answer" in str(caught.value) and "hush" not in str(caught.value)
        server.shutdown()
    for url in (f"wss://me:hush-1@host:1{secret}", f"host:8545{secret}"):
        with pytest.raises(LedgerError, match="host:") as refused:
            Rpc(url)
        assert "hush" not in str(refused.value)
    with pytest.raises(LedgerError, match="got the RPC URL") as refused:
        Rpc(f"http://me:hush-1@[::1{secret}")
    assert "hush" not in str(refused.value) and without_credentials(f"http://me:hush-1@[::1{secret}") == ""


def test_another_chain_is_refused(world: World) -> None:
    with pytest.raises(WrongLedger, match="is chain 31337; expected 1"):
        RpcReader(deployment(world, chain_id=1), SPEC)


def test_no_code_is_refused(world: World) -> None:
    with pytest.raises(WrongLedger, match="no contract at"):
        RpcReader(deployment(world, contract="0x" + "12" * 20), SPEC)


def test_another_spec_is_refused(world: World) -> None:
    with pytest.raises(WrongLedger, match="it was edited"):
        RpcReader(deployment(world), bytes(32))
    assert RpcReader(deployment(world), None).identity.spec_digest == SPEC


def test_another_contract_is_refused(world: World) -> None:
    with Relay(deployment(world).rpc) as relay:
        for answer in ({"code": 3, "message": "execution reverted"}, {"result": "0x"}, {"result": "0x" + "00" * 32}):
            relay.refuse = lambda method, params, answer=answer: answer if method == "eth_call" else None  # type: ignore[misc]
            with pytest.raises(WrongLedger, match="no model ledger"):
                RpcReader(deployment(world), SPEC, Rpc(relay.url))


def test_other_code_is_told_apart(world: World) -> None:
    rpc = Rpc(deployment(world).rpc)
    check_code(rpc, deployment(world).contract)
    with Relay(rpc.url) as relay:
        relay.tamper = lambda method, params, result: result[:-2] + "00" if method == "eth_getCode" else result
        with pytest.raises(WrongLedger, match="are not the"):
            check_code(Rpc(relay.url), deployment(world).contract)
    assert len(committed_artifact().deployed) < 24_577


def test_nobody_there(world: World) -> None:
    with pytest.raises(ChainUnavailable, match="does not answer"):
        RpcReader(deployment(world), SPEC, Rpc("http://127.0.0.1:9"))
    for url in ("ftp://x", "localhost:8545", "ws://127.0.0.1:8545", "http://"):
        with pytest.raises(LedgerError, match="expected http"):
            Rpc(url)


@pytest.mark.parametrize("answer", ["<html>", "[]", "7", "{}", '{"jsonrpc": "2.0", "id": 1}', "\xff"])
def test_an_answer_that_is_no_json_rpc_is_unavailability(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rpc = Rpc("http://127.0.0.1:9")
    sent = answer.encode("latin-1")
    manager = rpc._provider._request_session_manager
    monkeypatch.setattr(manager, "make_post_request", lambda *_, **__: sent)
    with pytest.raises(ChainUnavailable):
        rpc.call("eth_chainId")
    with pytest.raises(ChainUnavailable):
        rpc.batch([("eth_chainId", [])])


def test_errors_of_the_endpoint_are_not_unavailability(world: World) -> None:
    with pytest.raises(RpcError) as caught:
        Rpc(deployment(world).rpc).call("eth_nothing")
    assert caught.value.code == -32601
    good, bad = Rpc(deployment(world).rpc).batch([("eth_chainId", []), ("eth_nothing", [])])
    assert good == "0x7a69" and isinstance(bad, RpcError)


def test_a_local_endpoint_may_want_a_password_that_no_redirect_gets(world: World) -> None:
    seen: list[tuple[str, str | None]] = []
    target = deployment(world).rpc

    class Moved(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Moved)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        rpc = Rpc(f"http://me:secret@127.0.0.1:{server.server_port}/rpc")
        for ask in (lambda: rpc.call("eth_chainId"), lambda: rpc.batch([("eth_chainId", [])] * 2)):
            with pytest.raises(ChainUnavailable, match="redirects to") as caught:
                ask()
            assert "secret" not in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()
    assert set(seen) == {("/rpc", "Basic bWU6c2VjcmV0")}


def test_an_endpoint_that_is_too_busy_is_unavailable(world: World) -> None:
    with Relay(deployment(world).rpc) as relay:
        relay.refuse = lambda method, params: {"code": -32005, "message": "too many requests"}
        relay.error_status = 429
        with pytest.raises(ChainUnavailable, match="429"):
            Rpc(relay.url).call("eth_chainId")
        relay.error_status = 400
        with pytest.raises(RpcError, match="too many"):
            Rpc(relay.url).call("eth_chainId")


def test_a_chain_that_starts_late_is_waited_for(world: World) -> None:
    waited: list[float] = []
    with Relay(deployment(world).rpc) as relay:
        relay.down = True

        def back(error: ChainUnavailable, pause_s: float) -> None:
            waited.append(pause_s)
            relay.down = len(waited) < 3

        reader = patiently(
            lambda: RpcReader(deployment(world), SPEC, Rpc(relay.url)), 60.0, on_wait=back, sleep=lambda _: None
        )
        assert reader.head().size == 2
        relay.down = True
        with pytest.raises(ChainUnavailable):
            patiently(reader.head, 0.0)
    assert waited == [0.2, 0.4, 0.8]
    assert list(itertools.islice(backoff(1.0, 5.0), 5)) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_chain_with_a_kept_state_goes_on_where_it_was(tmp_path: Any) -> None:
    with DevChain.start("anvil", state=tmp_path / "state.json") as chain:
        port = int(chain.rpc_url.rsplit(":", 1)[1])
        world = chain_world(chain, (Role.ALL,))
        head = world.owner.head()
    with pytest.raises(ChainUnavailable):
        world.owner.head()
    with DevChain.start("anvil", state=tmp_path / "state.json", port=port):
        assert world.owner.head() == head
        world.owner.admit("0x" + "34" * 20, "late")
        assert world.owner.head().size == head.size + 1
    world.close()


def test_a_refused_connection_is_told_in_a_few_words() -> None:
    with pytest.raises(ChainUnavailable) as caught:
        Rpc("http://127.0.0.1:9").call("eth_chainId")
    told = "the chain at http://127.0.0.1:9 does not answer: Connection refused; start it, or correct the RPC URL"
    assert str(caught.value) == told
