#!/usr/bin/env bash
# Slither over the contracts, in an environment of its own: it needs an older web3 than the package. Fails on any finding
# that slither.config.json does not exclude; slither.md explains each exclusion.
set -euo pipefail
cd "$(dirname "$0")"
venv=../.venv-slither
if [ ! -x "$venv/bin/slither" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check slither-analyzer==0.11.6
fi
# It wants every source of the compiler's input at the path that the input names, and no foundry.toml above.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$venv/bin/python" - "$scratch" <<'PYTHON'
import json, pathlib, sys
scratch = pathlib.Path(sys.argv[1])
given = json.loads(pathlib.Path("../fl_node/ledger/artifact/ModelLedger.input.json").read_text())
for name, source in given["sources"].items():
    path = scratch / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source["content"])
given["settings"]["outputSelection"] = {"*": {"*": ["*"], "": ["ast"]}}
(scratch / "input.json").write_text(json.dumps(given))
PYTHON
config=$PWD/slither.config.json solc=$PWD/solc slither=$PWD/$venv/bin/slither
cd "$scratch"
"$slither" input.json --compile-force-framework solc-json --solc "$solc" --config-file "$config" --fail-pedantic "$@"
