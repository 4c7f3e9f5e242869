"""A simulation's result as ``fl-node simulate --json`` prints it."""

from __future__ import annotations

import resource
from typing import Any

from fl_node.learning.metrics import Evaluation
from fl_node.simulation.rows import Result, Run, Summary, mean, summary_of
from fl_node.simulation.settings import Settings


def as_json(settings: Settings, result: Result) -> dict[str, Any]:
    """As documented in docs/simulation.md: of the first number of peers at the top, of each under ``by_peers``."""
    counts = [peers for peers in settings.peers if result.of(peers)]
    first = counts[0] if counts else None
    return {
        "measure": result.measure,
        "accuracy": as_table(result.summary("accuracy", "common", first)),
        "own_accuracy": as_table(result.summary("accuracy", "own", first)),
        "macro_f1": as_table(result.summary("macro_f1", "common", first)),
        "auc": as_table(result.summary("auc", "common", first)),
        "dice": as_table(result.summary("dice", "common", first)),
        "score": as_table(scores(result, first)),
        "seconds": {
            "total": round(result.seconds, 3),
            "per_run": [round(run.seconds, 3) for run in result.runs],
            "per_round": [round(run.seconds_per_round, 4) for run in result.runs],
        },
        "bytes": {
            "fetched": sum(run.fetched_bytes for run in result.runs),
            "published": sum(run.published_bytes for run in result.runs),
        },
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "by_peers": {
            str(peers): {
                "accuracy": as_table(result.summary("accuracy", "common", peers)),
                "score": as_table(scores(result, peers)),
                "pooled": mean(run.pooled.accuracy if run.pooled else None for run in result.of(peers)),
                "alone": mean(one.accuracy for run in result.of(peers) for one in run.alone if one),
                "pooled_score": mean(_fraction(run.pooled) for run in result.of(peers)),
                "alone_score": mean(_fraction(one) for run in result.of(peers) for one in run.alone),
            }
            for peers in counts
        },
        "runs": [_run(run) for run in result.runs],
        "interrupted": result.interrupted,
    }


def as_table(summary: Summary) -> dict[str, Any]:
    """A summary as a table."""
    return {
        "mean": summary.mean,
        "std": summary.std,
        "per_peer": list(summary.per_peer),
        "per_run": list(summary.per_run),
    }


def scores(result: Result, peers: int | None) -> Summary:
    """The spec's own metric on the common test set, as a fraction."""
    runs = result.of(peers) if peers is not None else ()
    return summary_of([[_fraction(one) for one in run.common] for run in runs])


def _fraction(found: Evaluation | None) -> float | None:
    return None if found is None else found.score_ppm / 1_000_000


def _run(run: Run) -> dict[str, Any]:
    values = [None if one is None else one.accuracy for one in run.common]
    return {
        "peers": run.peers,
        "seed": run.seed,
        "accuracy": as_table(summary_of([values])),
        "pooled": run.pooled.accuracy if run.pooled else None,
        "alone": [one.accuracy if one else None for one in run.alone],
        "updates": len(run.rows),
        "entries": run.entries,
        "root": run.root,
        "seconds": round(run.seconds, 3),
        "bytes": {"fetched": run.fetched_bytes, "published": run.published_bytes},
        "warnings": list(run.warnings),
        "failures": {str(number): text for number, text in run.failures.items()},
    }
