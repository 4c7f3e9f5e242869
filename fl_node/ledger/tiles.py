"""The log as static files: tiles of 256 hashes and bundles of 256 entries, after https://c2sp.org/tlog-tiles.

``tile/L/N`` holds hashes of subtrees of ``256**L`` leaves each, from the ``256 * N``-th; ``tile/entries/N`` the entries
themselves, each with its length in two bytes, big-endian. A suffix ``.p/W`` names the first W of a tile that is not
full. N is written in groups of three digits, all but the last with an x before them: ``x001/234``. An entry's bytes are
the leaf's preimage: topics, then data. Whoever has (size, root) needs to believe nothing that such files say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

from fl_node.errors import MalformedEvidence
from fl_node.ledger import codec, tree
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.protocol import RawLog

WIDTH: Final = 256
MAX_ENTRY_BYTES: Final = 0xFFFF
#: No tile or bundle is larger.
MAX_TILE_BYTES: Final = WIDTH * (2 + MAX_ENTRY_BYTES)
#: Entry indexes and positions beyond this name nothing.
_MOST: Final = 2**63 - 1
_PATH: Final = re.compile(
    r"tile/(entries|0|[1-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)
# Of a log of a kind that nobody here knows: topic 0 and the index. The leaf is the same however many there were.
_LEAST_TOPICS: Final = 2
_NO_HASH: Final = bytes(32)

Get: TypeAlias = Callable[[str], bytes]
"""Path of a tile, without a slash before it -> its bytes. Safe to share between threads."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One file. ``level`` None: a bundle of entries. ``width``: how many hashes or entries, at most 256."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        digits = f"{self.index:0{-(-len(str(self.index)) // 3) * 3}d}"
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "".join(f"x{group}/" for group in groups[:-1]) + groups[-1]
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{'entries' if self.level is None else self.level}/{number}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile | None:
        """What a path names; None for another one, or one that is not written as :attr:`path` writes it."""
        found = _PATH.fullmatch(path) if len(path) <= 100 else None
        if found is None:
            return None
        level = None if found[1] == "entries" else int(found[1])
        tile = cls(level, int(found[2].replace("x", "").replace("/", "")), int(found[3] or WIDTH))
        return tile if tile.path == path else None

    def read(self, log: LogStore) -> bytes:
        """Its bytes by a log.

        Raises:
            LookupError: the log is too short to have it.
            ValueError: an entry is longer than two bytes can say.
        """
        start, stop = self.index * WIDTH, self.index * WIDTH + self.width
        if stop > _MOST:
            raise LookupError(f"there is no {self.path}")
        if self.level is None:
            return bundle(log.preimages(start, stop))
        return b"".join(log.subtrees(8 * self.level, start, stop))


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries with their lengths. Raises ValueError where one is longer than 65,535 bytes."""
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise ValueError(f"got an entry of {max(map(len, entries))} bytes, expected at most {MAX_ENTRY_BYTES}")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def unbundle(data: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ValueError where it ends in the middle of one."""
    found, at = [], 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or start > len(data):
            raise ValueError("it ends in the middle of an entry")
        found.append(data[start:at])
    return found


def raw_log(preimage: bytes) -> RawLog:
    """An entry's event log, without a block: tiles know of none.

    Raises:
        ValueError: too short for one.
    """
    count = codec.topic_count(preimage[:32]) or _LEAST_TOPICS
    if len(preimage) < 32 * count:
        raise ValueError(f"got {len(preimage)} bytes, expected {count} topics of 32 and data")
    topics = tuple(preimage[at : at + 32] for at in range(0, 32 * count, 32))
    return RawLog(0, _NO_HASH, _NO_HASH, topics, preimage[32 * count :])


