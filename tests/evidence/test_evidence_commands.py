"""A real federation on a real chain: packed by the demo, packed again from its chain, checked without either."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packs import taken_apart

from fl_node.__main__ import main
from fl_node.chains import DevChain

pytestmark = pytest.mark.xdist_group("evidence")

OFFLINE = Path(__file__).parent / "offline.py"
#: Made by `make test`, as are the chain's tools.
OLD_NUMPY = Path(sys.prefix) / "old-numpy"


@dataclass(frozen=True)
class Packed:
    folder: Path
    pack: Path
    result: dict[str, Any]

    @property
    def content(self) -> list[str]:
        return [part for site in "abc" for part in ("--content", str(self.folder / f"site-{site}"))]

    @property
    def identity(self) -> list[str]:
        """A member's keys, exported once."""
        path = self.folder.parent / "member.key"
        if not path.exists():
            words = ("keys", "export", "--state", self.folder / "site-b", "--output", path)
            run = fl_node(*words, FL_NODE_PASSWORD="demo")
            assert run.returncode == 0, run.stderr
        return ["--identity", str(path)]

    @property
    def checkpoints(self) -> list[str]:
        """What each peer signed last."""
        notes = [max(self.folder.glob(f"site-{site}/checkpoints/own-*.note")) for site in "abc"]
        return [part for note in notes for part in ("--checkpoint", str(note))]


@pytest.fixture(scope="module")
def demo() -> Iterator[Packed]:
    # Short, for the fork server's socket lies in it.
    scratch = Path(tempfile.mkdtemp(prefix="fl-pack-"))
    folder, pack = scratch / "kept", scratch / "demo.zip"
    command = ["demo", "--peers", "3", "--rounds", "2", "--mode", "sync", "--state", folder, "--export", pack]
    run = fl_node(*command, "--no-baselines", "--json", "-", TMPDIR=str(scratch))
    assert run.returncode == 0, run.stderr
    yield Packed(folder, pack, json.loads(run.stdout))
    shutil.rmtree(scratch, ignore_errors=True)


