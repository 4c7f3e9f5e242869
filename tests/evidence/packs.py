"""Packs taken apart by a ZIP reader that is not ours, and put together again by whoever alters them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_node.audit.run import Scope, audit
from fl_node.audit.verdicts import Report, Result
from fl_node.cli.verify import with_pack
from fl_node.evidence.container import Packer
from fl_node.evidence.read import opened

MANIFEST = ("manifest.json", "manifest.sha256")


def taken_apart(path: Path) -> dict[str, bytes]:
    """Every file by name, in order."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def put_together(files: dict[str, bytes], out: Path, *, listed: Callable[[dict[str, Any]], Any] | None = None) -> Path:
    """A pack whose manifest fits these files. ``listed`` changes the manifest after that."""
    table = json.loads(files[MANIFEST[0]])
    data = {name: files[name] for name in sorted(files) if name not in MANIFEST}
    table["files"] = [_listed(name, raw) for name, raw in data.items()]
    if listed is not None:
        changed = listed(table)
        table = table if changed is None else changed
    raw = table if isinstance(table, bytes) else canonical(table)
    digest = f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n".encode()
    return write({**data, MANIFEST[0]: raw, MANIFEST[1]: digest}, out)


def write(files: dict[str, bytes], out: Path) -> Path:
    """These files in a container, whatever they are."""
    with out.open("w+b") as sink:
        packer = Packer(sink)
        for name, raw in files.items():
            packer.add(name, [raw], len(raw))
        packer.finish()
    return out


def _listed(name: str, raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"path": name, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    if name.endswith(".jsonl"):
        lines = raw.split(b"\n")[:-1]
        found["lines"] = "".join(hashlib.sha256(line + b"\n").hexdigest()[:8] for line in lines)
    return found


def lines_of(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """All lines of a folder's files."""
    names = sorted(name for name in files if name.startswith(folder + "/"))
    return [json.loads(line) for name in names for line in files[name].splitlines()]


def with_lines(files: dict[str, bytes], folder: str, lines: list[dict[str, Any]]) -> dict[str, bytes]:
    """The files with other lines in a folder, all in one file."""
    kept = {name: raw for name, raw in files.items() if not name.startswith(folder + "/")}
    raw = b"".join(canonical(line) + b"\n" for line in lines)
    return {**kept, f"{folder}/000000.jsonl": raw} if raw else kept


def verified(path: Path, jobs: int = 1) -> Report:
    """What `fl-node verify` finds."""
    with opened(path) as pack:
        scope = Scope(refs=pack.refs)
        return with_pack(audit(pack.means, scope, jobs=jobs), pack, scope.checks)


def failed(report: Report) -> set[tuple[str, str]]:
    """(update, or "" for the federation; check) of everything that failed."""
    found = {("", one.check) for one in report.findings if one.result is Result.FAILED}
    for update in report.updates:
        found |= {(str(update.ref), one.check) for one in update.findings if one.result is Result.FAILED}
    return found
