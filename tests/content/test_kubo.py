"""The Kubo store where the daemon is missing, wrong or dishonest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fl_node.content import Cid, cid_of
from fl_node.content.gateway import Gateway
from fl_node.content.http_sending import Sender
from fl_node.content.http_server import HttpServer, Request, Response
from fl_node.content.kubo import KuboStore
from fl_node.content.memory import MemoryStore
from fl_node.content.unixfs import CHUNK_BYTES
from fl_node.errors import ContentError, ContentMismatch, StoreUnreachable, UsageError

from .helpers import free_port


def test_a_daemon_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = KuboStore(tmp_path, f"/ip4/127.0.0.1/tcp/{free_port()}")
    cid = cid_of(b"x")
    for call in (lambda: store.add(b"x"), lambda: store.has(cid), lambda: store.get(cid, 9), lambda: store.dag(cid)):
        with pytest.raises(StoreUnreachable, match="start it"):
            call()
    assert store.pins() == ()


def test_what_is_not_a_daemon_gives_an_error_of_ours_and_keeps_no_pin(tmp_path: Path) -> None:
    with Gateway(MemoryStore()) as gateway:
        store = KuboStore(tmp_path, f"/ip4/127.0.0.1/tcp/{gateway.port}")
        with pytest.raises(ContentError, match=r"cannot store|does not answer"):
            store.add(b"x")
    assert store.pins() == ()


def test_a_bad_multiaddr_is_a_usage_error(tmp_path: Path) -> None:
    for text in ("127.0.0.1:5001", "", "/nonsense/1"):
        with pytest.raises(UsageError, match="multiaddr"):
            KuboStore(tmp_path, text)


def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ipfshttpclient'] = None\n"
        "from pathlib import Path\n"
        "from fl_node.content import open_store\n"
        "from fl_node.errors import UsageError\n"
        "try: open_store('kubo', Path(sys.argv[1]))\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pip install 'fl-node[kubo]'" in done.stdout


def test_our_cids_do_not_depend_on_the_daemon(tmp_path: Path, kubo_api: str) -> None:
    """The daemon reads back a large file of ours as a file, by its own code."""
    store = KuboStore(tmp_path, kubo_api)
    data = os.urandom(3 * CHUNK_BYTES + 5)
    cid = store.add([data[:11], data[11:]])
    assert store._client.cat(str(cid)) == data
    store.close()


def test_bytes_that_a_daemon_altered_are_refused(tmp_path: Path) -> None:
    """A daemon that answers every request for a block with other bytes."""
    body = b"not these"

    def lie(_: Request) -> Response:
        return Response(200, {"Content-Type": "application/octet-stream"}, (body,), len(body))

    class AnyMethod(HttpServer):
        def _answer(self, sender: Sender, head: bytes, address: str) -> bool:
            return super()._answer(sender, head.replace(b"POST", b"GET", 1), address)

    server = AnyMethod("127.0.0.1", 0, lie)
    try:
        store = KuboStore(tmp_path, f"/ip4/127.0.0.1/tcp/{server.port}")
        for cid in (cid_of(b"x"), Cid("dag-pb", bytes(32))):
            with pytest.raises(ContentMismatch, match="other bytes"):
                store.get(cid, 100)
    finally:
        server.close()
