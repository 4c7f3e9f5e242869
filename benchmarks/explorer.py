"""The explorer over a log of 100,000 updates and a million entries: ``python -m benchmarks.explorer``.

Measures how long making the index takes, whether following keeps up with 200 entries a second, the time from the start
of ``fl-node ui`` to the first page, its memory, and every registered page: alone,
and with eight readers at once, who each ask for one page after the other without a pause.
``--folder F`` keeps what was made in ``F``, and takes what is there.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.explorer_addresses import addresses
from benchmarks.explorer_log import GrowingChain
from benchmarks.record import write_results
from ledger_ui.app import create_app
from ledger_ui.federation import Shown, Source
from ledger_ui.options import Options
from ledger_ui.recent import Recent

ENTRIES = 1_000_000
AT_ONCE = 20_000
A_SECOND = 200
FOLLOWED_S = 25
REPEATS = 12
READERS = 8
READING_S = 30
#: An explorer that never gives a page again that it gave a moment ago.
MADE_ANEW = (
    "-c",
    "import sys; from ledger_ui.recent import Recent; Recent.get = lambda self, tag: None; "
    "from fl_node.__main__ import main; sys.exit(main())",
)
COMMAND = "python -m benchmarks.explorer"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep what is made here, and take what is there")
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--slowest", type=int, default=0, help="print so many of the slowest addresses")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="explorer-benchmark-"))
    try:
        found = measured(folder, given.entries, given.slowest)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    write_results("explorer", COMMAND, found)
    return 0


def measured(folder: Path, entries: int, slowest: int) -> dict[str, object]:
    found: dict[str, object] = {}
    file = folder / "federation.toml"
    if not file.is_file():
        found |= making(folder, entries)
    with alone(file) as (client, wanted):
        found |= sizes(file, client)
        found |= pages_alone(client, wanted, slowest)
    found |= served(file, wanted, slowest)
    return found


# ---- making and following --------------------------------------------------------------------------------------------


def making(folder: Path, entries: int) -> dict[str, object]:
    """Index the log from its beginning, then follow its end as it grows."""
    chain = GrowingChain(updates=max(200, entries // 10))
    shown = Shown(Source(chain.write_federation(folder), connect=lambda: chain))
    began, made = time.monotonic(), 0.0
    while chain.size < entries - A_SECOND * FOLLOWED_S:
        before = time.monotonic()
        grown = chain.grow(min(AT_ONCE, entries - A_SECOND * FOLLOWED_S - chain.size))
        made += time.monotonic() - before
        if not grown:
            break
        shown.follower.look()
    seconds, size = time.monotonic() - began - made, chain.size
    found: dict[str, object] = {
        "making_the_index_s": round(seconds, 1),
        "making_entries_a_second": round(size / seconds),
        "making_peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    found |= following(chain, shown)
    shown.stop()
    return found


def following(chain: GrowingChain, shown: Shown) -> dict[str, object]:
    """A chain that grows at a pace: how far the index lags, and what following costs."""
    shown.follower.start()
    while shown.follower.now.state != "following":
        time.sleep(0.05)
    lags, spent, began, first = [], 0.0, time.monotonic(), chain.size
    before = time.process_time()
    while time.monotonic() - began < FOLLOWED_S:
        mark = time.thread_time()
        due = int(first + A_SECOND * (time.monotonic() - began)) - chain.size
        if due > 0 and not chain.grow(due):
            break
        spent += time.thread_time() - mark
        lags.append(chain.size - shown.follower.now.folded)
        time.sleep(0.1)
    seconds = time.monotonic() - began
    busy = (time.process_time() - before - spent) / seconds
    grown = chain.size - first
    chain.grow(10**9)
    while shown.follower.now.folded < chain.size:
        time.sleep(0.05)
    shown.follower.stop()
    return {
        "followed_entries_a_second": round(grown / seconds),
        "following_lag_entries_most": max(lags),
        "following_processor_percent": round(100 * busy, 1),
    }


# ---- pages -----------------------------------------------------------------------------------------------------------


class Client:
    """Asks an application without a server."""

    def __init__(self, app: object, slug: str) -> None:
        self._client = app.test_client()  # type: ignore[attr-defined]
        self.slug = slug

    def get(self, address: str) -> tuple[float, float, int]:
        """Milliseconds, those of the processor, and the status."""
        before, busy = time.perf_counter(), time.thread_time()
        answer = self._client.get(address)
        len(answer.data)
        return (time.perf_counter() - before) * 1000, (time.thread_time() - busy) * 1000, answer.status_code


@contextmanager
def alone(file: Path) -> Iterator[tuple[Client, dict[str, list[str]]]]:
    """An application over the index, and the addresses of all its pages."""
    options = Options(sources=(Source(file),), hosts=(), harvest=False)
    app = create_app(options, start=False)
    app.extensions["recent"] = Recent(fresh_s=-1.0)  # every page is made anew
    shown: Shown = next(iter(app.extensions["federations"].values()))
    gc.collect()
    gc.freeze()  # as the server does
    try:
        with shown.store.reading() as db:
            wanted = addresses(shown.slug, db, shown.deployment.contract)
        yield Client(app, shown.slug), wanted
    finally:
        shown.stop()


def sizes(file: Path, client: Client) -> dict[str, object]:
    index = file.with_name(f"{file.name}.explorer.sqlite")
    told = client._client.get(f"/{client.slug}/updates.json?limit=1").get_json()
    return {
        "entries": told["federation"]["size"],
        "updates": told["paging"]["total"],
        "index_mb": index.stat().st_size >> 20,
    }


def pages_alone(client: Client, wanted: dict[str, list[str]], slowest: int) -> dict[str, object]:
    """Every page by itself, server side."""
    times: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    by_address: dict[str, float] = {}
    for name, several in wanted.items():
        for address in several:
            for _ in range(REPEATS):
                took, worked, status = client.get(address)
                if status not in (200, 302):
                    raise AssertionError(f"{address}: {status}")
                times.setdefault(name, []).append(took)
                busy.setdefault(name, []).append(worked)
            by_address[address] = sorted(busy[name][-REPEATS:])[REPEATS // 2]
    _tell_slowest("alone, of the processor", by_address, slowest)
    return _told("alone", times) | _told("alone_of_the_processor", busy)


def served(file: Path, wanted: dict[str, list[str]], slowest: int) -> dict[str, object]:
    """``fl-node ui`` on loopback: cold start, readers at once, memory."""
    cold = [_cold_start(file) for _ in range(3)]
    with _server(file, MADE_ANEW) as (place, _, _):
        anew, by_address = _read_at_once(place, wanted)
    with _server(file) as (place, process, _):
        times, _ = _read_at_once(place, wanted)
        memory = _memory_mb(process.pid)
    _tell_slowest(f"{READERS} readers", {address: max(several) for address, several in by_address.items()}, slowest)
    return {
        "cold_start_to_first_page_s": ", ".join(f"{seconds:.1f}" for seconds in cold),
        "memory_after_all_pages_mb": memory["VmRSS"],
        "memory_peak_mb": memory["VmHWM"],
        "8_readers_pages_a_second": round(sum(map(len, times.values())) / READING_S),
        **_told("8_readers", times),
        "8_readers_each_page_made_anew_pages_a_second": round(sum(map(len, anew.values())) / READING_S),
        **_told("8_readers_each_page_made_anew", anew),
    }


def _cold_start(file: Path) -> float:
    began = time.monotonic()
    with _server(file) as (place, _, slug):
        connection = http.client.HTTPConnection(place)
        connection.request("GET", f"/{slug}/updates")
        if connection.getresponse().status != 200:
            raise AssertionError("no first page")
        return time.monotonic() - began


@contextmanager
def _server(file: Path, program: Sequence[str] = ("-m", "fl_node")) -> Iterator[tuple[str, subprocess.Popen[str], str]]:
    """A running explorer: where, its process, and the federation's part of every address."""
    command = [sys.executable, *program, "ui", "--federation", str(file), "--port", "0"]
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
    try:
        place = _announced(log, process)
        connection = http.client.HTTPConnection(place)
        connection.request("GET", "/")
        answer = connection.getresponse()
        slug = urlsplit(answer.getheader("Location", "/")).path.strip("/")
        yield place, process, slug
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _announced(log: object, process: subprocess.Popen[str]) -> str:
    while process.poll() is None:
        log.seek(0)  # type: ignore[attr-defined]
        for word in log.read().split():  # type: ignore[attr-defined]
            if word.startswith("http://127.0.0.1:"):
                return urlsplit(word).netloc
        time.sleep(0.02)
    raise AssertionError("the explorer ended at once")


