"""What a simulation finds: a row for every peer and round, a run for every number of peers and seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fl_node.learning.metrics import Evaluation


@dataclass(frozen=True, slots=True)
class Row:
    """One update. ``own``: the update on the peer's own test rows; ``common``: the merged model that it was trained
    from (of a closing update: the final one) on the common test set, where that was asked for. ``shares`` are the
    parents' by peer number, in ppm. Bytes and seconds are those of this round alone; ``score_ppm`` is what was claimed.
    """

    peers: int
    seed: int
    peer: int
    tick: int
    round: int
    final: bool
    honest: bool
    score_ppm: int
    base_score_ppm: int
    shares: Mapping[int, int]
    own: Evaluation
    common: Evaluation | None
    train_loss: float | None
    train_samples: int
    fetched_bytes: int
    published_bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For a line of ``rounds.jsonl``."""
        return asdict(self)

    @classmethod
    def of_json(cls, table: Mapping[str, Any]) -> Row:
        """What :meth:`as_json` gave, read back."""
        shares = {int(number): int(share) for number, share in table["shares"].items()}
        common = None if table["common"] is None else evaluation(table["common"])
        return cls(**{**table, "shares": shares, "own": evaluation(table["own"]), "common": common})


@dataclass(frozen=True, slots=True)
class Run:
    """One federation from start to end. ``rows`` in the order of the ledger. ``pooled`` and ``alone`` (by peer number):
    the baselines on the common test set; ``alone_own``: on each peer's own test rows; none where they were not asked
    for. ``failures``: peers that could not go on. ``seconds``: wall time without the baselines."""

    peers: int
    seed: int
    rows: tuple[Row, ...]
    seconds: float
    entries: int
    root: str
    warnings: tuple[str, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)
    pooled: Evaluation | None = None
    alone: tuple[Evaluation | None, ...] = ()
    alone_own: tuple[Evaluation | None, ...] = ()

    def finals(self) -> dict[int, Row]:
        """The closing rows of honest peers, by peer number."""
        return {row.peer: row for row in self.rows if row.final and row.honest}

    @property
    def common(self) -> tuple[Evaluation | None, ...]:
        """Each peer's final merged model on the common test set, by number; ``None`` for hostile peers, and those that
        have none."""
        finals = self.finals()
        return tuple(row.common if (row := finals.get(n)) else None for n in range(1, self.peers + 1))

    @property
    def own(self) -> tuple[Evaluation | None, ...]:
        """Each peer's final merged model on test rows of its own distribution; ``None`` as in :attr:`common`."""
        finals = self.finals()
        return tuple(row.own if (row := finals.get(n)) else None for n in range(1, self.peers + 1))

    @property
    def fetched_bytes(self) -> int:
        return sum(row.fetched_bytes for row in self.rows)

    @property
    def published_bytes(self) -> int:
        return sum(row.published_bytes for row in self.rows)

    @property
    def seconds_per_round(self) -> float:
        """Mean wall time of a tick, from reading the log to the last entry."""
        ticks = {row.tick for row in self.rows}
        return sum(row.seconds for row in self.rows) / max(1, len(ticks))

    def trust(self) -> list[list[int]]:
        """The shares that each peer (row) gave each peer (column) in its last trained update, in ppm."""
        matrix = [[0] * self.peers for _ in range(self.peers)]
        for row in self.rows:
            if not row.final:
                matrix[row.peer - 1] = [row.shares.get(number, 0) for number in range(1, self.peers + 1)]
        return matrix

    def as_json(self) -> dict[str, Any]:
        """For ``run.json``: all but the rows, which have a file of their own."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "rows"}
        told["pooled"] = None if self.pooled is None else asdict(self.pooled)
        for name in ("alone", "alone_own"):
            told[name] = [None if one is None else asdict(one) for one in told[name]]
        return told | {"updates": len(self.rows)}

    @classmethod
    def of_json(cls, table: Mapping[str, Any], rows: Iterable[Row]) -> Run:
        """What :meth:`as_json` gave, read back."""
        told = {key: value for key, value in table.items() if key != "updates"}
        told["warnings"] = tuple(told["warnings"])
        told["failures"] = {int(number): text for number, text in told["failures"].items()}
        told["pooled"] = None if told["pooled"] is None else evaluation(told["pooled"])
        for name in ("alone", "alone_own"):
            told[name] = tuple(None if one is None else evaluation(one) for one in told[name])
        return cls(rows=tuple(rows), **told)


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample standard deviation over all peers of all runs; ``per_peer``: each peer's mean over the runs, in
    which it has a final model, ``per_run``: each run's mean over its peers."""

    mean: float | None
    std: float | None
    per_peer: tuple[float | None, ...]
    per_run: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """All runs, by number of peers, then seed. ``seconds``: wall time of this call."""

    runs: tuple[Run, ...]
    seconds: float
    interrupted: bool = False

    @property
    def measure(self) -> str:
        """What :attr:`Evaluation.quality` is here: ``Dice`` of masks, else ``accuracy``."""
        return "Dice" if any(row.own.dice is not None for run in self.runs for row in run.rows[:1]) else "accuracy"

    def of(self, peers: int) -> tuple[Run, ...]:
        """The runs with so many peers."""
        return tuple(run for run in self.runs if run.peers == peers)

    def summary(self, what: str = "accuracy", on: str = "common", peers: int | None = None) -> Summary:
        """One metric of the final merged models of honest peers.

        Args:
            what: a field of :class:`Evaluation`, such as ``accuracy``, ``quality``, ``macro_f1``, ``auc``, ``loss``.
            on: ``common`` or ``own`` test rows.
            peers: of the runs with so many peers; default the first such number.
        """
        wanted = self.of(self.runs[0].peers if peers is None else peers) if self.runs else ()
        return summary_of([[_value(found, what) for found in getattr(run, on)] for run in wanted])


def summary_of(values: Sequence[Sequence[float | None]]) -> Summary:
    """Of values by run and peer."""
    whole = [value for run in values for value in run if value is not None]
    by_peer = zip(*values, strict=True) if values else ()
    return Summary(
        mean(whole),
        statistics.stdev(whole) if len(whole) > 1 else 0.0 if whole else None,
        tuple(mean(of_peer) for of_peer in by_peer),
        tuple(mean(run) for run in values),
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; ``None`` where none is."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def _value(found: Evaluation | None, what: str) -> float | None:
    value = None if found is None else getattr(found, what)
    return None if value is None else float(value)


def evaluation(table: Mapping[str, Any]) -> Evaluation:
    """What ``asdict`` made of an evaluation, read back."""
    return Evaluation(**{**table, "confusion": tuple(tuple(row) for row in table["confusion"])})
