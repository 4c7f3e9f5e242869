"""Evidence packs on their way to readers: made once for a root, kept for a while."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.caches import own_folder
from fl_node.records import UpdateRef

#: Packs that are kept, for how long, and how many bytes of them.
_MOST: Final = 8
_KEPT_S: Final = 3600.0
_MOST_BYTES: Final = 2 << 30
_MOST_TOLD: Final = 3
_LONGEST: Final = 160
_SCOPE: Final = re.compile(r"pack (?:(all)|round ([0-9]{1,10})|update ([0-9]{1,10}#[0-9]{1,10}))( blobs)?")


@dataclass(frozen=True, slots=True)
class Pack:
    """What a pack holds: one update, a round, or everything; with the weights or without."""

    update: UpdateRef | None = None
    round: int | None = None
    blobs: bool = False

    @property
    def scope(self) -> str:
        """As the queue has it."""
        return f"pack {self.what}{' blobs' if self.blobs else ''}"

    @property
    def what(self) -> str:
        if self.update is not None:
            return f"update {self.update}"
        return "all" if self.round is None else f"round {self.round}"

    @property
    def name(self) -> str:
        """Part of a file's name."""
        return re.sub("[^a-z0-9]+", "-", self.scope.removeprefix("pack "))

    @classmethod
    def of_scope(cls, scope: str) -> Pack | None:
        """The other way round; ``None`` for what is no pack."""
        found = _SCOPE.fullmatch(scope)
        if found is None:
            return None
        update = UpdateRef.parse(found[3]) if found[3] else None
        return cls(update, int(found[2]) if found[2] else None, bool(found[4]))

    def flags(self) -> list[str]:
        """As ``fl-node export`` takes it."""
        if self.update is not None:
            what = ["--update", str(self.update)]
        else:
            what = ["--all"] if self.round is None else ["--round", str(self.round)]
        return [*what, "--blobs"] if self.blobs else what


class Packs:
    """Packs of one federation, in the user's cache, so that every process of the explorer finds them.

    The names of files follow from what was asked for: the index beside the federation file, which may have come from
    a stranger, has no say in what is sent.
    """

    def __init__(self, file: Path) -> None:
        own = own_folder(file, "explorer")
        self._folder = Path(tempfile.gettempdir()) / f"fl-node-packs-{os.getpid()}" if own is None else own / "packs"

    def find(self, pack: Pack, root: bytes) -> Path | None:
        """The pack of the log with this root, if it is at hand."""
        file = self._file(pack, root)
        try:
            return file if time.time() - file.stat().st_mtime < _KEPT_S else None
        except OSError:
            return None

    def keep(self, pack: Pack, root: bytes, made: Path, told: str) -> str:
        """Take a pack that was made; what is not in it, in words."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(made.stat().st_size)
        part = self._folder / f".{os.getpid()}.part"
        shutil.move(made, part)
        part.replace(self._file(pack, root))
        return _missing(told)

    def forget(self) -> None:
        """Delete what an earlier explorer left."""
        for file in self._files():
            with contextlib.suppress(OSError):
                file.unlink()

    def _make_room(self, size: int) -> None:
        kept = self._files()
        total = size + sum(file.stat().st_size for file in kept)
        for file in kept:
            old = time.time() - file.stat().st_mtime > _KEPT_S
            if old or total > _MOST_BYTES or len(kept) >= _MOST:
                total -= file.stat().st_size
                kept = kept[1:]
                file.unlink()

    def _files(self) -> list[Path]:
        """Oldest first."""
        try:
            found = [file for file in self._folder.iterdir() if file.is_file()]
            return sorted(found, key=lambda file: file.stat().st_mtime)
        except OSError:
            return []

    def _file(self, pack: Pack, root: bytes) -> Path:
        return self._folder / f"{hashlib.sha256(f'{pack.scope} {root.hex()}'.encode()).hexdigest()[:32]}.zip"


def _missing(told: str) -> str:
    """What is not in a pack, in words, by what ``fl-node export --json`` printed."""
    try:
        missing = [str(one) for one in json.loads(told)["missing"]]
    except (ValueError, KeyError, TypeError):
        return ""
    if not missing:
        return ""
    more = f"; and {len(missing) - _MOST_TOLD} more" if len(missing) > _MOST_TOLD else ""
    return f"not in it: {'; '.join(one[:_LONGEST] for one in missing[:_MOST_TOLD])}{more}"
