"""An audit that was killed goes on where it was, and comes to the same report, whatever the number of threads."""

from __future__ import annotations

import dataclasses
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))

from laid_out import lay_out, means_in

from fl_node.audit.kept import Kept
from fl_node.audit.means import Means
from fl_node.audit.reports import MOST_BYTES
from fl_node.audit.run import Scope, audit
from fl_node.audit.told import as_json, repeats_of
from fl_node.audit.verdicts import Report
from fl_node.content.protocol import Held
from fl_node.errors import ContentError, ContentMalformed, ContentMismatch, ContentUnavailable
from fl_node.records import UpdateRef

UPDATES = 4 * 3 + 4  # and a closing one of each peer
DONE = 7


class Counted:
    """Blobs that count who is asked for. ``trouble``: updates whose bytes cannot be had, and why."""

    def __init__(self, blobs: Any) -> None:
        self._blobs = blobs
        self.held: list[Any] = []
        self.trouble: dict[UpdateRef, ContentError] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def hold(self, cid: Any, max_bytes: int, ref: Any = None) -> Held:
        self.held.append(cid)
        if ref in self.trouble and max_bytes != MOST_BYTES:  # a report is had by the same name
            raise self.trouble[ref]
        return self._blobs.hold(cid, max_bytes, ref)


TROUBLE = {
    UpdateRef(1, 1): ContentUnavailable("nobody has it"),
    UpdateRef(2, 2): ContentMismatch("other bytes"),
    UpdateRef(4, 3): ContentMalformed("no file of the profile"),
}


def told(means: Means, report: Report) -> dict[str, Any]:
    """A report without how long it took."""
    return {**as_json(report, "incomplete", repeats_of(means, report)), "seconds": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("laid-out")
    lay_out(made)
    return made


@pytest.fixture
def means(folder: Path) -> Iterator[Means]:
    found = means_in(folder)
    yield dataclasses.replace(found, blobs=Counted(found.blobs))
    found.log.close()


@pytest.fixture
def kept(means: Means, tmp_path: Path) -> Iterator[Kept]:
    with Kept(tmp_path / "results.sqlite", means.log, means.identity.spec_digest) as found:
        yield found


@pytest.mark.parametrize("jobs", [2, 4])
def test_no_result_depends_on_the_number_of_threads(means: Means, jobs: int) -> None:
    report = told(means, audit(means))
    # All holds, but that nothing is signed in memory.
    assert report["verdict"] == "unknown" and len(report["updates"]) == UPDATES
    assert {check for check, found in report["counts"].items() if "failed" in found} == set()
    assert told(means, audit(means, jobs=jobs)) == report


@pytest.mark.parametrize("jobs", [2, 4])
def test_nor_where_bytes_are_missing_or_bad(means: Means, kept: Kept, jobs: int) -> None:
    means.blobs.trouble.update(TROUBLE)
    report = told(means, audit(means))
    counts = report["counts"]
    assert report["verdict"] == "failed" and counts["bytes"] == {"ok": UPDATES - 2, "unknown": 1, "failed": 1}
    assert counts["well-formed"]["failed"] == 1 and counts["merge"]["unknown"] >= 2 * 4
    assert told(means, audit(means, jobs=jobs)) == report
    audit(means, jobs=jobs, kept=kept)
    assert told(means, audit(means, jobs=jobs, kept=kept)) == report
    assert kept.taken == 3  # of the first round, merged from the genesis; all others follow from what is missing
    means.blobs.trouble.clear()
    assert told(means, audit(means, jobs=jobs, kept=kept)) == told(means, audit(means))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_audit_goes_on_where_it_was(folder: Path, means: Means, jobs: int) -> None:
    file = folder / "results.sqlite"
    for old in folder.glob("results.sqlite*"):
        old.unlink()
    program = [sys.executable, str(Path(__file__).with_name("laid_out.py")), str(folder), str(jobs), str(DONE)]
    assert subprocess.run(program, timeout=60).returncode == -signal.SIGKILL
    with Kept(file, means.log, means.identity.spec_digest) as kept:
        ticks: list[int] = []

        def tell(phase: str, done: int, total: int) -> None:
            if phase == "replay":
                ticks.append(done)

        report = audit(means, jobs=jobs, kept=kept, progress=tell)
        assert kept.taken == DONE and ticks == list(range(DONE + 1, UPDATES + 1))
        assert told(means, report) == told(means, audit(means))
        again = audit(means, jobs=jobs, kept=kept)
        assert kept.taken == DONE + UPDATES and told(means, again) == told(means, report)


def test_kept_updates_are_not_read_again(means: Means, kept: Kept) -> None:
    audit(means, kept=kept)
    means.blobs.held.clear()
    audit(means, Scope(checks=frozenset({"bytes", "merge", "originality"})), kept=kept)
    assert len(means.blobs.held) == 1  # the genesis


def test_without_sketches_what_is_kept_will_not_do_for_originality(means: Means, kept: Kept) -> None:
    audit(means, Scope(checks=frozenset({"merge"})), kept=kept)
    full = audit(means, kept=kept)
    assert not kept.taken and told(means, full) == told(means, audit(means))
    audit(means, Scope(checks=frozenset({"merge"})), kept=kept)
    assert kept.taken == UPDATES


def test_results_of_another_spec_or_history_are_not_taken(means: Means, tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    with Kept(path, means.log, means.identity.spec_digest) as kept:
        audit(means, kept=kept)
    with Kept(path, means.log, bytes(32)) as kept:
        audit(means, kept=kept)
        assert not kept.taken


@pytest.mark.parametrize(
    "damage",
    [
        "result = '[]'",
        "result = replace(result, 'commitment', 'bytes')",
        "result = 'no JSON'",
        "result = NULL",
        "sketch = x'01'",
        "sketch = sketch || x'00'",
    ],
)
def test_a_damaged_file_costs_time_and_nothing_else(means: Means, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "results.sqlite"
    with Kept(path, means.log, means.identity.spec_digest) as kept:
        audit(means, kept=kept)
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE kept SET {damage}")
    with Kept(path, means.log, means.identity.spec_digest) as kept:
        report = audit(means, kept=kept)
        assert not kept.taken and told(means, report) == told(means, audit(means))


def test_where_nothing_more_can_be_kept_the_audit_goes_on(means: Means, tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    with Kept(path, means.log, means.identity.spec_digest) as kept:
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE kept")
        assert told(means, audit(means, kept=kept)) == told(means, audit(means))
        assert kept.trouble.startswith(f"results are not kept: {path}: no such table")
    with Kept(tmp_path, means.log, means.identity.spec_digest) as kept:
        assert told(means, audit(means, kept=kept)) == told(means, audit(means))
        assert "unable to open database file" in kept.trouble
