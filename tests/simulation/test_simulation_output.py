"""The folder of results: what is in it, that it can be gone on with, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_node.cli.simulate import summary
from fl_node.errors import FlNodeError, StoreFull, UsageError
from fl_node.simulation import Row, Settings, simulate
from fl_node.simulation.progress import lines, score
from fl_node.simulation.ticks import Ticks
from fl_node.spec import read_federation

SMALL = Settings(preset="trust", peers=(3, 4), rounds=2, epochs=1, seeds=2, evaluate="every", threads=1)


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_node", "simulate", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulation") / "out"
    simulate(replace(SMALL, out=path, baselines=True))
    return path


def test_what_is_in_the_folder(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "rounds.csv").open()))
    assert len(rows) == 2 * 3 * (3 + 4)
    assert {"own_accuracy", "common_macro_f1", "common_loss", "fetched_bytes", "seconds"} <= rows[0].keys()
    lines = (folder / "runs" / "peers-3-seed-1" / "rounds.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 9 and len(first["common"]["confusion"]) == 10
    result = json.loads((folder / "result.json").read_text())
    assert len(result["accuracy"]["per_peer"]) == 3 and len(result["runs"]) == 4
    assert result["bytes"]["fetched"] > 0 and result["seconds"]["total"] > 0
    assert set(result["by_peers"]) == {"3", "4"} and result["by_peers"]["4"]["pooled"] > 0.5
    assert read_federation(folder / "spec-4.toml").spec.merging.aggregation == "trust"
    assert json.loads((folder / "config.json").read_text())["settings"]["preset"] == "trust"


def test_the_report_shows_every_picture(folder: Path) -> None:
    report = (folder / "report.md").read_text()
    for name in ("accuracy", "peers", "trust", "confusion", "bytes", "size"):
        assert f"plots/{name}.png" in report
        assert (folder / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert "| 3 | 2 |" in report and "| 4 | 2 |" in report


def test_a_finished_run_is_not_run_again(folder: Path) -> None:
    told: list[tuple[int, int, int]] = []
    settings = replace(SMALL, out=folder, baselines=True, seeds=3)
    again = simulate(settings, lambda peers, seed, rows: told.append((peers, seed, len(rows))))
    assert {(peers, seed) for peers, seed, rows in told if rows} == {(3, 2), (4, 2)}
    fresh = simulate(replace(SMALL, baselines=True, seeds=3))
    shown: list[list[Any]] = []
    for result in (again, fresh):
        shown.append([{**row.as_json(), "seconds": 0} for one in result.runs for row in one.rows])
    assert shown[0] == shown[1]
    assert [one.alone for one in again.runs] == [one.alone for one in fresh.runs]


def test_an_interrupted_simulation_goes_on(tmp_path: Path) -> None:
    def interrupt(peers: int, seed: int, rows: list[Row]) -> None:
        if (peers, seed) == (3, 1) and rows and rows[0].tick == 1:
            raise KeyboardInterrupt

    settings = replace(SMALL, out=tmp_path / "out")
    stopped = simulate(settings, interrupt)
    assert stopped.interrupted and [(one.peers, one.seed) for one in stopped.runs] == [(3, 0)]
    # What was played of the run under way is there too.
    assert len((tmp_path / "out" / "runs" / "peers-3-seed-1" / "rounds.jsonl").read_text().splitlines()) == 6
    assert "Unfinished: 1 of 4 runs" in (tmp_path / "out" / "report.md").read_text()
    whole = simulate(settings)
    assert not whole.interrupted and len(whole.runs) == 4
    assert "Unfinished" not in (tmp_path / "out" / "report.md").read_text()


def test_a_run_that_cannot_go_on_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Ticks.run

    def failing(self: Ticks) -> Any:
        if self.world.cast.seed == 1:
            raise FlNodeError("nobody can act")
        return plain(self)

    monkeypatch.setattr(Ticks, "run", failing)
    with pytest.raises(FlNodeError, match="nobody can act"):
        simulate(replace(SMALL, peers=(3,), out=tmp_path))
    assert len(json.loads((tmp_path / "result.json").read_text())["runs"]) == 1
    assert "Unfinished: 1 of 2 runs" in (tmp_path / "report.md").read_text()


def test_results_of_other_settings_are_not_mixed(folder: Path) -> None:
    with pytest.raises(UsageError, match="rounds 2 there, 3 now"):
        simulate(replace(SMALL, out=folder, baselines=True, rounds=3))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFull, match="name another folder"):
        simulate(replace(SMALL, out=tmp_path / "file"))


def test_without_matplotlib_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_node.simulation.plots.available", lambda: False)
    simulate(replace(SMALL, peers=(3,), seeds=1, out=tmp_path))
    assert "matplotlib is not installed" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "plots").exists()


def test_the_command_prints_json_and_nothing_else() -> None:
    done = run("--preset", "gossip", "--peers", 3, "--rounds", 2, "--epochs", 1, "--set", "merging.k=1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["accuracy"]["per_peer"]) == 3 and told["accuracy"]["std"] >= 0
    assert told["accuracy"]["mean"] == pytest.approx(sum(told["accuracy"]["per_peer"]) / 3)
    assert told["seconds"]["total"] > 0 and told["bytes"]["fetched"] > 0
    assert "run 1 of 1" in done.stderr


def test_the_command_tells_a_person() -> None:
    done = run("--peers", "3,4", "--rounds", 1, "--epochs", 1, "--baselines")
    assert done.returncode == 0, done.stderr
    for words in ("3 peers, 1 seed", "4 peers, 1 seed", "common test accuracy", "trained pooled", "trained alone"):
        assert words in done.stdout


def test_masks_are_told_of_by_their_dice(tmp_path: Path) -> None:
    canvas = {"task.input_shape": (16, 16), "model.hidden": (4,)}
    settings = Settings(
        dataset="digits-canvas", peers=(2,), rounds=1, overrides=canvas, out=tmp_path, threads=1, baselines=True
    )
    result = simulate(settings)
    dice = [one.dice for one in result.runs[0].common if one is not None]
    assert len(dice) == 2 and None not in dice
    mean = result.summary("dice").mean
    assert mean is not None and result.summary("quality").mean == mean != result.summary("accuracy").mean
    assert result.measure == "Dice" and f"{mean * 100:.2f} ±" in (tmp_path / "report.md").read_text()
    told = summary(settings, result).splitlines()
    assert told[1].split()[:3] == ["common", "test", "Dice"] and f"{mean * 100:.2f} %" in told[1]
    assert score([row for row in result.runs[0].rows if row.final]) == f"common test Dice {mean * 100:.2f} %"
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["measure"] == "Dice" and found["dice"]["mean"] == mean
    assert found["by_peers"]["2"]["pooled_score"] == result.runs[0].pooled.score_ppm / 1e6  # type: ignore[union-attr]
    rows = list(csv.DictReader((tmp_path / "rounds.csv").open()))
    assert float(rows[-1]["common_dice"]) in dice


def test_a_run_is_told_of_by_its_closing_models(capsys: pytest.CaptureFixture[str]) -> None:
    """Peers of two rings close in different ticks; all of them count."""
    rings = {"merging.selection": "ring", "merging.rings": ((1, 2, 3), (3, 4, 5, 6))}
    tell = lines(1)
    result = simulate(Settings(overrides=rings, rounds=2, epochs=1, evaluate="every", threads=1), tell)
    mean = result.summary().mean
    assert len({row.tick for row in result.runs[0].finals().values()}) > 1 and mean is not None
    assert f"common test accuracy {mean * 100:.2f} %" in capsys.readouterr().err


def test_the_command_warns_where_nothing_was_merged() -> None:
    done = run("--peers", 3, "--rounds", 2, "--epochs", 1, "--set", "merging.min_samples=10000")
    assert done.returncode == 0 and "3 of 3 closing models are the genesis" in done.stderr


def test_the_command_warns_of_a_graph_in_parts() -> None:
    edges = "merging.edges=[[1, 2], [3, 4]]"
    graph = ("--set", "merging.selection=graph", "--set", "merging.graph=edges", "--set", edges)
    done = run("--peers", 4, "--rounds", 1, "--epochs", 1, *graph)
    assert done.returncode == 0 and "warning: 4 peers" in done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--peers", "six"), 2, "--peers six"),
        (("--attack", "sign-flap"), 2, "did you mean sign-flip"),
        (("--set", "merging.k"), 2, "KEY=VALUE"),
        (("--preset", "gossip", "--set", "merging.k=6"), 3, "k = 6"),
        (("--dataset", "mnist", "--data-dir", "/nowhere"), 4, "/nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_command_refuses(argv: tuple[str, ...], code: int, words: str) -> None:
    done = run(*argv)
    assert done.returncode == code and words in done.stderr and not done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["--peers", "3", "--rounds", "2", "--epochs", "1", "--seeds", "500", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_node", "simulate", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (out / "runs" / "peers-3-seed-1" / "run.json").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on with" in err and "Traceback" not in err
    done = len(json.loads((out / "result.json").read_text())["runs"])
    assert 2 <= done < 500 and (out / "report.md").exists()


@pytest.mark.parametrize("preset", ["fedavg", "best-of"])
def test_the_same_over_a_real_chain(preset: str) -> None:
    settings = Settings(preset=preset, peers=(3,), rounds=2, epochs=1, threads=1)
    memory, chain = (simulate(replace(settings, ledger=kind)).runs[0] for kind in ("memory", "anvil"))
    assert not chain.failures
    # Another contract's address gives other bytes, whose order in a sum may differ in the last bits.
    for one, other in zip(memory.common, chain.common, strict=True):
        assert one is not None and other is not None and abs(one.correct - other.correct) <= 1
    assert len(memory.rows) == len(chain.rows) and memory.entries <= chain.entries
