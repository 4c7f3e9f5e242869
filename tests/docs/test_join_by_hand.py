"""The README's walk through a federation by hand, run as it stands: a chain, three sites, an auditor."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks

INSTALL = 'make demo ARGS="--rounds 1 --no-baselines"'
AFTER = """
fl-node status --json > status.json
python ../examples/model.py
"""


@pytest.mark.xdist_group("readme")
def test_join_by_hand_as_the_readme_says(tmp_path: Path) -> None:
    walk = [block.text for block in blocks(ROOT / "README.md") if block.name == "join"]
    assert len(walk) == 10
    script = "\n".join(walk)
    # Installed already; everything else runs as it stands, on a port that is free here.
    assert INSTALL in script
    script = re.sub(rf"^{re.escape(INSTALL)}.*$", "", script, flags=re.M)
    assert script.count("8545") == 2
    script = script.replace("8545", str(free_port()))
    for name in ("examples", "scripts", "hardhat-network"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)

    code, output = run_shell("set -euo pipefail\n" + script + AFTER, tmp_path)

    assert code == 0, output
    status = json.loads((tmp_path / "try" / "status.json").read_text())
    assert (status["members"], status["closed"], status["highest_round"]) == (3, 3, 4)
    assert (tmp_path / "try" / "model.safetensors").stat().st_size > 64 * 10 * 4
    digests = re.findall(r"^(?:0x|\()?(?:0x)?([0-9a-f]{64})\b", output, re.M)
    spec_file, spec_chain, model_file, model_chain = digests[-4:]
    assert spec_file == spec_chain, "the spec's SHA-256 is in the contract"
    assert model_file == model_chain, "the content digest of a small model is its SHA-256"
    assert f"0x{status['root'].removeprefix('0x')}" in output, "cast and fl-node name the same root"
    assert "Linear(in_features=64, out_features=10" in output
    assert output.count("verdict     ok") == 3, "two audits and a pack"
    assert "made from 9 updates of 3 sites" in output, "the closing update of three rounds"


def run_shell(script: str, folder: Path) -> tuple[int, str]:
    """Run a script with everything it starts in one process group, and leave none of it behind."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FL_NODE_")}
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env={
            **clean,
            "FL_NODE_LOCKS": str(folder / "locks"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=(folder / "out").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=240)
    except subprocess.TimeoutExpired:
        code = -1
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue
    return code, (folder / "out").read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
