"""From ledger entries to rows: what each entry changes in the explorer's tables, and how a reorganisation undoes it.

A fold never raises for what an entry says: a hostile contract may write anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from fl_node.ledger.log_store import LogStore
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
from ledger_ui.index.schema import FETCHED_BY_ENTRY, FOLDED_TABLES, REPLAYED_TABLES, SCHEMA

_BATCH: Final = 2000
_RETIRED: Final = "its writer was retired from entry "
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
        size = entries[-1].index + 1
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._add(entries)
            _set(self._db, folded=size, folded_block=entries[-1].block_number, folded_root=self._log.root(size))
            bump(self._db)
        return len(entries)

    def agrees(self) -> bool:
        """Whether what was folded is still the log's: false after a crash between the two."""
        size = self.size
        return size <= self._log.size and (not size or _state(self._db, "folded_root") == self._log.root(size))

    def back_to(self, size: int) -> None:
        """Undo the entries from ``size`` on, which the log may have replaced by others already."""
        if size >= self.size:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if size == 0:
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
        self._unaudit(size)
        replayed = min(int(_state(db, "replayed") or 0), size)
        for peer, since in db.execute("SELECT peer, retired_from FROM peers WHERE retired >= ?", (size,)).fetchall():
            touched |= self._unretire(peer, since, size)
            # What a replay knows of the updates that count again, it has to find out again.
            first = db.execute("SELECT min(idx) FROM updates WHERE peer = ? AND idx >= ?", (peer, since)).fetchone()[0]
            replayed = replayed if first is None else min(replayed, first)
        db.execute("DELETE FROM peers WHERE admitted >= ?", (size,))
        db.execute("DELETE FROM sites WHERE site NOT IN (SELECT site FROM peers)")
        changed = "SELECT min(round) FROM rounds WHERE last >= ? OR settled = 0 OR settled > ?"
        first = db.execute(changed, (size, size)).fetchone()[0]
        if first is not None:
            db.execute("DELETE FROM rounds WHERE round >= ?", (first,))
            db.execute("DELETE FROM absences WHERE round >= ?", (first,))
        db.execute("DELETE FROM kinds")
        db.execute("INSERT INTO kinds SELECT kind, count(*) FROM entries WHERE idx < ? GROUP BY kind", (size,))
        recount(db, (idx for idx in touched if idx < size))
        block = db.execute("SELECT block FROM entries WHERE idx = ?", (size - 1,)).fetchone()
        _set(db, folded=size, replayed=replayed, folded_block=block[0] if block else None)
        _set(db, folded_root=self._log.root(size))

    def _unaudit(self, size: int) -> None:
        """Take back what audits said of a longer log."""
        query = "SELECT idx FROM updates WHERE verdict IS NOT NULL AND verdict_size > ?"
        for (idx,) in self._db.execute(query, (size,)).fetchall():
            self._db.execute("UPDATE updates SET verdict = NULL, verdict_size = NULL WHERE idx = ?", (idx,))
            self._db.execute("DELETE FROM verdicts WHERE idx = ?", (idx,))

    def _unretire(self, peer: int, since: int, size: int) -> set[int]:
        """Take back a retirement; one before it is in force again, which only a hostile contract has."""
        earlier = self._db.execute(
            "SELECT max(e.idx) FROM entries e JOIN peers p ON p.peer = e.peer AND e.idx > p.admitted "
            "WHERE e.kind = 'PeerRetired' AND e.peer = ? AND e.idx < ?",
            (peer, size),
        ).fetchone()[0]
        if earlier is not None:
            entry = self._log.entry(earlier)
            if isinstance(entry.body, PeerRetired):
                return self._retire(entry, entry.body)
        gone = "UPDATE peers SET retired = NULL, retired_from = NULL, reason = NULL WHERE peer = ?"
        self._db.execute(gone, (peer,))
        self._count_again(peer, since)
        return self._spoken(peer, since)

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
        if db.execute("SELECT 1 FROM peers WHERE peer = ?", (body.peer,)).fetchone():
            return  # only a hostile contract admits a peer again
        row = db.execute("SELECT site FROM sites WHERE name = ?", (body.site,)).fetchone()
        site = body.peer if row is None else row[0]
        db.execute("INSERT OR IGNORE INTO sites VALUES (?, ?)", (site, body.site))
        peak = db.execute("SELECT max(round) FROM updates").fetchone()[0] or 0
        db.execute(
            "INSERT INTO peers (peer, account, site, roles, admitted, round_at_admission) VALUES (?, ?, ?, ?, ?, ?)",
            (body.peer, body.account, site, int(body.roles), entry.index, peak),
        )

    def _retire(self, entry: Entry, body: PeerRetired) -> set[int]:
        """The last retirement is in force; more than one has only a hostile contract."""
        db, since = self._db, _fit(body.from_index)
        known = db.execute("SELECT admitted, retired_from FROM peers WHERE peer = ?", (body.peer,)).fetchone()
        if known is None:
            return set()
        admitted, before = known
        db.execute(
            "UPDATE peers SET retired = ?, retired_from = ?, reason = ? WHERE peer = ?",
            (entry.index, since, body.reason, body.peer),
        )
        first = since if before is None else min(since, before)
        self._count_again(body.peer, first)
        why = f"{_RETIRED}{since} on, at entry {entry.index}"
        query = "UPDATE updates SET ignored = ? WHERE peer = ? AND idx >= ? AND idx > ?"
        db.execute(query, (why, body.peer, since, admitted))
        return self._spoken(body.peer, first)

    def _count_again(self, peer: int, since: int) -> None:
        """Let updates that a retirement made not count do so."""
        query = "UPDATE updates SET ignored = NULL WHERE peer = ? AND idx >= ? AND substr(ignored, 1, ?) = ?"
        self._db.execute(query, (peer, since, len(_RETIRED), _RETIRED))

    def _spoken(self, peer: int, since: int) -> set[int]:
        """Updates that a peer made from an entry on, or said something of."""
        db, own = self._db, (peer, since)
        touched = _firsts(db.execute("SELECT idx FROM updates WHERE peer = ? AND idx >= ?", own))
        touched |= _firsts(db.execute("SELECT update_idx FROM attestations WHERE peer = ? AND idx >= ?", own))
        touched |= _firsts(db.execute("SELECT update_idx FROM objections WHERE peer = ? AND idx >= ?", own))
        query = "SELECT parent FROM parents JOIN updates ON idx = child WHERE updates.peer = ? AND idx >= ?"
        return touched | _firsts(db.execute(query, own))

    def _publish(self, entry: Entry, body: UpdatePublished) -> set[int]:
        db, update = self._db, body.update
        site, ignored = self._standing(body.peer, entry.index)
        merged = sum(1 for parent in body.parents if parent.share_ppm)
        made = db.execute(
            "INSERT OR IGNORE INTO updates (idx, peer, sequence, site, round, time_s, final, flags, content, weights, "
            "base, report, seen, seen_root, score_ppm, base_score_ppm, train_samples, test_samples, rule, encoding, "
            "refers_to, sealed_at, extra, tx_hash, considered, merged, ignored) VALUES "
            "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.index, body.peer, update.sequence, site, _fit(update.round)),
                *(_fit(entry.time_s), int(bool(update.flags & Flag.FINAL)), int(update.flags), update.content),
                *(update.weights, update.base, update.report, _fit(update.seen), update.seen_root, update.score_ppm),
                *(update.base_score_ppm, _fit(update.train_samples), _fit(update.test_samples), update.rule),
                *(int(update.encoding), _fit(update.refers_to), _fit(update.sealed_at), update.extra, entry.tx_hash),
                *(len(body.parents), merged, ignored),
            ),
        )
        if not made.rowcount:
            return set()  # only a hostile contract takes the same name twice: the first one has it
        touched = {entry.index}
        for position, parent in enumerate(body.parents):
            idx = self._idx(parent.peer, parent.sequence, entry.index)
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

    def _standing(self, peer: int, index: int) -> tuple[int | None, str | None]:
        """A peer's site, and why what it writes at this entry does not count."""
        query = "SELECT site, retired, retired_from FROM peers WHERE peer = ?"
        row = self._db.execute(query, (peer,)).fetchone()
        if row is None:
            return None, "its writer was never admitted"
        site, retired, since = row
        return site, None if since is None or index < since else f"{_RETIRED}{since} on, at entry {retired}"

    def _idx(self, peer: int, sequence: int, before: int = _MOST) -> int | None:
        """Entry of an update, if it is before another one: nothing can stand on what comes later, or on itself."""
        row = self._db.execute("SELECT idx FROM updates WHERE peer = ? AND sequence = ?", (peer, sequence)).fetchone()
        return None if row is None or row[0] >= before else int(row[0])


