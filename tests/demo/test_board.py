"""The demo's table names whose models were merged, and whom a peer waits for."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fl_node.demo.table import Board, mixture
from fl_node.progress import Event

SITES = tuple(f"site-{letter}" for letter in "abcdefgh")


def recorded(parents: list[list[int]], final: bool = False) -> Event:
    detail: dict[str, Any] = {"round": 2, "final": final, "parents": parents, "merged": len(parents), "bytes": 5}
    return Event("recorded", "", {**detail, "score_ppm": 910_000, "base_score_ppm": 900_000})


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        ([], "genesis"),
        ([[2, 1_000_000]], "b"),
        ([[1, 333_334], [2, 333_333], [3, 333_333]], "a b c"),
        ([[1, 700_000], [3, 300_000], [4, 0]], "a 70 % c 30 %"),
        ([[1, 0], [3, 1_000_000]], "c"),
        ([[peer, 125_000] for peer in range(1, 9)], "8 models"),
    ],
)
def test_mixtures(parents: list[list[int]], words: str) -> None:
    assert mixture(parents, SITES) == words


def test_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    board = Board(Console(file=out, width=40), SITES, 5)
    with board.shown():
        board.hear(1, recorded([[1, 600_000], [2, 400_000]]))
        board.hear(1, Event("waiting", "lap 3 of ring 1 waits for peer 4", {"ring": 1, "lap": 3, "peer": 4}))
        board.hear(2, Event("skipped", "peer 4 passed nothing on in ring 1; going on without it", {}))
        board.hear(1, recorded([[4, 1_000_000]], final=True))
    assert out.getvalue().splitlines() == [
        "site-b: round 2, merged a 60 % b 40 %, score 90.0 % merged, 91.0 % published",
        "site-c: peer 4 passed nothing on in ring 1; going on without it",
        "site-b: closing model, merged d, score 90.0 % merged, 91.0 % published",
    ]


@pytest.mark.parametrize(
    ("detail", "state"),
    [
        ({"round": 2, "ring": 1, "lap": 2, "peer": 4}, "waits for d"),
        ({"round": 2, "ring": 1, "lap": 2, "peer": None}, "waits for the others"),
        ({"round": 2, "peers": [3, 4]}, "waits for attestations"),
        ({"round": 2}, "waits for the others"),
    ],
)
def test_whom_a_peer_waits_for(detail: dict[str, Any], state: str) -> None:
    board = Board(Console(file=io.StringIO()), SITES, 5)
    board.hear(0, Event("waiting", "", detail))
    assert board.rows[0].state == state


def test_a_table_on_a_terminal() -> None:
    out = io.StringIO()
    board = Board(Console(file=out, width=110, force_terminal=True), SITES[:2], 5)
    with board.shown():
        board.hear(0, recorded([[1, 600_000], [2, 400_000]]))
        board.hear(0, Event("attested", "", {"updates": ["2#1"]}))
    shown = out.getvalue()
    for words in ("merged from", "a 60 % b 40 %", "2/5", "attested", "starting"):
        assert words in shown
