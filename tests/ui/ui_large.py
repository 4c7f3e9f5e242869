"""A federation that is too large to be drawn whole."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import ui_logs
from ui_logs import Explored

from fl_node.records import PPM


def large(folder: Path, **options: Any) -> Explored:
    """Fifty peers, a hundred rounds, five parents each: 5,000 updates and 24,750 merges, put into the index at once."""
    one = ui_logs.explored(folder, ui_logs.played().chain.ledger(), look=False, **options)
    dice = random.Random(2)
    updates, parents = [], []
    before: list[tuple[int, int, int]] = []
    idx = 50
    for number in range(1, 101):
        made = []
        for peer in range(1, 51):
            idx += 3
            found = dice.sample(before, min(5, len(before)))
            updates.append((idx, peer, number, peer, number, idx, 0, 800_000, 700_000, 50, 100, 1, len(found)))
            parents += [(idx, at, *entry, PPM // 5) for at, entry in enumerate(found)]
            made.append((idx, peer, number))
        before = made
    with sqlite3.connect(one.shown.store.path) as db:
        db.executemany("INSERT INTO sites VALUES (?, ?)", [(peer, f"clinic {peer}") for peer in range(1, 51)])
        db.executemany(
            "INSERT INTO peers (peer, account, site, roles, admitted) VALUES (?, '0x', ?, 7, ?)",
            [(peer, peer, peer) for peer in range(1, 51)],
        )
        db.executemany(
            "INSERT INTO updates (idx, peer, sequence, site, round, time_s, final, score_ppm, base_score_ppm, "
            "test_samples, train_samples, rule, merged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            updates,
        )
        db.executemany("INSERT INTO parents VALUES (?, ?, ?, ?, ?, ?)", parents)
        db.execute("UPDATE updates SET children = (SELECT count(*) FROM parents WHERE parent = updates.idx)")
        db.execute("INSERT OR REPLACE INTO ui_state VALUES ('folded', ?)", (idx + 1,))
    db.close()
    return one
