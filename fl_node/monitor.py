"""Watching a federation: what happened since the last look that a person should know of.

Each look opens the ledger as an audit does, checks what is new, and gives alarms. An alarm is told once for as long as
its cause lasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fl_node.audit.at_hand import AtHand
from fl_node.audit.availability import available
from fl_node.audit.kept import Kept
from fl_node.audit.means import Means
from fl_node.audit.open_means import Where, means_of
from fl_node.audit.run import ALL, Scope, audit
from fl_node.audit.verdicts import BY_NAME, Finding, Report, Result
from fl_node.errors import ChainUnavailable, InconsistentLog, LedgerError
from fl_node.ledger.log_store import Orphan
from fl_node.ledger.note_folder import NoteFolder
from fl_node.ledger.outbox import made_here
from fl_node.prefix import Prefix
from fl_node.records import PeerAnnounced, UpdateObjected, UpdatePublished, UpdateRef, UpdatesAttested
from fl_node.sealing.age import Identity

#: What a look asks of every new update; availability is asked of what may still be merged.
CHECKS: Final = ALL - {"available"}


#: Each is told of alone, unless there are more.
_MOST_DROPPED: Final = 20


#: Conditions that come and go; an alarm's key begins with its kind.
PASSING: Final = frozenset({"silent", "unavailable", "chain-unavailable", "inconsistent-log", "inconsistent-own"})
_BLIND: Final = ("chain-unavailable", "inconsistent-log")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should look at.

    ``kind``: ``foreign-entry``, ``retired``, ``inconsistent``, ``reorganised``, ``silent``, ``unavailable``,
    ``failed``, ``suspicious``, ``contradicted``, ``outlier`` or ``chain-unavailable``. ``key`` is the same for as long
    as the cause is. ``detail`` is JSON-ready.
    """

    kind: str
    text: str
    key: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watched:
    """What to watch.

    Attributes:
        where: the ledger and sources of bytes; ``where.work`` holds the log and results between looks.
        account: whose entries to know; ``None``: nobody's.
        state: that peer's state folder, which knows what it signed; ``None``: every entry of the account is told.
        silent_s: seconds without an entry after which an active peer that has not closed is told.
        jobs: threads.
        keys: that open encrypted updates; ``None``: what they hold is not looked at.
    """

    where: Where
    account: str | None = None
    state: Path | None = None
    silent_s: float = 3600.0
    jobs: int = 1
    keys: AtHand | None = None


