"""Checkpoints that members sign, fetched from their gateways and held against the log and each other."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import Final

from fl_node.audit.gateways import GatewayBlobs
from fl_node.errors import LedgerError, MalformedEvidence
from fl_node.ledger.checkpoint import MAX_NOTE_BYTES, SignedCheckpoint, compare, holds, parse
from fl_node.ledger.log_store import LogStore
from ledger_ui.index.store import Store

#: Of each signer; older ones that held go.
_MOST_OF_ONE: Final = 100
#: Of accounts that are no members: anybody can sign one.
_MOST_OF_STRANGERS: Final = 50
_MOST_TROUBLED: Final = 1000
#: Of checkpoints that are ahead of the log, for which it is waited.
_MOST_AHEAD: Final = 500
_AHEAD_S: Final = 60.0
_MOST_WORDS: Final = 600


class Notes:
    """Judges checkpoints, and keeps them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ahead: dict[bytes, tuple[SignedCheckpoint, float]] = {}
        self._undone = 0

    def fetch(self, blobs: GatewayBlobs) -> list[SignedCheckpoint]:
        """The latest of everybody who serves one. What is no checkpoint is nobody's."""
        found: dict[bytes, SignedCheckpoint] = {}
        for raw in blobs.documents("/checkpoint", MAX_NOTE_BYTES).values():
            with suppress(MalformedEvidence):
                note = parse(raw)
                found[note.note] = note
        return list(found.values())

    def keep(self, notes: Iterable[SignedCheckpoint], level: bool) -> bool:
        """Judge what was fetched, and what is to be judged again; whether anything is another now.

        Args:
            level: the index is level with the chain, so that who signed more knows of another log.
        """
        now = time.monotonic()
        for note in notes:
            if note.note in self._ahead or len(self._ahead) < _MOST_AHEAD:
                self._ahead.setdefault(note.note, (note, now))
        with closing(LogStore(self._store.path)) as log, self._store.writing() as db:
            before = db.total_changes
            self._rejudge(db, log)
            size = log.size
            for raw, (note, since) in list(self._ahead.items()):
                if note.checkpoint.size <= size or (level and now - since > _AHEAD_S):
                    del self._ahead[raw]
                    _put(db, log, note)
            _thin(db)
            return db.total_changes > before

    def _rejudge(self, db: sqlite3.Connection, log: LogStore) -> None:
        """What held may not any more after a reorganisation, and what did not may hold now."""
        row = db.execute("SELECT value FROM ui_state WHERE key = 'undone'").fetchone()
        undone = int(row["value"] or 0) if row else 0
        query = "SELECT * FROM notes WHERE trouble IS NOT NULL ORDER BY seen_at DESC LIMIT 50"
        if undone != self._undone:
            query = "SELECT * FROM notes ORDER BY size DESC LIMIT 500"
        self._undone = undone
        for row in db.execute(query).fetchall():
            try:
                trouble = judged(db, log, parse(bytes(row["note"])))
            except MalformedEvidence as cause:
                trouble = str(cause)
            if trouble != row["trouble"]:
                which = (row["signer"], row["size"], row["root"])
                db.execute("UPDATE notes SET trouble = ? WHERE signer = ? AND size = ? AND root = ?", (trouble, *which))


def judged(db: sqlite3.Connection, log: LogStore, note: SignedCheckpoint) -> str | None:
    """What is wrong with a checkpoint, by the log and by what its signers signed besides; ``None``: nothing."""
    try:
        trouble = holds(note.checkpoint, log)
    except LedgerError as cause:
        trouble = str(cause)
    for other in _of_same_size(db, note):
        conflict = compare(note, other)
        if conflict is not None and conflict.equivocators:
            both = f"its signer signed another one as well: {conflict.text}"
            return f"{trouble}; {both}"[:_MOST_WORDS] if trouble else both[:_MOST_WORDS]
    return trouble[:_MOST_WORDS] if trouble else None


def _of_same_size(db: sqlite3.Connection, note: SignedCheckpoint) -> list[SignedCheckpoint]:
    query = "SELECT DISTINCT note FROM notes WHERE size = ? AND root != ? LIMIT 20"
    found = []
    for row in db.execute(query, (note.checkpoint.size, note.checkpoint.root)):
        with suppress(MalformedEvidence):
            found.append(parse(bytes(row["note"])))
    return found


def _put(db: sqlite3.Connection, log: LogStore, note: SignedCheckpoint) -> None:
    """A row for each signer."""
    trouble, now = judged(db, log, note), time.time()
    for signer in note.signers:
        known = db.execute("SELECT peer FROM peers WHERE account = ?", (signer,)).fetchone()
        row = (signer, note.checkpoint.size, note.note, note.checkpoint.root, trouble, now)
        db.execute(
            "INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (signer, size, root) DO UPDATE SET "
            "trouble = excluded.trouble, peer = excluded.peer "
            "WHERE trouble IS NOT excluded.trouble OR peer IS NOT excluded.peer",
            (*row, known["peer"] if known else None),
        )
    if trouble is not None:
        for other in _of_same_size(db, note):  # the other one of a pair was kept before this one came
            said = judged(db, log, other)
            db.execute("UPDATE notes SET trouble = ?1 WHERE note = ?2 AND trouble IS NOT ?1", (said, other.note))


def _thin(db: sqlite3.Connection) -> None:
    """Let the oldest go: a hostile member must not have this grow for ever."""
    db.execute(
        "DELETE FROM notes WHERE trouble IS NULL AND size < (SELECT n.size FROM notes n WHERE n.signer = notes.signer "
        "AND n.trouble IS NULL ORDER BY n.size DESC LIMIT 1 OFFSET ?)",
        (_MOST_OF_ONE,),
    )
    for condition, most in (("peer IS NULL", _MOST_OF_STRANGERS), ("trouble IS NOT NULL", _MOST_TROUBLED)):
        db.execute(
            f"DELETE FROM notes WHERE {condition} AND seen_at < (SELECT seen_at FROM notes WHERE {condition} "  # noqa: S608
            "ORDER BY seen_at DESC LIMIT 1 OFFSET ?)",
            (most,),
        )
