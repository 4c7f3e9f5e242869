"""From ledger entries to rows: what each entry changes in the explorer's tables, and how a reorganisation undoes it.

A fold never raises for what an entry says: a hostile contract may write anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from fl_node.ledger.log_store import LogStore
from fl_node.ledger.members import MEMBER_KINDS
from fl_node.merging.scores import lower_median
from fl_node.records import (
    Entry,
    Flag,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    UpdateObjected,
    UpdatePublished,
    UpdatesAttested,
)
from ledger_ui.index.schema import FETCHED_BY_ENTRY, FOLDED_TABLES, REPLAYED_TABLES, SCHEMA, VERSION

_BATCH: Final = 2000
_MOST: Final = 2**63 - 1


class Fold:
    """The derived tables of one index, kept level with its log.

    Args:
        db: a writable connection to the index's file, in autocommit mode.
        log: the same file's log.
    """

    def __init__(self, db: sqlite3.Connection, log: LogStore) -> None:
        self._db, self._log = db, log
        db.executescript(SCHEMA)
        if _state(db, "schema") != VERSION:
            with db:
                db.execute("BEGIN IMMEDIATE")
                self._forget()
                _set(db, schema=VERSION)

    @property
    def size(self) -> int:
        """Entries that the tables hold."""
        return int(_state(self._db, "folded") or 0)

    def advance(self, most: int = _BATCH) -> int:
        """Fold up to ``most`` further entries in, all or none; how many they were."""
        start = self.size
        entries = self._log.entries(start, min(start + most, self._log.size))
        if not entries:
            return 0
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._add(entries)
            last = entries[-1]
            _set(self._db, folded=last.index + 1, folded_block=last.block_number)
            bump(self._db)
        return len(entries)

    def agrees(self) -> bool:
        """Whether what was folded is still the log's: false after a reorganisation that nobody told of."""
        size = self.size
        if size > self._log.size:
            return False
        known = _state(self._db, "folded_root")
        return known is None or not size or known == self._log.root(size)

    def seal(self) -> None:
        """Note the root of what was folded, for :meth:`agrees`."""
        with self._db:
            _set(self._db, folded_root=self._log.root(self.size))

    def back_to(self, size: int) -> None:
        """Undo the entries from ``size`` on."""
        if size >= self.size:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            marks = ",".join("?" * len(MEMBER_KINDS))
            query = f"SELECT 1 FROM entries WHERE idx >= ? AND kind IN ({marks})"  # noqa: S608
            members = (
                self._db.execute("SELECT 1 FROM peers WHERE admitted >= ? OR retired >= ?", (size, size)).fetchone()
                or self._db.execute(query, (size, *MEMBER_KINDS)).fetchone()
            )
            if members or size == 0:
                self._forget()
            else:
                self._undo(size)
            _set(self._db, undone=int(_state(self._db, "undone") or 0) + 1)
            bump(self._db)

    # ---- below -----------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        for table in (*FOLDED_TABLES, *REPLAYED_TABLES):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608
        self._db.execute("DELETE FROM verdicts")
        # What was fetched is kept: whoever served it may be gone. Once the log is folded again, what is not of it goes.
        _set(self._db, folded=0, replayed=0, folded_root=None, unheld=1)

    def _undo(self, size: int) -> None:
        db = self._db
        touched = _firsts(db.execute("SELECT parent FROM parents WHERE child >= ?", (size,)))
        touched |= _firsts(db.execute("SELECT update_idx FROM attestations WHERE idx >= ?", (size,)))
        touched |= _firsts(db.execute("SELECT update_idx FROM objections WHERE idx >= ?", (size,)))
        touched |= _firsts(db.execute("SELECT update_idx FROM left_out WHERE by_idx >= ?", (size,)))
        for table in ("updates", "announcements", "objections", "attestations", "choices", *FETCHED_BY_ENTRY):
            db.execute(f"DELETE FROM {table} WHERE idx >= ?", (size,))  # noqa: S608
        db.execute("DELETE FROM transactions WHERE tx_hash IN (SELECT tx_hash FROM orphans)")
        db.execute("DELETE FROM parents WHERE child >= ?", (size,))
        db.execute("DELETE FROM left_out WHERE by_idx >= ? OR update_idx >= ?", (size, size))
        changed = "SELECT min(round) FROM rounds WHERE last >= ? OR settled = 0 OR settled > ?"
        first = db.execute(changed, (size, size)).fetchone()[0]
        if first is not None:
            db.execute("DELETE FROM rounds WHERE round >= ?", (first,))
            db.execute("DELETE FROM absences WHERE round >= ?", (first,))
        db.execute("DELETE FROM kinds")
        db.execute("INSERT INTO kinds SELECT kind, count(*) FROM entries WHERE idx < ? GROUP BY kind", (size,))
        recount(db, (idx for idx in touched if idx is not None and idx < size))
        replayed = min(int(_state(db, "replayed") or 0), size)
        _set(db, folded=size, replayed=replayed, folded_root=self._log.root(size))

    def _add(self, entries: Sequence[Entry]) -> None:
        touched: set[int] = set()
        kinds: dict[str, int] = {}
        for entry in entries:
            kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
            match entry.body:
                case PeerAdmitted():
                    self._admit(entry, entry.body)
                case PeerRetired():
                    touched |= self._retire(entry, entry.body)
                case PeerAnnounced() as said:
                    row = (entry.index, said.peer, _fit(said.epoch), said.recipient_key, said.tls_pin, said.endpoint)
                    self._db.execute("INSERT OR REPLACE INTO announcements VALUES (?, ?, ?, ?, ?, ?)", row)
                case UpdatePublished():
                    touched |= self._publish(entry, entry.body)
                case UpdatesAttested():
                    touched |= self._attest(entry, entry.body)
                case UpdateObjected() as word:
                    target = self._idx(word.target.peer, word.target.sequence)
                    said_at = (entry.index, target, word.peer, int(word.reason), word.evidence)
                    self._db.execute("INSERT OR REPLACE INTO objections VALUES (?, ?, ?, ?, ?)", said_at)
                    touched |= {target} if target is not None else set()
                case _:
                    pass  # listed among the entries as it is
        for kind, many in kinds.items():
            query = (
                "INSERT INTO kinds VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET entries = entries + excluded.entries"
            )
            self._db.execute(query, (kind, many))
        recount(self._db, touched)

    def _admit(self, entry: Entry, body: PeerAdmitted) -> None:
        db = self._db
        row = db.execute("SELECT site FROM sites WHERE name = ?", (body.site,)).fetchone()
        site = body.peer if row is None else row[0]
        db.execute("INSERT OR IGNORE INTO sites VALUES (?, ?)", (site, body.site))
        peak = db.execute("SELECT max(round) FROM updates").fetchone()[0] or 0
        db.execute(
            "INSERT OR IGNORE INTO peers (peer, account, site, roles, admitted, round_at_admission) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (body.peer, body.account, site, int(body.roles), entry.index, peak),
        )

    def _retire(self, entry: Entry, body: PeerRetired) -> set[int]:
        db, since = self._db, _fit(body.from_index)
        db.execute(
            "UPDATE peers SET retired = ?, retired_from = ?, reason = ? WHERE peer = ? AND retired IS NULL",
            (entry.index, since, body.reason, body.peer),
        )
        why = f"its writer was retired from entry {since} on, at entry {entry.index}"
        db.execute("UPDATE updates SET ignored = ? WHERE peer = ? AND idx >= ?", (why, body.peer, since))
        own = (body.peer, since)
        touched = _firsts(db.execute("SELECT idx FROM updates WHERE peer = ? AND idx >= ?", own))
        touched |= _firsts(db.execute("SELECT update_idx FROM attestations WHERE peer = ? AND idx >= ?", own))
        touched |= _firsts(db.execute("SELECT update_idx FROM objections WHERE peer = ? AND idx >= ?", own))
        touched |= _firsts(
            db.execute(
                "SELECT parent FROM parents JOIN updates ON idx = child WHERE updates.peer = ? AND idx >= ?", own
            )
        )
        return {idx for idx in touched if idx is not None}

    def _publish(self, entry: Entry, body: UpdatePublished) -> set[int]:
        db, update = self._db, body.update
        site = db.execute("SELECT site FROM peers WHERE peer = ?", (body.peer,)).fetchone()
        merged = sum(1 for parent in body.parents if parent.share_ppm)
        db.execute(
            "INSERT OR IGNORE INTO updates (idx, peer, sequence, site, round, time_s, final, flags, content, weights, "
            "base, report, seen, seen_root, score_ppm, base_score_ppm, train_samples, test_samples, rule, encoding, "
            "refers_to, sealed_at, extra, tx_hash, considered, merged) VALUES "
            "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.index, body.peer, update.sequence, site[0] if site else None, _fit(update.round)),
                *(_fit(entry.time_s), int(bool(update.flags & Flag.FINAL)), int(update.flags), update.content),
                *(update.weights, update.base, update.report, _fit(update.seen), update.seen_root, update.score_ppm),
                *(update.base_score_ppm, _fit(update.train_samples), _fit(update.test_samples), update.rule),
                *(int(update.encoding), _fit(update.refers_to), _fit(update.sealed_at), update.extra, entry.tx_hash),
                *(len(body.parents), merged),
            ),
        )
        touched = {entry.index}
        for position, parent in enumerate(body.parents):
            idx = self._idx(parent.peer, parent.sequence)
            row = (entry.index, position, idx, parent.peer, parent.sequence, parent.share_ppm)
            db.execute("INSERT OR IGNORE INTO parents VALUES (?, ?, ?, ?, ?, ?)", row)
            if idx is not None:
                touched.add(idx)
        return touched

    def _attest(self, entry: Entry, body: UpdatesAttested) -> set[int]:
        touched = set()
        for item in body.items:
            idx = self._idx(item.peer, item.sequence)
            if idx is not None:
                row = (idx, entry.index, body.peer, item.score_ppm, item.base_score_ppm, body.evidence)
                self._db.execute("INSERT OR IGNORE INTO attestations VALUES (?, ?, ?, ?, ?, ?)", row)
                touched.add(idx)
        return touched

    def _idx(self, peer: int, sequence: int) -> int | None:
        row = self._db.execute("SELECT idx FROM updates WHERE peer = ? AND sequence = ?", (peer, sequence)).fetchone()
        return None if row is None else int(row[0])


