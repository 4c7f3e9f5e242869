"""What every content store does: one suite over memory, disk and a daemon."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_node.content import Cid, ContentStore, Pin, cid_of, open_store
from fl_node.content.kubo import KuboStore
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import ContentMalformed, ContentUnavailable, UsageError

LARGE = 3 * CHUNK_BYTES + 77
ABSENT = Cid("raw", bytes(31) + b"\x01")
ABSENT_FILE = Cid("dag-pb", bytes(31) + b"\x01")


@pytest.fixture(params=["memory", "embedded", "kubo"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    if request.param == "kubo":
        # The daemon of these tests ignores "offline", so what is not there costs this long.
        opened: ContentStore = KuboStore(tmp_path, request.getfixturevalue("kubo_api"), block_s=0.3)
    else:
        opened = open_store(request.param, tmp_path)
    yield opened
    opened.close()
    opened.close()


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE])
def test_what_is_added_can_be_read(store: ContentStore, size: int) -> None:
    data = os.urandom(size)
    cid = store.add([data[:10], data[10:]])
    assert cid == cid_of(data)
    assert store.has(cid) and store.size(cid) == size
    assert bytes(store.get(cid, size)) == data
    assert store.dag(cid) == build(data)


def test_a_held_file_reads_the_same_after_it_was_forgotten(store: ContentStore) -> None:
    for size in (0, 1000, 9 * CHUNK_BYTES + 5):  # the last is large enough to be mapped from disk
        data = os.urandom(size)
        held = store.hold(store.add(data), size)
        assert bytes(held.data) == data
        held.forget()
        assert bytes(held.data) == data


def test_every_block_can_be_read(store: ContentStore) -> None:
    data = os.urandom(LARGE)
    dag = build(data)
    store.put(dag, data)
    assert bytes(store.block(dag.root)) == dag.nodes[dag.root]
    assert store.block_size(dag.root) == len(dag.nodes[dag.root])
    for index, digest in enumerate(dag.leaves):
        offset, length = dag.leaf_span(index)
        leaf = Cid("raw", digest)
        assert bytes(store.block(leaf)) == data[offset : offset + length]
        assert store.block_size(leaf) == length
        region = store.region(leaf)
        if region is not None:
            assert os.pread(region.fd, region.length_bytes, region.offset) == data[offset : offset + length]
            os.close(region.fd)


def test_what_is_not_there_is_unavailable(store: ContentStore) -> None:
    store.add(b"something else")
    for cid in (ABSENT, ABSENT_FILE):
        assert not store.has(cid)
        assert store.block_size(cid) is None
        for read in (lambda cid=cid: store.get(cid, 100), lambda cid=cid: store.block(cid)):
            with pytest.raises(ContentUnavailable):
                read()
    with pytest.raises(ContentUnavailable):
        store.size(ABSENT)
    with pytest.raises(ContentUnavailable):
        store.pin(ABSENT, "wanted")


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_larger_file_than_expected_is_malformed(store: ContentStore, size: int) -> None:
    cid = store.add(os.urandom(size))
    with pytest.raises(ContentMalformed, match=f"at most {size - 1}"):
        store.hold(cid, size - 1)
    with pytest.raises(ContentMalformed, match=f"at most {size - 1}"):
        store.get(cid, size - 1)


def test_adding_twice_changes_nothing(store: ContentStore) -> None:
    data = os.urandom(LARGE)
    assert store.add(data, label="a") == store.add(data, label="a")
    assert bytes(store.get(cid_of(data), LARGE)) == data
    assert len([pin for pin in store.pins() if pin.cid == cid_of(data)]) == 1


def test_equal_leaves_of_two_files_survive_each_other(store: ContentStore) -> None:
    shared = os.urandom(CHUNK_BYTES)
    first = store.add([shared, b"first"], label="first")
    second = store.add([shared, b"second"], label="second")
    assert bytes(store.block(Cid("raw", build(shared).leaves[0]))) == shared
    store.unpin(first, "first")
    assert store.gc().cids in ((first,), ())
    assert bytes(store.get(second, LARGE)) == shared + b"second"
    assert bytes(store.block(Cid("raw", build(shared).leaves[0]))) == shared


def test_pins_say_for_whom_and_until_when(store: ContentStore) -> None:
    cid = store.add(os.urandom(50), label="own 1#1", round=3)
    store.pin(cid, "archive")
    store.pin(cid, "own 1#1", 4)
    assert store.pins() == (Pin(cid, "archive", None), Pin(cid, "own 1#1", 4))
    store.unpin(cid, "never there")
    store.unpin(cid, "archive")
    assert store.pins() == (Pin(cid, "own 1#1", 4),)


def test_collection_by_round_spares_what_is_pinned(store: ContentStore) -> None:
    old, new, kept, forever = (store.add(os.urandom(100 + n), label="u", round=n) for n in (1, 2, 1, 1))
    store.pin(kept, "another reason", 5)
    store.pin(forever, "genesis")
    planned = store.gc(2, dry_run=True)
    assert planned.cids == (old,) and planned.freed_bytes == 101
    assert store.has(old) and len(store.pins()) == 6
    assert store.gc(2) == planned
    assert not store.has(old)
    assert all(store.has(cid) for cid in (new, kept, forever))
    assert store.gc(2).cids == ()
    assert {(pin.cid, pin.label) for pin in store.pins()} == {
        (new, "u"),
        (kept, "another reason"),
        (forever, "genesis"),
    }


def test_threads_share_a_store(store: ContentStore) -> None:
    files = [os.urandom(5000 + n) for n in range(8)]
    trouble: list[BaseException] = []

    def work(data: bytes) -> None:
        try:
            cid = store.add(data)
            assert bytes(store.get(cid, 10_000)) == data
        except BaseException as cause:
            trouble.append(cause)

    threads = [threading.Thread(target=work, args=(data,)) for data in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert {pin.cid for pin in store.pins()} == {cid_of(data) for data in files}


def test_an_unknown_kind_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="embedded, kubo, memory"):
        open_store("s3", tmp_path)
