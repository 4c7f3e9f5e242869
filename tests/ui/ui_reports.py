"""Reports as ``fl-node audit --json`` prints them, made up: results by update, over the log that an explorer shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ui_logs import Explored

from fl_node.audit.told import as_json
from fl_node.audit.verdicts import Finding, Report, Result, UpdateVerdict
from fl_node.records import UpdateRef
from ledger_ui import child

Findings = Mapping[str, Sequence[Finding]]


def finding(check: str, result: str = "ok", detail: str = "as it should be") -> Finding:
    return Finding(check, Result(result), detail)


def printed(
    one: Explored, found: Findings, *, size: int | None = None, root: bytes | None = None, about: str = "unknown"
) -> str:
    """A report about some updates, by name (``3#1``). ``about``: a result about the federation."""
    with one.shown.store.reading() as db:
        known = dict(db.execute("SELECT key, value FROM ui_state").fetchall())
        entries = {f"{row['peer']}#{row['sequence']}": row["idx"] for row in db.execute("SELECT * FROM updates")}
    facts = {
        "name": "made up",
        "size": known["folded"] if size is None else size,
        "root": (known["folded_root"] if root is None else root).hex(),
    }
    updates = tuple(
        UpdateVerdict(UpdateRef.parse(ref) or UpdateRef(0, 0), entries.get(ref, 9999), 1, "site", tuple(said))
        for ref, said in found.items()
    )
    federation = (finding("opening"), Finding("consistent", Result(about), "nobody's checkpoint", asked=False))
    report = Report(facts, federation, updates, ("a note",))
    repeats = {(str(one.ref), said.check): f"repeat {said.check}" for one in updates for said in one.findings}
    return json.dumps(as_json(report, "incomplete", repeats), indent=1)


class Audits:
    """Stands in for ``fl-node`` as a child: what it was asked to run, and what it prints.

    ``says``: its stdout, or what makes it from the command line; ``code``: its exit code.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.says: Any = ""
        self.code: int | None = 0
        self.words = ""
        monkeypatch.setattr(child, "run", self._run)

    def _run(
        self, arguments: Sequence[str], out: Path, limits: Any, stopped: Any, *, rpc: str, made: Any = None
    ) -> Any:
        self.asked.append(list(arguments))
        if isinstance(self.says, Exception):
            raise self.says
        out.write_text(self.says(arguments) if callable(self.says) else self.says)
        if made is not None:
            made.write_bytes(b"PK made")
        return child.Ended(self.code, self.words)
