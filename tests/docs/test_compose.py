"""What can be checked of the container files without a container engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from doc_pages import ROOT, commands, options

from fl_node.chains import DevChain

FOLDER = ROOT / "deploy" / "compose"


def test_files_that_the_image_needs_exist() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", (FOLDER / "Dockerfile").read_text(), re.M)
        for name in line.split()[:-1]
    ]
    assert len(copied) > 5
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_compose_names_files_options_and_addresses_that_exist() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    mounted = re.findall(r'"(\.\.?/[^:"]+):', text)
    assert len(mounted) == 3
    assert [name for name in mounted if not (FOLDER / name).exists()] == []
    runs = [re.findall(r'"?([^\s,"]+)"?', line) for line in re.findall(r"command: \[(run, .*)\]", text)]
    assert len(runs) == 3
    for words in runs:
        assert {word for word in words if word.startswith("--")} <= options(commands()["run"])
    announced = re.findall(r"--endpoint, \"http://([\d.]+):(\d+)\"", text)
    assert [address for address, _ in announced] == re.findall(r"ipv4_address: (172\.28\.0\.1[1-9])", text)
    spec = tomllib.loads((FOLDER / "federation.toml").read_text())
    assert spec["content"]["allow_networks"] == re.findall(r"subnet: ([\d./]+)", text)


@pytest.mark.xdist_group("readme")
def test_setup_deploys_with_three_members_and_only_once(tmp_path: Path) -> None:
    for name in ("federation", "state", "setup"):
        (tmp_path / name).mkdir()
    (tmp_path / "password").write_text("only-for-trying\n")
    for source in (FOLDER / "federation.toml", ROOT / "examples" / "deal.py"):
        (tmp_path / "setup" / source.name).write_bytes(source.read_bytes())
    deployed = tmp_path / "federation" / "federation.deployed.toml"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FL_NODE_")}
    with DevChain.start("anvil") as chain:
        environment = {
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}",
            "FEDERATION": str(tmp_path / "federation"),
            "STATE": str(tmp_path / "state"),
            "SETUP": str(tmp_path / "setup"),
            "SCRIPTS": str(ROOT / "scripts"),
            "RPC": chain.rpc_url,
            "FL_NODE_PASSWORD_FILE": str(tmp_path / "password"),
            "FL_NODE_FEDERATION": str(deployed),
        }

        def shell(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

        first = shell("sh", str(FOLDER / "setup.sh"))
        assert first.returncode == 0, first.stdout + first.stderr
        before = deployed.read_bytes()
        again = shell("sh", str(FOLDER / "setup.sh"))
        assert again.returncode == 0 and "deployed already" in again.stdout
        assert deployed.read_bytes() == before
        peers = json.loads(shell("fl-node", "peers", "--json").stdout)
    assert [peer["site"] for peer in peers] == ["hospital-a", "hospital-b", "hospital-c"]
    for site in "abc":
        settings = tomllib.loads((tmp_path / "state" / site / "node.toml").read_text())
        assert settings["federation"] == str(deployed) and settings["data"] == "csv:/state/data.csv"
        assert (tmp_path / "state" / site / "data.csv").is_file()
