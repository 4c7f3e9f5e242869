"""The artifact that the package carries is what the sources compile to, and what runs on a chain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3

from benchmarks.gas import LIMITS, Federation, summarise
from fl_node.chains import KINDS, ChainKind, DevChain
from scripts import build_artifact

ROOT = Path(__file__).resolve().parents[2]


def _read(name: str) -> Any:
    return json.loads((build_artifact.ARTIFACT_DIR / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def artifact() -> Any:
    return _read("ModelLedger.json")


def test_the_sources_compile_to_the_artifact(artifact: Any) -> None:
    given = build_artifact.standard_input()
    assert _read("ModelLedger.input.json") == given
    assert build_artifact.compile_artifact(given) == artifact


def test_forge_uses_the_same_settings() -> None:
    import tomllib

    profile = tomllib.loads((ROOT / "hardhat-network" / "foundry.toml").read_text())["profile"]["default"]
    settings = build_artifact.SETTINGS
    assert profile["evm_version"] == settings["evmVersion"]
    assert profile["optimizer_runs"] == settings["optimizer"]["runs"]
    assert profile["via_ir"] == settings["viaIR"]
    assert profile["bytecode_hash"] == settings["metadata"]["bytecodeHash"]


def test_every_member_of_the_interface_is_documented() -> None:
    text = (ROOT / "contracts" / "IModelLedger.sol").read_text(encoding="utf-8")
    for match in re.finditer(
        r"((?:^    ///.*\n)*)^    (event|error|function|struct) (\w+)([^;{]*)", text, re.MULTILINE
    ):
        comment, kind, name, rest = match.groups()
        assert comment, f"{kind} {name} has no comment"
        if kind == "struct":
            continue
        arguments = re.search(r"\(([^)]*)\)", rest)
        assert arguments is not None
        for argument in filter(None, (part.strip() for part in arguments[1].split(","))):
            assert f"@param {argument.split()[-1]} " in comment, f"{kind} {name} does not document {argument!r}"
    for struct in re.finditer(r"^    struct (\w+) \{\n(.*?)^    \}", text, re.MULTILINE | re.DOTALL):
        lines = struct[2].splitlines()
        fields = [index for index, line in enumerate(lines) if line.endswith(";")]
        assert fields
        for index in fields:
            assert lines[index - 1].lstrip().startswith("///"), f"{struct[1]}: {lines[index]} has no comment"


def test_every_error_has_arguments(artifact: Any) -> None:
    errors = [entry for entry in artifact["abi"] if entry["type"] == "error"]
    assert len(errors) >= 25
    assert [entry["name"] for entry in errors if not entry["inputs"]] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_on_chain_is_the_artifacts_and_costs_what_it_may(kind: ChainKind, artifact: Any) -> None:
    with DevChain.start(kind) as chain:
        web3 = Web3(Web3.HTTPProvider(chain.rpc_url))
        federation = Federation.deploy(web3)
        code = web3.eth.get_code(federation.contract.address)
        federation.play(10)
    assert code == bytes.fromhex(artifact["deployedBytecode"].removeprefix("0x"))
    measured = summarise(federation.gas)
    for name, limit in LIMITS.items():
        median = measured[name]["median"]
        assert median is not None and median <= limit, (name, median)