def fl_node(*argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_node", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def offline(*argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Where no socket can be opened."""
    command = [sys.executable, str(OFFLINE), *map(str, argv)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert "Traceback" not in run.stderr and "a socket" not in run.stderr, run.stderr
    return run


def test_the_demo_packs_itself(demo: Packed) -> None:
    told = demo.result["pack"]
    assert told["file"] == str(demo.pack) and told["missing"] == [] and told["size_bytes"] == demo.pack.stat().st_size
    files = taken_apart(demo.pack)
    table = json.loads(files["manifest.json"])
    assert table["head"]["root"] == demo.result["root"].removeprefix("0x")
    assert table["head"]["size"] == demo.result["entries"] and table["scope"] == {"kind": "all"} and table["blobs"]
    assert sum(name.startswith("blobs/") for name in files) == demo.result["updates"] == 9
    notes = [raw for name, raw in files.items() if name.startswith("checkpoints/")]
    assert sorted(notes) == sorted(Path(name).read_bytes() for name in demo.checkpoints[1::2])
    assert files["federation.toml"] == (demo.folder / "federation.toml").read_bytes()
    assert files["genesis.safetensors"] == (demo.folder / "federation.genesis.safetensors").read_bytes()


def test_a_demo_refuses_a_pack_that_is_there_before_it_starts(demo: Packed, tmp_path: Path) -> None:
    for name, words in ((demo.pack, "it exists"), (tmp_path / "missing" / "x.zip", "no folder")):
        run = fl_node("demo", "--export", name)
        assert run.returncode == 2 and words in run.stderr and "chain" not in run.stderr


def test_verify_without_network_torch_or_chain(demo: Packed) -> None:
    run = offline("verify", demo.pack)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "loaded: []" in run.stderr
    assert "verdict     ok" in run.stdout and "what only the chain can add" in run.stdout
    assert demo.result["root"] in run.stdout
    told = json.loads(offline("verify", demo.pack, "--json", "--completeness").stdout)
    assert told["verdict"] == "ok" and told["facts"]["pack"] == demo.result["pack"]["digest"]
    assert len(told["updates"]) == 9 and "completeness" in told
    wanted = {
        "included",
        "consistent",
        "bytes",
        "well-formed",
        "commitment",
        "merge",
        "selection",
        "membership",
        "report",
    }
    for update in told["updates"]:
        results = {one["check"]: one["result"] for one in update["findings"]}
        assert {results[check] for check in wanted} == {"ok"}
        signed = next(one for one in update["findings"] if one["check"] == "canonical")
        assert signed["result"] == "unknown" and signed["asked"] is False and signed["data"]["signer"].startswith("0x")


def test_one_or_two_threads_and_two_numpys_come_to_the_same(demo: Packed) -> None:
    assert (OLD_NUMPY / "numpy").is_dir(), (
        "expected another numpy in the environment: run `make .venv/stamps/old-numpy`"
    )
    reports, versions = set(), set()
    for jobs in ("1", "2"):
        for path in ("", str(OLD_NUMPY)):
            run = offline(*("verify", demo.pack, "--json", "--jobs", jobs), PYTHONPATH=path, OMP_NUM_THREADS=jobs)
            assert run.returncode == 0, run.stderr
            versions.add(run.stderr.rsplit(" ", 1)[1])
            told = json.loads(run.stdout)
            assert set(told.pop("seconds"))
            reports.add(json.dumps(told))
    assert len(versions) == 2 and len(reports) == 1


def test_an_altered_pack_is_told_in_words_and_as_json(demo: Packed, tmp_path: Path) -> None:
    path = tmp_path / "altered.zip"
    raw = bytearray(demo.pack.read_bytes())
    at = raw.index(b'"index":7,')
    raw[at + 1] ^= 1
    path.write_bytes(raw)
    run = offline("verify", path)
    assert run.returncode == 40 and "log/000000.jsonl: entry 7" in run.stderr
    run = offline("verify", path, "--json")
    told = json.loads(run.stdout)
    assert run.returncode == 40 and told["verdict"] == "failed"
    assert told["altered"] == [{"file": "log/000000.jsonl", "concerns": ["entry 7"]}]
    path.write_bytes(raw[:-5])
    assert offline("verify", path).returncode == 43


def test_export_from_the_chain_is_the_demos_pack_again(
    demo: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(*argv: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["export", "--federation", str(demo.folder / "federation.toml"), *map(str, argv)]) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "defect" not in said.err
        return said.out + said.err

    port = int(demo.result["rpc"].rsplit(":", 1)[1])
    out = tmp_path / "again.zip"
    with DevChain.start("anvil", port=port, state=demo.folder / "anvil.json"):
        said = export(*demo.content, *demo.checkpoints, *demo.identity, "--all", "--blobs", "--out", out)
        assert demo.result["pack"]["digest"] in said and "IN THE CLEAR" in said
        assert out.read_bytes() == demo.pack.read_bytes()
        assert "exists" in export(*demo.content, "--all", "--out", out, code=2)
        one = (*demo.content, "--update", "2#2", "--blobs", "--out", out, "--force")
        told = export(*one, *demo.identity, "--json")
        assert "WARNING" in told  # on stderr, before what a machine reads
        told = json.loads(told[: told.rindex("}") + 1])
        assert told["updates"] == 1 and told["missing"] == [] and told["file"] == str(out)
        assert told["in_the_clear"] == told["weights"] > 1
        sealed = export(*demo.content, "--update", "2#2", "--blobs", "--out", tmp_path / "sealed.zip")
        assert "CLEAR" not in sealed
        state = ("--state", demo.folder / "site-c")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FL_NODE_PASSWORD", "demo")
            export(*demo.content, *state, "--update", "2#2", "--blobs", "--out", tmp_path / "state.zip")
        assert (tmp_path / "state.zip").read_bytes() == out.read_bytes()
        # The peers are gone, and no folder is named.
        assert "without --blobs" in export("--round", 2, "--blobs", "--out", tmp_path / "none.zip", code=21)
        assert not (tmp_path / "none.zip").exists()
        assert "not in it: report of" in export("--round", 2, "--out", tmp_path / "bare.zip")
        for wrong in (("--update", "x"), ("--update", "7#7"), ("--round", "9")):
            export(*wrong, "--out", tmp_path / "wrong.zip", code=2)
    found = json.loads(offline("verify", out, "--json").stdout)
    assert [one["update"] for one in found["updates"]] == ["2#2"] and found["verdict"] == "ok"
    assert found["facts"]["scope"] == "update 2#2"
    run = offline("verify", tmp_path / "sealed.zip")
    assert run.returncode == 41 and "--identity" in run.stderr
    assert offline("verify", tmp_path / "sealed.zip", *demo.identity).returncode == 0
    # Without weights not all can be known, which is another exit code than a failure.
    run = offline("verify", tmp_path / "bare.zip")
    assert run.returncode == 41 and "Get a pack of more" in run.stderr and "pack        " in run.stdout
    assert offline("verify", tmp_path / "bare.zip", "--checks", "included,selection,membership").returncode == 0
