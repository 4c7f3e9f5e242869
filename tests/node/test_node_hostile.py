"""Members who publish rubbish and endpoints that misbehave: each is objected to by name, and the round goes on."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from consortium import CLEAR, Consortium, configure, found, free_port

from fl_node.chains import DevChain
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.merging import weights
from fl_node.merging.weights import Tensors
from fl_node.records import Flag, Reason, Update, UpdateObjected, UpdateRef

pytestmark = pytest.mark.xdist_group("node-hostile")

ZERO = bytes(32)


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with DevChain.start("anvil") as running:
        yield running


def claim_of_ten_gigabytes(good: Tensors) -> bytes:
    return struct.pack("<Q", 10 << 30) + b'{"a":1}'


def header(good: Tensors) -> bytes:
    table = {"weight": {"dtype": "F32", "shape": [10, 64], "data_offsets": [0, 1 << 40]}}
    raw = json.dumps(table).encode()
    return struct.pack("<Q", len(raw)) + raw


def deep(good: Tensors) -> bytes:
    raw = b"[" * 100_000
    return struct.pack("<Q", len(raw)) + raw


def _file(tensors: Tensors) -> bytes:
    return b"".join(bytes(buffer) for buffer in weights.encode(tensors))


def _with(good: Tensors, change: Callable[[str, np.ndarray], tuple[str, np.ndarray]]) -> bytes:
    return _file(dict(change(name, array) for name, array in good.items()))


def _nan(good: Tensors) -> bytes:
    def poke(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
        array = array.copy()
        array.reshape(-1)[0] = np.nan
        return name, array

    # The encoder refuses it, so the bytes of a good file are changed.
    data = bytearray(_file(good))
    data[-4:] = struct.pack("<f", float("nan"))
    return bytes(data)


RUBBISH: dict[str, tuple[Callable[[Tensors], bytes], Reason]] = {
    "empty": (lambda good: b"", Reason.MALFORMED),
    "no safetensors": (lambda good: b"\x80\x04pickle me", Reason.MALFORMED),
    "names": (lambda good: _with(good, lambda n, a: (n + "_", a)), Reason.MALFORMED),
    "shapes": (lambda good: _with(good, lambda n, a: (n, a.reshape(1, *a.shape))), Reason.MALFORMED),
    "dtypes": (lambda good: _with(good, lambda n, a: (n, a.astype(np.float64))), Reason.MALFORMED),
    "not a number": (_nan, Reason.MALFORMED),
    "values no training gives": (
        lambda good: _with(good, lambda n, a: (n, np.full_like(a, 1e38))),
        Reason.MALFORMED,
    ),
    "10 GB header": (claim_of_ten_gigabytes, Reason.MALFORMED),
    "offsets beyond": (header, Reason.MALFORMED),
    "deep header": (deep, Reason.MALFORMED),
    "truncated": (lambda good: _file(good)[:-1], Reason.MALFORMED),
    "too long": (lambda good: _file(good) + bytes(1 << 20), Reason.MALFORMED),
    "other tensors": (lambda good: _with(good, lambda n, a: (n, a + 1)), Reason.DIGEST_MISMATCH),
}


def _publish(made: Consortium, peer: int, content: bytes, tensors: Tensors, flags: Flag, encoding: int = 0) -> None:
    ledger = made.peer_ledger(peer)
    try:
        head = ledger.head()
        identity = ledger.identity
        commitment = weights.commitment(identity.chain_id, identity.address, peer, 1, weights.digest(tensors))
        update = Update(
            content=content,
            flags=flags,
            weights=commitment,
            base=ZERO,
            report=ZERO,
            seen=head.size,
            seen_root=head.root,
            sequence=1,
            round=1,
            score_ppm=999_999,
            base_score_ppm=0,
            train_samples=1_000_000,
            test_samples=1_000_000,
            rule=0,
            encoding=encoding,
        )
        ledger.publish(update, ())
    finally:
        ledger.close()


def _announce(made: Consortium, peer: int, endpoint: str) -> None:
    ledger = made.peer_ledger(peer)
    try:
        ledger.announce(1, ZERO, ZERO, endpoint)
    finally:
        ledger.close()


def _words(made: Consortium, by: int) -> dict[int, Reason]:
    return {
        entry.body.target.peer: entry.body.reason
        for entry in made.entries()
        if isinstance(entry.body, UpdateObjected) and entry.body.peer == by
    }


def test_rubbish_is_objected_to_and_left_out(chain: DevChain, tmp_path: Path) -> None:
    extra = ["unknown encoding", "encrypted", "dag-pb that is none", "a copy of another's"]
    made = found(tmp_path, chain, 1 + len(RUBBISH) + len(extra), rounds={"linger_s": 0.0, "planned": 1}, privacy=CLEAR)
    good = weights.decode((tmp_path / "federation.genesis.safetensors").read_bytes()).tensors
    store = MemoryStore()
    expected: dict[int, Reason] = {}
    with Gateway(store) as gateway:
        for peer, (make, reason) in enumerate(RUBBISH.values(), start=2):
            cid = store.add(make(good))
            _announce(made, peer, gateway.endpoint)
            _publish(made, peer, cid.digest, good, Flag.DAG_PB if cid.codec == "dag-pb" else Flag(0))
            expected[peer] = reason
        good_cid = store.add(_file(good))
        junk = store.add(b"junk")
        first = 2 + len(RUBBISH)
        _publish(made, first, good_cid.digest, good, Flag(0), encoding=9)
        _publish(made, first + 1, good_cid.digest, good, Flag.ENCRYPTED)
        _publish(made, first + 2, junk.digest, good, Flag.DAG_PB)
        ledger = made.peer_ledger(first + 3)
        head, identity = ledger.head(), ledger.identity
        stolen = weights.commitment(identity.chain_id, identity.address, first, 1, weights.digest(good))
        ledger.publish(
            Update(good_cid.digest, Flag(0), stolen, ZERO, ZERO, head.size, head.root, 1, 1, 0, 0, 1, 1, 0), ()
        )
        ledger.close()
        # Sealed for nobody (first + 1), it is no candidate, so nobody needs to object to it.
        expected |= {first: Reason.MALFORMED, first + 3: Reason.DIGEST_MISMATCH}
        # A gateway that serves blocks raw has no dag-pb block of that digest.
        expected[first + 2] = Reason.UNAVAILABLE
        run = made.run(1)
        assert run.wait() == 0, run.stderr
    assert _words(made, 1) == expected
    assert len(run.events("left-out")) >= len(expected)
    assert "Traceback" not in run.stderr
    mine = made.replay().check([1])
    assert [[parent.peer for parent in update.parents] for update in mine] == [[], [1]]


class _Liar(BaseHTTPRequestHandler):
    """Endpoints that misbehave, told apart by the first part of the path; a gateway's path comes after it."""

    def do_GET(self) -> None:
        kind = self.server.kind  # type: ignore[attr-defined]
        if kind == "redirecting":
            self.send_response(302)
            self.send_header("Location", self.server.honest + self.path)  # type: ignore[attr-defined]
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.ipld.raw")
        if kind == "other bytes":
            self.send_header("Content-Length", "2000")
            self.end_headers()
            self.wfile.write(bytes(2000))
            return
        if kind == "endless":
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        if kind == "slow":
            self.send_header("Content-Length", "2000")
            self.end_headers()
            try:
                while not self.server.over.wait(0.2):  # type: ignore[attr-defined]
                    self.wfile.write(b"\0")
                    self.wfile.flush()
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def liars() -> Iterator[Callable[[str, str], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(kind: str, honest: str) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Liar)
        server.daemon_threads = True
        server.kind, server.honest, server.over = kind, honest, threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


def test_endpoints_that_misbehave_cost_their_peers_only(
    chain: DevChain, tmp_path: Path, liars: Callable[[str, str], str]
) -> None:
    kinds = ["redirecting", "other bytes", "endless", "slow"]
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{bound.getsockname()[1]}"
    fixed = [
        "file:///etc/passwd",
        "http://10.255.255.1:8080",
        "ftp://127.0.0.1/",
        "http://[::ffff:10.0.0.1]:80",
        "",
        dead,
    ]
    made = found(
        tmp_path,
        chain,
        1 + len(kinds) + len(fixed),
        rounds={"linger_s": 0.0, "planned": 1},
        content={"fetch_timeout_s": 2.0},
        privacy=CLEAR,
    )
    good = weights.decode((tmp_path / "federation.genesis.safetensors").read_bytes()).tensors
    store = MemoryStore()
    with Gateway(store) as honest:
        endpoints = [liars(kind, honest.endpoint) for kind in kinds] + fixed
        for peer, endpoint in enumerate(endpoints, start=2):
            # Different bytes each, so that nobody's are in the own store already.
            origin = weights.origin(31337, "0x" + "00" * 20, peer, 1)
            cid = store.add(b"".join(bytes(part) for part in weights.encode(good, origin)))
            _announce(made, peer, endpoint)
            _publish(made, peer, cid.digest, good, Flag(0))
        run = made.run(1)
        assert run.wait() == 0, run.stderr
    assert _words(made, 1) == dict.fromkeys(range(2, 2 + len(endpoints)), Reason.UNAVAILABLE)
    assert run.events("ended")[0]["closed"]
    made.replay().check([1])


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_block_in_a_peers_store_is_not_served_as_good(chain: DevChain, tmp_path: Path, damage: str) -> None:
    made = found(tmp_path, chain, 2, rounds={"linger_s": 0.0, "planned": 1}, privacy=CLEAR)
    assert made.run(2).wait() == 0
    latest = made.replay().full.trained(2)
    assert latest is not None
    path = made.states[1] / "content" / "objects" / str(Cid("raw", latest.content))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data[:-1] if damage == "truncated" else data)
    endpoint = made.replay().full.peer(2).announcement
    assert endpoint is not None
    with Gateway(Blockstore(made.states[1] / "content"), port=int(endpoint.endpoint.rsplit(":", 1)[1])):
        run = made.run(1)
        assert run.wait() == 0, run.stderr
    assert _words(made, 1) == {2: Reason.UNAVAILABLE}