class Monitor:
    """Looks again and again, and remembers what it told."""

    def __init__(self, watched: Watched, clock: Callable[[], float] = time.time) -> None:
        self._watched, self._clock = watched, clock
        self._lasting: set[str] = set()
        self._looked_at = 0
        self._found = False
        #: Updates of which an essential check was not ok, with their entries.
        self._open: dict[UpdateRef, int] = {}
        #: Number of alarms so far.
        self.raised = 0

    def look(self) -> list[Alarm]:
        """What is new. Never raises for what a chain, a gateway or a peer does: that is an alarm.

        Raises:
            LedgerError: at the first look: no ledger there.
        """
        found = list(self._seen())
        new = [alarm for alarm in found if alarm.key not in self._lasting]
        # What is over may be told again when it comes back; what was found in an update stays found. A look that saw
        # nothing says of nothing that it is over.
        if not any(alarm.key in _BLIND for alarm in found):
            self._lasting = {key for key in self._lasting if key.split(" ", 1)[0] not in PASSING}
        self._lasting |= {alarm.key for alarm in found}
        self.raised += len(new)
        return new

    def _seen(self) -> Iterator[Alarm]:
        began = time.time()
        try:
            with means_of(self._watched.where) as means:
                self._found = True
                keys = self._watched.keys
                yield from self._at(means if keys is None else replace(means, opener=keys), began)
        except InconsistentLog as cause:
            yield Alarm("inconsistent", str(cause), "inconsistent-log")
        except LedgerError as cause:
            # An endpoint that refuses now, or is of another chain now: at the start that is a slip of the hand.
            if not (self._found or isinstance(cause, ChainUnavailable)):
                raise
            yield Alarm("chain-unavailable", str(cause), "chain-unavailable")

    def _at(self, means: Means, began: float) -> Iterator[Alarm]:
        dropped = [orphan for orphan in means.log.orphans() if orphan.orphaned_at >= began]
        yield from reorganised(dropped)
        yield from foreign(means, self._watched)
        yield from forgotten(means, self._watched.state)
        yield from silent(means, self._watched.silent_s, self._clock())
        for report in self._audit(means, min((orphan.entry.index for orphan in dropped), default=None)):
            yield from of_report(report)
        yield from unavailable(means)

    def _audit(self, means: Means, dropped: int | None) -> list[Report]:
        """What is new since the last look, and again those updates of which something could not be known then."""
        folder = self._watched.where.work
        start = self._looked_at if dropped is None else min(self._looked_at, dropped)
        scopes = [Scope(start=start, checks=CHECKS)]
        again = frozenset(ref for ref, index in self._open.items() if index < start)
        if again:
            scopes.append(Scope(refs=again, checks=CHECKS))
        path = ":memory:" if folder is None else folder / "results.sqlite"
        with Kept(path, means.log, means.spec_digest, own_key(means, self._watched.keys)) as kept:
            reports = [audit(means, scope, jobs=self._watched.jobs, kept=kept) for scope in scopes]
        self._looked_at = means.prefix.size
        self._open = {
            update.ref: update.index
            for report in reports
            for update in report.updates
            if any(_may_change(finding) for finding in update.findings)
        }
        return reports


def _may_change(finding: Finding) -> bool:
    """Whether another look may find something else. What no key at hand opens stays unreadable."""
    if finding.result is Result.UNKNOWN and finding.check != "sealed" and finding.data.get("encrypted"):
        return False
    return finding.result is not Result.OK and BY_NAME[finding.check].essential


def own_key(means: Means, keys: AtHand | None) -> Identity | None:
    """The key to which results are encrypted; ``None`` where everybody can read what they follow from."""
    if keys is None or means.federation is None or not means.federation.spec.privacy.encrypt:
        return None
    return keys.own


def reorganised(dropped: Sequence[Orphan]) -> Iterator[Alarm]:
    """Entries that the chain had when it was looked at before, and has not any more."""
    if len(dropped) > _MOST_DROPPED:
        entries = [orphan.entry for orphan in dropped]
        text = f"the chain dropped {len(entries)} entries, {entries[0].index} to {entries[-1].index}"
        key = f"reorganised {entries[0].index} {entries[0].block_hash.hex()} {len(entries)}"
        yield Alarm("reorganised", text, key, {"entry": entries[0].index, "entries": len(entries)})
        return
    for orphan in dropped:
        entry = orphan.entry
        text = f"the chain dropped entry {entry.index} ({entry.kind}) of block {entry.block_number}"
        key = f"reorganised {entry.index} {entry.block_hash.hex()}"
        yield Alarm("reorganised", text, key, {"entry": entry.index, "tx": "0x" + entry.tx_hash.hex()})


def foreign(means: Means, watched: Watched) -> Iterator[Alarm]:
    """Entries under an account that its state folder did not sign, and its retirement."""
    facts = means.prefix.peer_of(watched.account) if watched.account else None
    if facts is None:
        return
    made = made_here(watched.state) if watched.state is not None else None
    for entry in means.entries[: means.prefix.size]:
        body = entry.body
        own = isinstance(body, UpdatePublished | UpdatesAttested | UpdateObjected | PeerAnnounced)
        if own and getattr(body, "peer", None) == facts.number and (made is None or entry.tx_hash not in made):
            text = f"entry {entry.index} ({entry.kind}) is signed with peer {facts.number}'s key, but not from here"
            detail = {"entry": entry.index, "kind": entry.kind, "tx": "0x" + entry.tx_hash.hex()}
            yield Alarm("foreign-entry", text, f"foreign {entry.index} {entry.tx_hash.hex()}", detail)
    if facts.retirement is not None:
        text = f"peer {facts.number} was retired at entry {facts.retirement.index}: {facts.retirement.reason}"
        yield Alarm("retired", text, f"retired {facts.retirement.index}", {"entry": facts.retirement.index})


