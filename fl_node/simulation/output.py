"""The folder of a simulation's results: what ran, a line for every peer and round, and what can be gone on with.

config.json                       the settings
spec-PEERS.toml                   the spec of the first seed
runs/peers-PEERS-seed-SEED/       rounds.jsonl as it goes, run.json once the run is finished
rounds.csv, result.json           all finished runs
report.md, plots/                 for people
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from fl_node.errors import StoreFull, UsageError
from fl_node.simulation.rows import Result, Row, Run
from fl_node.simulation.settings import Settings

CONFIG, RUNS, ROUNDS, RUN = "config.json", "runs", "rounds.jsonl", "run.json"
_PLAIN = ("peers", "seed", "peer", "tick", "round", "final", "honest", "score_ppm", "base_score_ppm")
_COST = ("train_loss", "train_samples", "fetched_bytes", "published_bytes", "seconds")
_SCORES = ("accuracy", "macro_f1", "precision", "recall", "auc", "dice", "loss", "samples")


class Folder:
    """One output folder, for one set of settings.

    Raises:
        StoreFull: it cannot be made or written.
        UsageError: it holds the results of other settings, or something else.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / RUNS).mkdir(exist_ok=True)
            probe = path / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as cause:
            raise StoreFull(f"--out {path}: cannot write there: {cause.strerror}; name another folder") from cause
        self._claim(settings)
        for peers in settings.peers:
            (path / f"spec-{peers}.toml").write_text(settings.spec_text(peers, settings.seed), "utf-8")

    def _claim(self, settings: Settings) -> None:
        config, wanted = self.path / CONFIG, settings.as_json()
        if config.exists():
            try:
                held = json.loads(config.read_text("utf-8"))["settings"]
            except (OSError, ValueError, KeyError, TypeError) as cause:
                raise UsageError(f"{config} is not that of a simulation: {cause}; name another folder") from cause
            # More numbers of peers, like more seeds, are more runs of the same settings.
            differ = sorted(key for key in held.keys() | wanted.keys() if held.get(key) != wanted.get(key))
            differ = [key for key in differ if key != "peers"]
            if differ:
                told = ", ".join(f"{key} {held.get(key)!r} there, {wanted.get(key)!r} now" for key in differ)
                raise UsageError(
                    f"--out {self.path} holds results of other settings ({told}); name another folder, or give the "
                    "same settings to go on with it"
                )
        self._write(config, {"settings": wanted})

    def finished(self, peers: int, seed: int) -> Run | None:
        """A run that an earlier call finished."""
        folder = self._of(peers, seed)
        if not (folder / RUN).exists():
            return None
        try:
            table = json.loads((folder / RUN).read_text("utf-8"))
            lines = (folder / ROUNDS).read_text("utf-8").splitlines()
            return Run.of_json(table, (Row.of_json(json.loads(line)) for line in lines))
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise UsageError(f"{folder} cannot be read: {cause}; remove it to run this seed again") from cause

    @contextmanager
    def writing(self, peers: int, seed: int) -> Iterator[TextIO]:
        """The file of a run's rows, empty; every line is flushed by :func:`write_rows`."""
        folder = self._of(peers, seed)
        folder.mkdir(exist_ok=True)
        with (folder / ROUNDS).open("w", encoding="utf-8") as sink:
            yield sink

    def finish(self, run: Run) -> None:
        """Note that a run is done."""
        self._write(self._of(run.peers, run.seed) / RUN, run.as_json())

    def write(self, result: Result, told: dict[str, Any]) -> None:
        """What all finished runs come to."""
        self._write(self.path / "result.json", told)
        with (self.path / "rounds.csv").open("w", encoding="utf-8", newline="") as sink:
            write_csv(sink, (row for run in result.runs for row in run.rows))

    def _of(self, peers: int, seed: int) -> Path:
        return self.path / RUNS / f"peers-{peers}-seed-{seed}"

    def _write(self, path: Path, table: dict[str, Any]) -> None:
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(table, indent=1, default=str) + "\n", "utf-8")
        scratch.replace(path)


def write_rows(sink: TextIO, rows: Sequence[Row]) -> None:
    """A JSON line for each row, in the file once this returns."""
    for row in rows:
        sink.write(json.dumps(row.as_json(), separators=(",", ":")) + "\n")
    sink.flush()


def write_csv(sink: TextIO, rows: Iterable[Row]) -> None:
    """A line for each row, without confusion matrices and shares."""
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*_PLAIN, *_COST, *(f"own_{name}" for name in _SCORES), *(f"common_{name}" for name in _SCORES)])
    for row in rows:
        scores = [getattr(found, name) if found else None for found in (row.own, row.common) for name in _SCORES]
        writer.writerow([getattr(row, name) for name in (*_PLAIN, *_COST)] + scores)