def recount(db: sqlite3.Connection, updates: Iterable[int]) -> None:
    """Work out again what others made of each of these updates, by entry."""
    for idx in updates:
        row = db.execute("SELECT peer, site, final, ignored FROM updates WHERE idx = ?", (idx,)).fetchone()
        if row is None:
            continue
        peer, site, final, ignored = row
        children, merged_by = db.execute(
            "SELECT count(DISTINCT c.idx), count(DISTINCT CASE WHEN c.peer != ? AND c.ignored IS NULL THEN c.peer END) "
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
            "WHERE a.update_idx = ? AND a.idx > p.admitted AND (p.retired_from IS NULL OR a.idx < p.retired_from)",
            (idx,),
        ):
            many += 1
            if who != site:
                by_site.setdefault(who, []).append(said)
        medians = [lower_median(values) for values in by_site.values()]
        objections, withdrawn = db.execute(
            "SELECT count(*), coalesce(sum(o.reason = ? AND o.peer = ?), 0) FROM objections o "
            "JOIN peers p ON p.peer = o.peer WHERE o.update_idx = ? AND o.idx > p.admitted AND "
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
            "objections = ?, withdrawn = ? WHERE idx = ?",
            (children, merged_by, left_out_by, many, len(by_site), objections, withdrawn, idx),
        )
        # Every list's index has these two: it is written anew only where they are others now.
        attested = lower_median(medians) if medians else None
        db.execute(
            "UPDATE updates SET attested_ppm = ?1, state = ?2 "
            "WHERE idx = ?3 AND (attested_ppm IS NOT ?1 OR state IS NOT ?2)",
            (attested, state, idx),
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
