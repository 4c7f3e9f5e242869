#!/usr/bin/env bash
# Coverage of the contracts; fails below 100 percent of lines, statements, branches or functions of any of them.
set -euo pipefail
cd "$(dirname "$0")/.."
export FOUNDRY_CONFIG="$PWD/hardhat-network/foundry.toml"
forge=$(compgen -G "hardhat-network/node_modules/@foundry-rs/forge-*/bin/forge" || echo forge)
FORGE_SNAPSHOT_EMIT=false "$forge" coverage --report summary | tee hardhat-network/out/coverage.txt | grep -E '^\| (File|contracts/|Suite)|FAIL' || true
if grep -q 'FAIL' hardhat-network/out/coverage.txt; then
  echo "coverage: a test failed" >&2
  exit 1
fi
rows=$(grep -E '^\| contracts/' hardhat-network/out/coverage.txt)
test "$(wc -l <<<"$rows")" -ge 5
if grep -vE '^\| contracts/\S+ +(\| +(100\.00%|[0-9.]+% \(0/0\)) [^|]*){4}\|$' <<<"$rows"; then
  echo "coverage: below 100 percent in the files above" >&2
  exit 1
fi
