"""Fetches that stopped half-way go on: only what is missing is asked for, and nothing is kept without bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fl_node.content import Cid, cid_of, open_store
from fl_node.content import partial as partial_module
from fl_node.content.blockstore import Blockstore
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import Request, Response, text
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import ContentMalformed, ContentUnavailable, StoreFull

LOOPBACK = ("127.0.0.0/8",)
BLOCKS = 12
DATA = os.urandom((BLOCKS - 1) * CHUNK_BYTES + 5)
CID = cid_of(DATA)


class Counted:
    """A gateway over one file that counts what it is asked for, and can stop giving after so many blocks."""

    def __init__(self, folder: Path, *files: Sequence[bytes] | bytes, most: int = 1 << 30) -> None:
        store = open_store("embedded", folder)
        for data in files:
            store.add(data, durable=False)
        self.most = most
        self.asked: list[str] = []
        self.stopped = threading.Event()
        self.go_on: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._gateway = Gateway(store)
        self._answer = self._gateway._server._handler
        self._gateway._server._handler = self._counting
        self.endpoint = self._gateway.endpoint

    def _counting(self, request: Request) -> Response:
        with self._lock:
            full = len(self.asked) >= self.most
            if not full:
                self.asked.append(request.path.removeprefix("/ipfs/"))
        if full:
            self.stopped.set()
            self.go_on()
            return text(500, "no more")
        return self._answer(request)

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._gateway.close()


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Blockstore]:
    store = Blockstore(tmp_path / "mine")
    yield store
    store.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Counted]:
    with Counted(tmp_path / "source", DATA) as counted:
        yield counted


def fetch(store: Blockstore, endpoint: str, cid: Cid = CID, size: int = len(DATA), **how: float) -> memoryview:
    with Fetcher(LOOPBACK, **{"timeout_s": 20.0, **how}) as fetcher:  # type: ignore[arg-type]
        return fetcher.fetch_into(store, cid, size, [endpoint], label="fetched", round=3)


def partial_files(store: Blockstore) -> list[Path]:
    folder = store.folder / "partial"
    return sorted(folder.iterdir()) if folder.exists() else []


def stop_half_way(store: Blockstore, source: Counted, blocks: int) -> None:
    """Have a fetch end after the root and so many leaves."""
    source.most = 1 + blocks
    with pytest.raises(ContentUnavailable):
        fetch(store, source.endpoint)
    source.most = 1 << 30


def test_a_whole_file_leaves_nothing_behind_and_is_an_object_as_any(mine: Blockstore, source: Counted) -> None:
    data = fetch(mine, source.endpoint)
    assert data == DATA and data.readonly
    assert partial_files(mine) == [] and len(source.asked) == len(set(source.asked)) == BLOCKS + 1
    assert bytes(mine.get(CID, len(DATA))) == DATA and mine.dag(CID) == build(DATA)
    assert [(pin.cid, pin.label, pin.round) for pin in mine.pins()] == [(CID, "fetched", 3)]
    assert (mine.folder / "objects" / str(CID)).read_bytes() == (source_object(source)).read_bytes()
    with Gateway(Blockstore(mine.folder)) as gateway, Fetcher(LOOPBACK) as fetcher:
        assert fetcher.fetch(CID, len(DATA), [gateway.endpoint]) == DATA


def source_object(source: Counted) -> Path:
    store = source._gateway._store
    assert isinstance(store, Blockstore)
    return store.folder / "objects" / str(CID)


@pytest.mark.parametrize("blocks", [0, 1, 5, BLOCKS - 1])
def test_a_provider_that_gives_up_costs_no_block_twice(mine: Blockstore, source: Counted, blocks: int) -> None:
    stop_half_way(mine, source, blocks)
    assert not mine.has(CID) and [path.name for path in partial_files(mine)] == [str(CID)]
    assert partial_files(mine)[0].stat().st_mode & 0o777 == 0o600
    assert fetch(mine, source.endpoint) == DATA
    assert len(source.asked) == len(set(source.asked)) == BLOCKS + 1
    assert partial_files(mine) == []


def test_a_deadline_costs_no_block_twice(mine: Blockstore, source: Counted) -> None:
    source.most, source.go_on = 6, lambda: time.sleep(3.0)
    with pytest.raises(ContentUnavailable, match="too slow"):
        fetch(mine, source.endpoint, timeout_s=1.5)
    source.most = 1 << 30
    assert fetch(Blockstore(mine.folder), source.endpoint) == DATA
    assert len(source.asked) == len(set(source.asked)) == BLOCKS + 1


def test_a_file_that_was_altered_on_disk_meanwhile_is_mended(mine: Blockstore, source: Counted) -> None:
    stop_half_way(mine, source, 6)
    (path,) = partial_files(mine)
    with path.open("r+b") as file:  # whichever leaves are here, these bytes are not theirs
        for index in range(BLOCKS - 1):  # the last is not among them
            file.seek(index * CHUNK_BYTES + 3)
            file.write(b"altered")
    assert fetch(mine, source.endpoint) == DATA
    assert len(source.asked) == BLOCKS + 7


@pytest.mark.parametrize("damage", ["empty", "cut", "map", "other", "noise"])
def test_what_is_no_partial_file_begins_anew(mine: Blockstore, source: Counted, damage: str) -> None:
    stop_half_way(mine, source, 6)
    (path,) = partial_files(mine)
    good = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": good[:-30],
            "map": good[:-24] + b"\x01" + good[-24:],
            "other": good[:-24] + b"FLPART99" + good[-16:],
            "noise": os.urandom(5000),
        }[damage]
    )
    assert fetch(mine, source.endpoint) == DATA
    assert bytes(mine.get(CID, len(DATA))) == DATA


def test_more_than_expected_is_the_publishers_fault_also_when_going_on(mine: Blockstore, source: Counted) -> None:
    stop_half_way(mine, source, 3)
    with pytest.raises(ContentMalformed, match="expected at most"):
        fetch(mine, source.endpoint, size=len(DATA) - 1)
    assert fetch(mine, source.endpoint) == DATA


def test_blocks_of_other_files_are_not_fetched(tmp_path: Path, mine: Blockstore) -> None:
    """A file that differs from one that is here in one block, and ends in a block that occurs twice."""
    twice = os.urandom(CHUNK_BYTES)
    old = DATA[: 8 * CHUNK_BYTES] + twice
    new = DATA[: 3 * CHUNK_BYTES] + os.urandom(CHUNK_BYTES) + DATA[4 * CHUNK_BYTES : 8 * CHUNK_BYTES] + twice + twice
    mine.add(old, durable=False)
    with Counted(tmp_path / "source", new) as source:
        assert fetch(Blockstore(mine.folder), source.endpoint, cid_of(new), len(new)) == new
    assert len(source.asked) == 2  # the root and what differs
    assert bytes(mine.get(cid_of(new), len(new))) == new


def test_two_at_once_do_not_get_in_each_others_way(mine: Blockstore, source: Counted) -> None:
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(bytes(fetch(mine, source.endpoint)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [DATA] * 4 and bytes(mine.get(CID, len(DATA))) == DATA and partial_files(mine) == []


def test_a_full_disk_is_told_and_given_back(mine: Blockstore, source: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    real = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 4 * CHUNK_BYTES:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(partial_module.os, "pwrite", full)
    with pytest.raises(StoreFull, match="No space left"):
        fetch(mine, source.endpoint)
    assert partial_files(mine) == [] and not mine.has(CID)


# ---- bounds ------------------------------------------------------------------------------------------------------


def leave(store: Blockstore, count: int) -> list[Path]:
    """So many partial files, oldest first, each of two blocks of which one is here."""
    left = []
    for number in range(count):
        data = number.to_bytes(4) * (CHUNK_BYTES // 4 + 1)
        dag = build(data)
        partial = store.begin(dag)
        assert partial is not None
        partial.write(dag.leaves[0], data[:CHUNK_BYTES])
        partial.close()
        path = store.folder / "partial" / str(dag.root)
        os.utime(path, (time.time() - 1000 + number, time.time() - 1000 + number))
        left.append(path)
    return left


def test_the_newest_stay(mine: Blockstore, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leave(mine, 20)
    assert [path.exists() for path in left] == [False] * 4 + [True] * 16
    monkeypatch.setattr(partial_module, "MOST_BYTES", 5 * (CHUNK_BYTES + 8192))
    assert mine.gc(dry_run=True).freed_bytes == 0 and sum(path.exists() for path in left) == 16
    assert mine.gc().freed_bytes >= 11 * CHUNK_BYTES
    assert [path.exists() for path in left] == [False] * 15 + [True] * 5
    monkeypatch.setattr(partial_module, "OLDEST_S", 990.0)
    mine.gc()
    assert [path.exists() for path in left] == [False] * 15 + [True] * 5
    monkeypatch.setattr(partial_module, "OLDEST_S", 1.0)
    mine.gc()
    assert partial_files(mine) == []


def test_collection_leaves_alone_what_is_being_written(mine: Blockstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "OLDEST_S", -1.0)
    partial = mine.begin(build(DATA))
    assert partial is not None
    mine.gc()
    assert len(partial_files(mine)) == 1
    assert mine.begin(build(DATA)) is None and mine.resume(CID, len(DATA)) is None  # somebody is at it
    partial.close()
    mine.gc()
    assert partial_files(mine) == []


# ---- processes ---------------------------------------------------------------------------------------------------

FETCH = """
import sys
from pathlib import Path
from fl_node.content import Cid
from fl_node.content.blockstore import Blockstore
from fl_node.content.fetch import Fetcher
store = Blockstore(Path(sys.argv[1]))
with Fetcher(("127.0.0.0/8",), timeout_s=120.0) as fetcher:
    fetcher.fetch_into(store, Cid.parse(sys.argv[2]), 1 << 30, [sys.argv[3]])
"""


def test_a_fetch_of_64_mb_that_is_killed_goes_on(tmp_path: Path) -> None:
    data = os.urandom(64 * CHUNK_BYTES)
    cid = cid_of(data)
    with Counted(tmp_path / "source", data, most=33) as source:
        held = threading.Event()
        source.go_on = lambda: held.wait(60) and None
        command = [sys.executable, "-c", FETCH, str(tmp_path / "mine"), str(cid), source.endpoint]
        victim = subprocess.Popen(command)
        assert source.stopped.wait(60)
        # What was given is on its way to the disk: wait until it lies there, then kill.
        path = tmp_path / "mine" / "partial" / str(cid)
        deadline = time.monotonic() + 30
        while sum(path.read_bytes()[-24 - 64 : -24]) < 32:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
        assert victim.wait(30) == -signal.SIGKILL
        held.set()
        assert len(source.asked) == 33
        source.most = 1 << 30
        subprocess.run(command, check=True, timeout=120)
        # The root and each of 64 blocks once: the second process asked for the 32 that were missing, and no root.
        assert len(source.asked) == len(set(source.asked)) == 65
    store = Blockstore(tmp_path / "mine")
    assert bytes(store.get(cid, len(data))) == data and partial_files(store) == []
