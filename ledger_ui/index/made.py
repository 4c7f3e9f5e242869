"""Whether a file is an index that may be used: of this ledger, of this version, and made on this computer.

An index that came together with somebody's federation file may hold anything. Whoever makes an index here leaves a
random token in it, and a trace of that token in a folder of the user's own; an index without a known token is nobody's.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fl_node.ledger.log_store import SCHEMA as LOG
from ledger_ui.index.schema import FOLDED, HARVESTED, REPLAYED, SCHEMA, TOTALS, VERSION

#: What ``ui_state`` keeps when the tables are made again: who made the index, and pages' versions, which only rise.
_KEPT: Final = ("token", "foreign", "version", "undone")
#: Sums over what was fetched, kept for as long as that is.
_SUMS: Final = ("gas", "gas_of", "bytes", "bytes_of", "reports", "reports_of")


@dataclass(frozen=True, slots=True)
class Look:
    """What a file is found to be.

    Attributes:
        empty: nothing is in it.
        log: it has the log's tables as they should be.
        ledger: identity of the ledger whose log it has; ``None`` while none was read.
        token: of its maker; ``None``: none.
        current: everything beside the log is as this version has it.
        fetched: at least what was fetched and asked for is.
    """

    empty: bool
    log: bool
    ledger: str | None
    token: str | None
    current: bool
    fetched: bool


def look_at(path: Path) -> Look | None:
    """Look at a file without writing to it; ``None`` where there is none.

    Raises:
        sqlite3.Error: it is damaged, no database, or cannot be read.
    """
    if not path.is_file():
        return None
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)) as db:
        there = _objects(db)
        log, whole = objects_of(LOG), objects_of(LOG + SCHEMA)
        found_log = log.items() <= there.items()
        known = dict(db.execute("SELECT key, value FROM ui_state")) if "ui_state" in there else {}
        name = db.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone() if found_log else None
    token = known.get("token")
    return Look(
        empty=not there,
        log=found_log,
        ledger=name[0] if name and isinstance(name[0], str) else None,
        token=token if isinstance(token, str) else None,
        current=there == whole and known.get("schema") == VERSION,
        fetched=all(there.get(name) == whole[name] for name in _fetched()),
    )


def is_damage(cause: BaseException | None) -> bool:
    """Whether an error says that the file itself is broken, rather than its place, its disk or a question."""
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        cause = cause.__cause__
    return False


def make(path: Path, traces: Path | None) -> None:
    """A new, empty index in place of whatever is there. Readers who have the old one open keep it until they look
    again."""
    fresh = path.with_name(f"{path.name}.new")
    for leftover in (fresh, _beside(fresh, "-wal"), _beside(fresh, "-shm"), _beside(fresh, "-journal")):
        leftover.unlink(missing_ok=True)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        db.executescript(f"BEGIN; {LOG} {SCHEMA}")
        db.execute("INSERT INTO ui_state VALUES ('schema', ?), ('token', ?)", (VERSION, _new_token(traces)))
        db.execute("COMMIT")
    # A log of changes that is left beside would be taken for the new file's.
    _beside(path, "-wal").unlink(missing_ok=True)
    _beside(path, "-shm").unlink(missing_ok=True)
    fresh.replace(path)


def set_aside(path: Path, aside: Path) -> None:
    """Give a whole index another name, in place of what had it before."""
    with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as db:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for leftover in (_beside(aside, "-wal"), _beside(aside, "-shm")):
        leftover.unlink(missing_ok=True)
    path.replace(aside)


def make_again(path: Path, *, keep_fetched: bool, foreign: bool) -> None:
    """Empty everything beside the log, as this version has it; it is to be folded again.

    Args:
        keep_fetched: what was fetched and asked for stays.
        foreign: nobody here made this index.
    """
    with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as db:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("BEGIN IMMEDIATE")
        try:
            kept = _state_of(db, (*_KEPT, *(_SUMS if keep_fetched else ()))) if not foreign else {}
            _drop(db, objects_of(LOG).keys() | (_fetched() if keep_fetched else set()))
            for statement in _statements(SCHEMA):
                db.execute(statement)
            kept |= {"schema": VERSION, "undone": int(kept.get("undone") or 0) + 1, "unheld": 1}
            kept |= {"version": int(kept.get("version") or 0) + 1}
            if foreign:
                kept["foreign"] = 1
            db.executemany("INSERT OR REPLACE INTO ui_state VALUES (?, ?)", kept.items())
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise


def is_known(token: str | None, traces: Path | None) -> bool:
    """Whether this user made an index with this token. Without a folder for traces, nobody is asked."""
    return traces is None or (token is not None and _trace(token, traces).is_file())


@cache
def objects_of(script: str) -> Mapping[str, tuple[str, str | None]]:
    """Tables, indexes and triggers that a script makes: type and text by name."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(script)
        return _objects(db)


# ---- below ---------------------------------------------------------------------------------------------------------


def _objects(db: sqlite3.Connection) -> dict[str, tuple[str, str | None]]:
    return {name: (kind, sql) for name, kind, sql in db.execute("SELECT name, type, sql FROM sqlite_master")}


def _fetched() -> set[str]:
    """Names of everything that has to do with what was fetched."""
    made = FOLDED + REPLAYED
    return set(objects_of(made + HARVESTED + TOTALS).keys() - objects_of(made).keys())


def _drop(db: sqlite3.Connection, spared: set[str]) -> None:
    there = _objects(db)
    for kind in ("trigger", "view", "index", "table"):
        for name, (what, sql) in there.items():
            if what == kind and name not in spared and sql is not None:
                db.execute(f"DROP {kind.upper()} IF EXISTS {_quoted(name)}")


def _state_of(db: sqlite3.Connection, keys: tuple[str, ...]) -> dict[str, Any]:
    if "ui_state" not in _objects(db):
        return {}
    marks = ",".join("?" * len(keys))
    return dict(db.execute(f"SELECT key, value FROM ui_state WHERE key IN ({marks})", keys))  # noqa: S608


def _statements(script: str) -> list[str]:
    """A script in statements; ``executescript`` would end the transaction."""
    found, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found


def _new_token(traces: Path | None) -> str:
    token = secrets.token_hex(16)
    if traces is not None:
        with suppress(OSError):  # without a trace it is made again each time
            traces.mkdir(parents=True, exist_ok=True, mode=0o700)
            _trace(token, traces).touch(mode=0o600)
    return token


def _trace(token: str, traces: Path) -> Path:
    return traces / hashlib.sha256(token.encode()).hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
