"""Publishing and fetching 100 MB, beside what the bytes cost anyway. Both sides of a ratio are timed in one run.

    python benchmarks/content.py [--megabytes 100] [--repeats 7]

Publish: tensors as safetensors buffers -> CID -> embedded store with fsync, against hashlib.sha256 of the same bytes
plus ``cp`` and ``sync``. Fetch: from a gateway in another process, every block verified, in memory and into a store.
Writes benchmarks/results/content.json and content.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway

RESULTS = Path(__file__).parent / "results"
MB = 1_000_000


def model(megabytes: int) -> dict[str, np.ndarray]:
    """Random float32 tensors of this size in all, in four layers."""
    rng = np.random.default_rng(0)
    return {f"layer{n}.weight": rng.random(megabytes * MB // 16, dtype=np.float32) for n in range(4)}


def serialise(tensors: dict[str, np.ndarray]) -> list[bytes | memoryview]:
    """A safetensors file as buffers: the header, then the tensors' own memory."""
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *(memoryview(tensor).cast("B") for tensor in tensors.values())]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def publish(folder: Path, tensors: dict[str, np.ndarray], repeats: int) -> tuple[list[float], list[float], Cid]:
    """Seconds of the floor and of publishing, in alternation, and the CID."""
    source = folder / "source"
    whole = b"".join(serialise(tensors))
    source.write_bytes(whole)
    floors, ours = [], []
    cid = None
    for turn in range(repeats):
        os.sync()

        def floor() -> None:
            hashlib.sha256(whole).digest()
            subprocess.run(["cp", str(source), str(folder / "copy")], check=True)
            subprocess.run(["sync"], check=True)

        floors.append(timed(floor))
        (folder / "copy").unlink()
        os.sync()
        store = Blockstore(folder / f"store{turn}")
        store.pins()

        def ours_once(store: Blockstore = store) -> None:
            nonlocal cid
            cid = store.add(serialise(tensors))

        ours.append(timed(ours_once))
        store.close()
        if turn:
            shutil.rmtree(folder / f"store{turn}")
    assert cid is not None
    return floors, ours, cid


def fetch(folder: Path, cid: Cid, size: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds to fetch and verify from another process: into memory, and into memory and a store."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder / "store0")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        endpoint = server.stdout.readline().strip()
        plain, kept = [], []
        for turn in range(repeats):
            with Fetcher(["127.0.0.0/8"]) as fetcher:
                plain.append(timed(lambda fetcher=fetcher: fetcher.fetch(cid, size + MB, [endpoint])))
            store = Blockstore(folder / f"kept{turn}")
            with Fetcher(["127.0.0.0/8"]) as fetcher:
                kept.append(
                    timed(lambda f=fetcher, s=store: f.fetch_into(s, cid, size + MB, [endpoint]))  # type: ignore[misc]
                )
            store.close()
            shutil.rmtree(folder / f"kept{turn}")
        return plain, kept
    finally:
        server.stdin.close()
        server.wait(timeout=10)


def serve(folder: Path) -> None:
    with Gateway(Blockstore(folder)) as gateway:
        print(gateway.endpoint, flush=True)
        sys.stdin.read()


def report(result: dict[str, object]) -> str:
    return (
        "# Content: publish and fetch\n\n"
        f"`{result['command']}` on {result['machine']}, load at the start {result['load']}. "
        f"Medians of {result['repeats']} runs, ours and the floor in alternation.\n\n"
        "| what | seconds | floor, seconds | result | wanted |\n| --- | --- | --- | --- | --- |\n"
        f"| publish {result['megabytes']} MB (serialise, CID, store, fsync) against sha256 + cp + sync "
        f"| {result['publish_s']:.3f} | {result['floor_s']:.3f} | {result['publish_ratio']:.2f}x | <= 3x |\n"
        f"| fetch and verify from another process | {result['fetch_s']:.3f} | | {result['fetch_mb_per_s']:.0f} MB/s "
        "| >= 300 MB/s |\n"
        f"| the same, and kept in the store to serve on | {result['fetch_into_s']:.3f} | "
        f"| {result['fetch_into_mb_per_s']:.0f} MB/s | |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    load = f"{os.getloadavg()[0]:.1f}"
    folder = Path(tempfile.mkdtemp(prefix="fl-node-bench-", dir=os.environ.get("FL_NODE_BENCH_DIR")))
    try:
        tensors = model(arguments.megabytes)
        size = sum(len(part) for part in serialise(tensors))
        floors, ours, cid = publish(folder, tensors, arguments.repeats)
        plain, kept = fetch(folder, cid, size, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    floor_s, publish_s, fetch_s, kept_s = (statistics.median(times) for times in (floors, ours, plain, kept))
    result: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/content.py", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load": load,
        "megabytes": arguments.megabytes,
        "repeats": arguments.repeats,
        "floor_s": floor_s,
        "publish_s": publish_s,
        "publish_ratio": publish_s / floor_s,
        "fetch_s": fetch_s,
        "fetch_mb_per_s": size / MB / fetch_s,
        "fetch_into_s": kept_s,
        "fetch_into_mb_per_s": size / MB / kept_s,
        "runs_s": {"floor": floors, "publish": ours, "fetch": plain, "fetch_into": kept},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "content.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "content.md").write_text(report(result))
    print(report(result))


if __name__ == "__main__":
    main()
