"""Readers of a log start fast: no web3, no eth_account, no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("web3", "eth_account", "eth_abi", "requests", "torch")


@pytest.mark.parametrize("module", ["index", "memory", "tree", "codec", "calls", "views", "rpc", "sender", "deploy"])
def test_importing_pulls_in_nothing_heavy(module: str) -> None:
    script = f"import sys, fl_node.ledger.{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