@pytest.mark.parametrize("times", [1, 5_000, 500_000], ids=["short", "long", "longer than a block"])
def test_a_damaged_block_in_the_own_store_is_fetched_again(chain: DevChain, tmp_path: Path, times: int) -> None:
    """The closing update merges one's own trained update: its copy here is damaged, another peer has it."""
    made = found(tmp_path, chain, 2, rounds={"linger_s": 0.0, "planned": 1}, privacy=CLEAR)
    ports = [free_port(), free_port()]
    for state, port in zip(made.states, ports, strict=True):
        configure(state, made.file, port=port)
    assert made.run(1, fault="die", given=("finish", 1)).wait() < 0
    with Gateway(Blockstore(made.states[0] / "content"), port=ports[0]):
        assert made.run(2).wait() == 0
    replay = made.replay()
    own = replay.full.update(UpdateRef(1, 1))
    assert UpdateRef(1, 1) in [parent.ref for parent in replay.full.updates(2)[0].parents]
    path = made.states[0] / "content" / "objects" / str(Cid("raw", own.content))
    path.write_bytes(b"rust" * times)
    with Gateway(Blockstore(made.states[1] / "content"), port=ports[1]):
        again = made.run(1)
        assert again.wait() == 0, again.stderr
    assert again.events("store-damaged") and not again.events("left-out")
    closing = made.replay().check([1])[-1]
    assert closing.final and [parent.peer for parent in closing.parents] == [1, 2]
    assert made.trainings(1) == [1]
