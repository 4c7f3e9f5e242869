"""What encryption adds to publishing and fetching 100 MB, and to a round of a small CNN.

    .venv/bin/python -m benchmarks.sealing [--megabytes 100] [--repeats 9] [--readers 10]

In one run, in alternation, on the same bytes: publishing them as they are (CID, store, fsync), publishing them
encrypted, and pyrage alone, once as one call (``pyrage.encrypt``) and once from buffer to buffer
(``pyrage.encrypt_io``), of which the faster counts. The same for fetching from a gateway in another process. The goal
is plain plus pyrage alone, plus 10 %. A round of the CNN trains on as many rows as a peer of ten has of Fashion-MNIST,
publishes, and opens what the other nine published.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyrage

from benchmarks.record import write_results
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.merging import weights
from fl_node.sealing.age import Identity, recipient_text, seal, sealed_size, unseal
from fl_node.spec import parse_federation

MB = 1_000_000
CNN = b"""name = "sealing"
[task]
input_shape = [1, 28, 28]
classes = 10
[model]
name = "cnn"
"""
ROWS = 6_000


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - started
    del kept
    return seconds


def median(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def publish(
    folder: Path, plain: list[weights.Buffer], own: Identity, readers: list[bytes], repeats: int
) -> dict[str, float]:
    """Seconds of publishing in the clear, encrypted, and of pyrage alone."""
    whole = b"".join(map(bytes, plain))
    keys = [pyrage.x25519.Recipient.from_str(recipient_text(reader)) for reader in readers]
    times: dict[str, list[float]] = {"plain": [], "sealed": [], "call": [], "stream": []}
    for turn in range(repeats):
        for kind in ("plain", "sealed"):
            os.sync()
            store = Blockstore(folder / f"{kind}{turn}")
            store.pins()

            def ours(store: Blockstore = store, kind: str = kind) -> Cid:
                return store.add(plain if kind == "plain" else seal(plain, readers))

            times[kind].append(timed(ours))
            store.close()
            shutil.rmtree(folder / f"{kind}{turn}")
        times["call"].append(timed(lambda: pyrage.encrypt(whole, keys)))
        times["stream"].append(timed(lambda: pyrage.encrypt_io(io.BytesIO(whole), io.BytesIO(), keys)))
    return median(times)


def fetch(
    folder: Path, plain: list[weights.Buffer], own: Identity, readers: list[bytes], repeats: int
) -> dict[str, float]:
    """Seconds of fetching from another process in the clear, encrypted, and of pyrage alone."""
    store = Blockstore(folder / "served")
    sealed = bytes(seal(plain, readers))
    cids = {"plain": store.add(plain), "sealed": store.add(sealed)}
    store.close()
    size = sum(memoryview(buffer).nbytes for buffer in plain)
    identity = pyrage.x25519.Identity.from_str(own.text())
    command = [sys.executable, "-m", "benchmarks.sealing", "--serve", str(folder / "served")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    times: dict[str, list[float]] = {"plain": [], "sealed": [], "call": [], "stream": []}
    try:
        endpoint = server.stdout.readline().strip()
        for _ in range(repeats):
            for kind, cid in cids.items():
                with Fetcher(["127.0.0.0/8"]) as fetcher:

                    def ours(fetcher: Fetcher = fetcher, kind: str = kind, cid: Cid = cid) -> memoryview:
                        data = fetcher.fetch(cid, sealed_size(size), [endpoint])
                        return data if kind == "plain" else unseal(data, [own], size)

                    times[kind].append(timed(ours))
            times["call"].append(timed(lambda: pyrage.decrypt(sealed, [identity])))
            times["stream"].append(timed(lambda: pyrage.decrypt_io(io.BytesIO(sealed), io.BytesIO(), [identity])))
    finally:
        server.stdin.close()
        server.wait(timeout=10)
    return median(times)


def cnn_round(own: Identity, readers: list[bytes], repeats: int) -> tuple[float, float, int]:
    """Seconds of an epoch of training, and of encrypting an update and opening one of each other peer; its bytes."""
    import torch

    from fl_node.learning.dataset import Dataset
    from fl_node.learning.models import genesis
    from fl_node.learning.splits import Splits
    from fl_node.learning.training import Trainer

    torch.set_num_threads(1)
    spec = parse_federation(CNN).spec
    random = np.random.default_rng(0)
    rows = Dataset(random.random((ROWS, 1, 28, 28), "f4"), random.integers(0, 10, ROWS))
    trainer = Trainer(spec, Splits(rows, rows, rows), 1, "cpu")
    start = genesis(spec)
    plain = weights.encode(start)
    size = sum(memoryview(buffer).nbytes for buffer in plain)
    training, secrecy = [], []
    for turn in range(repeats):
        training.append(timed(lambda turn=turn: trainer.train(start, turn + 1)))
        sealed = seal(plain, readers)

        def all_of_it(sealed: memoryview = sealed) -> None:
            seal(plain, readers)
            for _ in readers[1:]:
                unseal(sealed, [own], size)

        secrecy.append(timed(all_of_it))
    return statistics.median(training), statistics.median(secrecy), size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--readers", type=int, default=10)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with Gateway(Blockstore(arguments.serve)) as gateway:
            print(gateway.endpoint, flush=True)
            sys.stdin.read()
        return
    own = Identity.generate()
    readers = [Identity.generate().public for _ in range(arguments.readers - 1)] + [own.public]
    random = np.random.default_rng(0)
    layers = {f"layer{n}.weight": random.random(arguments.megabytes * MB // 16, dtype=np.float32) for n in range(4)}
    plain = weights.encode(layers)
    found: dict[str, object] = {
        "megabytes": arguments.megabytes,
        "readers": arguments.readers,
        "repeats": arguments.repeats,
    }
    with tempfile.TemporaryDirectory(dir=os.environ.get("FL_NODE_BENCH_DIR")) as name:
        for what, measure in (("publish", publish), ("fetch", fetch)):
            times = measure(Path(name), plain, own, readers, arguments.repeats)
            alone = min(times["call"], times["stream"])
            found |= {f"{what}_{kind}_s": round(seconds, 3) for kind, seconds in times.items()}
            found[f"{what}_over_plain_plus_pyrage"] = round(times["sealed"] / (times["plain"] + alone), 3)
            found[f"{what}_goal"] = "<= 1.1"
    training_s, secrecy_s, size = cnn_round(own, readers, max(3, arguments.repeats // 3))
    found["cnn_update_bytes"] = size
    found["cnn_training_s"] = round(training_s, 3)
    found["cnn_sealing_and_opening_s"] = round(secrecy_s, 4)
    found["cnn_round_share"] = round(secrecy_s / (training_s + secrecy_s), 4)
    found["cnn_goal"] = "<= 0.01"
    write_results("sealing", " ".join(["python -m benchmarks.sealing", *sys.argv[1:]]), found)


if __name__ == "__main__":
    main()
