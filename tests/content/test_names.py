"""CIDs and DAGs: against other implementations, against known values, and as properties."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.content import Cid, cid_of
from fl_node.content.unixfs import CHUNK_BYTES, WIDTH, Child, assemble, build, read_node, write_node
from fl_node.errors import ContentMalformed, UsageError

BOUNDARIES = [
    *(0, 1, 31, 32, 33, 262_144, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES - 1),
    *(2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1, 5_300_000, 100 * CHUNK_BYTES, 127 * CHUNK_BYTES + 77),
]
# 1,024 chunks are one node, one byte more are three; all with zeros, so that they cost no memory. Between 2 and 4 GiB
# ipfs-unixfs 11.2.5 writes a wrong file size (it cuts the number to 32 signed bits), so nothing is compared there.
SPARSE = [
    (WIDTH - 1) * CHUNK_BYTES,
    WIDTH * CHUNK_BYTES,
    WIDTH * CHUNK_BYTES + 1,
    (4 * WIDTH + 2) * CHUNK_BYTES + 3,
]


def pieces(size: int, seed: int, zeros: bool = False) -> list[memoryview]:
    """The same file as tests/js/cids.mjs makes, in 1 MiB buffers."""
    zero = memoryview(bytes(CHUNK_BYTES))
    found = []
    for index, at in enumerate(range(0, size, CHUNK_BYTES)):
        piece = zero
        if not zeros:
            fresh = bytearray(CHUNK_BYTES)
            fresh[:32] = hashlib.sha256(f"{seed}:{index}".encode()).digest()
            piece = memoryview(fresh)
        found.append(piece[: min(CHUNK_BYTES, size - at)])
    return found


def judged(judges: Path, plans: list[dict[str, object]]) -> list[str]:
    lines = "".join(json.dumps(plan) + "\n" for plan in plans)
    done = subprocess.run(
        ["node", str(judges / "cids.mjs")], input=lines, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_cids_equal_those_of_ipfs_unixfs_importer(judges: Path) -> None:
    plans = [{"size": size, "seed": 7, "zeros": False} for size in BOUNDARIES]
    assert judged(judges, plans) == [str(cid_of(pieces(size, 7))) for size in BOUNDARIES]


def test_cids_of_files_over_1_gib_equal_those_of_ipfs_unixfs_importer(judges: Path) -> None:
    plans = [{"size": size, "seed": 0, "zeros": True} for size in SPARSE]
    assert judged(judges, plans) == [str(cid_of(pieces(size, 0, zeros=True))) for size in SPARSE]


def test_known_names() -> None:
    # Of the empty file and of "hello world\n", as any IPFS tool prints them for raw leaves.
    assert str(cid_of(b"")) == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert cid_of(b"hello world\n") == Cid("raw", hashlib.sha256(b"hello world\n").digest())


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["raw", "dag-pb"]))
def test_a_cid_reads_back(digest: bytes, codec: str) -> None:
    cid = Cid(codec, digest)  # type: ignore[arg-type]
    assert Cid.parse(str(cid)) == cid and Cid.decode(bytes(cid)) == cid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bafkqaaa",  # identity
        "bafkqablimvwgy3y",  # identity with bytes inside
        "QmRaaUwTNfwgFZpeUy8qrZwrp2dY4kCKmmB5xEqvH3vtD1",  # version 0
        "BAFKREIHDWDCEFGH4DQKJV67UZCMW7OJEE6XEDZDETOJUZJEVTENXQUVYKU",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv",  # set padding bits
        "bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",  # dag-cbor
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/../x",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku\n",
        "b" * 10_000,
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Cid.parse(text)


@given(st.binary(max_size=80))
def test_any_binary_is_a_cid_or_a_usage_error(binary: bytes) -> None:
    try:
        assert bytes(Cid.decode(binary)) == binary
    except UsageError:
        pass


@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=6))
def test_the_name_does_not_depend_on_how_the_file_is_cut_into_buffers(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert cid_of(parts) == cid_of(data) == cid_of(bytearray(data)) == cid_of(memoryview(data))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_and_buffers_across_chunks_change_nothing(threads: int) -> None:
    whole = b"".join(pieces(9 * CHUNK_BYTES + 5, 1))
    assert build([whole[:700_000], whole[700_000:3_333_333], whole[3_333_333:]], threads) == build(whole, 1)


@pytest.mark.parametrize("size", [CHUNK_BYTES + 1, 30 * CHUNK_BYTES, *SPARSE])
def test_a_tree_is_assembled_from_its_root_alone(size: int) -> None:
    dag = build(pieces(size, 0, zeros=True))
    asked: list[Cid] = []

    def load(cid: Cid) -> bytes:
        asked.append(cid)
        return dag.nodes[cid]

    assert assemble(dag.root, load, size) == dag
    assert set(asked) == set(dag.nodes)
    with pytest.raises(ContentMalformed, match="at most"):
        assemble(dag.root, load, size - 1)


def test_walking_gives_every_block_once_parents_first() -> None:
    dag = build(pieces((WIDTH + 3) * CHUNK_BYTES, 3))
    walked = list(dag.walk())
    assert walked[0] == (dag.root, -1)
    assert len(walked) == len(set(walked)) == WIDTH + 3 + 3
    assert [Cid("raw", dag.leaves[leaf]) for _, leaf in walked if leaf >= 0] == [
        cid for cid, leaf in walked if leaf >= 0
    ]


def test_a_tree_of_another_shape_is_malformed() -> None:
    full = Child(Cid("raw", bytes(32)), CHUNK_BYTES, CHUNK_BYTES)
    short = Child(Cid("raw", bytes(32)), 5, 5)
    inner = Child(Cid("dag-pb", bytes(32)), CHUNK_BYTES, CHUNK_BYTES)
    lying = Child(Cid("raw", bytes(32)), CHUNK_BYTES, CHUNK_BYTES + 1)
    for children in (
        [full],
        [short, full],
        [full, full, inner],
        [short, short],
        [full, lying],
        [full] * WIDTH + [short],
    ):
        block = write_node(children)
        root = Cid("dag-pb", hashlib.sha256(block).digest())
        with pytest.raises(ContentMalformed):
            assemble(root, {root: block}.__getitem__, 1 << 40)


def test_a_huge_claim_is_refused_before_anything_is_loaded() -> None:
    block = write_node([Child(Cid("dag-pb", bytes(32)), 1 << 50, 1 << 50), Child(Cid("dag-pb", bytes(32)), 9, 9)])
    root = Cid("dag-pb", hashlib.sha256(block).digest())
    with pytest.raises(ContentMalformed, match="at most 1000"):
        assemble(root, {root: block}.__getitem__, 1000)


@given(st.data())
def test_an_altered_node_is_malformed_or_reads_as_what_it_says(data: st.DataObject) -> None:
    """Nothing but the one canonical form is read, whatever a stranger sends."""
    block = bytearray(build(pieces(3 * CHUNK_BYTES, 1)).nodes.popitem()[1])
    for _ in range(data.draw(st.integers(1, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    altered = bytes(block[: data.draw(st.integers(0, len(block)))])
    try:
        assert write_node(read_node(altered)) == altered
    except ContentMalformed:
        pass


@given(st.binary(max_size=400))
def test_garbage_is_malformed(garbage: bytes) -> None:
    try:
        assert write_node(read_node(garbage)) == garbage
    except ContentMalformed:
        pass
