"""Audits and evidence packs that readers ask for: a queue in the index, worked off one at a time by child processes.

Any process of the explorer takes questions; the one that follows the chain does the work. What is asked again at the
same root is answered from what is kept.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.records import UpdateRef
from ledger_ui import child
from ledger_ui.index.audits import NotAReport, keep, text_of
from ledger_ui.index.fold import bump
from ledger_ui.index.store import Store
from ledger_ui.packs import Pack, Packs

#: Waiting at most; and asked for within a minute.
MOST_WAITING: Final = 8
MOST_A_MINUTE: Final = 12
#: Updates of a log that is audited as a whole here; beyond, a person should choose when and where.
MOST_UPDATES: Final = 5_000
#: A result that is not ``ok`` may be another one later, at the same root: somebody may serve the bytes again.
_STALE_S: Final = 600.0
#: After so long a pack or an audit that failed may be asked for again.
_AGAIN_S: Final = 20.0
ONE: Final = child.Limits(300.0, 16 << 20)
WHOLE: Final = child.Limits(3600.0, 64 << 20)
PACKING: Final = child.Limits(900.0, 1 << 30)
ALL: Final = "all"
_IDLE_S: Final = 1.0
#: One child at a time, however many federations are shown.
_TURN: Final = threading.Lock()


class Busy(Exception):
    """Not now. ``retry_s``: seconds after which it may be asked again."""

    def __init__(self, words: str, retry_s: int) -> None:
        super().__init__(words)
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a question: ``queued``, ``running``, ``done`` or ``failed``, with words."""

    id: int
    state: str
    detail: str = ""


def scope_of(ref: UpdateRef | None) -> str:
    """What an audit is of: one update, or the whole log."""
    return ALL if ref is None else f"update {ref}"


class Jobs:
    """The queue of one federation.

    Args:
        store: its index.
        file: its federation file.
        rpc: its endpoint.
        changed: called when something that pages show is another.
        leads: whether this process keeps the index; the others only ask.
        works: whether it does what is asked for; else whoever asks another process is told that it does not.
    """

    def __init__(
        self,
        store: Store,
        file: Path,
        rpc: str,
        changed: Callable[[], None],
        leads: Callable[[], bool],
        works: bool = True,
    ) -> None:
        self._works = works
        self._store, self._file, self._rpc, self._changed, self._leads = store, file.absolute(), rpc, changed, leads
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self.packs = Packs(self._file)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Say that it is over; :meth:`stop` waits for it."""
        self._stop.set()
        self._wake.set()

    def stop(self) -> None:
        """Come to an end; what runs is ended."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def ask(self, scope: str) -> Asked:
        """Have something done, unless it is under way, or its result is at hand.

        Raises:
            Busy: too much is under way.
        """
        with self._store.writing() as db:
            found = _known(db, scope)
            if found is not None:
                return found
            now = time.time()
            waiting = _count(db, "state = 'queued'")
            if waiting >= MOST_WAITING:
                raise Busy(f"{waiting} are waiting already; expected fewer than {MOST_WAITING}", 30)
            lately = _count(db, "asked_at > ?", now - 60)
            if lately >= MOST_A_MINUTE:
                raise Busy(f"{lately} were asked for within a minute; expected fewer than {MOST_A_MINUTE}", 60)
            size, root = _level(db)
            made = db.execute(
                "INSERT INTO audits (scope, size, root, state, asked_at) VALUES (?, ?, ?, 'queued', ?)",
                (scope, size, root, now),
            )
            bump(db)
        self._wake.set()
        self._changed()
        return Asked(int(made.lastrowid or 0), "queued")

    # ---- the work --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        recovered = False
        while not self._stop.is_set():
            worked = False
            try:
                if self._leads():
                    if not recovered:
                        self.recover()
                        recovered = True
                    worked = self.work() if self._works else self.decline()
            except sqlite3.Error as cause:
                print(f"fl-node: the explorer's queue of audits: {cause}", file=sys.stderr)
            if not worked:
                self._wake.wait(_IDLE_S)
                self._wake.clear()

    def recover(self) -> None:
        """What an explorer that is gone left under way has no result, and never will."""
        with self._store.writing() as db:
            query = (
                "UPDATE audits SET state = 'failed', ended_at = ?, detail = 'the explorer ended before it was done; "
                "ask again' WHERE state IN ('running', 'queued') AND asked_at < ?"
            )
            # Readers may have asked while nobody led.
            lost = db.execute(query, (time.time(), time.time() - 60)).rowcount
            lost += db.execute("UPDATE audits SET state = 'queued' WHERE state = 'running'").rowcount
            if lost:
                bump(db)
        self.packs.forget()

    def decline(self) -> bool:
        """Tell those who asked that nothing is done here; whether there were any."""
        with self._store.reading() as db:
            if not _count(db, "state = 'queued'"):
                return False
        with self._store.writing() as db:
            query = "UPDATE audits SET state = 'failed', ended_at = ?, detail = ? WHERE state = 'queued'"
            db.execute(query, (time.time(), "the explorer that keeps this index runs no audits (--no-verify)"))
            bump(db)
        self._changed()
        return True

    def work(self) -> bool:
        """Do the next thing; whether there was one."""
        with self._store.reading() as db:
            row = db.execute("SELECT id, scope FROM audits WHERE state = 'queued' ORDER BY id LIMIT 1").fetchone()
        if row is None or not self._turn():
            return False
        try:
            self._mark(row["id"], "running", f"since {time.strftime('%H:%M:%S', time.gmtime())} UTC")
            self._do(row["id"], row["scope"])
        except Exception as cause:  # a defect must leave neither the queue stuck nor this one running for ever
            traceback.print_exc(file=sys.stderr)
            self._mark(row["id"], "failed", f"{type(cause).__name__}: {cause}")
        finally:
            _TURN.release()
        return True

    def _turn(self) -> bool:
        while not self._stop.is_set():
            if _TURN.acquire(timeout=0.2):
                return True
        return False

    def _do(self, number: int, scope: str) -> None:
        pack = Pack.of_scope(scope)
        with tempfile.TemporaryDirectory(prefix="fl-node-explorer-") as folder:
            if pack is not None:
                self._pack(number, pack, Path(folder))
            else:
                self._audit(number, scope, Path(folder))

    def _audit(self, number: int, scope: str, folder: Path) -> None:
        some: list[str] = []
        if scope != ALL:
            index = self._entry_of(scope)
            if index is None:
                self._mark(number, "failed", "the log does not have this update any more")
                return
            some = ["--from", str(index), "--to", str(index + 1)]
        out = folder / "report.json"
        command = ["audit", "--federation", str(self._file), "--json", "--jobs", "1", *some]
        ended = child.run(command, out, WHOLE if scope == ALL else ONE, self._stop.wait, rpc=self._rpc)
        # 40 and 41 say that something does not hold, or is not known: the report has it.
        if ended.code in (0, 40, 41):
            try:
                keep(self._store, number, text_of(out), self._stop.wait)
                self._changed()
                return
            except NotAReport as cause:
                self._mark(number, "failed", str(cause))
                return
        self._mark(number, "failed", ended.words or f"the audit ended with code {ended.code}")

    def _pack(self, number: int, pack: Pack, folder: Path) -> None:
        with self._store.reading() as db:
            root = bytes(db.execute("SELECT root FROM audits WHERE id = ?", (number,)).fetchone()["root"] or b"")
        made, out = folder / "pack.zip", folder / "made.json"
        command = ["export", "--federation", str(self._file), "--json", *pack.flags(), "--out", str(made)]
        ended = child.run(command, out, PACKING, self._stop.wait, rpc=self._rpc, made=made)
        if ended.code == 0:
            missing = self.packs.keep(pack, root, made, text_of(out))
            self._mark(number, "done", missing)
        else:
            self._mark(number, "failed", ended.words or f"the export ended with code {ended.code}")

    def _entry_of(self, scope: str) -> int | None:
        ref = UpdateRef.parse(scope.removeprefix("update "))
        if ref is None:
            return None
        with self._store.reading() as db:
            query = "SELECT idx FROM updates WHERE peer = ? AND sequence = ?"
            row = db.execute(query, (ref.peer, ref.sequence)).fetchone()
        return None if row is None else int(row["idx"])

    def _mark(self, number: int, state: str, detail: str) -> None:
        ended = time.time() if state in ("done", "failed") else None
        with self._store.writing() as db:
            query = "UPDATE audits SET state = ?, detail = ?, ended_at = ? WHERE id = ?"
            db.execute(query, (state, detail, ended, number))
            bump(db)
        self._changed()


