"""Tiles: the paths and bytes of C2SP tlog-tiles, and a reader that believes nothing but a size and a root."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import pytest
from worlds import World, an_update, memory_world

from fl_node.errors import ContentUnavailable, MalformedEvidence
from fl_node.ledger import codec, tree
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.kept_log import KeptLog
from fl_node.ledger.protocol import LedgerIdentity, RawLog
from fl_node.ledger.tiles import MAX_ENTRY_BYTES, Tile, TileLog, bundle, raw_log, unbundle
from fl_node.records import Flag, LedgerHead, LedgerOpened, PeerAnnounced, Role

ZERO = bytes(32)
Files = dict[str, bytes]
ADDRESS = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


@cache
def log_of(size: int) -> LedgerIndex:
    """A long log of small entries, checked as any other."""
    opened = LedgerOpened(31337, ADDRESS, *(bytes([n]) * 32 for n in (1, 2, 3)), Flag(0), 0, ADDRESS)
    announced = (PeerAnnounced(1 + n % 9, n, ZERO, ZERO, f"http://peer-{n}") for n in range(1, size))
    encoded = [codec.encode(index, 1000 + index, body) for index, body in enumerate((opened, *announced))]
    logs = [RawLog(0, ZERO, ZERO, *log) for log in encoded]
    root = tree.root([tree.entry_leaf(*log) for log in encoded])
    identity = LedgerIdentity(31337, ADDRESS, 1, *(bytes([n]) * 32 for n in (1, 2, 3)), Flag(0), 0)
    index = LedgerIndex(":memory:", KeptLog(identity, LedgerHead(size, root, 0, ZERO), logs))
    index.sync()
    return index


class Served:
    """A log's tiles as a callable, some of them replaced."""

    def __init__(self, log: LedgerIndex, replaced: Files | None = None) -> None:
        self.log, self.replaced = log, replaced or {}
        self.asked: set[str] = set()

    def __call__(self, path: str) -> bytes:
        self.asked.add(path)
        tile = Tile.parse(path)
        assert tile is not None
        return self.replaced[path] if path in self.replaced else tile.read(self.log)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(63, 5), "tile/63/005"),
        (Tile(1, 1234067), "tile/1/x001/x234/067"),
        (Tile(None, 999), "tile/entries/999"),
        (Tile(None, 1000, 1), "tile/entries/x001/000.p/1"),
    ],
)
def test_paths_go_both_ways(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        *("", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/64/000", "tile/-1/000", "tile/x/000", "/tile/0/000"),
        *("tile/0/x000/001", "tile/0/001/x000", "tile/0/x001/234/", "tile/0/000.p/0", "tile/0/000.p/256"),
        *("tile/0/000.p/012", "tile/0/000.p/", "tile/0/000.p/1000", "tile/0/٣٣٣", "tile/entries/../000"),
        "tile/0/" + "x999/" * 200 + "999",
    ],
)
def test_other_paths_name_nothing(path: str) -> None:
    assert Tile.parse(path) is None


def test_a_tile_is_what_the_rule_says() -> None:
    """Hash i of tile n at level l is the tree hash of leaves (256 n + i) 256**l and on, 256**l of them."""
    log = log_of(1000)
    leaves = [hashlib.sha256(b"\0" + preimage).digest() for preimage in log.preimages(0, 1000)]
    assert Tile(0, 1).read(log) == b"".join(leaves[256:512])
    assert Tile(0, 3, 232).read(log) == b"".join(leaves[768:])
    assert Tile(1, 0, 3).read(log) == b"".join(tree.root(leaves[at : at + 256]) for at in (0, 256, 512))
    entries = unbundle(Tile(None, 2).read(log))
    assert [hashlib.sha256(b"\0" + entry).digest() for entry in entries] == leaves[512:768]
    assert entries[0] == b"".join(log.entry(512).topics) + log.entry(512).data
    for missing in (Tile(0, 3), Tile(0, 3, 233), Tile(1, 0, 4), Tile(2, 0, 1), Tile(63, 0, 1), Tile(0, 2**60)):
        with pytest.raises(LookupError):
            missing.read(log)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 700, 1000])
def test_reading_a_log_back(size: int) -> None:
    log, served = log_of(1000), Served(log_of(1000))
    logs = list(TileLog(served, size, log.root(size)).logs())
    assert [(raw.topics, raw.data) for raw in logs] == [(entry.topics, entry.data) for entry in log.entries(0, size)]
    assert all((raw.block_number, raw.block_hash, raw.tx_hash) == (0, ZERO, ZERO) for raw in logs)


def test_a_tree_of_three_levels() -> None:
    log = log_of(65_536 + 300)
    for size in (65_536, 65_836):
        count = sum(1 for _ in TileLog(Served(log), size, log.root(size)).logs())
        assert count == size


def test_an_index_over_tiles_equals_one_over_the_chain() -> None:
    world: World = memory_world((Role.ALL, Role.ALL))
    for ledger in world.members:
        ledger.publish(an_update(ledger.head(), 1, 1), ())
    with LedgerIndex(":memory:", world.owner) as theirs:
        theirs.sync()
        logs = list(TileLog(Served(theirs), theirs.size, theirs.root()).logs())
        head = LedgerHead(theirs.size, theirs.root(), 0, ZERO)
        with LedgerIndex(":memory:", KeptLog(world.owner.identity, head, logs)) as ours:
            ours.sync()
            assert [entry.body for entry in ours.entries()] == [entry.body for entry in theirs.entries()]


