"""Logs of a contract that refuses nothing, written at random: doubles, strangers, things that are nowhere, loops."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

from ui_scribe import Scribe

from fl_node.ledger.index import LedgerIndex
from fl_node.records import ZERO32, Flag, PeerAnnounced, Reason, UpdateRef
from ledger_ui.index.fold import Fold
from ledger_ui.index.schema import FOLDED_TABLES
from ledger_ui.index.store import Store

PEERS = (1, 2, 3, 4, 5, 9)


def write(dice: random.Random, told: Scribe, steps: int) -> None:
    """So many entries of any kind."""
    for _ in range(steps):
        _entry(dice, told, dice.choice(PEERS))


def _entry(dice: random.Random, told: Scribe, peer: int) -> None:
    what = dice.random()
    if what < 0.12:
        told.admit(dice.choice(("a", "b", "c", "")), peer=peer)
    elif what < 0.5:
        parents = [(*_ref(dice), dice.choice((0, 500_000, 1_000_000))) for _ in range(dice.randint(0, 4))]
        number = dice.randint(0, 5)
        final = dice.random() < 0.1
        told.publish(peer, dice.randint(1, 6), number, *parents, flags=Flag.FINAL if final else Flag(0))
    elif what < 0.7:
        told.attest(peer, *((*_ref(dice), dice.randint(0, 9) * 100_000) for _ in range(dice.randint(1, 3))))
    elif what < 0.84:
        told.object(peer, UpdateRef(*_ref(dice)), dice.choice(list(Reason)))
    elif what < 0.92:
        told.retire(peer, dice.choice((0, dice.randint(0, told.size), told.size, 2**64 - 1)))
    elif what < 0.97:
        told.say(PeerAnnounced(peer, dice.randint(1, 3), ZERO32, ZERO32, "http://x"))
    else:
        told.unknown()


def _ref(dice: random.Random) -> tuple[int, int]:
    return dice.choice(PEERS), dice.randint(1, 6)


class Folded:
    """An index of a ledger, folded by hand."""

    def __init__(self, path: Path, told: Scribe) -> None:
        self.store = Store(path)
        self.store.prepare()
        self.log = LedgerIndex(path, told)
        self.db = self.store.writer()
        self.fold = Fold(self.db, self.log)

    def follow(self, batch: int = 1000) -> None:
        """To the ledger's head, so many entries at a time."""
        synced = self.log.sync()
        if synced.orphaned:
            self.fold.back_to(min(entry.index for entry in synced.orphaned))
        while self.fold.advance(batch):
            pass

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        return tables(self.db)

    def close(self) -> None:
        self.log.close()
        self.db.close()
        self.store.close()


def tables(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that follow from the log."""
    found = {name: [tuple(row) for row in db.execute(f"SELECT * FROM {name}")] for name in FOLDED_TABLES}
    known = dict(db.execute("SELECT key, value FROM ui_state").fetchall())
    state = [tuple(known.get(key) for key in ("folded", "folded_block", "folded_root"))]
    return {name: sorted(rows, key=repr) for name, rows in found.items()} | {"state": state}


def fresh(folder: Path, told: Scribe, batch: int = 1000) -> dict[str, list[tuple[Any, ...]]]:
    """What a new index of this ledger holds."""
    folder.mkdir(parents=True, exist_ok=True)
    down, told.down = told.down, False
    one = Folded(folder / "fresh.sqlite", told)
    try:
        one.follow(batch)
        return one.tables()
    finally:
        told.down = down
        one.close()
        for left in folder.glob("fresh.sqlite*"):
            left.unlink()
