"""Fetch the front-end libraries of the explorer's graph page into ``ledger_ui/static/vendor``.

Run after a change of the versions below (``make vendor``). The files are taken from npm's packages as they are; nothing
is built. ``VENDOR.json`` says of each where it came from, its licence and its SHA-256; the explorer shows that under
``/about``, and a test holds the files against it.

    python scripts/vendor_ui.py
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "ledger_ui" / "static" / "vendor"
MANIFEST: Final = "VENDOR.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One package, its version, and the file that pages load."""

    name: str
    version: str
    file: str
    licence_file: str = "LICENSE"


#: In the order in which pages load them: each needs those before it. d3-zoom moves the graph; it needs the others.
WANTED: Final = (
    Wanted("d3-color", "3.1.1", "dist/d3-color.min.js"),
    Wanted("d3-dispatch", "3.0.2", "dist/d3-dispatch.min.js"),
    Wanted("d3-ease", "3.0.2", "dist/d3-ease.min.js"),
    Wanted("d3-timer", "3.0.2", "dist/d3-timer.min.js"),
    Wanted("d3-selection", "3.0.1", "dist/d3-selection.min.js"),
    Wanted("d3-interpolate", "3.0.2", "dist/d3-interpolate.min.js"),
    Wanted("d3-drag", "3.0.1", "dist/d3-drag.min.js"),
    Wanted("d3-transition", "3.0.2", "dist/d3-transition.min.js"),
    Wanted("d3-zoom", "3.0.1", "dist/d3-zoom.min.js"),
)


def fetch(wanted: Wanted, folder: Path) -> tuple[dict[str, Any], bytes, bytes]:
    """What npm says of a package, the file, and the text of its licence."""
    command = ["npm", "pack", f"{wanted.name}@{wanted.version}", "--json", "--ignore-scripts", "--pack-destination"]
    answer = json.loads(subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True).stdout)
    told: dict[str, Any] = answer[0] if isinstance(answer, list) else next(iter(answer.values()))
    with tarfile.open(folder / told["filename"]) as packed:
        about = json.loads(_member(packed, "package.json"))
        told["license"] = about["license"]
        return told, _member(packed, wanted.file), _member(packed, wanted.licence_file)


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    found = packed.extractfile(f"package/{name}")
    if found is None:
        raise SystemExit(f"error: {packed.name} has no file {name}")
    return found.read()


def entry(wanted: Wanted, told: dict[str, Any], file: bytes, licence: bytes) -> dict[str, Any]:
    """A package's part of the manifest; its files are written."""
    names = {Path(wanted.file).name: file, f"{wanted.name}.LICENSE.txt": licence}
    for name, raw in names.items():
        (FOLDER / name).write_bytes(raw)
    base = wanted.name.rpartition("/")[2]
    return {
        "name": wanted.name,
        "version": wanted.version,
        "licence": told["license"],
        "licence_file": f"{wanted.name}.LICENSE.txt",
        "licence_sha256": hashlib.sha256(licence).hexdigest(),
        "source": f"https://registry.npmjs.org/{wanted.name}/-/{base}-{wanted.version}.tgz",
        "integrity": told["integrity"],
        "file": Path(wanted.file).name,
        "from": wanted.file,
        "bytes": len(file),
        "sha256": hashlib.sha256(file).hexdigest(),
    }


def before() -> dict[tuple[str, str], str]:
    """npm's digests of the packages that the manifest names so far, by name and version."""
    path = FOLDER / MANIFEST
    if not path.exists():
        return {}
    return {(one["name"], one["version"]): one["integrity"] for one in json.loads(path.read_text("utf-8"))["packages"]}


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        fetched = [(wanted, *fetch(wanted, Path(folder))) for wanted in WANTED]
    for wanted, told, _, _ in fetched:
        known = before().get((wanted.name, wanted.version))
        if known is not None and known != told["integrity"]:
            raise SystemExit(
                f"error: {wanted.name} {wanted.version} is another package than before: got {told['integrity']}; "
                f"expected {known}"
            )
    for path in FOLDER.iterdir():
        path.unlink()
    packages = [entry(*one) for one in fetched]
    (FOLDER / MANIFEST).write_text(json.dumps({"packages": packages}, indent=2) + "\n", "utf-8")
    print(f"wrote {len(packages)} libraries, {sum(one['bytes'] for one in packages):,} bytes, to {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
