"""What the explorer fetches besides the log: reports, checkpoints, who has which content, transactions.

Threads of their own, each doing a little at a time and then resting, and never more than one batch under way: a log of
a million entries must not eat the machine, nor its peers' patience. What is fetched stays when the peers are gone.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fl_node.audit.gateways import GatewayBlobs
from fl_node.errors import FlNodeError
from fl_node.ledger.transport import Rpc
from fl_node.spec import Spec
from ledger_ui.index import gas, holders
from ledger_ui.index.fold import bump
from ledger_ui.index.gateways import Gateways
from ledger_ui.index.notes import Notes
from ledger_ui.index.reports import Reports
from ledger_ui.index.store import Store

#: States of the follower in which the log is this ledger's, as far as anybody knows.
_SOUND: Final = frozenset({"following", "catching-up", "chain-down"})
_IDLE_S: Final = 0.3
_MOST_PAUSE_S: Final = 300.0
#: Pages are told at most so often; while older things come in, less often.
_TELL_S: Final = 0.5
_TELL_OLD_S: Final = 4.0
_MOST_LOOKED: Final = 64
_SOME: Final = 8


class Harvester:
    """Fetches for one federation while its process keeps the index.

    Args:
        state: the follower's state, as :class:`ledger_ui.index.follower.Following` has it.
        changed: called when something that pages show is another.
        rpc: endpoint; empty: transactions are not asked for.
    """

    def __init__(
        self, store: Store, spec: Spec, rpc: str, state: Callable[[], str], changed: Callable[[], None]
    ) -> None:
        self._store, self._rpc_url, self._state, self._changed = store, rpc, state, changed
        self.gateways = Gateways(spec.content)
        self._reports, self._notes = Reports(store), Notes(store)
        self._contents, self._transactions = holders.Contents(store), gas.Transactions(store)
        self._rpc: Rpc | None = None
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._looked: OrderedDict[int, None] = OrderedDict()
        self._dirty: float | None = None
        self._reach: tuple[int, int] | None = None
        steps = {
            "reports": self.reports,
            "checkpoints": self.checkpoints,
            "holders": self.holders,
            "transactions": self.transactions,
            "tell": self.tell,
        }
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=f"harvest {name}", daemon=True)
            for name, step in steps.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Say that it is over; :meth:`stop` waits for it."""
        self._stop.set()

    def stop(self) -> None:
        """Come to an end. Who waits for a stranger's answer is not waited for."""
        self.end()
        deadline = time.monotonic() + 1.0
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        self.gateways.close()

    def looked(self, idx: int) -> None:
        """Somebody looks at an update: ask who has its content, if that was not asked lately."""
        with self._lock:
            self._looked[idx] = None
            while len(self._looked) > _MOST_LOOKED:
                self._looked.popitem(last=False)

    # ---- steps: each does a little, and says how long to rest ------------------------------------------------------

    def reports(self) -> float:
        """Some reports."""
        blobs = self._reached()
        if blobs is None:
            return _IDLE_S
        with self._store.reading() as db:
            wanted = self._reports.wanted(db)
        if not wanted:
            return _IDLE_S
        began = time.monotonic()
        self._reports.keep(self._reports.fetch(blobs, wanted))
        self._soil(_TELL_S if len(wanted) < _SOME else _TELL_OLD_S)
        return 0.1 + time.monotonic() - began

    def checkpoints(self) -> float:
        """Everybody's latest checkpoint."""
        blobs = self._reached()
        fetched = [] if blobs is None else self._notes.fetch(blobs)
        if self._notes.keep(fetched, level=self._state() == "following"):
            self._soil(_TELL_S)
        return 3.0 + (0 if self._reach is None else self._reach[1]) / 5

    def holders(self) -> float:
        """Who has what somebody looks at, then the latest updates, then how large the others are."""
        blobs = self._reached()
        if blobs is None:
            return _IDLE_S
        with self._lock:
            looked = list(self._looked)
            self._looked.clear()
        with self._store.reading() as db:
            everybody = self._contents.looked_at(db, looked) or self._contents.latest(db, _SOME)
            one = [] if everybody else self._contents.unsized(db, _SOME)
        if not everybody and not one:
            return _IDLE_S
        began = time.monotonic()
        answers = [holders.asked(blobs, content) for content in everybody if not self._stop.is_set()]
        answers += [
            holders.Answer(content, holders.sized(blobs, content)) for content in one if not self._stop.is_set()
        ]
        self._contents.keep(answers)
        self._soil(_TELL_S if looked else _TELL_OLD_S)
        return 0.1 + 2 * (time.monotonic() - began)

    def transactions(self) -> float:
        """Some transactions."""
        with self._store.reading() as db:
            wanted = self._transactions.wanted(db)
        if not wanted or not self._rpc_url:
            return _IDLE_S
        began = time.monotonic()
        try:
            if self._rpc is None:
                self._rpc = Rpc(self._rpc_url)
            self._transactions.keep(gas.fetched(self._rpc, wanted))
        except BaseException:
            self._transactions.again()
            raise
        self._soil(_TELL_S if len(wanted) < _SOME else _TELL_OLD_S)
        return 0.1 + 3 * (time.monotonic() - began)

    def tell(self) -> float:
        """Have pages look again, if there is anything new."""
        with self._lock:
            due = self._dirty is not None and time.monotonic() >= self._dirty
            if due:
                self._dirty = None
        if due:
            reach = self._reach
            told = {"answering": reach[0], "announced": reach[1], "at": int(time.time())} if reach else {}
            with self._store.writing() as db:
                db.execute("INSERT OR REPLACE INTO ui_state VALUES ('harvest', ?)", (json.dumps(told),))
                bump(db)
            self._changed()
        return _TELL_S / 2

    # ---- below -----------------------------------------------------------------------------------------------------

    def _run(self, step: Callable[[], float]) -> None:
        failures = 0
        while not self._stop.is_set():
            pause = _IDLE_S
            if self._state() in _SOUND:
                try:
                    pause, failures = step(), 0
                except Exception as cause:  # what a stranger's log holds must not end this for good
                    failures += 1
                    pause = min(_MOST_PAUSE_S, 2.0 * 2 ** min(failures, 10))
                    self._complain(cause)
            self._stop.wait(pause)

    def _complain(self, cause: Exception) -> None:
        if self._stop.is_set() or isinstance(cause, FlNodeError):
            return  # a chain or a disk that is gone is told elsewhere
        if not isinstance(cause, sqlite3.Error | OSError):
            traceback.print_exc(file=sys.stderr)
        print(f"fl-node: the explorer's harvest: {cause}", file=sys.stderr)

    def _reached(self) -> GatewayBlobs | None:
        """The client, if there is anybody to ask."""
        with self._store.reading() as db:
            blobs = self.gateways.at(db)
        reach = blobs.answering()
        if reach != self._reach:
            self._reach = reach
            self._soil(_TELL_S)
        return blobs if reach[0] else None

    def _soil(self, within_s: float) -> None:
        """Have pages told within so many seconds."""
        due = time.monotonic() + within_s
        with self._lock:
            self._dirty = due if self._dirty is None else min(self._dirty, due)
