#!/usr/bin/env bash
# Slither over the contracts, in an environment of its own: it needs an older web3 than the package. Fails on any finding
# that slither.config.json does not name; each exclusion is explained there.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-slither
if [ ! -x "$venv/bin/slither" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check slither-analyzer==0.11.5
fi
exec "$venv/bin/slither" contracts/ModelLedger.sol --config-file hardhat-network/slither.config.json \
  --solc "$PWD/hardhat-network/slither-solc" --fail-pedantic