class TileLog:
    """The first ``size`` entries of a log, from tiles that anybody may have written.

    From the root downwards: the partial tiles at the right edge must give the root, each full tile the hash that the
    tile above it has for it, each entry its leaf. So nothing is believed, and what was altered is named.

    Args:
        get: where tiles come from. What it raises is passed on.
        size, root: what to believe, from a checkpoint or a contract. Whoever names the size says how much is read.
        jobs: tiles to ask for at a time.
    """

    def __init__(self, get: Get, size: int, root: bytes, jobs: int = 4) -> None:
        self._get, self._size, self._root, self._jobs = get, size, root, jobs
        self._edge: dict[int, list[bytes]] = {}
        self._above: dict[tuple[int, int], list[bytes]] = {}

    def logs(self) -> Iterator[RawLog]:
        """Every entry's event log in order, each checked before it is given. Block number 0, hashes of zeros.

        Raises:
            MalformedEvidence: a tile or bundle is not what the root says; the message names it by its path.
        """
        self._check_edge()
        bundles = -(-self._size // WIDTH)
        with ThreadPoolExecutor(max(1, self._jobs)) as pool:
            for start in range(0, bundles, 4 * self._jobs):
                for logs in pool.map(self._bundle, range(start, min(start + 4 * self._jobs, bundles))):
                    yield from logs

    # ---- below -------------------------------------------------------------------------------------------------------

    def _bundle(self, number: int) -> list[RawLog]:
        leaves = self._hashes(0, number)
        tile = Tile(None, number, len(leaves))
        entries = self._entries(tile)
        for at, (entry, leaf) in enumerate(zip(entries, leaves, strict=True)):
            if tree.leaf_hash(entry) != leaf:
                raise _altered(tile, f"entry {number * WIDTH + at} has another leaf than the tree")
        try:
            logs = [raw_log(entry) for entry in entries]
        except ValueError as cause:
            raise MalformedEvidence(f"an entry of {tile.path} is no event log: {cause}; the log is not ours") from cause
        for at, log in enumerate(logs, start=number * WIDTH):
            # The same tile again and again would make a tree as well.
            if codec.index_of(log.topics) != at:
                raise MalformedEvidence(f"entry {at} of {tile.path} has another index in it; the log is not ours")
        return logs

    def _hashes(self, level: int, number: int) -> list[bytes]:
        """A tile's hashes, checked against what stands above it."""
        full, width = divmod(self._size >> 8 * level, WIDTH)
        if number == full and width:
            return self._edge[level]
        if (level, number) in self._above:
            return self._above[level, number]
        tile = Tile(level, number)
        hashes = self._read(tile)
        if tree.root(hashes) != self._hashes(level + 1, number // WIDTH)[number % WIDTH]:
            raise _altered(tile, "its hashes do not give the one that the tile above has for it")
        if level:
            self._above[level, number] = hashes
        return hashes

    def _check_edge(self) -> None:
        """The partial tiles, which no other tile vouches for: together they are the root."""
        partial = self._partial()
        self._edge = {level: self._read(tile) for level, tile in partial.items()}
        if self._root_of(self._edge) == self._root:
            return
        below = {level: self._from_below(level, tile) for level, tile in partial.items()}
        if self._root_of(below) != self._root:
            raise MalformedEvidence(
                f"the tiles are not of the log with {self._size} entries and root {self._root.hex()}; "
                "get them from somebody else"
            )
        wrong = next(tile for level, tile in partial.items() if self._edge[level] != below[level])
        raise _altered(wrong, "it is not what the tiles below it and the root say")

    def _partial(self) -> dict[int, Tile]:
        """The tiles at the right edge that are not full, by level."""
        found, level = {}, 0
        while self._size >> 8 * level:
            full, width = divmod(self._size >> 8 * level, WIDTH)
            if width:
                found[level] = Tile(level, full, width)
            level += 1
        return found

    def _root_of(self, edge: dict[int, list[bytes]]) -> bytes:
        def subtree(level: int, position: int) -> bytes:
            tile_level, height = divmod(level, 8)
            start = (position << height) - ((self._size >> 8 * tile_level) // WIDTH * WIDTH)
            return tree.root(edge[tile_level][start : start + (1 << height)])

        return tree.root_at(self._size, subtree)

    def _from_below(self, level: int, tile: Tile) -> list[bytes]:
        """What the hashes of a partial tile would have to be by the files below it, if those are right."""
        if level == 0:
            return [tree.leaf_hash(entry) for entry in self._entries(Tile(None, tile.index, tile.width))]
        return [tree.root(self._read(Tile(level - 1, tile.index * WIDTH + at))) for at in range(tile.width)]

    def _read(self, tile: Tile) -> list[bytes]:
        data = self._get(tile.path)
        if len(data) != 32 * tile.width:
            raise _altered(tile, f"got {len(data)} bytes, expected {32 * tile.width}")
        return [data[at : at + 32] for at in range(0, len(data), 32)]

    def _entries(self, tile: Tile) -> list[bytes]:
        try:
            entries = unbundle(self._get(tile.path))
        except ValueError as cause:
            raise _altered(tile, str(cause)) from cause
        if len(entries) != tile.width:
            raise _altered(tile, f"got {len(entries)} entries, expected {tile.width}")
        return entries


def _altered(tile: Tile, why: str) -> MalformedEvidence:
    return MalformedEvidence(f"{tile.path} is altered: {why}; get it from somebody else")
