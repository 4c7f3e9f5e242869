# Everything a person or CI types. `make help` lists it. The environment lives in .venv, the chain tools in
# hardhat-network/node_modules; both are made when missing or when what they are made from has changed. `npm install
# --no-save` keeps to the lock file, yet gets along with registries that lack other platforms' optional binaries.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
ARGS   ?=
# The oldest version that is allowed. Audits must come to the same digests under it as under the one of constraints.txt.
OLD_NUMPY := 2.0.2
# Google's accountant judges ours. It wants an older attrs than the rest, so it has a folder of its own.
DP_ACCOUNTING := dp-accounting==0.6.0 attrs==23.2.0 absl-py==2.3.1 dm-tree==0.1.9

.PHONY: help demo test soak check bench clean contract-test coverage slither vendor

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

demo: $(STAMPS)/install $(STAMPS)/chain  ## run a federation on this machine; ARGS="--peers 6 --rounds 3"
	@$(BIN)/fl-node demo $(ARGS)

test: $(STAMPS)/test $(STAMPS)/chain $(STAMPS)/old-numpy $(STAMPS)/dp-accounting  ## every test: Python, contract, other implementations
	$(MAKE) contract-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -q $(ARGS)

contract-test: $(STAMPS)/chain  ## forge tests, gas snapshot, coverage of the contract
	$(MAKE) -C hardhat-network test

coverage: $(STAMPS)/test $(STAMPS)/chain $(STAMPS)/old-numpy $(STAMPS)/dp-accounting  ## which lines of the Python packages the tests reach
	$(BIN)/python -m pytest -n 2 --dist loadgroup -q --cov=fl_node --cov=ledger_ui --cov-report=term-missing:skip-covered $(ARGS)

check: $(STAMPS)/test $(STAMPS)/chain  ## ruff, mypy --strict, import-linter, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

soak: $(STAMPS)/test $(STAMPS)/chain  ## long tests: fifty seeds of honest federations of every preset, audited
	FL_NODE_SOAK_SEEDS=50 $(BIN)/python -m pytest -n 2 -q tests/audit/test_audit_honest.py $(ARGS)

bench: $(STAMPS)/test $(STAMPS)/chain  ## measure; writes benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

slither: $(STAMPS)/chain  ## static analysis of the contract, in an environment of its own
	$(MAKE) -C hardhat-network slither

vendor: $(STAMPS)/venv  ## fetch the explorer's front-end libraries again, as pinned in scripts/vendor_ui.py
	$(BIN)/python scripts/vendor_ui.py

clean:  ## remove what make made; never a state folder
	rm -rf $(VENV) hardhat-network/node_modules hardhat-network/out hardhat-network/cache tests/js/node_modules tests/js/*/node_modules \
	  tests/browser/node_modules \
	  build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/install: $(STAMPS)/venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,private,kubo,simulate,ui]'
	@touch $@

$(STAMPS)/test: $(STAMPS)/install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,private,kubo,simulate,compile,ui,test]'
	@touch $@

$(STAMPS)/old-numpy: $(STAMPS)/venv Makefile
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/old-numpy numpy==$(OLD_NUMPY)
	@touch $@

$(STAMPS)/dp-accounting: $(STAMPS)/test Makefile
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/dp-accounting $(DP_ACCOUNTING)
	@touch $@

$(STAMPS)/chain: $(STAMPS)/venv hardhat-network/package-lock.json
	npm install --no-save --prefix hardhat-network --no-audit --no-fund --loglevel=error
	@touch $@