def forgotten(means: Means, state: Path | None) -> Iterator[Alarm]:
    """What the peer itself signed, and the log does not hold any more."""
    incident = NoteFolder(state / "checkpoints").incident(means.log) if state is not None else None
    if incident is not None:
        size = incident.note.checkpoint.size
        text = f"the log is not the one that this peer signed: {incident.trouble}"
        yield Alarm("inconsistent", text, f"inconsistent-own {size}", {"size": size})


def silent(means: Means, silent_s: float, now_s: float) -> Iterator[Alarm]:
    """Active publishing peers that have not closed and have recorded nothing for a while."""
    last: dict[int, int] = {}
    for fact in means.prefix.facts():
        peer = getattr(fact.body, "peer", None)
        if isinstance(peer, int):
            last[peer] = fact.time_s
    for facts in means.prefix.peers():
        latest = means.prefix.latest(facts.number)
        if not facts.publishes or (latest is not None and latest.final):
            continue
        age = now_s - last.get(facts.number, 0)
        if age > silent_s:
            text = f"{facts.site} (peer {facts.number}) has recorded nothing for {int(age)} s"
            detail = {"peer": facts.number, "site": facts.site, "seconds": int(age)}
            yield Alarm("silent", text, f"silent {facts.number} {last.get(facts.number, 0)}", detail)


def of_report(report: Report) -> Iterator[Alarm]:
    """What an audit found wrong; what is unknown is no alarm."""
    kinds = {
        Result.FAILED: "failed",
        Result.SUSPICIOUS: "suspicious",
        Result.CONTRADICTED: "contradicted",
        Result.OUTLIER: "outlier",
    }

    def told(finding: Finding, update: str, index: int | None) -> Alarm:
        whom = f"{update} (entry {index}): " if update else ""
        kind = kinds[finding.result]
        kind = "inconsistent" if kind == "failed" and finding.check in ("consistent", "included") else kind
        detail = {"check": finding.check, "update": update or None, "entry": index, **finding.data}
        key = f"{finding.check} {finding.result} {update} {'' if update else finding.detail}"
        return Alarm(kind, f"{whom}{finding.check} {finding.result.value}: {finding.detail}", key, detail)

    for finding in report.findings:
        if finding.result in kinds:
            yield told(finding, "", None)
    for update in report.updates:
        for finding in update.findings:
            if finding.result in kinds:
                yield told(finding, str(update.ref), update.index)


def unavailable(means: Means) -> Iterator[Alarm]:
    """Latest updates, which others want to merge, that nobody gives though some peers answer."""
    wanted = [update for update in map(means.prefix.trained, _active(means.prefix)) if update is not None]
    for ref, finding in available(means, wanted).items():
        if not finding.data.get("having") and finding.data.get("lacking"):
            text = f"{ref}: {finding.detail}"
            yield Alarm("unavailable", text, f"unavailable {ref}", {"update": str(ref), **finding.data})


def _active(prefix: Prefix) -> list[int]:
    return [facts.number for facts in prefix.peers() if facts.publishes]


def watch(monitor: Monitor, tell: Callable[[Alarm], None], every_s: float, wait: Callable[[float], bool]) -> None:
    """Look again and again until ``wait`` says that it is over (it waits so many seconds, and tells)."""
    while True:
        for alarm in monitor.look():
            tell(alarm)
        if wait(every_s):
            return