def waiting_before(db: sqlite3.Connection, number: int) -> int:
    """How many are done before this one."""
    query = "SELECT count(*) FROM audits WHERE state IN ('queued', 'running') AND id < ?"
    return int(db.execute(query, (number,)).fetchone()[0])


def stands(db: sqlite3.Connection, scope: str) -> bool:
    """Whether the last result is for good: all was ok, and the log has not changed since."""
    query = "SELECT root, verdict FROM audits WHERE scope = ? AND state = 'done' ORDER BY id DESC LIMIT 1"
    row = db.execute(query, (scope,)).fetchone()
    return row is not None and row["verdict"] == "ok" and row["root"] == _level(db)[1]


def _known(db: sqlite3.Connection, scope: str) -> Asked | None:
    """What there is already: the same under way, or its result at this root."""
    row = db.execute("SELECT * FROM audits WHERE scope = ? ORDER BY id DESC LIMIT 1", (scope,)).fetchone()
    if row is None:
        return None
    asked = Asked(row["id"], row["state"], row["detail"] or "")
    if asked.state in ("queued", "running"):
        return asked
    age = time.time() - (row["ended_at"] or 0)
    if asked.state == "failed":
        return asked if age < _AGAIN_S else None
    if row["root"] != _level(db)[1]:
        return None
    return asked if row["verdict"] == "ok" or age < _STALE_S else None


def _level(db: sqlite3.Connection) -> tuple[int, bytes | None]:
    """Size and root of the log as pages show it."""
    known = dict(db.execute("SELECT key, value FROM ui_state WHERE key IN ('folded', 'folded_root')").fetchall())
    return int(known.get("folded") or 0), known.get("folded_root")


def _count(db: sqlite3.Connection, condition: str, *values: object) -> int:
    query = f"SELECT count(*) FROM audits WHERE {condition}"  # noqa: S608
    return int(db.execute(query, values).fetchone()[0])
