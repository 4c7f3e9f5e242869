"""Policies that do not fit the peers are refused before a contract is paid for, and named by doctor afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain, call
from fl_node.spec import read_federation

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS = [account for account, _ in FUNDERS]
ROBUST = '[merging]\nselection = "top-k"\nk = 4\naggregation = "trimmed-mean"\nbyzantine = 2\n'


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with DevChain.start("anvil") as running:
        yield running


def deploy(chain: DevChain, folder: Path, spec: str, members: list[str], *more: object) -> tuple[int, str, Path]:
    path = folder / "federation.toml"
    path.write_text(spec)
    argv = [sys.executable, str(ROOT / "scripts" / "deploy_contract.py"), "--rpc", chain.rpc_url, "--spec", str(path)]
    for member in members:
        argv += ["--member", member]
    done = subprocess.run([*argv, *map(str, more)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr, folder / "federation.deployed.toml"


def blocks(chain: DevChain) -> int:
    return int(call(chain.rpc_url, "eth_blockNumber"), 16)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ('[merging]\nselection = "random-k"\nk = 3\n', "k = 3: there are 2 other peers"),
        ('[merging]\naggregation = "krum"\nbyzantine = 1\n', "expected at least 2 x 1 + 3 = 5"),
        (
            '[merging]\nselection = "graph"\ngraph = "edges"\nedges = [[1, 2], [2, 5]]\n',
            "names 5, who are not admitted",
        ),
        ('[merging]\nselection = "ring"\nrings = [[1, 2], [2, 3, 4]]\n', "names 4, who are not admitted"),
        ('[merging]\nselection = "ring"\ninitiator = 7\n', "names 7, who are not admitted"),
    ],
)
def test_a_deployment_that_cannot_work_is_refused(chain: DevChain, tmp_path: Path, spec: str, words: str) -> None:
    before = blocks(chain)
    code, err, out = deploy(chain, tmp_path, spec, ACCOUNTS[:3])
    assert code == 3 and words in err and "--peers N" in err, err
    assert blocks(chain) == before and not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["federation.toml"]


def test_peers_may_be_fewer_than_named_never_more(chain: DevChain, tmp_path: Path) -> None:
    code, err, _ = deploy(chain, tmp_path, ROBUST, ACCOUNTS[:3], "--peers", 2)
    assert code == 2 and "--peers 2: expected from the 3 given with --member" in err


def test_a_graph_in_parts_is_deployed_with_a_warning(chain: DevChain, tmp_path: Path) -> None:
    edges = '[merging]\nselection = "graph"\ngraph = "edges"\nedges = [[1, 2], [3, 4]]\n'
    code, err, out = deploy(chain, tmp_path, edges, ACCOUNTS[:4])
    assert code == 0 and out.exists()
    assert "warning: the graph 'edges' falls into 2 parts" in err and "peers 1, 2; peers 3, 4" in err


def test_doctor_says_when_there_are_too_few_peers(chain: DevChain, tmp_path: Path) -> None:
    state = tmp_path / "state"
    signer = keys.create(state / "key.json", "x", light=True)
    code, err, out = deploy(chain, tmp_path, ROBUST, [signer.address, *ACCOUNTS[:2]], "--peers", 7)
    assert code == 0 and "warning" not in err and read_federation(out).deployment is not None
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FL_NODE_")}
    argv = [sys.executable, "-m", "fl_node", "doctor", "--federation", str(out), "--state", str(state), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, env=clean, check=False)
    (found,) = [item for item in json.loads(done.stdout) if item["name"] == "policies"]
    assert found["result"] == "failed" and "k = 4: there are 2 other peers" in found["message"]
    assert "admit" in found["mend"] and done.returncode == 1
