"""Speed and memory of an audit: its log, its updates, its merges, its memory.

    .venv/bin/python -m benchmarks.audit [--only log,updates,merge,memory] [--entries 100000] [--updates 1000]
        [--large 200] [--jobs 2] [--repeats 5]

- log: a log of 100,000 entries, from a JSON-RPC server on this machine into an index on disk; then hashed again, held
  against the contract's rules and folded, as every audit does. Beside it, in alternation, a plain loop that fetches the
  same JSON and hashes the leaves.
- updates: 1,000 updates of a logistic model, signed transactions and all, every check, with one thread and with two.
- merge: a replayed merge of three parents of 25 MB, beside hashlib.sha256 over the same bytes, in alternation.
- memory: an audit of updates of 25 MB, each made when it is asked for, in a process of its own, whose resident memory
  is sampled. ``--large 1000`` takes some ten minutes, most of it for making the log.

Each part writes results/audit-PART.json and .md. Others may use the machine at the same time: ratios are what counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.record import write_results

PARTS = ("log", "updates", "merge", "memory")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def middle(values: Sequence[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits)


# ---- log ---------------------------------------------------------------------------------------------------------


@contextmanager
def served(entries: int) -> Iterator[dict[str, str]]:
    """The log server, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.log_server", str(entries)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    try:
        yield json.loads(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait(timeout=30)


def plain_loop(rpc: str, contract: str, last: int, page: int = 2000) -> bytes:
    """The floor: the same JSON, fetched and parsed, and its leaves hashed into a tree; nothing checked or kept."""
    import requests

    from fl_node.ledger import tree

    frontier = tree.Frontier()
    with requests.Session() as session:
        session.trust_env = False
        for first in range(0, last + 1, page):
            span = {"address": contract, "fromBlock": hex(first), "toBlock": hex(min(last, first + page - 1))}
            asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [span]}
            for log in session.post(rpc, json=asked, timeout=60).json()["result"]:
                raw = bytes.fromhex("".join(topic[2:] for topic in log["topics"]) + log["data"][2:])
                frontier.append(hashlib.sha256(b"\x00" + raw).digest())
    return frontier.root


def of_log(entries: int, repeats: int) -> dict[str, object]:
    from fl_node.audit.open_means import folded, recheck
    from fl_node.ledger.breaches import breaches
    from fl_node.ledger.index import LedgerIndex
    from fl_node.ledger.rpc import RpcReader
    from fl_node.ledger.transport import Rpc
    from fl_node.spec import Deployment

    seconds: dict[str, list[float]] = {}
    ratios, processor = [], []

    def step(name: str, work: Callable[[], Any]) -> Any:
        spent, found = timed(work)
        seconds.setdefault(name, []).append(spent)
        return found

    with served(entries) as told, tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            reader = RpcReader(
                Deployment(chain_id=31337, contract=told["contract"], first_block=0, rpc=told["rpc"]),
                None,
                Rpc(told["rpc"]),
            )
            before = time.process_time()
            with LedgerIndex(Path(folder) / f"{turn}.sqlite", reader) as index:
                step("sync", index.sync)
                found = step("read back", index.entries)
                step("hash again", lambda index=index, found=found: recheck(index, found))
                wrong = step("contract's rules", lambda found=found: breaches(found))
                prefix = step("fold", lambda found=found: folded(found))
                processor.append(time.process_time() - before)
                last = index.head.block_number
                root = step("plain loop", lambda last=last: plain_loop(told["rpc"], told["contract"], last))
                assert root == index.root() and not wrong and prefix.size == entries
            ours = sum(spent[-1] for name, spent in seconds.items() if name not in ("plain loop", "all"))
            seconds.setdefault("all", []).append(ours)
            ratios.append(ours / seconds["plain loop"][-1])
            del found, prefix
    return {
        "entries": entries,
        "repeats": repeats,
        **{f"{name}, s": middle(spent) for name, spent in seconds.items()},
        "all, s, target": 30,
        "all, s of the processor": middle(processor),
        "all against the plain loop": middle(ratios),
    }


# ---- updates -----------------------------------------------------------------------------------------------------


