"""Compile the contract into what the package carries: ``fl_node/ledger/artifact/``.

Run after a change below ``contracts/``; a test recompiles and compares, so that the two never drift apart.

    python scripts/build_artifact.py [--check]

``ModelLedger.input.json`` is the compiler's standard JSON input with every source, OpenZeppelin's included: whoever has
solc 0.8.30 (py-solc-x, solcjs, a native build) repeats the compilation from the package alone. ``ModelLedger.json`` is
what came out: ABI, creation code, code on chain, compiler and settings.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
NODE_MODULES = ROOT / "hardhat-network" / "node_modules"
SOLC = ROOT / "hardhat-network" / "solc"
ARTIFACT_DIR = ROOT / "fl_node" / "ledger" / "artifact"
MAIN = "contracts/ModelLedger.sol"

# foundry.toml says the same.
SETTINGS: dict[str, Any] = {
    "evmVersion": "shanghai",
    "optimizer": {"enabled": True, "runs": 1_000_000},
    "viaIR": True,
    "metadata": {"bytecodeHash": "none"},
    "outputSelection": {MAIN: {"ModelLedger": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
}
_IMPORT = re.compile(r'^import\s+(?:\{[^}]*\}\s+from\s+)?"([^"]+)";', re.MULTILINE)


def read_sources() -> dict[str, dict[str, str]]:
    """The contract's sources and all that they import, by the name that the compiler knows them by."""
    sources: dict[str, dict[str, str]] = {}
    wanted = [MAIN]
    while wanted:
        name = wanted.pop()
        if name in sources:
            continue
        path = (ROOT if name.startswith("contracts/") else NODE_MODULES) / name
        text = path.read_text(encoding="utf-8")
        sources[name] = {"content": text}
        folder = Path(name).parent
        for target in _IMPORT.findall(text):
            wanted.append(_normal(folder / target) if target.startswith(".") else target)
    return dict(sorted(sources.items()))


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def standard_input() -> dict[str, Any]:
    """The compiler's standard JSON input, from the sources as they are on disk now."""
    return {"language": "Solidity", "sources": read_sources(), "settings": SETTINGS}


def compile_artifact(given: dict[str, Any], solc: Path = SOLC) -> dict[str, Any]:
    """What the package carries as ``ModelLedger.json``, compiled from a standard JSON input.

    Raises:
        SystemExit: the compiler is missing or refuses the sources.
    """
    if not NODE_MODULES.is_dir():
        raise SystemExit("the compiler is not installed; run `npm install --no-save --prefix hardhat-network`")
    version = subprocess.run([str(solc), "--version"], check=True, capture_output=True, text=True).stdout
    run = subprocess.run(
        [str(solc), "--standard-json"], input=json.dumps(given), check=True, capture_output=True, text=True
    )
    output = json.loads(run.stdout)
    errors = [entry["formattedMessage"] for entry in output.get("errors", []) if entry["severity"] == "error"]
    if errors:
        raise SystemExit("\n".join(errors))
    contract = output["contracts"][MAIN]["ModelLedger"]
    match = re.search(r"Version: (\d+\.\d+\.\d+\+commit\.[0-9a-f]+)", version)
    if match is None:
        raise SystemExit(f"got {version!r} from {solc} --version; expected a solc version")
    return {
        "contractName": "ModelLedger",
        "compiler": {"name": "solc", "version": match[1], "settings": _without_selection(given["settings"])},
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
    }


def _without_selection(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "outputSelection"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the committed files differ")
    arguments = parser.parse_args()
    given = standard_input()
    files = {"ModelLedger.input.json": given, "ModelLedger.json": compile_artifact(given)}
    stale = []
    ARTIFACT_DIR.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = ARTIFACT_DIR / name
        text = json.dumps(content, indent=1) + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
    print(json.dumps({"stale" if arguments.check else "written": stale}))
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
