"""What experiments note of a run, on runs made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from benchmarks.experiments import byzantine, trust
from benchmarks.experiments.experiment import Table, accuracies
from fl_node.learning.metrics import Evaluation
from fl_node.simulation import Row, Run


def found(accuracy: float) -> Evaluation:
    return Evaluation(round(accuracy * 1e6), 100, round(accuracy * 100), accuracy, 0.0, 0.0, 0.0, None, 1.0, ())


def row(
    peer: int,
    round_number: int,
    shares: Mapping[int, int],
    *,
    honest: bool = True,
    final: bool = False,
    common: float | None = None,
) -> Row:
    return Row(
        peers=4,
        seed=0,
        peer=peer,
        tick=round_number,
        round=round_number,
        final=final,
        honest=honest,
        score_ppm=0,
        base_score_ppm=0,
        shares=shares,
        own=found(0.5),
        common=None if common is None else found(common),
        train_loss=1.0,
        train_samples=10,
        fetched_bytes=500_000,
        published_bytes=100,
        seconds=0.1,
    )


def run(*rows: Row, **more: tuple[Evaluation, ...]) -> Run:
    return Run(peers=4, seed=0, rows=rows, seconds=2.0, entries=9, root="0x", **more)


#: Peers 1 to 3 are honest, 4 is hostile. Round 1 has no parents and counts for nothing.
HOSTILE = run(
    *(row(peer, 1, {}, honest=peer != 4) for peer in (1, 2, 3, 4)),
    row(1, 2, {1: 500_000, 2: 500_000, 3: 0, 4: 0}),
    row(2, 2, {1: 500_000, 2: 250_000, 4: 250_000}),
    row(3, 2, {1: 300_000, 2: 300_000, 3: 400_000}),
    row(4, 2, {4: 1_000_000}, honest=False),
    row(1, 3, {1: 1_000_000}, final=True, common=0.9),
    row(2, 3, {1: 500_000, 3: 500_000}, final=True, common=0.8),
    row(4, 3, {4: 1_000_000}, honest=False, final=True, common=0.1),
)


def test_hostile_models_that_were_taken_and_honest_ones_that_were_not() -> None:
    """Five merges of honest peers after round 1. A share of 0 is not taken. Peer 1 is in the two others' three merges;
    peer 2 in one of peer 1's two and peer 3's one, so left out of 1 of 3; peer 3 is left out of 1, 2, 1: 3 of 4."""
    noted = byzantine.note(HOSTILE)
    assert noted["hostile_merges"] == pytest.approx(20)
    assert noted["hostile_kept"] == pytest.approx(20)
    assert noted["most_dropped"] == pytest.approx(75)
    assert noted["honest_dropped"] == pytest.approx(100 * (0 + 1 / 3 + 3 / 4) / 3)


def test_accuracies_are_of_honest_peers_that_closed() -> None:
    noted = accuracies(HOSTILE)
    assert noted["accuracy"] == pytest.approx(85)
    assert noted["own"] == pytest.approx(50)
    assert noted["fetched_mb"] == pytest.approx(5.5)
    assert "pooled" not in noted and "alone" not in noted


def test_nobody_who_finished_is_worth_nothing() -> None:
    assert accuracies(run(row(1, 1, {})))["accuracy"] == 0.0


def test_trust_counts_the_peers_that_count() -> None:
    """Peers 5 and 6 are mislabelled: the mean of what counts leaves them out."""
    task = next(one for one in trust.TASKS if one.clean == (1, 2, 3, 4))
    learned = {f"common.{peer}": 90.0 if peer < 5 else 30.0 for peer in range(1, 7)}
    fixed = {f"common.{peer}": 80.0 for peer in range(1, 7)} | {f"alone.{peer}": 75.0 + peer for peer in range(1, 7)}
    table: Table = {
        f"{task.name}; learned": {0: learned, 1: learned},
        f"{task.name}; {trust.BASELINE}": {0: fixed, 1: fixed, 2: fixed},
    }
    assert trust.scores(table, task, "learned", False, task.clean) == {0: 90.0, 1: 90.0}
    assert trust.scores(table, task, "learned", False, range(1, 7)) == {0: 70.0, 1: 70.0}
    assert trust.scores(table, task, trust.NONE, False, task.clean) == {0: 77.5, 1: 77.5, 2: 77.5}
    one = trust.difference(table, task, "learned", trust.BASELINE)
    assert one is not None and (one.difference.mean, one.difference.count) == (10.0, 2)
