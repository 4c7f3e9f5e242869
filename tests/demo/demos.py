"""What tests of the demo share: a demo under way, its result, and its ledger replayed from the folder it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from replay import Replay

from fl_node import keys
from fl_node.chains import DevChain
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.key_keeping import Secrecy
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.rpc import RpcReader
from fl_node.merging import weights
from fl_node.spec import genesis_path, read_federation


class Demo:
    """A demo under way, recognisable among this machine's processes by a mark in their environment."""

    def __init__(self, scratch: Path, *argv: object) -> None:
        self.mark = f"FL_NODE_TEST_MARK=demo-{os.getpid()}-{time.monotonic_ns()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fl_node", "demo", *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, name: value, "TMPDIR": str(scratch)},
            start_new_session=True,
        )

    def relatives(self) -> dict[int, str]:
        """Processes with the mark, by pid, the demo's own among them; with their command lines."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                        found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def ends(self, timeout_s: float = 120.0) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def leaves_nothing(self) -> None:
        deadline = time.monotonic() + 10
        while (left := self.relatives()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, left

    def until_says(self, words: str) -> str:
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if words in line:
                return said
        raise AssertionError(f"never said {words!r}: {said}")


def run(start: Any, *argv: object) -> dict[str, Any]:
    demo = start(*argv, "--no-ui", "--json", "-")
    code, out, err = demo.ends()
    assert code == 0, err
    demo.leaves_nothing()
    assert "Traceback" not in err
    result: dict[str, Any] = json.loads(out)
    return result


def replay_of(state: Path, result: dict[str, Any]) -> Replay:
    """The kept chain, started again, has the same root, and everything on it follows from log and bytes."""
    federation = read_federation(state / "federation.toml")
    assert federation.deployment is not None
    stores = [Blockstore(path / "content") for path in sorted(state.glob("site-*"))]

    def read(cid: Cid) -> bytes:
        return next(bytes(store.get(cid, 1 << 30)) for store in stores if store.has(cid))

    port = int(result["rpc"].rsplit(":", 1)[1])
    kept = state / "anvil.json"
    with (
        DevChain.start(
            "anvil" if kept.exists() else "ganache", port=port, state=kept if kept.exists() else state / "ganache"
        ),
        LedgerIndex(":memory:", RpcReader(federation.deployment, federation.digest)) as index,
    ):
        index.sync()
        assert "0x" + index.root().hex() == result["root"] and index.size == result["entries"]
        entries = index.entries()
    genesis = weights.decode(genesis_path(state / "federation.toml").read_bytes()).tensors
    peer = next(state.glob("*/key.json")).parent
    opener = Secrecy.of(peer, keys.load(peer / "key.json", "demo")) if federation.spec.privacy.encrypt else None
    replay = Replay(federation.spec, entries, genesis, read, opener)
    assert len(replay.check()) == result["updates"]
    return replay