def of_updates(updates: int, repeats: int) -> dict[str, object]:
    from benchmarks.audit_worlds import small_world
    from fl_node.audit.kept import Kept
    from fl_node.audit.run import audit
    from fl_node.audit.told import as_json, repeats_of
    from fl_node.audit.verdicts import Result

    peers = 10
    phases: dict[int, dict[str, list[float]]] = {1: {}, 2: {}}
    wrote, again, processor = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        means = small_world(Path(folder), peers, updates // peers)
        for turn in range(repeats):
            for jobs, spent in phases.items():
                means.prefix.derived.clear()
                before = time.process_time()
                seconds, report = timed(lambda jobs=jobs: audit(means, jobs=jobs))
                processor.append(time.process_time() - before)
                assert not any(finding.result is Result.FAILED for finding in report.all_findings())
                for phase, each in {**report.seconds, "all": seconds}.items():
                    spent.setdefault(phase, []).append(each)
            wrote.append(
                timed(lambda report=report: json.dumps(as_json(report, "failed", repeats_of(means, report))))[0]
            )
            with Kept(Path(folder) / f"kept{turn}.sqlite", means.log, means.identity.spec_digest) as kept:
                audit(means, jobs=2, kept=kept)
                means.prefix.derived.clear()
                again.append(timed(lambda kept=kept: audit(means, jobs=2, kept=kept))[0])
        count, entries = len(report.updates), means.log.size
    return {
        "updates": count,
        "entries": entries,
        "repeats": repeats,
        "jobs 1, s": middle(phases[1]["all"]),
        "jobs 2, s": middle(phases[2]["all"]),
        "s, target": 60,
        "s of the processor": middle(processor),
        **{
            f"{phase}, jobs 1 and 2, s": f"{middle(phases[1][phase])}, {middle(phases[2][phase])}"
            for phase in phases[1]
        },
        "again, from kept results, s": middle(again),
        "report as JSON, s": middle(wrote),
    }


# ---- merge -------------------------------------------------------------------------------------------------------


def of_merge(repeats: int) -> dict[str, object]:
    """Three rounds of eight peers, each update with three parents; all parents of the last two rounds are mapped once
    before, so that no disk is measured."""
    from benchmarks.audit_worlds import Large
    from fl_node.audit.memory import StoreBlobs
    from fl_node.audit.reading import Reader
    from fl_node.audit.replay import Replay
    from fl_node.audit.shelf import Shelf
    from fl_node.audit.sketch import projected
    from fl_node.content.blockstore import Blockstore
    from fl_node.content.names import cid_of_update
    from fl_node.ledger.index import LedgerIndex
    from fl_node.merging import encodings, weights
    from fl_node.merging.aggregation import aggregate_recorded
    from fl_node.prefix import Prefix
    from fl_node.sealing import age
    from fl_node.sealing.age import Identity
    from fl_node.tables import EncodingSpec

    large, peers, rounds = Large.of(25), 8, 4
    spec, start = large.federation.spec, large.tensors(None)
    schema = weights.schema_of(start)
    with tempfile.TemporaryDirectory() as folder:
        store = Blockstore(Path(folder))
        chain = large.played(peers, peers * rounds, store)
        with LedgerIndex(":memory:", chain.ledger()) as index:
            index.sync()
            prefix = Prefix(index.entries())
        updates = [prefix.update(entry.body.ref) for entry in prefix.facts() if hasattr(entry.body, "update")]
        for update in updates:
            store.add(large.file(chain, update.ref), durable=False)
        wanted = [update for update in updates if update.round > 1]
        one = wanted[-1]
        parents = [prefix.update(parent.ref) for parent in one.parents]
        assert len(parents) == 3
        held = [store.hold(cid_of_update(parent.update), 1 << 30) for parent in parents]
        models = [weights.decode(each.data, schema).tensors for each in held]

        def hashed() -> None:
            for each in held:
                hashlib.sha256(each.data).digest()

        def replayed(some: Sequence[Any], jobs: int, sketching: bool = False) -> None:
            reader = Reader(spec, prefix, StoreBlobs({1: store}), start, sketching=sketching)
            shelf = partial(Shelf, reader, prefix)
            replay = Replay(*(spec, prefix, start), shelf, sketching=sketching, jobs=jobs)
            found = list(replay.run(some))
            assert all(finding.result.value == "ok" for each in found for finding in each.findings)

        def merged() -> bytes:
            given = [weights.decode(each.data, schema).tensors for each in held]
            base = aggregate_recorded(spec, parents, given, lambda: start, one.parents, one.update.rule)
            return weights.digest(base.tensors)

        tensors = models[0]
        key, most = Identity.generate(), encodings.most_bytes(schema)
        file = age.seal(held[0].data, [key.public])
        change = encodings.encode(EncodingSpec(kind="int8-delta"), models[1], "", reference=tensors, delta=True)
        payload = b"".join(bytes(buffer) for buffer in change.buffers)
        whole: dict[str, tuple[Callable[[], Any], int]] = {
            "parents decoded, merged, base's digest": (merged, 1),
            "as in a whole audit, jobs 1": (lambda: replayed(wanted, 1), len(wanted)),
            "as in a whole audit, jobs 2": (lambda: replayed(wanted, 2), len(wanted)),
            "the same with sketches for originality, jobs 1": (lambda: replayed(wanted, 1, True), len(wanted)),
            "the same with sketches for originality, jobs 2": (lambda: replayed(wanted, 2, True), len(wanted)),
            "one update alone, four files hashed twice, jobs 1": (lambda: replayed([one], 1), 1),
            "one update alone, four files hashed twice, jobs 2": (lambda: replayed([one], 2), 1),
        }
        parts: dict[str, Callable[[], Any]] = {
            "sha256 of one model": lambda: hashlib.sha256(held[0].data).digest(),
            "CID check of one model": lambda: store.hold(cid_of_update(parents[0].update), 1 << 30),
            "decode of one model": lambda: weights.decode(held[0].data, schema),
            "magnitude of one model": lambda: weights.check_magnitude(tensors, spec.merging.max_magnitude),
            "age file of one model opened": lambda: age.unseal(file, [key], most),
            "int8 change of one model decoded": lambda: encodings.decode(
                payload, change.encoding, schema, lambda: tensors
            ),
            "digest of one model": lambda: weights.digest(tensors),
            "sketch of one model": lambda: projected(tensors),
            "merge of three": lambda: aggregate_recorded(
                spec, parents, models, lambda: start, one.parents, one.update.rule
            ),
        }
        ratios: dict[str, list[float]] = {}
        spent: dict[str, list[float]] = {}
        for _ in range(repeats):
            for name, (work, count) in whole.items():
                floor = timed(hashed)[0]
                seconds = timed(work)[0] / count
                floor = (floor + timed(hashed)[0]) / 2  # before and after, for the load changes
                spent.setdefault("sha256 of three parents", []).append(floor)
                spent.setdefault(name, []).append(seconds)
                ratios.setdefault(name, []).append(floor / seconds)
            for name, part in parts.items():
                spent.setdefault(name, []).append(timed(part)[0])
        store.close()
    return {
        "model, MB": 25,
        "fan-in": 3,
        "repeats": repeats,
        "target, times sha256": 0.25,
        **{f"{name}, times sha256 of the parents": middle(each) for name, each in ratios.items()},
        **{f"{name}, ms": middle([1000 * each for each in times], 1) for name, times in spent.items()},
    }


# ---- memory ------------------------------------------------------------------------------------------------------


def of_memory(updates: int, jobs: int = 2) -> dict[str, object]:
    from benchmarks.audit_worlds import Large
    from fl_node.content.blockstore import Blockstore
    from fl_node.ledger.index import LedgerIndex

    with tempfile.TemporaryDirectory() as folder:
        store = Blockstore(Path(folder) / "content")
        took, chain = timed(lambda: Large.of(25).played(10, updates, store))
        store.close()
        print(f"a log of {updates} updates was made in {took:.0f} s", file=sys.stderr)
        with LedgerIndex(Path(folder) / "log.sqlite", chain.ledger()) as index:
            index.sync()
        command = [sys.executable, "-m", "benchmarks.audit", "--watched", folder, "--jobs", str(jobs)]
        found: dict[str, object] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return found


def resident() -> tuple[int, int, int]:
    """Bytes of this process in memory: all, anonymous ones, and pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "Rss"))}
    return told["VmRSS"], told["RssAnon"], told["RssFile"]


def watched(folder: Path, jobs: int) -> None:
    """Audit what lies in the folder, and tell how much memory that took: run in a process of its own."""
    from benchmarks.audit_worlds import Large, MadeBlobs, means_over
    from fl_node.audit.run import audit
    from fl_node.audit.verdicts import Result
    from fl_node.content.blockstore import Blockstore
    from fl_node.ledger.index import LedgerIndex
    from fl_node.ledger.protocol import LedgerIdentity

    large = Large.of(25)
    samples: list[tuple[int, int, int]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            samples.append(resident())

    before = resident()
    with LedgerIndex(folder / "log.sqlite") as index:
        opened = index.entry(0).body
        identity = LedgerIdentity(
            *(opened.chain_id, opened.ledger, 1, opened.spec_digest, opened.genesis_content, opened.genesis_weights),
            *(opened.genesis_flags, opened.min_interval_s),
        )
        blobs = MadeBlobs(large, identity, Blockstore(folder / "content"), folder)
        threading.Thread(target=sample, daemon=True).start()
        seconds, report = timed(lambda: audit(means_over(index, identity, large.federation, blobs), jobs=jobs))
    done.set()
    bad = [finding for finding in report.all_findings() if finding.result is Result.FAILED]
    assert not bad, bad[:3]
    peak = max(samples)
    told = {
        "updates": len(report.updates),
        "model, MB": 25,
        "jobs": jobs,
        "peak resident, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "target, MB": 1000,
        "of it anonymous, MB": round(peak[1] / 1e6),
        "of it pages of files, MB": round(peak[2] / 1e6),
        "median resident, MB": round(statistics.median(one[0] for one in samples) / 1e6),
        "before the audit, MB": round(before[0] / 1e6),
        "files made": blobs.made,
        "seconds": round(seconds, 1),
        "of it making the files, s of all threads": round(blobs.seconds, 1),
        "phases": dict(report.seconds),
    }
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--large", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--watched", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watched is not None:
        watched(options.watched, options.jobs)
        return
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "log": lambda: of_log(options.entries, options.repeats),
        "updates": lambda: of_updates(options.updates, options.repeats),
        "merge": lambda: of_merge(options.repeats),
        "memory": lambda: of_memory(options.large, options.jobs),
    }
    command = " ".join(["python -m benchmarks.audit", *sys.argv[1:]])
    for part in options.only.split(","):
        load = os.getloadavg()[0]
        found = parts[part]()
        write_results(f"audit-{part}", command, {**found, "load at the start": round(load, 1)})


if __name__ == "__main__":
    main()