def recount(db: sqlite3.Connection, updates: Iterable[int]) -> None:
    """Work out again what others made of each of these updates, by entry."""
    for idx in updates:
        row = db.execute("SELECT peer, site, final, ignored FROM updates WHERE idx = ?", (idx,)).fetchone()
        if row is None:
            continue
        peer, site, final, ignored = row
        children, merged_by = db.execute(
            "SELECT count(*), count(DISTINCT CASE WHEN c.peer != ? AND c.ignored IS NULL THEN c.peer END) "
            "FROM parents p JOIN updates c ON c.idx = p.child WHERE p.parent = ? AND p.share_ppm > 0",
            (peer, idx),
        ).fetchone()
        left_out, left_out_by = db.execute(
            "SELECT count(*), coalesce(sum(by_idx >= 0), 0) FROM left_out WHERE update_idx = ?", (idx,)
        ).fetchone()
        by_site: dict[int, list[int]] = {}
        many = 0
        for said, who in db.execute(
            "SELECT a.score_ppm, p.site FROM attestations a JOIN peers p ON p.peer = a.peer "
            "WHERE a.update_idx = ? AND (p.retired_from IS NULL OR a.idx < p.retired_from)",
            (idx,),
        ):
            many += 1
            if who != site:
                by_site.setdefault(who, []).append(said)
        medians = [lower_median(values) for values in by_site.values()]
        objections, withdrawn = db.execute(
            "SELECT count(*), coalesce(sum(o.reason = ? AND o.peer = ?), 0) FROM objections o "
            "JOIN peers p ON p.peer = o.peer WHERE o.update_idx = ? AND "
            "(p.retired_from IS NULL OR o.idx < p.retired_from)",
            (int(Reason.WITHDRAWN), peer, idx),
        ).fetchone()
        if ignored is not None:
            state = "ignored"
        elif final:
            state = "closing"
        elif merged_by:
            state = "merged"
        else:
            state = "left-out" if left_out else "submitted"
        db.execute(
            "UPDATE updates SET children = ?, merged_by = ?, left_out_by = ?, attestations = ?, attested_sites = ?, "
            "attested_ppm = ?, objections = ?, withdrawn = ?, state = ? WHERE idx = ?",
            (
                *(children, merged_by, left_out_by, many, len(by_site)),
                *(lower_median(medians) if medians else None, objections, withdrawn, state, idx),
            ),
        )


def bump(db: sqlite3.Connection) -> None:
    """Count a change of what pages show. Inside the transaction that makes it."""
    db.execute(
        "INSERT INTO ui_state VALUES ('version', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1",
    )


def _state(db: sqlite3.Connection, key: str) -> Any:
    row = db.execute("SELECT value FROM ui_state WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def _set(db: sqlite3.Connection, **values: object) -> None:
    db.executemany("INSERT OR REPLACE INTO ui_state VALUES (?, ?)", values.items())


def _firsts(rows: Iterable[Sequence[int]]) -> set[int]:
    return {row[0] for row in rows if row[0] is not None}


def _fit(number: int) -> int:
    """SQLite's integers end at 2**63 - 1; only a hostile contract writes larger ones."""
    return min(number, _MOST)
