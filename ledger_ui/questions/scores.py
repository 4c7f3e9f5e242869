"""Scores by round: what each peer claims, and what others attest; of many peers, how their claims are spread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from fl_node.records import PPM
from ledger_ui.contexts import Context, Ref
from ledger_ui.registry import Here
from ledger_ui.urls import asked

DEFAULT_ROUNDS: Final = 60
MOST_ROUNDS: Final = 120
#: Up to so many peers are told one by one.
MOST_LINES: Final = 12
_MOST_POINTS: Final = 2000
_HIGHEST: Final = 2**62
_COUNTED: Final = "ignored IS NULL"


class ScorePoint(Context):
    """One update's score."""

    round: int
    update: Ref
    claimed_ppm: int = Field(description="its publisher's claim, parts per million")
    attested_ppm: int | None = Field(description="median over other sites; none: nobody has attested it")
    attested_sites: int
    final: bool = Field(description="a closing update, untrained")


class ScoreLine(Context):
    """One peer's updates that count, by round."""

    peer: int
    site: int | None
    site_name: str | None = Field(description="a stranger's text")
    points: list[ScorePoint]


class ScoreSpread(Context):
    """How the claims of one round are spread: of half of its updates they lie between the quarters."""

    round: int
    updates: int = Field(description="updates that count")
    lowest_ppm: int
    lower_quarter_ppm: int
    median_ppm: int = Field(description="of an even number the lower of the middle two")
    upper_quarter_ppm: int
    highest_ppm: int
    attested: int = Field(description="of these updates, how many others have attested")
    attested_median_ppm: int | None = Field(description="median over those of their attested scores; none: of none")


class Scores(Context):
    """Scores over a range of rounds: either by peer, or their spread."""

    rounds: list[int] = Field(description="rounds with updates that count, ascending")
    peers: int = Field(description="peers with updates in these rounds; 13 stands for more than 12")
    lines: list[ScoreLine] = Field(description="by peer, where they are 12 or fewer")
    spread: list[ScoreSpread] = Field(description="by round, where peers are more than 12")
    impossible: int = Field(description="claims above 100 % among these, which no chart shows")
    cut: bool = Field(description="the range that was asked for is longer: these are its last rounds")
    earlier_url: str | None
    later_url: str | None

    def table(self) -> list[tuple[int, list[ScorePoint | None]]]:
        """Rounds, newest first, each with a point for each line."""
        by_line = [{point.round: point for point in line.points} for line in self.lines]
        return [(number, [line.get(number) for line in by_line]) for number in reversed(self.rounds)]


def scores(here: Here, first: int | None, last: int | None, url: str) -> Scores:
    """Scores of the last sixty rounds, or of a range of at most 120.

    Args:
        url: address of the page that shows them; other rounds are asked of it.
    """
    db = here.db
    most = DEFAULT_ROUNDS if first is None else MOST_ROUNDS
    rounds, more = _rounds(db, first or 0, _HIGHEST if last is None else last, most)
    peers = _peers(db, rounds)
    lines = _lines(db, rounds) if rounds and peers <= MOST_LINES else []
    spread = [_spread(db, number) for number in rounds] if peers > MOST_LINES else []
    earlier = rounds and _one(db, "round < ?", rounds[0]) is not None
    later = rounds and _one(db, "round > ?", rounds[-1]) is not None
    span = rounds[-1] - rounds[0] if rounds else 0
    return Scores(
        rounds=rounds,
        peers=peers,
        lines=lines,
        spread=spread,
        impossible=_impossible(db, rounds),
        cut=more and first is not None,
        earlier_url=url + asked({"from": max(0, rounds[0] - 1 - span), "to": rounds[0] - 1}) if earlier else None,
        later_url=url + asked({"from": rounds[-1] + 1, "to": rounds[-1] + 1 + span}) if later else None,
    )


def _rounds(db: sqlite3.Connection, first: int, last: int, most: int) -> tuple[list[int], bool]:
    """The last rounds of a range that hold updates, ascending, and whether there are more in it.

    One look-up for each: a round may hold a thousand updates, which DISTINCT would all read.
    """
    found: list[int] = []
    below = last + 1
    while len(found) <= most:
        number = db.execute(f"SELECT max(round) FROM updates WHERE {_COUNTED} AND round < ?", (below,)).fetchone()[0]  # noqa: S608
        if number is None or number < first:
            break
        found.append(number)
        below = number
    return found[:most][::-1], len(found) > most


