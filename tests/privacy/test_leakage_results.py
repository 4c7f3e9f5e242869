"""The benchmark's results: kept, gone on with, told; and the page quotes what was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.privacy import inversion_cases, membership_cases
from benchmarks.privacy.found import Found
from benchmarks.privacy.leakage import NAME
from benchmarks.privacy.tables import page
from benchmarks.privacy.worlds import Setting
from benchmarks.record import RESULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "leakage.md"


@dataclass(frozen=True, slots=True)
class Counted:
    """A case that says how often it was run."""

    key: str = "counted"
    rows: int = 1

    def run(self, seed: int, data_dir: Path) -> dict[str, float]:
        return {"value": float(seed)}

    def quick(self) -> Counted:
        return self


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path, case = tmp_path / "results.json", Counted()
    found = Found.load(path, "command")
    assert not found.of(case)
    found.add(case, 0, {"value": 0.123456789}, 1.26)
    again = Found.load(path, "command")
    assert again.of(case) == {0: {"value": 0.12346, "seconds": 1.3}}
    again.add(case, 1, {"value": 1.0}, 58.74)
    assert set(Found.load(path, "command").of(case)) == {0, 1}
    assert Found.load(path, "command").minutes == pytest.approx(1.0)


def test_numbers_of_other_settings_are_of_no_use(tmp_path: Path) -> None:
    found = Found.load(tmp_path / "results.json", "command")
    found.add(Counted(rows=1), 0, {"value": 1.0}, 1.0)
    assert not found.of(Counted(rows=2))
    found.add(Counted(rows=2), 3, {"value": 2.0}, 1.0)
    assert set(found.of(Counted(rows=2))) == {3}


def test_every_case_has_a_key_of_its_own() -> None:
    cases = [*membership_cases.cases(), *inversion_cases.cases()]
    assert len({case.key for case in cases}) == len(cases)


def test_unusual_rows_are_trained_on_as_they_are_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from benchmarks.privacy.worlds import Rows
    from fl_node.learning.dataset import Dataset

    def shard(seed: int) -> Dataset:
        draw = np.random.default_rng(seed)
        return Dataset(draw.random((40, 1, 4, 4), dtype=np.float32), draw.integers(0, 10, 40).astype(np.int64))

    rows = Rows([shard(1), shard(2)], [shard(3)], [shard(4), shard(5)], shard(6))
    case = membership_cases.UnusualCase("group", "name", Setting("mnist", "logistic", 40), every=10)
    trained, attacked = case.sides(rows, 0)
    for before, after, some in zip(rows.members, trained.members, attacked.members, strict=True):
        changed = np.flatnonzero(before.labels != after.labels)
        assert changed.tolist() == [0, 10, 20, 30]
        assert (some.labels == after.labels[changed]).all() and (some.features == before.features[changed]).all()
    assert all((a.labels != b.labels[::10]).all() for a, b in zip(attacked.strangers, rows.strangers, strict=True))


def test_the_tables_hold_what_was_noted() -> None:
    case = next(one for one in membership_cases.cases() if one.epsilon == 8.0)
    names = ["update accuracy", "merged accuracy", "merged control auc", "noise", "seconds"]
    for what in ("update", "merged"):
        for attack in ("loss", "calibrated", "base"):
            names += [f"{what} {attack} {told}" for told in ("auc", "tpr 1%", "tpr 0.1%")]
    found = Found(None, "command")
    for seed in (0, 1):
        found.add(case, seed, dict.fromkeys(names, 0.5 + seed / 10), 60.0)
    text = page(found, [case])
    assert "`command`, 2 minutes" in text
    assert "| DP-SGD, epsilon 8 | 55.0 [-8.5, 118.5] | 0.550 [-0.085, 1.185]" in text


def test_the_page_quotes_the_results_as_they_are() -> None:
    results = (RESULTS / f"{NAME}.md").read_text("utf-8").splitlines()
    quoted = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| .* \d+\.\d+ ?\[", line)]
    assert len(quoted) > 20
    assert [line for line in quoted if line not in results] == []
