"""Peak memory of a peer at a 100 MB model: real processes of `fl-node run`, five peers, two rounds.

    .venv/bin/python -m benchmarks.memory [--peers 5] [--rounds 2]

The baseline is a process that imports what a peer imports and trains nothing. Memory is the peak resident set size that
the kernel reports for a finished process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import write_results
from fl_node import keys
from fl_node.chains import FUNDERS, DevChain, set_balance
from fl_node.config import write_config
from fl_node.deployment import open_federation, write_genesis
from fl_node.ledger.transport import Rpc
from fl_node.records import Member
from fl_node.spec import genesis_path, read_federation

SPEC = """name = "memory"
[task]
input_shape = [784]
classes = 10
[model]
name = "mlp"
hidden = [6000, 3380]
[training]
batch_size = 64
learning_rate = 0.01
[rounds]
planned = {rounds}
mode = "sync"
[content]
allow_networks = ["127.0.0.0/8"]
"""
BASELINE = "import fl_node.demo.preload"


def peak_mb(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def reaped(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Exit status and peak resident set size in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    environment = {**os.environ, "FL_NODE_PASSWORD": "bench", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name, DevChain.start("anvil") as chain:
        folder = Path(name)
        spec_file, out = folder / "spec.toml", folder / "federation.toml"
        spec_file.write_text(SPEC.format(rounds=arguments.rounds))
        random = np.random.default_rng(0)
        states, members = [], []
        for number in range(arguments.peers):
            state = folder / f"peer-{number}"
            state.mkdir()
            np.savez(state / "data.npz", x=random.random((640, 784), "f4"), y=random.integers(0, 10, 640))
            members.append(Member(keys.create(state / "key.json", "bench", light=True).address, state.name))
            write_config(
                state / "node.toml",
                {"federation": str(out), "data": f"npz:{state / 'data.npz'}", "poll_s": 0.1, "threads": 1},
            )
            states.append(state)
        federation = read_federation(spec_file)
        genesis = write_genesis(federation.spec, genesis_path(out))
        model_mb = genesis.path.stat().st_size / 1e6
        deployer = keys.from_private_key(FUNDERS[0][1])
        open_federation(federation, Rpc(chain.rpc_url), deployer, genesis, members=members, out=out)
        for member in members:
            set_balance(chain.rpc_url, "anvil", member.account, 10**19)
        _, baseline = reaped(peak_mb([sys.executable, "-c", BASELINE], environment))
        began = time.perf_counter()
        running = [
            peak_mb([sys.executable, "-m", "fl_node", "run", "--state", str(state)], environment) for state in states
        ]
        ended = [reaped(process) for process in running]
        wall = time.perf_counter() - began
    assert all(code == 0 for code, _ in ended), f"a peer failed: {ended}"
    peak = max(mb for _, mb in ended)
    ratio = (peak - baseline) / model_mb
    write_results(
        "memory",
        "python -m benchmarks.memory",
        {
            "model_mb": round(model_mb, 1),
            "baseline_mb": round(baseline, 1),
            "peak_mb": round(peak, 1),
            "models_beyond_baseline": round(ratio, 2),
            "target": 6.0,
            "wall_s": round(wall, 1),
            "peers": arguments.peers,
            "rounds": arguments.rounds,
        },
    )


if __name__ == "__main__":
    main()