def _peers(db: sqlite3.Connection, rounds: Sequence[int]) -> int:
    if not rounds:
        return 0
    query = "SELECT DISTINCT peer FROM updates WHERE state != 'ignored' AND round BETWEEN ? AND ? LIMIT ?"
    return len(db.execute(query, (rounds[0], rounds[-1], MOST_LINES + 1)).fetchall())


def _lines(db: sqlite3.Connection, rounds: Sequence[int]) -> list[ScoreLine]:
    query = (
        "SELECT u.idx, u.peer, u.sequence, u.site, s.name, u.round, u.score_ppm, u.attested_ppm, u.attested_sites, "
        "u.final FROM updates u LEFT JOIN sites s ON s.site = u.site "
        "WHERE u.ignored IS NULL AND u.round BETWEEN ? AND ? ORDER BY u.round DESC LIMIT ?"
    )
    found: dict[int, list[sqlite3.Row]] = {}
    for row in db.execute(query, (rounds[0], rounds[-1], _MOST_POINTS)):
        found.setdefault(row["peer"], []).append(row)
    return [
        ScoreLine(
            peer=peer,
            site=rows[0]["site"],
            site_name=rows[0]["name"],
            points=[point_of(row) for row in sorted(rows, key=lambda row: (row["round"], row["idx"]))],
        )
        for peer, rows in sorted(found.items())
    ]


def point_of(row: sqlite3.Row) -> ScorePoint:
    """An update's row as a point."""
    return ScorePoint(
        round=row["round"],
        update=f"{row['peer']}#{row['sequence']}",
        claimed_ppm=row["score_ppm"],
        attested_ppm=row["attested_ppm"],
        attested_sites=row["attested_sites"],
        final=bool(row["final"]),
    )


def _spread(db: sqlite3.Connection, number: int) -> ScoreSpread:
    """Each value by its place in an index: nothing is loaded or sorted."""
    many = _count(db, "score_ppm", number)
    attested = _count(db, "attested_ppm", number)
    places = (0, (many - 1) // 4, (many - 1) // 2, 3 * (many - 1) // 4, many - 1)
    lowest, lower, median, upper, highest = (_nth(db, "score_ppm", number, place) for place in places)
    return ScoreSpread(
        round=number,
        updates=many,
        lowest_ppm=lowest,
        lower_quarter_ppm=lower,
        median_ppm=median,
        upper_quarter_ppm=upper,
        highest_ppm=highest,
        attested=attested,
        attested_median_ppm=_nth(db, "attested_ppm", number, (attested - 1) // 2) if attested else None,
    )


def _count(db: sqlite3.Connection, column: str, number: int) -> int:
    query = f"SELECT count(*) FROM updates WHERE {_COUNTED} AND {column} IS NOT NULL AND round = ?"  # noqa: S608
    return int(db.execute(query, (number,)).fetchone()[0])


def _nth(db: sqlite3.Connection, column: str, number: int, place: int) -> int:
    query = (
        f"SELECT {column} FROM updates WHERE {_COUNTED} AND {column} IS NOT NULL AND round = ? "  # noqa: S608
        f"ORDER BY {column} LIMIT 1 OFFSET ?"
    )
    return int(db.execute(query, (number, place)).fetchone()[0])


def _impossible(db: sqlite3.Connection, rounds: Sequence[int]) -> int:
    if not rounds:
        return 0
    query = f"SELECT count(*) FROM updates WHERE {_COUNTED} AND score_ppm > ? AND round BETWEEN ? AND ?"  # noqa: S608
    return int(db.execute(query, (PPM, rounds[0], rounds[-1])).fetchone()[0])


def _one(db: sqlite3.Connection, condition: str, value: int) -> sqlite3.Row | None:
    query = f"SELECT 1 FROM updates WHERE {_COUNTED} AND {condition} LIMIT 1"  # noqa: S608
    found: sqlite3.Row | None = db.execute(query, (value,)).fetchone()
    return found
