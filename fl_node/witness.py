"""A peer as witness: it signs what the log was, and holds what others signed against its own log and each other.

One thread beside the rounds, which it neither delays nor ends. Every ``every`` entries, at the log's final depth, the
peer signs a checkpoint, unless the log does not hold what it signed before: then somebody rewrote it. Now and then it
asks the other members' gateways for theirs. One that the own log does not hold means that the two were shown different
logs, and a pair of notes that proves it is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Set
from typing import Final

from fl_node.errors import ContentError, MalformedEvidence
from fl_node.keys import Signer
from fl_node.ledger.checkpoint import (
    Conflict,
    SignedCheckpoint,
    at,
    compare,
    holds,
    parse,
    sign,
    whole_block,
)
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.note_folder import NoteFolder
from fl_node.progress import Emit, Event
from fl_node.records import LedgerHead, PeerState

_JOIN_S: Final = 1.0
_SOON_S: Final = 3.0
#: Alarms are told once each; a hostile member must not be able to have this grow for ever.
_MOST_TOLD: Final = 1000


class Witness:
    """Watches one log.

    Args:
        log: followed by somebody else; only asked here.
        ask: endpoint of a gateway -> its ``/checkpoint``. Bounded in time and size, and may raise ContentError.
        every: entries between two checkpoints.
        period_s: seconds between two looks at the log.
        exchange_s: seconds between two rounds of asking the others. A checkpoint of one's own begins one at once, and
            another soon after, when the others are likely to have theirs.
    """

    def __init__(
        self,
        log: LogStore,
        signer: Signer,
        folder: NoteFolder,
        ask: Callable[[str], bytes],
        emit: Emit,
        *,
        every: int,
        period_s: float = 1.0,
        exchange_s: float = 30.0,
    ) -> None:
        self._log, self._signer, self._folder, self._ask, self._emit = log, signer, folder, ask, emit
        self._every, self._period_s, self._exchange_s = every, period_s, exchange_s
        self._others = folder.others()
        self._ahead: dict[str, SignedCheckpoint] = {}
        self._told: set[object] = set()
        self._seen: LedgerHead | None = None
        self._sound = True
        self._exchange_at = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Sign what is due, and stop. A gateway that is slow to answer is not waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def __enter__(self) -> Witness:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> None:
        """Sign what is due; ask the others, if it is time to."""
        signed = self.sign_due()
        now = time.monotonic()
        if signed or now >= self._exchange_at:
            self._exchange_at = now + (min(_SOON_S, self._exchange_s) if signed else self._exchange_s)
            self.exchange()

    def sign_due(self) -> SignedCheckpoint | None:
        """Sign a checkpoint if one is due, and the log holds what was signed before. Where the log has not changed
        since the last look, this costs one query."""
        head = self._log.head
        if head == self._seen:
            return None
        incident = self._folder.incident(self._log)
        self._sound = incident is None
        made = None
        if incident is not None:
            path = self._folder.keep_incident(incident)
            self._alarm(
                "alarm-inconsistent",
                f"the log is not the one that this peer signed: {incident.trouble}; nothing more is signed until it is "
                "again. Ask the others which log they see, and whoever runs the chain: docs/operating.md, checkpoints",
                {"size": incident.note.checkpoint.size, "evidence": str(path or "")},
            )
        else:
            made = self._sign()
        if self._ahead:
            members = {state.account for state in self._log.peers().values()}
            for note in tuple(self._ahead.values()):
                self._judge(note, members)
        self._seen = head
        return made

    def exchange(self) -> None:
        """Ask the gateway of every other active member for its latest checkpoint, and judge it."""
        states = self._log.peers().values()
        members = {state.account for state in states}
        origin = at(self._log).origin
        for state in states:
            if self._stop.is_set():
                return
            self.sign_due()  # many that do not answer must not delay it
            if state.account == self._signer.address or not state.endpoint or state.retired_from is not None:
                continue
            try:
                note = parse(self._ask(state.endpoint))
            except MalformedEvidence as cause:
                self._refused(state, str(cause))
            except ContentError:
                continue  # it has none, or does not answer: others' fetches tell that
            else:
                if note.checkpoint.origin == origin:  # it may serve another federation as well
                    self._judge(note, members)

    # ---- below -------------------------------------------------------------------------------------------------------

    def _sign(self) -> SignedCheckpoint | None:
        latest = self._folder.latest_own()
        due = self._log.size // self._every * self._every
        if not due or (latest is not None and latest.checkpoint.size >= due):
            return None
        # At the end of a block, where the contract has that root too, and everybody who counts alike signs one text.
        made = sign(at(self._log, whole_block(self._log, due)), self._signer)
        self._folder.keep_own(made)
        size = made.checkpoint.size
        self._emit(Event("checkpoint", f"signed a checkpoint of {size} entries", {"size": size}))
        return made

    def _judge(self, note: SignedCheckpoint, members: Set[str]) -> None:
        signers = [account for account in note.signers if account in members]
        if not signers:
            return
        size = note.checkpoint.size
        own = self._folder.own(size)
        for known in (own, *self._others.values(), *self._ahead.values()):
            if known is not None and (conflict := compare(known, note)) is not None:
                self._tell_conflict(conflict, signers[0])
        if not self._sound:
            return
        for account in signers:
            self._ahead.pop(account, None)
        if size > self._log.size:
            # It has seen more, or says so: judged when the log is as long. One for each member at most.
            self._ahead.update(dict.fromkeys(signers, note))
        elif holds(note.checkpoint, self._log) is None:
            self._keep(note, signers)
        elif own is None:
            # Nothing was signed at this very size; what this log is there, beside what they say, is the proof.
            ours = sign(at(self._log, size), self._signer) if size else None
            if ours is not None and (conflict := compare(ours, note)) is not None:
                self._tell_conflict(conflict, signers[0])

    def _keep(self, note: SignedCheckpoint, signers: list[str]) -> None:
        for account in signers:
            known = self._others.get(account)
            newer = known is None or known.checkpoint.size < note.checkpoint.size
            if account != self._signer.address and newer:
                self._folder.keep_other(account, note)
                self._others[account] = note

    def _tell_conflict(self, conflict: Conflict, signer: str) -> None:
        path = self._folder.keep_conflict(conflict, signer)
        if path is not None:
            self._alarm(
                "alarm-equivocation",
                f"{conflict.text}: two logs were shown; the proof is {path}",
                {"size": conflict.second.checkpoint.size, "signer": signer, "proof": str(path)},
            )

    def _refused(self, state: PeerState, why: str) -> None:
        self._alarm(
            "checkpoint-refused",
            f"the checkpoint that peer {state.number} serves at {state.endpoint} is none: {why}",
            {"peer": state.number},
        )

    def _alarm(self, kind: str, text: str, detail: dict[str, object]) -> None:
        told = (kind, *sorted(detail.items(), key=lambda item: item[0]))
        if told not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(told)
            self._emit(Event(kind, text, detail))

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._guarded(self.look)
        self._guarded(self.sign_due)

    def _guarded(self, step: Callable[[], object]) -> None:
        """Whatever goes wrong here must not reach a round: it is told, and the next look tries again."""
        try:
            step()
        except Exception as cause:
            self._alarm("checkpoint-failed", f"could not look at checkpoints: {cause}", {"error": str(cause)})
