"""Our blocks in somebody else's network: a real Kubo node serves them, another fetches them over bitswap."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from fl_node.content import Cid, open_store
from fl_node.content.unixfs import CHUNK_BYTES

NODE = Path(__file__).parent / "bitswap_node.py"
ANSWER_S = 60.0


class Node:
    """A node in a process that is killed in the end: a missing block makes the library wait for ever."""

    def __init__(self, repository: Path, *arguments: str) -> None:
        repository.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, str(NODE), str(repository), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        timer = threading.Timer(ANSWER_S, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                if line.startswith("> "):
                    return line[2:].strip()
            raise AssertionError("the node ended or gave no answer in time")
        finally:
            timer.cancel()

    def tell(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def node(repository: Path, *arguments: str) -> Iterator[Node]:
    started = Node(repository, *arguments)
    try:
        yield started
    finally:
        started.close()


def export(store_folder: Path, cids: list[Cid], blocks: Path) -> None:
    """Write every block of the files as Kubo keeps its own: by multihash, in folders by two of its letters."""
    store = open_store("embedded", store_folder)
    for root in cids:
        for cid, _ in store.dag(root).walk():
            key = base64.b32encode(b"\x12\x20" + cid.digest).decode().rstrip("=")
            (blocks / key[-3:-1]).mkdir(parents=True, exist_ok=True)
            (blocks / key[-3:-1] / f"{key}.data").write_bytes(store.block(cid))


def test_a_kubo_node_serves_our_blocks_to_another_over_bitswap(tmp_path: Path) -> None:
    files = [os.urandom(size) for size in (1000, 5 * CHUNK_BYTES + 77)]
    store = open_store("embedded", tmp_path / "content")
    cids = [store.add(data) for data in files]
    export(tmp_path / "content", cids, tmp_path / "blocks")
    with node(tmp_path / "server", str(tmp_path / "blocks")) as server, node(tmp_path / "client") as client:
        assert client.tell(f"connect {server.address}") == "0"
        for cid, data in zip(cids, files, strict=True):
            assert client.tell(f"download {cid} {tmp_path / str(cid)}") == "0"
            assert (tmp_path / str(cid)).read_bytes() == data
