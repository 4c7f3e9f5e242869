"""Where a peer stands in the round it is working on, so that a crash at any instant loses no finished step.

One JSON file, replaced by atomic rename. A draft holds only what the ledger and the content store cannot tell: which
log prefix the round used, what was merged, and what was trained from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fl_node.errors import FlNodeError, StoreFull
from fl_node.records import Parent, UpdateRef

FILE_NAME = "round.json"
LAST_NAME = "recorded.json"


@dataclass(frozen=True, slots=True)
class Draft:
    """A round under way. Empty digests: that step has not been finished.

    ``content``/``dag_pb`` name the trained bytes in the content store, ``weights`` is the plain digest of the tensors
    (not yet the commitment), ``report`` the SHA-256 of the public report. ``encoding``, ``refers_to`` and ``sealed_at``
    are as on the ledger; ``refers_content`` and ``sealed_root`` tell whether a reorganised chain still has what they
    name. ``sizes`` of the bytes, for the report. ``left_out``: parents that the rule gave no
    share on account of their bytes, by name, and why.
    """

    sequence: int
    round: int
    final: bool
    seen: int
    seen_root: bytes
    parents: tuple[Parent, ...]
    outcomes: tuple[dict[str, Any], ...]
    rule: int
    base: bytes
    content: bytes = b""
    dag_pb: bool = False
    weights: bytes = b""
    train_samples: int = 0
    training: dict[str, Any] | None = None
    report: bytes = b""
    score_ppm: int = 0
    base_score_ppm: int = 0
    test_samples: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    encoding: int = 0
    refers_to: int = 0
    refers_content: bytes = b""
    sealed_at: int = 0
    sealed_root: bytes = b""
    sizes: dict[str, Any] | None = None

    @property
    def rejected(self) -> Mapping[UpdateRef, str]:
        """:attr:`left_out`, by what the names name."""
        parsed = {UpdateRef.parse(name): why for name, why in self.left_out.items()}
        return {ref: why for ref, why in parsed.items() if ref is not None}

    @property
    def trained(self) -> bool:
        return bool(self.content)

    @property
    def ready(self) -> bool:
        return bool(self.report)


class Journal:
    """The draft on disk, and the last one that was recorded (a reorganised chain may want it recorded again).

    Args:
        folder: the peer's state folder.
        ledger: names the ledger that drafts are for; a draft for another one does not count.
    """

    def __init__(self, folder: Path, ledger: str = "") -> None:
        self._path = folder / FILE_NAME
        self._last = folder / LAST_NAME
        self._ledger = ledger

    def load(self) -> Draft | None:
        """The draft under way, or ``None``. A damaged file is set aside: the round starts again from the ledger."""
        return self._read(self._path)

    def last(self) -> Draft | None:
        """The draft that was recorded last, or ``None``."""
        return self._read(self._last)

    def save(self, draft: Draft) -> Draft:
        """Replace the draft atomically and durably; returns it.

        Raises:
            StoreFull: the state folder cannot be written. The previous draft is still there.
        """
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({"ledger": self._ledger, **asdict(draft)}, file, default=lambda value: value.hex())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as cause:
            raise self._unwritable(cause) from cause
        return draft

    def finish(self) -> None:
        """The draft is on the ledger: keep it as the last one."""
        try:
            self._path.replace(self._last)
        except FileNotFoundError:
            pass
        except OSError as cause:
            raise self._unwritable(cause) from cause

    def discard(self) -> None:
        """Drop the draft: its round starts again."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as cause:
            raise self._unwritable(cause) from cause

    def _read(self, path: Path) -> Draft | None:
        try:
            table = json.loads(path.read_text("utf-8"))
            ledger = table.pop("ledger")
            draft = _draft(table)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            try:
                path.replace(path.with_suffix(".damaged"))
            except OSError as cause:
                raise self._unwritable(cause) from cause
            return None
        except OSError as cause:
            raise FlNodeError(f"cannot read {path}: {cause.strerror}; check the state folder") from cause
        return draft if ledger == self._ledger else None

    def _unwritable(self, cause: OSError) -> StoreFull:
        return StoreFull(
            f"cannot write {self._path}: {cause.strerror}; free some space or make the folder writable, "
            "then start again: the round goes on where it was"
        )


_DIGESTS = ("seen_root", "base", "content", "weights", "report", "refers_content", "sealed_root")


def _draft(table: dict[str, Any]) -> Draft:
    parents = tuple(
        Parent(int(p["peer"]), int(p["sequence"]), bytes.fromhex(p["tag"]), int(p["share_ppm"]))
        for p in table["parents"]
    )
    digests = {key: bytes.fromhex(table[key]) for key in _DIGESTS}
    return Draft(**{**table, **digests, "parents": parents, "outcomes": tuple(table["outcomes"])})
