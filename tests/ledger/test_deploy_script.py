"""``scripts/deploy_contract.py``, run as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import funded_signer

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain
from fl_node.deployment import read_genesis
from fl_node.errors import SpecError
from fl_node.ledger.deploy import check_code, committed_artifact
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, without_credentials
from fl_node.records import PeerState, Role
from fl_node.spec import MARKER, genesis_path, read_federation

ROOT = Path(__file__).resolve().parents[2]
SPEC_TEXT = '# héllo\nname = "deploy test"\n\n[rounds]\nmin_interval_s = 3\n'


def run(chain: DevChain, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "deploy_contract.py"), "--rpc", chain.rpc_url, *arguments]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(SPEC_TEXT)
    return path


def test_it_deploys_funds_and_writes_the_federation_file(anvil: DevChain, spec: Path, tmp_path: Path) -> None:
    owner, poor = FUNDERS[5][0], keys.create(tmp_path / "poor.json", "x", light=True)
    member = f"{poor.address.lower()}:Spital Zürich"
    done = run(
        anvil, "--spec", str(spec), "--owner", owner, "--member", member, "--member", FUNDERS[6][0], "--fund", "0.25"
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "federation.deployed.toml"
    raw = out.read_bytes()
    assert raw.startswith(SPEC_TEXT.encode() + MARKER.encode())
    federation = read_federation(out)
    assert federation.deployment is not None
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line.strip())
    assert shown["address"] == federation.deployment.contract
    assert shown["block"] == str(federation.deployment.first_block)
    assert int(shown["gas"]) > 1_000_000
    reader = RpcReader(federation.deployment, federation.digest)
    first, second = reader.peers()
    assert first == PeerState(1, poor.address, "Spital Zürich", Role.ALL, 0, 0, 1, None)
    assert second.site == FUNDERS[6][0][:10]
    assert reader.balance(poor.address) == 25 * 10**16
    genesis = read_genesis(genesis_path(out))
    assert (reader.identity.genesis_content, reader.identity.genesis_weights) == (genesis.content, genesis.weights)
    assert reader.identity.min_interval_s == 3
    assert spec.read_text() == SPEC_TEXT

    again = run(anvil, "--spec", str(spec))
    assert again.returncode == 2 and "--force" in again.stderr and out.read_bytes() == raw
    forced = run(anvil, "--spec", str(spec), "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    facts = json.loads(forced.stdout)
    assert facts["address"] != federation.deployment.contract
    assert read_federation(out).deployment.contract == facts["address"]  # type: ignore[union-attr]
    assert facts["spec_digest"] == federation.digest.hex()


def test_it_pays_with_a_keystore(anvil: DevChain, spec: Path, tmp_path: Path) -> None:
    signer = funded_signer(anvil)
    keys.store(tmp_path / "key.json", signer._account.key, "secret", light=True)
    out = tmp_path / "elsewhere" / "f.toml"
    arguments = ("--spec", str(spec), "--key", str(tmp_path / "key.json"), "--out", str(out), "--json")
    wrong = run(anvil, *arguments, FL_NODE_PASSWORD="wrong")
    assert wrong.returncode == 5 and "does not open" in wrong.stderr and not out.exists()
    done = run(anvil, *arguments, FL_NODE_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    deployment = read_federation(out).deployment
    assert deployment is not None
    peerless = RpcReader(deployment, None)
    assert peerless.peers() == []
    assert peerless.balance(signer.address) < 100 * 10**18


def test_bad_values_cost_nothing(anvil: DevChain, spec: Path, tmp_path: Path) -> None:
    before = Rpc(anvil.rpc_url).call("eth_blockNumber")
    bad_spec = tmp_path / "bad.toml"
    bad_spec.write_text('name = "x"\nbogus = 1\n')
    no_newline = tmp_path / "open.toml"
    no_newline.write_text('name = "x"')
    for arguments, status, told in (
        (("--spec", str(bad_spec)), 3, "bogus"),
        (("--spec", str(no_newline)), 3, "newline"),
        (("--spec", str(tmp_path / "none.toml")), 3, "cannot read"),
        (("--spec", str(spec), "--member", "0x12:a"), 2, "expected ADDRESS"),
        (("--spec", str(spec), "--fund", "lots"), 2, "expected an amount"),
        (("--spec", str(spec), "--key", str(tmp_path / "none.json")), 5, "no key at"),
    ):
        done = run(anvil, *arguments)
        assert (done.returncode, told in done.stderr, done.stdout) == (status, True, ""), done.stderr
    assert Rpc(anvil.rpc_url).call("eth_blockNumber") == before


def test_compiling_gives_the_committed_artifact(anvil: DevChain, spec: Path) -> None:
    """The script compares what is on the chain with what it compiled; here that is compared with what is committed."""
    done = run(anvil, "--spec", str(spec), "--compile", "--json")
    assert done.returncode == 0, done.stderr
    check_code(Rpc(anvil.rpc_url), json.loads(done.stdout)["address"], committed_artifact())


def test_the_file_for_everybody_has_no_credentials_of_the_deployers_endpoint(
    anvil: DevChain, spec: Path, tmp_path: Path
) -> None:
    secret = anvil.rpc_url.replace("://", "://user:s3cret@") + "/?apikey=t0psecret"
    done = run(anvil, "--rpc", secret, "--spec", str(spec), "--owner", FUNDERS[5][0])
    assert done.returncode == 0, done.stderr
    written = read_federation(tmp_path / "federation.deployed.toml").deployment
    assert written is not None and written.rpc.rstrip("/") == anvil.rpc_url
    assert without_credentials("https://node.example:8545/path") == "https://node.example:8545/path"


@pytest.mark.parametrize(
    "table", ["[rounds]\ndeadline_s = inf", "[rounds]\nlinger_s = inf", "[content]\nfetch_timeout_s = inf"]
)
def test_seconds_without_end_are_refused(tmp_path: Path, table: str) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(table + "\n")
    with pytest.raises(SpecError, match="_s = inf: input should be less than or equal to"):
        read_federation(path)