def _read_at_once(place: str, wanted: dict[str, list[str]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Readers that ask for one page after the other, without a pause."""
    times: dict[str, list[float]] = {}
    by_address: dict[str, list[float]] = {}
    lock, until = threading.Lock(), time.monotonic() + READING_S
    choices = [(name, address) for name, several in wanted.items() for address in several]

    def read(seed: int) -> None:
        dice, connection = random.Random(seed), http.client.HTTPConnection(place)
        while time.monotonic() < until:
            name, address = dice.choice(choices)
            before = time.perf_counter()
            connection.request("GET", address)
            answer = connection.getresponse()
            answer.read()
            took = (time.perf_counter() - before) * 1000
            with lock:
                times.setdefault(name, []).append(took if answer.status in (200, 302) else 10_000.0)
                by_address.setdefault(address, []).append(took)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return times, by_address


def _memory_mb(pid: int) -> dict[str, int]:
    rows = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) >> 10 for row in rows if row[0] in ("VmRSS:", "VmHWM:")}


def _told(where: str, times: dict[str, list[float]]) -> dict[str, object]:
    every = [took for several in times.values() for took in several]
    return {
        f"{where}_all_pages_p50_p95_ms": _quantiles(every),
        **{f"{where}_{name}_p50_p95_ms": _quantiles(several) for name, several in sorted(times.items())},
    }


def _quantiles(times: Iterable[float]) -> str:
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2]:.0f}, {ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]:.0f}"


def _tell_slowest(where: str, by_address: dict[str, float], most: int) -> None:
    slow: Sequence[tuple[str, float]] = sorted(by_address.items(), key=lambda item: -item[1])[:most]
    for address, took in slow:
        print(f"  {where}: {took:.0f} ms  {address}", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
