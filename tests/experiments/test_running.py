"""Experiments as they run: noted, kept, gone on with, and told in tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.experiments import __main__ as program
from benchmarks.experiments.catalogue import EXPERIMENTS
from benchmarks.experiments.experiment import Case, Experiment, Goal, Noted, Table, accuracies
from benchmarks.experiments.results import Results
from benchmarks.experiments.tables import cell, comparisons, paired, verdict
from fl_node.simulation import Run, Settings

DIGITS = Settings(preset="fedavg", peers=(2,), rounds=1, epochs=1, dataset="digits")


def test_a_case_is_run_and_noted(tmp_path: Path) -> None:
    noted = accuracies(Case("two peers", DIGITS).run(3, tmp_path))
    assert 50 < noted["accuracy"] < 100 and noted["fetched_mb"] > 0 and noted["stopped"] == 0


def test_the_digest_is_of_what_decides() -> None:
    case = Case("a", DIGITS)
    assert case.digest == Case("b", replace(DIGITS, seed=5, data_dir=Path("/elsewhere"))).digest
    assert case.digest != Case("a", replace(DIGITS, partition="unequal")).digest
    assert case.digest != Case("a", replace(DIGITS, overrides={"training.momentum": 0.5})).digest


def test_results_outlive_the_process_and_other_settings_void_them(tmp_path: Path) -> None:
    path, case = tmp_path / "deep" / "one.json", Case("a", DIGITS)
    Results(path, "a machine").add(case, 1, {"accuracy": 91.23456})
    held = Results.load(path)
    held.add(case, 0, {"accuracy": 90.0})
    again = Results.load(path)
    assert again.of(case) == {0: {"accuracy": 90.0}, 1: {"accuracy": 91.2346}}
    assert again.machine == "a machine"
    assert again.of(Case("a", replace(DIGITS, rounds=2))) == {}
    assert not list(path.parent.glob("*.new"))


def test_a_stopped_experiment_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third of four runs: the first two are not run again."""
    monkeypatch.setattr(program, "PAGES", tmp_path)
    played: list[tuple[str, int]] = []

    def run(case: Case, seed: int, data_dir: Path) -> int:
        played.append((case.name, seed))
        if len(played) == 3:
            raise KeyboardInterrupt
        return seed

    monkeypatch.setattr(Case, "run", run)
    cases = [Case("left", DIGITS), Case("right", replace(DIGITS, rounds=2))]
    experiment = Experiment("small", "A small one", cases, _note, _page, lambda found: [])
    with pytest.raises(KeyboardInterrupt):
        program.run(experiment, 2, tmp_path, "")
    program.run(experiment, 2, tmp_path, "")
    assert played == [("left", 0), ("right", 0), ("left", 1), ("left", 1), ("right", 1)]
    program.write_page(experiment)
    page = (tmp_path / "small.md").read_text()
    assert page.startswith("# A small one\n") and "`python -m benchmarks.experiments small --seeds 2`: 4 runs" in page
    assert "left 0.50 [-5.85, 6.85]" in page
    assert json.loads((tmp_path / "results" / "small.json").read_text())["cases"]["left"]["seeds"]["1"] == {"value": 1}


def _note(run: Run) -> Noted:
    assert isinstance(run, int)
    return {"value": float(run)}


def _page(found: Table) -> str:
    return f"left {cell(found, 'left', 'value')}"


def test_comparisons_pair_the_seeds_that_both_have() -> None:
    found: Table = {
        "a": {0: {"x": 1.0}, 1: {"x": 2.0}, 2: {"x": 4.0}, 3: {"y": 0.0}},
        "b": {0: {"x": 0.0}, 1: {"x": 1.5}, 2: {"x": 3.0}, 4: {"x": 9.0}},
    }
    one = paired(found, "a", "b", "x")
    assert one is not None and one.difference.count == 3
    assert one.difference.mean == pytest.approx(2.5 / 3)
    assert paired(found, "a", "c", "x") is None
    text = comparisons([("a - b", one), ("a - c", None)])
    assert "| a - b | +0.83 [" in text and "a - c" not in text


def test_verdicts() -> None:
    assert verdict(92.31, 92.3) == "reached (+0.01)"
    assert verdict(92.2, 92.3) == "**missed** (-0.10)"
    assert verdict(float("nan"), 1.0) == "not run"


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_experiment_can_be_played_and_told(name: str) -> None:
    """Its specs are valid, its cases have different names, and it has a page before anything was run."""
    experiment = EXPERIMENTS[name]
    names = [case.name for case in experiment.cases]
    assert len(set(names)) == len(names) and len({case.digest for case in experiment.cases}) == len(names)
    found: Table = {case: {} for case in names}
    assert "|" in experiment.page(found)
    goals = experiment.goals(found)
    assert goals and all(isinstance(goal, Goal) for goal in goals)
