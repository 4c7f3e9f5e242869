"""Bytes: of updates, against plain ones, and what went through a peer; all by the word of the reports."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from fl_node.merging.encodings import name_of
from fl_node.records import PPM
from ledger_ui.contexts import Context, Ref
from ledger_ui.index.claims import TrafficClaim, TrafficLine, traffic_in
from ledger_ui.strange import json_of

_LISTED: Final = 12
_MOST_LINES: Final = 60


class Volume(Context):
    """Bytes of some updates, as their publishers' reports have them."""

    of: int = Field(description="updates whose reports tell of their size, and of a plain one's")
    update_bytes: int | None = Field(description="published, in all; none: of nothing")
    plain_bytes: int | None = Field(description="the same updates as plain float32 weights, unencrypted")
    part_ppm: int | None = Field(description="published for each plain byte, parts per million")


class UpdateBytes(Context):
    """One update's size by its report."""

    update: Ref
    entry: int
    encoding: str
    update_bytes: int
    plain_bytes: int | None
    part_ppm: int | None


class TrafficRow(Context):
    """Bytes with one counterpart, of one kind, since the peer started."""

    peer: int | None = Field(description="the counterpart; none: not known, or no peer")
    kind: str = Field(description="a stranger's text, such as update")
    sent_bytes: int
    received_bytes: int


class Traffic(Context):
    """What a peer says has gone through it so far."""

    update: Ref = Field(description="whose report says so: the peer's latest that does")
    entry: int
    sent_bytes: int
    received_bytes: int
    rows: list[TrafficRow] = Field(description="by counterpart and kind, the most first; sixty at most")
    cut: bool = Field(description="there are further ones")


class PeerBytes(Context):
    """A peer's bytes, all by its own word."""

    volume: Volume
    latest: list[UpdateBytes] = Field(description="the last twelve updates whose reports tell of their size")
    traffic: Traffic | None = Field(description="none: no report at hand tells of it")


def part(update_bytes: int | None, plain_bytes: int | None) -> int | None:
    """Published for each plain byte, parts per million.

    >>> part(28, 100), part(1, 0), part(None, 5)
    (280000, None, None)
    """
    return None if update_bytes is None or not plain_bytes else round(update_bytes * PPM / plain_bytes)


def volume(of: int, update_bytes: int | None, plain_bytes: int | None) -> Volume:
    """A sum, as :class:`Volume`; of nothing where it is of no update."""
    if not of:
        update_bytes = plain_bytes = None
    return Volume(of=of, update_bytes=update_bytes, plain_bytes=plain_bytes, part_ppm=part(update_bytes, plain_bytes))


def volumes_of_rounds(db: sqlite3.Connection, rounds: Sequence[int]) -> dict[int, Volume]:
    """Of each of these rounds; of at most some hundred."""
    marks = ",".join("?" * len(rounds))
    query = (
        "SELECT round, count(update_bytes), sum(update_bytes), sum(plain_bytes) FROM told "  # noqa: S608
        f"WHERE round IN ({marks}) GROUP BY round"
    )
    found = {row[0]: volume(row[1], row[2], row[3]) for row in db.execute(query, tuple(rounds))}
    return {number: found.get(number) or volume(0, None, None) for number in rounds}


def volume_of_peer(db: sqlite3.Connection, peer: int) -> Volume:
    """Of all of a peer's updates."""
    query = "SELECT count(update_bytes), sum(update_bytes), sum(plain_bytes) FROM told WHERE peer = ?"
    return volume(*db.execute(query, (peer,)).fetchone())


def peer_bytes(db: sqlite3.Connection, peer: int) -> PeerBytes:
    """A peer's bytes."""
    rows = db.execute(
        "SELECT t.idx, t.size_bytes, t.plain_bytes, u.sequence, u.encoding FROM told t JOIN updates u ON u.idx = t.idx "
        "WHERE t.peer = ? AND t.size_bytes IS NOT NULL ORDER BY t.idx DESC LIMIT ?",
        (peer, _LISTED),
    )
    latest = [
        UpdateBytes(
            update=f"{peer}#{row['sequence']}",
            entry=row["idx"],
            encoding=name_of(row["encoding"]),
            update_bytes=row["size_bytes"],
            plain_bytes=row["plain_bytes"],
            part_ppm=part(row["size_bytes"], row["plain_bytes"]),
        )
        for row in rows
    ]
    return PeerBytes(volume=volume_of_peer(db, peer), latest=latest, traffic=_traffic(db, peer))


def traffic_totals(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Bytes sent and received by the last word of every peer that has said something, and how many those are."""
    row = db.execute(
        "SELECT count(*), total(t.sent_bytes), total(t.received_bytes) FROM peers p JOIN told t ON t.idx = "
        "(SELECT v.idx FROM told v WHERE v.peer = p.peer AND v.sent_bytes IS NOT NULL ORDER BY v.idx DESC LIMIT 1)"
    ).fetchone()
    return int(row[1]), int(row[2]), row[0]


def traffic_rows(claim: TrafficClaim) -> tuple[list[TrafficRow], bool]:
    """A claim by counterpart and kind, the most first, and whether there are more."""
    sums: dict[tuple[int | None, str], list[int]] = {}
    ways: tuple[tuple[int, Sequence[TrafficLine]], ...] = ((0, claim.sent), (1, claim.received))
    for way, lines in ways:
        for line in lines:
            sums.setdefault((line.peer, line.kind), [0, 0])[way] += line.size_bytes
    ranked = sorted(sums.items(), key=lambda one: (-sum(one[1]), one[0][0] or 0, one[0][1]))
    rows = [
        TrafficRow(peer=peer, kind=kind, sent_bytes=sent, received_bytes=received)
        for (peer, kind), (sent, received) in ranked[:_MOST_LINES]
    ]
    return rows, claim.cut or len(ranked) > _MOST_LINES


def _traffic(db: sqlite3.Connection, peer: int) -> Traffic | None:
    row = db.execute(
        "SELECT t.idx, u.sequence, u.report, r.body FROM told t JOIN updates u ON u.idx = t.idx "
        "JOIN reports r ON r.idx = t.idx WHERE t.peer = ? AND t.sent_bytes IS NOT NULL ORDER BY t.idx DESC LIMIT 1",
        (peer,),
    ).fetchone()
    if row is None or row["body"] is None or hashlib.sha256(row["body"]).digest() != row["report"]:
        return None
    claim = traffic_in(json_of(row["body"]))
    if claim is None:
        return None
    rows, cut = traffic_rows(claim)
    return Traffic(
        update=f"{peer}#{row['sequence']}",
        entry=row["idx"],
        sent_bytes=claim.sent_bytes,
        received_bytes=claim.received_bytes,
        rows=rows,
        cut=cut,
    )
