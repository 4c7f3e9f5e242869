"""The store on disk under bad luck: full or read-only disks, altered and torn files, crashes, several processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_node.content import Cid, cid_of
from fl_node.content import objects as objects_module
from fl_node.content.blockstore import Blockstore
from fl_node.content.objects import TEMPORARY
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import ContentMismatch, ContentUnavailable, StoreFull

LARGE = 3 * CHUNK_BYTES + 77


def leftovers(store: Blockstore) -> list[str]:
    return [path.name for path in (store.folder / "objects").glob(TEMPORARY + "*")]


def alter(store: Blockstore, cid: Cid, at: int) -> None:
    with (store.folder / "objects" / str(cid)).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A limit on file size makes the kernel refuse the write half way, as a full disk does."""
    store = Blockstore(tmp_path)
    before = store.add(b"kept")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES, hard))
    try:
        with pytest.raises(StoreFull, match="Nothing was lost"):
            store.add(os.urandom(LARGE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(store) == []
    assert store.get(before, 10) == b"kept"
    assert store.add(os.urandom(LARGE))


def test_a_full_file_system_is_named(tmp_path: Path) -> None:
    """On a real file system of 2 MiB, where this user may mount one."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("may not mount a file system here; the limit on file size covers the same code")
    try:
        store = Blockstore(tmp_path / "content")
        small = store.add(b"kept")
        with pytest.raises(StoreFull, match="No space left"):
            store.add(os.urandom(LARGE))
        assert leftovers(store) == []
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(StoreFull, match="Read-only"):
            store.add(b"more")
        assert store.get(small, 10) == b"kept"
        again = Blockstore(tmp_path / "content")
        assert again.get(small, 10) == b"kept"
        store.close()
        again.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("call", ["mkstemp", "write", "fsync"])
@pytest.mark.parametrize("number", ["ENOSPC", "EROFS", "EACCES", "EDQUOT"])
def test_any_refusal_of_the_disk_is_store_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: str
) -> None:
    import errno

    store = Blockstore(tmp_path)

    def refuse(*_: object, **__: object) -> object:
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code))

    owner = objects_module.tempfile if call == "mkstemp" else objects_module.os
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refuse)
        with pytest.raises(StoreFull):
            store.add(b"x" * 5000)
    assert leftovers(store) == []
    assert not store.has(cid_of(b"x" * 5000))
    store.add(b"x" * 5000)


def test_a_folder_that_cannot_be_made_is_store_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFull):
        Blockstore(tmp_path / "file" / "content")


@pytest.mark.parametrize("at", [0, CHUNK_BYTES, LARGE - 1])
def test_an_altered_file_is_found_when_read_and_can_be_replaced(tmp_path: Path, at: int) -> None:
    store = Blockstore(tmp_path)
    data = os.urandom(LARGE)
    cid = store.add(data)
    alter(store, cid, at)
    reopened = Blockstore(tmp_path)
    with pytest.raises(ContentMismatch, match="altered on disk"):
        reopened.get(cid, LARGE)
    assert not reopened.has(cid)
    assert (tmp_path / "broken" / str(cid)).exists()
    with pytest.raises(ContentUnavailable):
        reopened.get(cid, LARGE)
    assert reopened.add(data) == cid
    assert reopened.get(cid, LARGE) == data


def test_an_altered_block_is_found_when_served(tmp_path: Path) -> None:
    cid = Blockstore(tmp_path).add(data := os.urandom(LARGE))
    leaf = Cid("raw", build(data).leaves[1])
    store = Blockstore(tmp_path)
    alter(store, cid, CHUNK_BYTES + 5)
    with pytest.raises(ContentMismatch):
        store.region(leaf)
    assert store.block_size(leaf) is None


@pytest.mark.parametrize("at", [-1, -12, -24, -30, -200])
def test_an_altered_tail_is_found(tmp_path: Path, at: int) -> None:
    store = Blockstore(tmp_path)
    cid = store.add(os.urandom(LARGE))
    length = (tmp_path / "objects" / str(cid)).stat().st_size
    alter(store, cid, length + at)
    with pytest.raises(ContentMismatch, match="torn or altered"):
        Blockstore(tmp_path).get(cid, LARGE)


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("left", [0, 10, 900])
def test_a_torn_file_is_found(tmp_path: Path, size: int, left: int) -> None:
    """What a power cut can leave of a file that was not made durable."""
    cid = Blockstore(tmp_path).add(os.urandom(size), durable=False)
    os.truncate(tmp_path / "objects" / str(cid), left)
    store = Blockstore(tmp_path)
    with pytest.raises(ContentMismatch):
        store.get(cid, LARGE)
    assert not store.has(cid)


ADD_FOREVER = """
import os, sys
from pathlib import Path
from fl_node.content.blockstore import Blockstore
store = Blockstore(Path(sys.argv[1]))
while True:
    print(store.add(os.urandom(6_000_000)), flush=True)
"""


def test_kill_in_the_middle_leaves_a_consistent_store(tmp_path: Path) -> None:
    """Whatever was reported as added is there and whole; what was not is not; the rest is swept away."""
    store = Blockstore(tmp_path)
    for turn in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", ADD_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        reported = [process.stdout.readline().strip() for _ in range(2)]
        time.sleep(0.004 * turn)
        process.send_signal(signal.SIGKILL)
        reported += process.stdout.read().split()
        process.wait()
        process.stdout.close()
        for name in reported:
            if len(name) == 59:
                assert len(store.get(Cid.parse(name), 6_000_000)) == 6_000_000
    everything = [path.name for path in (tmp_path / "objects").glob("baf*")]
    assert all(len(store.get(Cid.parse(name), 6_000_000)) == 6_000_000 for name in everything)
    assert {str(pin.cid) for pin in store.pins()} >= set(everything)
    store.gc()
    assert leftovers(store) == []
    assert len(list((tmp_path / "objects").iterdir())) == len(everything)


def test_collection_spares_what_somebody_is_writing(tmp_path: Path) -> None:
    import fcntl
    import tempfile

    store = Blockstore(tmp_path)
    fd, name = tempfile.mkstemp(prefix=TEMPORARY, dir=tmp_path / "objects")
    (tmp_path / "objects" / (TEMPORARY + "abandoned")).write_bytes(b"x")
    fcntl.flock(fd, fcntl.LOCK_EX)
    store.gc()
    assert leftovers(store) == [Path(name).name]
    os.close(fd)
    store.gc()
    assert leftovers(store) == []


def test_other_processes_see_what_is_added_and_what_is_gone(tmp_path: Path) -> None:
    reader = Blockstore(tmp_path)
    assert not reader.has(cid_of(b"later"))
    data = os.urandom(LARGE)
    code = (
        "import sys; from pathlib import Path; from fl_node.content.blockstore import Blockstore;"
        "s = Blockstore(Path(sys.argv[1])); s.add(sys.stdin.buffer.read(), label='theirs', round=1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], input=data, check=True)
    dag = build(data)
    assert bytes(reader.block(Cid("raw", dag.leaves[2]))) == data[2 * CHUNK_BYTES : 3 * CHUNK_BYTES]
    assert reader.get(dag.root, LARGE) == data
    collect = (
        "import sys; from pathlib import Path; from fl_node.content.blockstore import Blockstore;"
        "assert len(Blockstore(Path(sys.argv[1])).gc(2).cids) == 1"
    )
    subprocess.run([sys.executable, "-c", collect, str(tmp_path)], check=True)
    assert not reader.has(dag.root)
    assert reader.block_size(Cid("raw", dag.leaves[2])) is None
    assert reader.region(Cid("raw", dag.leaves[2])) is None


def test_strange_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    store = Blockstore(tmp_path)
    (tmp_path / "objects" / "notes.txt").write_text("mine")
    store.gc()
    assert (tmp_path / "objects" / "notes.txt").read_text() == "mine"


def test_a_large_file_altered_on_disk_is_not_held(tmp_path: Path) -> None:
    for damage in ("flipped", "cut"):
        store = Blockstore(tmp_path / damage)
        cid = store.add(os.urandom(9 << 20))
        (path,) = [found for found in (tmp_path / damage).rglob(str(cid)) if found.is_file()]
        path.chmod(0o600)
        with path.open("r+b") as file:
            if damage == "cut":
                file.truncate(1 << 20)
            else:
                file.seek(5 << 20)
                byte = file.read(1)
                file.seek(5 << 20)
                file.write(bytes([byte[0] ^ 1]))
        with pytest.raises((ContentMismatch, ContentUnavailable)):
            Blockstore(tmp_path / damage).hold(cid, 10 << 20)
        assert not path.exists(), "what is altered is set aside"


@pytest.mark.parametrize("size", [1000, 3 * CHUNK_BYTES])
def test_a_readonly_store_leaves_a_damaged_file_where_it_is(tmp_path: Path, size: int) -> None:
    """Whoever looks into somebody else's folder says the same of it each time."""
    cid = Blockstore(tmp_path).add(bytes(size))
    path = tmp_path / "objects" / str(cid)
    damaged = bytearray(path.read_bytes())
    damaged[10] ^= 1
    path.write_bytes(damaged)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        store = Blockstore(tmp_path, readonly=True)
        with pytest.raises(ContentMismatch, match="altered on disk"):
            store.hold(cid, size)
        store.close()
    assert sorted(tmp_path.rglob("*")) == before and path.read_bytes() == damaged
