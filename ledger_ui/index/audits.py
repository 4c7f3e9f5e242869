"""Results of audits in the index: what ``fl-node audit --json`` printed, read a piece at a time and kept by update."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from fl_node.audit.told import alike
from fl_node.audit.verdicts import BY_NAME, Result
from fl_node.errors import LedgerError
from fl_node.ledger.log_store import LogStore
from ledger_ui.index.fold import bump
from ledger_ui.index.store import Store

#: Updates that are written in one transaction: the follower waits meanwhile.
_AT_ONCE: Final = 100
#: Longest words of one finding that are kept.
_LONGEST: Final = 4000
_MOST_DATA: Final = 4000
#: Audits that are remembered.
_MOST_AUDITS: Final = 200
_CATCH_UP_S: Final = 10.0
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_REF: Final = re.compile(r"([0-9]{1,10})#([0-9]{1,10})")
_SEVERITY: Final = [result.value for result in Result]


class NotAReport(Exception):
    """What an audit printed is not what an audit prints."""


def report_in(text: str, update: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Read a report. Its updates, of which there may be many thousands, are handed on one by one and not kept.

    Raises:
        NotAReport: something else.
    """
    found: dict[str, Any] = {}
    try:
        for key, at in _members(text):
            if key == "updates":
                for value in _items(text, at):
                    update(value)
            else:
                found[key] = _DECODER.raw_decode(text, at)[0]
    except (ValueError, IndexError, RecursionError) as cause:
        raise NotAReport(f"it printed no report: {cause}") from cause
    if not isinstance(found.get("facts"), dict) or not isinstance(found.get("verdict"), str):
        raise NotAReport("it printed no report")
    return found


def keep(store: Store, audit: int, text: str, waited: Callable[[float], bool]) -> str:
    """Keep a report as an audit's result; its verdict.

    Args:
        waited: waits so many seconds; true when there is no time left.

    Raises:
        NotAReport: it is none.
    """
    facts = report_in(text, lambda _: None)["facts"]
    held = _of_this_log(store, facts, waited)
    kept = _Kept(store, audit, int(facts["size"]), held)
    told = report_in(text, kept.add)
    kept.flush()
    with store.writing() as db:
        detail = "" if held else "its log is not the one that is shown here: the chain was reorganised, or has gone on"
        db.execute(
            "UPDATE audits SET state = 'done', size = ?, root = ?, ended_at = ?, verdict = ?, told = ?, detail = ? "
            "WHERE id = ?",
            (facts["size"], _root(facts), time.time(), told["verdict"], json.dumps(told), detail, audit),
        )
        db.execute(
            "DELETE FROM audits WHERE state IN ('done', 'failed') AND id <= (SELECT max(id) FROM audits) - ?",
            (_MOST_AUDITS,),
        )
        bump(db)
    return str(told["verdict"])


class _Kept:
    """Updates of a report on their way into the index, some at a time."""

    def __init__(self, store: Store, audit: int, size: int, held: bool) -> None:
        self._store, self._audit, self._size, self._held = store, audit, size, held
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, told: Mapping[str, Any]) -> None:
        if self._held:
            self._waiting.append(told)
            if len(self._waiting) >= _AT_ONCE:
                self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        with self._store.writing() as db:
            for told in self._waiting:
                self._put(db, told)
            bump(db)
        self._waiting.clear()

    def _put(self, db: sqlite3.Connection, told: Mapping[str, Any]) -> None:
        """One update's findings instead of those of an earlier audit; nothing for one that the log has not any more."""
        named = _REF.fullmatch(str(told["update"]))
        row = (
            named
            and db.execute(
                "SELECT idx FROM updates WHERE peer = ? AND sequence = ? AND idx = ?",
                (int(named[1]), int(named[2]), told["entry"]),
            ).fetchone()
        )
        if not row:
            return
        idx = row["idx"]
        # An audit of some checks only would take the place of one of all.
        db.execute("DELETE FROM verdicts WHERE idx = ?", (idx,))
        db.executemany(
            "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(idx, position, finding, self._audit) for position, finding in enumerate(told["findings"])],
        )
        db.execute("UPDATE updates SET verdict = ?, verdict_size = ? WHERE idx = ?", (told["result"], self._size, idx))


def _row(idx: int, position: int, finding: Mapping[str, Any], audit: int) -> tuple[object, ...]:
    check, result, detail = finding["check"], finding["result"], str(finding["detail"])[:_LONGEST]
    if check not in BY_NAME or result not in _SEVERITY:
        raise NotAReport(f"got the check {str(check)[:40]!r} with the result {str(result)[:40]!r}")
    fine = result == Result.OK
    data = "" if fine else json.dumps(finding.get("data") or {}, ensure_ascii=False)
    return (
        *(idx, position, check, result, int(finding.get("asked", True)), detail),
        *(data if 2 < len(data) <= _MOST_DATA else None, str(finding.get("repeat", ""))[:_LONGEST] or None),
        *(None if fine else alike(detail)[:300], audit),
    )


def _of_this_log(store: Store, facts: Mapping[str, Any], waited: Callable[[float], bool]) -> bool:
    """Whether the log that was audited is the one of the index, which may be some entries behind."""
    size, root = facts.get("size"), _root(facts)
    if not isinstance(size, int) or root is None:
        raise NotAReport("it does not say which log it saw")
    end = time.monotonic() + _CATCH_UP_S
    while True:
        try:
            with closing(LogStore(store.path)) as log:
                if size <= log.size:
                    return log.root(size) == root
        except (LedgerError, LookupError, sqlite3.Error):
            return False
        if time.monotonic() >= end or waited(0.2):
            return False


def _root(facts: Mapping[str, Any]) -> bytes | None:
    try:
        return bytes.fromhex(str(facts.get("root", ""))) or None
    except ValueError:
        return None


# ---- JSON, a piece at a time -------------------------------------------------------------------------------------

_DECODER: Final = json.JSONDecoder()


def _members(text: str) -> Iterator[tuple[str, int]]:
    """Keys of an object, each with where its value begins."""
    at = _expect(text, 0, "{")
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _expect(text, at, ":")
        yield str(key), at
        at = _after(text, _end_of(text, at), "}")


def _items(text: str, at: int) -> Iterator[Any]:
    at = _expect(text, at, "[")
    while text[at] != "]":
        value, at = _DECODER.raw_decode(text, at)
        yield value
        at = _after(text, at, "]")


def _end_of(text: str, at: int) -> int:
    """Where a value ends: a list is passed over without being kept."""
    if text[at] != "[":
        return _DECODER.raw_decode(text, at)[1]
    at = _expect(text, at, "[")
    while text[at] != "]":
        at = _after(text, _DECODER.raw_decode(text, at)[1], "]")
    return at + 1


def _expect(text: str, at: int, sign: str) -> int:
    at = _skipped(text, at)
    if text[at] != sign:
        raise ValueError(f"expected {sign} at character {at}")
    return _skipped(text, at + 1)


def _after(text: str, at: int, last: str) -> int:
    """Past a comma, or at the sign that ends the whole."""
    at = _skipped(text, at)
    return at if text[at] == last else _expect(text, at, ",")


def _skipped(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def text_of(file: Path) -> str:
    """What an audit printed."""
    return file.read_text("utf-8", "replace")