def files_of(log: LedgerIndex, size: int) -> Files:
    """Every tile that a reader of this log asks for."""
    served = Served(log)
    assert sum(1 for _ in TileLog(served, size, log.root(size)).logs()) == size
    return {path: served(path) for path in sorted(served.asked)}


def test_every_flipped_bit_of_a_small_log_is_found_and_named() -> None:
    log = log_of(1000)
    size = 3
    files = files_of(log, size)
    assert sorted(files) == ["tile/0/000.p/3", "tile/entries/000.p/3"]
    for path, data in files.items():
        for at in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[at // 8] ^= 1 << at % 8
            with pytest.raises(MalformedEvidence, match=path):
                list(TileLog(Served(log, {path: bytes(flipped)}), size, log.root(size)).logs())


@pytest.mark.parametrize("size", [600, 512])
def test_a_flipped_byte_of_any_tile_is_found_and_named(size: int) -> None:
    log = log_of(1000)
    files = files_of(log, size)
    assert len(files) == 2 * -(-size // 256) + 1
    for path, data in files.items():
        for at in {*range(0, len(data), 1009), len(data) - 1}:
            flipped = bytearray(data)
            flipped[at] ^= 0x10
            with pytest.raises(MalformedEvidence, match=path):
                list(TileLog(Served(log, {path: bytes(flipped)}), size, log.root(size), jobs=1).logs())


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: data[::-1],
        lambda data: data * 2,
    ],
    ids=["cut", "longer", "empty", "backwards", "twice"],
)
def test_tiles_of_another_shape_are_named(change: Callable[[bytes], bytes]) -> None:
    log = log_of(1000)
    for path, data in files_of(log, 600).items():
        with pytest.raises(MalformedEvidence, match=path):
            list(TileLog(Served(log, {path: change(data)}), 600, log.root(600)).logs())


def test_entries_left_out_swapped_or_of_another_log_are_found() -> None:
    log = log_of(1000)
    entries = unbundle(Tile(None, 1).read(log))
    swapped = bundle([entries[1], entries[0], *entries[2:]])
    for altered in (swapped, bundle(entries[1:]), bundle([*entries, entries[0]])):
        with pytest.raises(MalformedEvidence, match="tile/entries/001 is altered"):
            list(TileLog(Served(log, {"tile/entries/001": altered}), 600, log.root(600)).logs())
    with pytest.raises(MalformedEvidence, match="not of the log with 600 entries"):
        list(TileLog(Served(log), 600, log.root(599)).logs())


def test_nothing_is_given_before_it_is_checked() -> None:
    log = log_of(1000)
    bad = bytes([Tile(None, 3, 232).read(log)[0]]) + bytes(len(Tile(None, 3, 232).read(log)) - 1)
    given = []
    with pytest.raises(MalformedEvidence, match=r"tile/entries/003\.p/232"):
        for raw in TileLog(Served(log, {"tile/entries/003.p/232": bad}), 1000, log.root(1000)).logs():
            given.append(raw)
    assert [raw.data for raw in given] == [entry.data for entry in log.entries(0, len(given))]


def test_a_tree_over_one_tile_again_and_again_is_not_read_for_ever() -> None:
    """Whoever signs a size and a root may have made both up; the entries say where they stand."""
    log = log_of(1000)
    leaves, entries = Tile(0, 0).read(log), Tile(None, 0).read(log)
    hashes = [leaves[at : at + 32] for at in range(0, len(leaves), 32)]
    root = tree.root([tree.root(hashes)] * 256)
    files = {f"tile/0/{n:03d}": leaves for n in range(256)} | {f"tile/entries/{n:03d}": entries for n in range(256)}
    files |= {"tile/1/000": tree.root(hashes) * 256, "tile/2/000.p/1": root}
    given = []
    with pytest.raises(MalformedEvidence, match="entry 256 of tile/entries/001 has another index"):
        for raw in TileLog(Served(log, files), 65_536, root).logs():
            given.append(raw)
    assert len(given) == 256


def test_what_the_source_raises_is_passed_on() -> None:
    def nowhere(path: str) -> bytes:
        raise ContentUnavailable(f"nobody has {path}")

    with pytest.raises(ContentUnavailable, match=r"nobody has tile/0/002\.p/88"):
        list(TileLog(nowhere, 600, ZERO).logs())


def test_bundles_say_lengths_in_two_bytes() -> None:
    entries = [b"", b"x", b"y" * MAX_ENTRY_BYTES]
    assert unbundle(bundle(entries)) == entries
    with pytest.raises(ValueError, match="65536"):
        bundle([b"z" * (MAX_ENTRY_BYTES + 1)])
    for bad in (b"\0", b"\0\1", b"\0\2x", b"\0\0\0"):
        with pytest.raises(ValueError, match="middle of an entry"):
            unbundle(bad)


def test_topics_follow_from_the_kind() -> None:
    for entry in log_of(1000).entries(0, 3):
        raw = raw_log(b"".join(entry.topics) + entry.data)
        assert (raw.topics, raw.data) == (entry.topics, entry.data)
    unknown = raw_log(b"\xee" * 32 + bytes(64))
    assert (len(unknown.topics), len(unknown.data)) == (2, 32)
    for short in (b"", bytes(63), log_of(1000).entry(1).topics[0] + bytes(63)):
        with pytest.raises(ValueError, match="topics"):
            raw_log(short)
