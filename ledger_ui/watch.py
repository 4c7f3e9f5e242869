"""``fl-node monitor`` beside the explorer: its alarms, as it tells them, into the index."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from ledger_ui import beside
from ledger_ui.index.fold import bump
from ledger_ui.index.store import Store

_EVERY_S: Final = 30
_AGAIN_S: Final = 60.0
_IDLE_S: Final = 1.0
_MOST: Final = 500
_LONGEST: Final = 4000
_ALARMED: Final = 42


class Watch:
    """Runs the monitor of one federation while its process keeps the index."""

    def __init__(
        self, store: Store, file: Path, rpc: str, changed: Callable[[], None], leads: Callable[[], bool]
    ) -> None:
        self._store, self._file, self._rpc, self._changed, self._leads = store, file.absolute(), rpc, changed, leads
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Say that it is over; :meth:`stop` waits for it."""
        self._stop.set()
        process = self._process
        if process is not None:
            process.terminate()

    def stop(self) -> None:
        """Come to an end; the monitor is ended."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    # ---- below -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = _IDLE_S
            if self._leads():
                self._say("running")
                words = self._watched()
                if self._stop.is_set():
                    return
                self._say(f"it ended and is started again in {_AGAIN_S:.0f} s: {words}")
                pause = _AGAIN_S
            self._stop.wait(pause)

    def _watched(self) -> str:
        """Run it once; why it ended. The kernel ends it with this thread."""
        with tempfile.TemporaryDirectory(prefix="fl-node-explorer-") as folder:
            errors = Path(folder) / "errors"
            with errors.open("wb") as stderr:
                self._process = process = beside.begin(
                    ["monitor", "--federation", str(self._file), "--json", "--every", str(_EVERY_S)],
                    folder=Path(folder),
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    settings={"rpc": self._rpc},
                )
                try:
                    if process.stdout is not None and not self._stop.is_set():
                        self._hear(process.stdout)
                finally:
                    beside.end(process)
                    self._process = None
            said = errors.read_bytes()[:1000].decode("utf-8", "replace").strip()
        return said.removeprefix("fl-node: ") or f"code {process.returncode}"

    def _hear(self, lines: IO[bytes]) -> None:
        while line := lines.readline(1 << 20):
            try:
                told = json.loads(line)
                alarm = (
                    str(told["kind"])[:40],
                    str(told["text"])[:_LONGEST],
                    json.dumps(told.get("detail"))[:_LONGEST],
                )
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            self._keep(*alarm)

    def _keep(self, kind: str, text: str, detail: str) -> None:
        """One alarm. A monitor that starts anew tells again what lasts: that is one alarm."""
        try:
            with self._store.writing() as db:
                key = f"{kind} {text}"
                if db.execute("SELECT 1 FROM alarms WHERE key = ?", (key,)).fetchone() is not None:
                    return
                db.execute(
                    "INSERT INTO alarms (key, kind, text, detail, raised_at) VALUES (?, ?, ?, ?, ?)",
                    (key, kind, text, detail, time.time()),
                )
                db.execute("DELETE FROM alarms WHERE id <= (SELECT max(id) FROM alarms) - ?", (_MOST,))
                bump(db)
        except sqlite3.Error as cause:
            print(f"fl-node: an alarm could not be kept: {cause}", file=sys.stderr)
            return
        self._changed()

    def _say(self, words: str) -> None:
        """How the monitor stands, for the health page."""
        try:
            with self._store.writing() as db:
                db.execute("INSERT OR REPLACE INTO ui_state VALUES ('monitor', ?)", (words[:1000],))
                bump(db)
        except sqlite3.Error:
            return
        self._changed()
