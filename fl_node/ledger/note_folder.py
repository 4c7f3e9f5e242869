"""The folder of checkpoints in a peer's state: its own, the latest of each other signer, and what contradicts what.

    own-000000000032.note                  what this peer signed, by size; never replaced
    peer-0xADDRESS.note                    the latest of another member that held against the log
    equivocation-0xADDRESS-DIGEST.notes    two notes that contradict each other: a proof for everybody
    inconsistent-000000000032-DIGEST.json  an own note that the log does not hold any more, and what the log said

Files appear by atomic rename. A file that is damaged is as good as absent, but for :meth:`NoteFolder.damaged`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fl_node.errors import MalformedEvidence, StoreFull, WrongLedger
from fl_node.ledger.checkpoint import (
    MAX_NOTE_BYTES,
    Checkpoint,
    Conflict,
    SignedCheckpoint,
    at,
    compare,
    conflicts,
    holds,
    parse,
    parse_all,
)
from fl_node.ledger.log_store import LogStore

T = TypeVar("T")
#: More proofs by one signer would prove nothing more, and a disk is finite.
_MOST_PROOFS: Final = 8
_MOST_INCIDENTS: Final = 64


@dataclass(frozen=True, slots=True)
class Incident:
    """An own checkpoint that the log did not hold: the note, what the log came to then, and why that is wrong."""

    note: SignedCheckpoint
    observed: Checkpoint
    trouble: str


class NoteFolder:
    """The notes of one ledger, below ``folder``, which is made when something is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---- own ---------------------------------------------------------------------------------------------------------

    def own_sizes(self) -> list[int]:
        """Sizes for which this peer signed, ascending; unread."""
        return sorted(int(path.stem[4:]) for path in self._paths("own-*.note") if path.stem[4:].isdecimal())

    def own(self, size: int) -> SignedCheckpoint | None:
        """What this peer signed for this size."""
        return _tried(_note, self._own_path(size))

    def latest_own(self) -> SignedCheckpoint | None:
        """The largest of the own ones."""
        for size in reversed(self.own_sizes()):
            note = self.own(size)
            if note is not None:
                return note
        return None

    def keep_own(self, signed: SignedCheckpoint) -> Path:
        """Keep what was signed.

        Raises:
            ValueError: it contradicts what was signed for that size.
            WrongLedger: the folder has notes of another ledger.
            StoreFull: it cannot be written.
        """
        before, latest = self.own(signed.checkpoint.size), self.latest_own()
        if before is not None and compare(before, signed) is not None:
            raise ValueError(f"another log of {signed.checkpoint.size} entries was signed; expected nobody to ask")
        if latest is not None and latest.checkpoint.origin != signed.checkpoint.origin:
            raise WrongLedger(
                f"{self.folder} has checkpoints of {latest.checkpoint.origin}, expected of {signed.checkpoint.origin}; "
                "name the state folder of this federation"
            )
        return self._write(self._own_path(signed.checkpoint.size).name, signed.note)

    # ---- others ------------------------------------------------------------------------------------------------------

    def others(self) -> dict[str, SignedCheckpoint]:
        """The latest of each other signer, by account."""
        found = {}
        for path in self._paths("peer-0x*.note"):
            if (note := _tried(_note, path)) is not None:
                found.update({who: note for who in note.signers if path.stem == f"peer-{who.lower()}"})
        return found

    def keep_other(self, account: str, signed: SignedCheckpoint) -> Path:
        """Keep somebody's latest, in place of the one before. Raises StoreFull."""
        return self._write(f"peer-{account.lower()}.note", signed.note)

    def incident(self, log: LogStore, *, every: bool = False) -> Incident | None:
        """An own checkpoint that the log does not hold: the latest, or any if ``every`` one is looked at. As long as
        each is signed only where the one before holds, the latest speaks for all.

        Raises:
            LookupError: the log is empty.
        """
        for size in reversed(self.own_sizes()):
            note = self.own(size)
            if note is not None:
                if (trouble := holds(note.checkpoint, log)) is not None:
                    return Incident(note, at(log), trouble)
                if not every:
                    return None
        return None

    # ---- what is wrong -----------------------------------------------------------------------------------------------

    def keep_conflict(self, conflict: Conflict, signer: str) -> Path | None:
        """Keep a proof, by one of those who signed; None if enough by that one are kept. Raises StoreFull."""
        name = f"equivocation-{signer.lower()}"
        path = self.folder / f"{name}-{hashlib.sha256(conflict.proof).hexdigest()[:12]}.notes"
        if path.exists():
            return path
        enough = len(self._paths(f"{name}-*.notes")) >= _MOST_PROOFS
        return None if enough else self._write(path.name, conflict.proof)

    def conflicts(self) -> list[tuple[Path, Conflict]]:
        """Every proof that is kept."""
        paths = self._paths("equivocation-*.notes")
        return [(path, conflict) for path in paths for conflict in _tried(_proof, path) or ()]

    def keep_incident(self, incident: Incident) -> Path | None:
        """Keep what the log said instead of what was signed; None if enough of that is kept. Raises StoreFull."""
        told = {
            "trouble": incident.trouble,
            "note": incident.note.note.decode(),
            "observed": incident.observed.text.decode(),
        }
        size, digest = incident.note.checkpoint.size, hashlib.sha256(incident.observed.root).hexdigest()[:12]
        path = self.folder / f"inconsistent-{size:012d}-{digest}.json"
        if path.exists():
            return path
        enough = len(self._paths("inconsistent-*.json")) >= _MOST_INCIDENTS
        return None if enough else self._write(path.name, json.dumps(told, indent=1).encode() + b"\n")

    def incidents(self) -> list[tuple[Path, dict[str, str]]]:
        """Every incident that is kept, as written: ``trouble``, ``note`` and ``observed``."""
        paths = self._paths("inconsistent-*.json")
        return [(path, told) for path in paths if (told := _tried(_incident, path)) is not None]

    def damaged(self) -> list[Path]:
        """Files by the names above that do not hold what their names say."""
        good = {self._own_path(size) for size in self.own_sizes() if self.own(size) is not None}
        good |= {self.folder / f"peer-{account.lower()}.note" for account in self.others()}
        good |= {path for path, _ in (*self.conflicts(), *self.incidents())}
        named = (self._paths(form) for form in ("own-*", "peer-*", "equivocation-*", "inconsistent-*"))
        return sorted(path for paths in named for path in paths if path not in good)

    # ---- below -------------------------------------------------------------------------------------------------------

    def _own_path(self, size: int) -> Path:
        return self.folder / f"own-{size:012d}.note"

    def _paths(self, form: str) -> list[Path]:
        return sorted(self.folder.glob(form))

    def _write(self, name: str, content: bytes) -> Path:
        scratch, path = self.folder / f".{name}.{secrets.token_hex(4)}", self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with scratch.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as cause:
            raise StoreFull(f"cannot write {path}: {cause.strerror}; free some space or make it writable") from cause
        return path


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2 * MAX_NOTE_BYTES)


def _tried(reading: Callable[[Path], T], path: Path) -> T | None:
    try:
        return reading(path)
    except (OSError, ValueError, RecursionError, MalformedEvidence):
        return None


def _note(path: Path) -> SignedCheckpoint:
    return parse(_read(path))


def _proof(path: Path) -> list[Conflict]:
    return conflicts(parse_all(_read(path)))


def _incident(path: Path) -> dict[str, str]:
    told: Any = json.loads(_read(path))
    if not isinstance(told, dict) or not all(isinstance(told.get(key), str) for key in ("trouble", "note", "observed")):
        raise MalformedEvidence(f"{path} tells of no incident")
    parse(told["note"].encode())
    return {key: told[key] for key in ("trouble", "note", "observed")}
